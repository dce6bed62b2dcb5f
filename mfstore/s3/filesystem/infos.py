"""What is said of a file: fsspec's dictionaries, with s3fs's names besides. And a tree out of a flat listing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mfstore.s3.filesystem.paths import VERSION, parent

if TYPE_CHECKING:
    from mfstore.s3.aws.pages import Page
    from mfstore.s3.transfers.outcomes import Outcome

Info = dict[str, Any]


def directory(path: str, kind: str = "DIRECTORY") -> Info:
    """What is said of a directory, or, as ``kind`` "BUCKET", of a bucket."""
    return {"name": path, "Key": path, "type": "directory", "size": 0, "Size": 0, "StorageClass": kind}


def listed(bucket: str, page: Page) -> Iterator[Info]:
    """The objects of a page, in its order. What ends in a slash marks a directory."""
    start = f"{bucket}/"
    for found in page.objects:
        key = found.key
        if key[-1] == "/":
            yield directory(f"{start}{key[:-1]}")
            continue
        name, size = start + key, found.size
        yield {
            "name": name, "Key": name, "type": "file", "size": size, "Size": size, "ETag": found.etag,
            "LastModified": found.modified, "StorageClass": found.storage_class,
        }  # fmt: skip


def children(bucket: str, prefix: str, pages: Iterable[Page]) -> list[Info]:
    """What lies in one directory, by its listing in pages up to the next slash, sorted by name."""
    found: dict[str, Info] = {}
    for page in pages:
        for info in listed(bucket, page):
            # The mark of the directory itself is not in it. One name may be a file and a directory: the file is shown.
            if len(info["name"]) > len(bucket) + len(prefix):
                found[info["name"]] = info
        for one in page.prefixes:
            name = f"{bucket}/{one[:-1]}"
            if name not in found:
                found[name] = directory(name)
    return [found[name] for name in sorted(found)]


def headed(path: str, outcome: Outcome, version_aware: bool) -> Info:
    """What a HEAD says of an object."""
    headers, modified = outcome.headers, outcome.modified
    info = {
        "name": path, "Key": path, "type": "file", "size": outcome.size, "Size": outcome.size,
        "ETag": headers.get("etag"), "StorageClass": headers.get("x-amz-storage-class", "STANDARD"),
        "LastModified": None if modified is None else datetime.fromtimestamp(modified, UTC),
        "ContentType": outcome.content_type, "Metadata": outcome.metadata,
    }  # fmt: skip
    if version_aware:
        info["VersionId"] = headers.get("x-amz-version-id")
    return info


def version(bucket: str, entry: dict[str, Any], named: bool) -> Info:
    """What a listing of versions says of one; ``named``: the version is in its name."""
    name = f"{bucket}/{entry['Key']}"
    told = entry.get("VersionId")
    if named and told not in (None, "null"):
        name += f"{VERSION}{told}"
    size = entry.get("Size", 0)
    return {
        "name": name, "Key": name, "type": "file", "size": size, "Size": size, "ETag": entry.get("ETag"),
        "LastModified": entry.get("LastModified"), "StorageClass": entry.get("StorageClass"),
        "VersionId": None if told == "null" else told, "IsLatest": entry.get("IsLatest", False),
    }  # fmt: skip


class Tree:
    """Directories out of a flat listing: all files are added, in the order of keys, which tells all directories below
    ``root`` and what lies in each."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: list[Info] = []
        self.directories: dict[str, list[Info]] = {root: []}
        """By path: what lies in it."""
        self.found: dict[str, Info] = {}
        """The directories below the root, by path."""
        self._last, self._into = root, self.directories[root]

    def add(self, infos: Iterable[Info]) -> None:
        """More lines of the listing."""
        last, into = self._last, self._into
        for info in infos:
            path: str = info["name"]
            if info["type"] == "directory":
                self._directory(path)
                continue
            self.files.append(info)
            above = path.rpartition("/")[0]
            if above != last:
                last, into = above, self._directory(above)
            into.append(info)
        self._last, self._into = last, into

    def _directory(self, path: str) -> list[Info]:
        """What lies in a directory, which is there from now on, with those above it."""
        known = self.directories.get(path)
        if known is not None:
            return known
        if len(path) <= len(self.root):  # the mark of the root itself
            return self.directories[self.root]
        made = self.directories[path] = []
        info = self.found[path] = directory(path)
        self._directory(parent(path)).append(info)
        return made

    def level(self, info: Info) -> int:
        """How deep it lies: 1 of what lies in the root."""
        return str(info["name"]).count("/", len(self.root)) if self.root else str(info["name"]).count("/") + 1

    def sorted_directories(self) -> dict[str, list[Info]]:
        """By path: what lies in each directory, sorted by name. A name that is both is shown as the file."""
        for infos in self.directories.values():
            named = {info["name"]: info for info in reversed(infos) if info["type"] == "directory"}
            if named:
                named.update({info["name"]: info for info in infos if info["type"] != "directory"})
                infos[:] = [named[name] for name in sorted(named)]
        return self.directories
