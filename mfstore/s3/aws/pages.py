"""A page of ListObjectsV2. botocore's parser takes 15 µs per key, which would be most of listing a bucket."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from mfstore.errors import BackendError
from mfstore.records import dataclass
from mfstore.s3.aws.errors import ENDPOINT_HINT, bare, tree

LISTED_MEMORY = 512
"""Bytes of memory that an object or prefix of a page takes."""
NAMED_WITHIN = 4096
"""Bytes in which a page has said what it is: before it come a declaration, and maybe white space that kept a connection
open."""


@dataclass(frozen=True, slots=True)
class Listed:
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


def page(body: bytes) -> Page:
    """The page in a reply's body. Raises BackendError when it is not one, or is not whole."""
    try:
        root = tree(body)
        if bare(root.tag) != "ListBucketResult":
            raise ValueError(f"<{bare(root.tag)}> in place of a listing")
        return _page(root, root.tag[: -len("ListBucketResult")])
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


def _page(root: ElementTree.Element, space: str) -> Page:
    encoded = (root.findtext(space + "EncodingType") or "").strip() == "url"
    key, size, modified = space + "Key", space + "Size", space + "LastModified"
    etag, storage, prefix = space + "ETag", space + "StorageClass", space + "Prefix"
    objects = []
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
                storage_text = child.text or ""
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
