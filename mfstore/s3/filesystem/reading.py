"""Objects as files to read: ranges as they are asked for, through one of fsspec's caches or an adaptive one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from fsspec.caching import BaseCache, register_cache
from fsspec.spec import AbstractBufferedFile

from mfstore.errors import PathIsDirectory
from mfstore.s3.filesystem.errors import FileReplaced

ADAPTIVE = "adaptive"
"""The name of the cache below."""
FIRST_AHEAD = 64 << 10
"""Bytes read at least at a time: a request costs as much as some 100 KiB do."""


class AdaptiveCache(BaseCache):
    """Reads what is asked for, and at least 64 KiB. As long as reading goes on in order it reads ahead, twice as much
    each time, up to the file's block size. What it read last is kept. With ``fill_cache=False`` it reads what is asked
    for and no more."""

    name: ClassVar[str] = ADAPTIVE

    def __init__(
        self, blocksize: int, fetcher: Callable[[int, int], bytes], size: int, fill_cache: bool = True
    ) -> None:
        super().__init__(blocksize, fetcher, size)
        self._start = 0
        self._data = b""
        self._ahead = 0
        self._fill = fill_cache

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = start or 0
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        end = self._start + len(self._data)
        if self._start <= start and stop <= end:
            self.hit_count += 1
            return self._data[start - self._start : stop - self._start]
        self.miss_count += 1
        known = b""
        if self._start <= start <= end and self._data:  # goes on where it was
            self._ahead = min(2 * (self._ahead or FIRST_AHEAD), self.blocksize)
            known = self._data[start - self._start :]
        else:
            self._ahead = 0
        at = start + len(known)
        wanted = max(stop + self._ahead, at + min(FIRST_AHEAD, self.blocksize)) if self._fill else stop
        data: bytes = self.fetcher(at, min(wanted, self.size))
        self.total_requested_bytes += len(data)
        if stop - at > self.blocksize:
            # So much at once is not asked for again; its end may be what goes on.
            self._start, self._data = stop, data[stop - at :]
        else:
            self._start, self._data = at, data
        taken = data if len(data) == stop - at else data[: stop - at]
        return known + taken if known else taken


register_cache(AdaptiveCache, clobber=True)


class S3File(AbstractBufferedFile):
    """An object to read. All that is read of it is of one version: FileReplaced, an OSError, when it was replaced since
    it was opened, or since the listing that its size is known from. Pickles; opens no connection of its own."""

    def __init__(
        self, fs: Any, path: str, *, block_size: int, cache_type: str, cache_options: dict[str, Any] | None,
        size: int | None, version_id: str | None, options: dict[str, Any],
    ) -> None:  # fmt: skip
        self._etag: str | None = None
        self._version = version_id
        self._options = options
        if size is None:
            info = fs.info(path, version_id=version_id)
            if info["type"] == "directory":  # by a listing that is remembered, maybe
                info = fs.info(path, version_id=version_id, refresh=True)
            self._known(info)
        super().__init__(
            fs, path, "rb", block_size, cache_type=cache_type, cache_options=cache_options,
            size=self._details["size"] if size is None else size,
        )  # fmt: skip
        self.kwargs = {**options, **({"version_id": version_id} if version_id else {})}

    def _known(self, info: dict[str, Any]) -> None:
        self._details = info
        self._etag = (info.get("ETag") or "").strip('"') or None
        if info["type"] == "directory":
            raise PathIsDirectory("a directory is no file", key=info["name"])
        if self._version is None:
            self._version = info.get("VersionId")

    def _fetch_range(self, start: int, end: int) -> bytes:
        end = min(end, self.size)  # some caches ask for whole blocks
        data, etag = self.fs.range_of(self.path, start, end, self._version, self._options)
        if self._etag is None:
            self._etag = etag
        elif etag is not None and etag != self._etag:
            self.fs.invalidate_cache(self.path)
            raise FileReplaced(
                "the object was replaced since it was opened or listed", key=self.path,
                hint="Open it again for the new one",
            )  # fmt: skip
        if len(data) != end - start:
            self.fs.invalidate_cache(self.path)
            raise FileReplaced(
                "the object is shorter than it was said to be", key=self.path, hint="Open it again",
                expected=f"{end - start} bytes from {start}", found=len(data),
            )  # fmt: skip
        found: bytes = data
        return found

    def read(self, length: int | None = -1) -> bytes:
        """Up to ``length`` bytes from where it stands; all the rest for a negative one, or None."""
        return bytes(super().read(length))  # some caches give a bytearray or a memoryview

    def metadata(self) -> dict[str, str]:
        """The object's user metadata."""
        found: dict[str, str] = self.fs.metadata(self.path)
        return found

    def getxattr(self, name: str) -> str | None:
        """One of them; None where there is none of that name."""
        return self.metadata().get(name.lower())

    def url(self, **how: Any) -> str:
        """As ``S3FileSystem.url``."""
        return str(self.fs.url(self.path, **how))
