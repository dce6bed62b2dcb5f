"""What lies below a root in S3, as S3 Inventory told it, in place of a listing.

An inventory is written once a day or once a week, of objects as they were then, and S3 does not promise that it has all
of them. So nothing goes by it alone: before anything of a flow is removed, its runs are listed as they are.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from mfstore.backends.base import ObjectInfo, RangeRead
from mfstore.errors import CorruptObject, InvalidKey, MfstoreError, NotFound, Refused, Unsupported
from mfstore.maintenance.clock import DAY
from mfstore.maintenance.metaflow.root import Root, remote_backend
from mfstore.maintenance.temporary_files import temporary_file_error, told_errors
from mfstore.s3.urls import split_url

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

MANIFEST = "manifest.json"
OLDEST = 10 * DAY
"""Of the older one of two weekly inventories, with some days for the newer one to be late. What is older is of a
schedule that was switched off."""
CLOCK_SECONDS = 300.0
"""As far as this machine's clock may be behind."""
READ_BYTES = 16 << 20
_DATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\dZ/")
"""The folder of one inventory."""
_OF_PARQUET = {
    "Key": "key", "VersionId": "version_id", "IsLatest": "is_latest", "IsDeleteMarker": "is_delete_marker",
    "Size": "size", "LastModifiedDate": "last_modified_date", "ETag": "e_tag",
}  # fmt: skip
_NEEDED = ("Key", "Size", "LastModifiedDate", "ETag")


