"""A page of ListObjectsV2. botocore's parser takes 15 µs per key, which would be most of listing a bucket."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from mfstore.errors import BackendError
from mfstore.records import NamedTuple, dataclass
from mfstore.s3.aws.errors import ENDPOINT_HINT, bare, tree

LISTED_MEMORY = 512
"""Bytes of memory that an object or prefix of a page takes."""
NAMED_WITHIN = 4096
"""Bytes in which a page has said what it is: before it come a declaration, and maybe white space that kept a connection
open."""


class Listed(NamedTuple):
    """An object as a listing tells it."""

    key: str
    size: int | None
    """None where the service does not say."""
    modified: datetime | None
    etag: str | None
    """As S3 sent it, mostly in quotes."""
    storage_class: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to ListObjectsV2."""

    objects: tuple[Listed, ...]
    prefixes: tuple[str, ...]
    next_token: str | None
    """For the next page; None: this was the last."""

    @property
    def memory(self) -> int:
        """Bytes it takes, about."""
        return LISTED_MEMORY * (len(self.objects) + len(self.prefixes))

    @property
    def last(self) -> str:
        """The last key or prefix, in the order of listings; "" when there is none."""
        objects = self.objects[-1].key if self.objects else ""
        return max(objects, self.prefixes[-1] if self.prefixes else "")


_BESIDES = (
    "(?:<(?:Owner><ID>[^<]*</ID><DisplayName>[^<]*</DisplayName></Owner|ChecksumAlgorithm>[^<]*</ChecksumAlgorithm"
    "|ChecksumType>[^<]*</ChecksumType|Type>[^<]*</Type)>)*"
)
PLAIN_ENTRY = re.compile(
    rf"<Contents>{_BESIDES}<Key>([^<&\x00-\x1f\ufffe\uffff]+)</Key>"
    rf"{_BESIDES}<LastModified>([^<&\x00-\x1f]*)</LastModified>"
    rf"{_BESIDES}<ETag>([^<&\x00-\x1f]*)</ETag>"
    rf"{_BESIDES}<Size>([0-9]{{1,18}})</Size>{_BESIDES}"
    r"(?:<StorageClass>([^<&\x00-\x1f]*)</StorageClass>)?"
    rf"{_BESIDES}</Contents>"
)
"""An object as AWS, Ceph and others write it, which takes a third of what a parser of XML does."""
FIRST_ENTRY = b"<Contents>"
_new = tuple.__new__


def page(body: bytes) -> Page:
    """The page in a reply's body. Raises BackendError when it is not one, or is not whole."""
    try:
        plain, body = _plain_entries(body)
        root = tree(body)
        if bare(root.tag) != "ListBucketResult":
            raise ValueError(f"<{bare(root.tag)}> in place of a listing")
        return _page(root, root.tag[: -len("ListBucketResult")], plain)
    except (ElementTree.ParseError, ValueError, LookupError, OverflowError) as error:
        if b"ListBucketResult" not in body[:NAMED_WITHIN]:
            raise BackendError(
                "what answers is no S3 service: its listing is none", found=str(error)[:200], hint=ENDPOINT_HINT
            ) from error
        raise BackendError("the listing cannot be read", found=str(error)[:200]) from error


def _time(text: str) -> datetime | None:
    """ISO 8601 as S3 has it, or a date as in headers, as others do; None for neither: one odd entry is no reason to
    refuse all."""
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        with suppress(ValueError, TypeError):
            return parsedate_to_datetime(text)
    return None


def _plain_entries(body: bytes) -> tuple[list[tuple[str, ...]], bytes]:
    """What the objects say of themselves, if all of them stand together and are as ``PLAIN_ENTRY`` has them, and the
    page without them; otherwise nothing, and the page."""
    first = body.find(FIRST_ENTRY)
    if first < 0 or b"<!" in body or body.count(b"<?") > body.startswith(b"<?xml "):
        return [], body  # of XML, what makes text mean something else than it says
    try:
        before, text = body[:first].decode(), body[first:].decode()
    except UnicodeDecodeError:
        return [], body
    unquoted = text.replace("&quot;", '"').replace("&#34;", '"')  # around ETags
    found: list[tuple[str, ...]] = PLAIN_ENTRY.findall(unquoted)
    count = len(found)
    # As many begin and end as were found, and each begins where another ends: there is nothing between them.
    ends = text.count("</Contents>")
    if ends != count or text.count("<Contents>") != count or text.count("</Contents><Contents>") != count - 1:
        return [], body
    rest = before + text[text.rindex("</Contents>") + len("</Contents>") :]
    if "Contents" in rest:
        return [], body
    return found, rest.encode()


def _listed(entries: list[tuple[str, ...]], encoded: bool) -> list[Listed]:
    """The objects of plain entries."""
    keys = [entry[0] for entry in entries]
    if encoded:
        keys = _decoded(keys)
    return [
        _new(Listed, (key, int(size), _time(modified) if modified else None, etag, storage or None))
        for key, (_, modified, etag, size, storage) in zip(keys, entries, strict=True)
    ]


def _decoded(keys: list[str]) -> list[str]:
    """Keys without the encoding of URLs: all at once, as each call of ``unquote_plus`` takes longer than the rest of
    an entry does. A line feed parts them, which no encoded key has."""
    joined = "\n".join(keys).replace("%2F", "/").replace("%3D", "=")
    if "%0A" in joined or "%0a" in joined:
        return [unquote_plus(key) for key in keys]
    return unquote_plus(joined).split("\n")


def _page(root: ElementTree.Element, space: str, plain: list[tuple[str, ...]]) -> Page:
    encoded = (root.findtext(space + "EncodingType") or "").strip() == "url"
    key, size, modified = space + "Key", space + "Size", space + "LastModified"
    etag, storage, prefix = space + "ETag", space + "StorageClass", space + "Prefix"
    objects = _listed(plain, encoded) if plain else []
    for node in root.iterfind(space + "Contents"):
        name = etag_text = storage_text = size_text = modified_text = None
        for child in node:
            tag = child.tag
            if tag == key:
                name = child.text or ""
            elif tag == size:
                size_text = child.text
            elif tag == etag:
                etag_text = child.text or ""
            elif tag == modified:
                modified_text = child.text
            elif tag == storage:
                storage_text = child.text
        if not name:
            raise ValueError("an entry without a key")
        if encoded and ("%" in name or "+" in name):
            name = unquote_plus(name)
        length = int(size_text) if size_text and size_text.strip() else None
        if length is not None and length < 0:
            raise ValueError("a negative size")
        when = _time(modified_text) if modified_text else None
        objects.append(Listed(name, length, when, etag_text, storage_text))
    prefixes = [node.findtext(prefix) or "" for node in root.iterfind(space + "CommonPrefixes")]
    if encoded:
        prefixes = [unquote_plus(text) for text in prefixes]
    token = root.findtext(space + "NextContinuationToken") or None
    truncated = (root.findtext(space + "IsTruncated") or "").strip().lower() == "true"
    if truncated and token is None:
        raise ValueError("there is more, but no token to continue with")
    return Page(tuple(objects), tuple(prefixes), token if truncated else None)
