"""A page of List Blobs. Pure.

Azure says some twenty things of each blob. A parser of XML takes 20 µs for that, which would be most of listing a
container; so what is written as Azure writes it is cut at its tags, and only the rest is parsed.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote
from xml.etree import ElementTree

from mfstore.errors import BackendError
from mfstore.s3.aws.errors import ENDPOINT_HINT, bare, tree
from mfstore.s3.aws.pages import NAMED_WITHIN, Listed, Page
from mfstore.s3.calls import Call

FOLDER = "hdi_isfolder"
"""Metadata of what stands for a directory, empty as it is."""


def page(call: Call, body: bytes) -> Page:
    """The page of a listing. BackendError when it is none, or is not whole."""
    try:
        plain, body = _plain_blobs(body)
        root = tree(body)
        if bare(root.tag) != "EnumerationResults":
            raise ValueError(f"<{bare(root.tag)}> in place of a listing")
        return _page(root, plain, str((call.params or {}).get("StartAfter") or ""))
    except (ElementTree.ParseError, ValueError, LookupError, OverflowError) as error:
        if b"EnumerationResults" not in body[:NAMED_WITHIN]:
            raise BackendError(
                "what answers is no Blob service of Azure: its listing is none", found=str(error)[:200],
                hint=ENDPOINT_HINT,
            ) from error  # fmt: skip
        raise BackendError("the listing cannot be read", found=str(error)[:200]) from error


def _page(root: ElementTree.Element, plain: list[Listed], after: str) -> Page:
    objects = plain
    prefixes: list[str] = []
    for node in root.find("Blobs") or ():
        if node.tag == "BlobPrefix":
            prefixes.append(_name(node))
        elif node.tag == "Blob" and (found := _listed(node)) is not None:
            objects.append(found)
    if objects and objects[0].key == after:
        # startFrom shows the key itself, and S3 what is after it.
        del objects[0]
    return Page(tuple(objects), tuple(prefixes), root.findtext("NextMarker") or None)


# ---- as Azure writes it ----------------------------------------------------------------------


def _plain_blobs(body: bytes) -> tuple[list[Listed], bytes]:
    """The blobs, if all of them stand together and are as Azure writes them, and the page without them; otherwise none,
    and the page."""
    if b"<!" in body or body.count(b"<?") > 1:
        return [], body  # of XML, what makes text mean something else than it says
    try:
        head, *parts = body.decode("utf-8-sig").split("<Blob>")
    except UnicodeDecodeError:
        return [], body
    if not parts:
        return [], body
    last, end, tail = parts[-1].partition("</Blob>")
    parts[-1] = last + end
    times: dict[str, datetime | None] = {}
    found = []
    for part in parts:
        name, _, rest = part.partition("</Name><Properties>")
        said, whole, others = rest.partition("</Properties>")
        size = _said(said, "Content-Length")
        key = name[6:]
        if (
            not whole or not name.startswith("<Name>") or not key or "<" in key or "&" in key or not key.isprintable()
            or not others.endswith("</Blob>") or "<Blob" in others or "</Blobs>" in others or not size.isdecimal()
            or len(size) > 18 or "<ResourceType>" in said or (size == "0" and FOLDER in others.lower())
        ):  # fmt: skip
            return [], body
        modified = _said(said, "Last-Modified")
        if modified not in times:
            times[modified] = _time(modified)
        etag = _said(said, "Etag")
        tier = _said(said, "AccessTier") if "<AccessTierInferred>true<" not in said else ""
        if "&" in etag or "&" in tier:
            return [], body
        found.append(Listed(key, int(size), times[modified], etag or None, tier or None))
    return found, (head + tail).encode()


def _said(properties: str, name: str) -> str:
    """The text of one property; nothing where there is none."""
    start = properties.find(f"<{name}>")
    if start < 0:
        return ""
    start += len(name) + 2
    stop = properties.find("<", start)
    return properties[start:stop] if properties.startswith(f"</{name}>", stop) else ""


# ---- as a parser reads it --------------------------------------------------------------------


def _listed(node: ElementTree.Element) -> Listed | None:
    """A blob; None for the directory of an account with a hierarchical namespace, and for what is no blob any more."""
    key = _name(node)
    said: dict[str, str] = {}
    for child in node.find("Properties") or ():
        said[child.tag] = child.text or ""
    size = int(said.get("Content-Length") or 0)
    if size < 0:
        raise ValueError("a negative size")
    if said.get("ResourceType") == "directory" or (not size and _is_folder(node)):
        return None
    if node.findtext("Deleted") == "true" or node.findtext("Snapshot"):
        return None
    tier = said.get("AccessTier") if said.get("AccessTierInferred") != "true" else None
    return Listed(key, size, _time(said.get("Last-Modified", "")), said.get("Etag"), tier)


def _is_folder(node: ElementTree.Element) -> bool:
    metadata = node.find("Metadata")
    return metadata is not None and any(
        child.tag.lower() == FOLDER and (child.text or "").lower() == "true" for child in metadata
    )


def _name(node: ElementTree.Element) -> str:
    found = node.find("Name")
    if found is None or not found.text:
        raise ValueError("an entry without a name")
    # What XML cannot hold comes percent-encoded.
    return unquote(found.text) if found.get("Encoded") == "true" else found.text


def _time(text: str) -> datetime | None:
    with suppress(ValueError, TypeError):
        return parsedate_to_datetime(text)
    return None