@dataclass(frozen=True, slots=True)
class InventoryFile:
    """One of the files of an inventory."""

    key: str
    size: int
    md5: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an inventory says of itself."""

    bucket: str
    """Of which bucket it is."""
    created: float
    """When S3 began to write it, in seconds since the epoch."""
    format: str
    """``CSV`` or ``Parquet``."""
    columns: tuple[str, ...]
    """By the names that CSV has."""
    files: tuple[InventoryFile, ...]


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in ``manifest.json``. CorruptObject when it is none, Unsupported when it has no column that is
    needed, or a format that is not read."""
    try:
        document: Any = json.loads(data)
        manifest = Manifest(
            str(document["sourceBucket"]),
            int(document["creationTimestamp"]) / 1000,
            str(document["fileFormat"]),
            _columns(str(document["fileFormat"]), str(document["fileSchema"])),
            tuple(
                InventoryFile(str(file["key"]), int(file["size"]), str(file["MD5checksum"]).lower())
                for file in document["files"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise CorruptObject("not the manifest of an S3 Inventory") from None
    if manifest.format not in ("CSV", "Parquet"):
        raise Unsupported("an inventory in a format that is not read", found=manifest.format, expected="CSV or Parquet")
    missing = [name for name in _NEEDED if name not in manifest.columns]
    if missing:
        raise Unsupported(
            f"the inventory has no {' and no '.join(missing)}", hint="Add these fields to the inventory's configuration"
        )
    return manifest


def _columns(form: str, schema: str) -> tuple[str, ...]:
    if form != "Parquet":
        return tuple(name.strip() for name in schema.split(","))
    words = set(re.findall(r"\w+", schema))
    return tuple(name for name, word in _OF_PARQUET.items() if word in words)


class Inventory:
    """An inventory of the bucket that a root lies in."""

    def __init__(self, root: Root, url: str) -> None:
        """``url`` is that of a ``manifest.json``, or of the folder in which S3 writes a dated folder each time: then
        it is the newest. Raises InvalidKey for what is none of this, NotFound when there is none, Refused when it is
        too old or of another bucket, and as ``decode_manifest``."""
        if not root.remote:
            raise InvalidKey("an inventory is of a bucket, and this root is a directory", backend=root.url)
        if not url.startswith("s3://"):
            raise InvalidKey("not the URL of an inventory", found=repr(url), expected="s3://bucket/…/manifest.json")
        self._url = url
        bucket, path = split_url(url)
        self._backend: Any = remote_backend(f"s3://{bucket}", root.reached)
        try:
            self._key = _manifest_key(self._backend, path)
            try:
                self.manifest = decode_manifest(self._backend.get(self._key))
            except MfstoreError as error:
                raise error.where(key=self._key, backend=self._backend.url) from None
            source, folder = split_url(root.url)
            self._prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
            if self.manifest.bucket != source:
                raise Refused(
                    "the inventory is of another bucket", key=self._key, backend=self._backend.url,
                    found=self.manifest.bucket, expected=source,
                )  # fmt: skip
        except BaseException:
            self.close()
            raise

    @property
    def moment(self) -> float:
        """As of when it is, in seconds since the epoch."""
        return self.manifest.created

    def check_age(self, now: float) -> None:
        """Refused when it is too old to decide by, or of a time that has not come."""
        age = now - self.moment
        if not -CLOCK_SECONDS <= age <= OLDEST:
            raise Refused(
                f"the inventory is {age / DAY:.1f} days old", key=self._key, backend=self._backend.url,
                hint="Nothing was changed. See whether inventories are still written, or leave --inventory out",
            )  # fmt: skip

    def objects(self, flows: Sequence[str] = ()) -> Iterator[ObjectInfo]:
        """The objects below the root, by their keys there, in any order; those of these ``flows`` alone, if any are
        given. One file at a time lies in a temporary file. CorruptObject when one is not what the manifest
        says."""
        wanted = re.compile(_pattern(self._prefix, flows))
        cut = len(self._prefix)
        for file in self.manifest.files:
            with _fetched(self._backend, file) as content:
                columns = self.manifest.columns
                is_csv = self.manifest.format == "CSV"
                rows = (_csv_rows if is_csv else _parquet_rows)(content, columns, wanted, cut)
                try:
                    for row in rows:
                        key = row[0]
                        if ("/." in key or key[:1] == ".") and key.rpartition("/")[2].startswith("."):
                            continue
                        yield ObjectInfo(*row)
                except (ValueError, LookupError, OSError, EOFError, csv.Error) as error:
                    if isinstance(error, OSError) and error.errno is not None:  # not what is read: the disk
                        raise temporary_file_error(error) from error
                    raise CorruptObject(
                        f"a file of the inventory cannot be read: {error}", key=file.key, backend=self._backend.url
                    ) from error

    def close(self) -> None:
        """End its connections."""
        self._backend.close()


def _manifest_key(backend: Any, path: str) -> str:
    if path.endswith(f"/{MANIFEST}"):
        return path
    folder = f"{path.strip('/')}/" if path.strip("/") else ""
    # The newest may be on its way: its manifest is written last. What S3 keeps beside them begins with other letters.
    dated = sorted(
        (found for found in backend.folders([folder]) if _DATED.fullmatch(found[len(folder) :])), reverse=True
    )
    for found in dated[:10]:
        if backend.exists_many([f"{found}{MANIFEST}"])[0]:
            return f"{found}{MANIFEST}"
    raise NotFound(
        "no inventory is there", key=folder, backend=backend.url,
        hint="Give the folder with the dated folders, as s3://bucket/prefix/source/configuration/, or a manifest.json",
    )  # fmt: skip


@contextmanager
def _fetched(backend: Backend, file: InventoryFile) -> Iterator[IO[bytes]]:
    """A file of an inventory, in a temporary file; whole, by its digest."""
    digest = hashlib.md5(usedforsecurity=False)
    with told_errors():
        temporary = tempfile.TemporaryFile()  # noqa: SIM115
    with temporary as content:
        for start in range(0, file.size, READ_BYTES):
            read = RangeRead(file.key, start, min(READ_BYTES, file.size - start))
            for _, data in backend.read_many([read]):
                if isinstance(data, MfstoreError):
                    raise data
                digest.update(data)
                with told_errors():
                    content.write(data)
        if digest.hexdigest() != file.md5:
            raise CorruptObject(
                "a file of the inventory is not what its manifest says", key=file.key, backend=backend.url,
                expected=file.md5, found=digest.hexdigest(),
            )  # fmt: skip
        with told_errors():
            content.seek(0)  # writes the rest
        yield content


_Row = tuple[str, int, float, str]


def _csv_rows(content: IO[bytes], columns: Sequence[str], wanted: re.Pattern[str], cut: int) -> Iterator[_Row]:
    """The objects of keys that match, by these without so many characters."""
    at = {name: number for number, name in enumerate(columns)}
    key, size, modified, etag = (at[name] for name in _NEEDED)
    latest, marker = at.get("IsLatest"), at.get("IsDeleteMarker")
    with gzip.open(content, "rt", encoding="utf-8", newline="") as text:
        for row in csv.reader(text):
            if (latest is not None and row[latest] == "false") or (marker is not None and row[marker] == "true"):
                continue
            name = unquote_plus(row[key])
            if wanted.match(name):
                moment = datetime.fromisoformat(row[modified]).timestamp()
                yield name[cut:], int(row[size] or 0), moment, row[etag].strip('"')


def _pattern(prefix: str, flows: Sequence[str]) -> str:
    """The keys below the root that are of these flows, or of any, as a regular expression."""
    if not flows:
        return rf"^{re.escape(prefix)}"
    names = "|".join(re.escape(flow) for flow in flows)
    return rf"^{re.escape(prefix)}(?:data/|mf\.cards/)?(?:{names})/"


def _parquet_rows(content: IO[bytes], columns: Sequence[str], wanted: re.Pattern[str], cut: int) -> Iterator[_Row]:
    """As ``_csv_rows``."""
    parquet = _parquet()
    from pyarrow import compute

    names = [_OF_PARQUET[name] for name in columns if name != "VersionId"]
    for batch in parquet.ParquetFile(content).iter_batches(columns=names):
        found = _current(batch, wanted.pattern)
        keys = compute.utf8_slice_codeunits(found.column("key"), cut)
        etags = compute.utf8_trim(found.column("e_tag").fill_null(""), '"')
        rows = keys, found.column("size").fill_null(0), _seconds(found.column("last_modified_date")), etags
        # NumPy makes Python's objects of a column in a tenth of the time that pyarrow's to_pylist takes.
        yield from zip(*(column.to_numpy(zero_copy_only=False).tolist() for column in rows), strict=True)


def _current(batch: Any, wanted: str) -> Any:
    """The rows of objects that are there, of keys that match. By far the most are of other flows, when many machines
    read one inventory."""
    from pyarrow import compute

    batch = batch.filter(compute.match_substring_regex(batch.column("key"), wanted))
    if "is_latest" in batch.schema.names:
        batch = batch.filter(batch.column("is_latest").fill_null(True))
    if "is_delete_marker" in batch.schema.names:
        batch = batch.filter(compute.invert(batch.column("is_delete_marker").fill_null(False)))
    return batch


def _seconds(moments: Any) -> Any:
    """S3 writes milliseconds in UTC, and does not say so in each row."""
    import pyarrow
    from pyarrow import compute

    if moments.null_count:
        raise ValueError("an object without a time")
    per_second = 1e3
    if pyarrow.types.is_timestamp(moments.type):
        per_second = 1e6
        moments = moments.cast(pyarrow.timestamp("us", moments.type.tz), safe=False)
    numbers = moments.cast(pyarrow.int64()).cast(pyarrow.float64())
    return compute.divide(numbers, per_second)


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise Unsupported(
            "an inventory in Parquet is read by pyarrow, which is not there", hint="pip install 'mfstore[inventory]'"
        ) from None
    return parquet
