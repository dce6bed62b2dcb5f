"""IncludeFiles: what artifacts say of them, and whether they are there and whole.

An IncludeFile lies in ``data/<Flow>/`` under the SHA-1 of its content, as gzip. The artifact that stands for it is a
pickle that names its URL; nothing is unpickled here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, MfstoreError, NotFound
from mfstore.maintenance.metaflow.blob_reads import LongBlob, StoredBlob, drop_stored, read_blobs, read_objects
from mfstore.maintenance.metaflow.findings import EMPTY, Problem, include_finding
from mfstore.maintenance.metaflow.packed_store import open_packed_store
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.packed_keys import PackedArtifact, inline_pickle
from mfstore.metaflow.stock import encoding

if TYPE_CHECKING:
    from mfstore.backends.base import ObjectInfo
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.listed_blobs import BlobName
    from mfstore.maintenance.metaflow.report import MetaflowFinding
    from mfstore.maintenance.metaflow.root import Root

DESCRIBED_BYTES = 1 << 20
"""What tells of an IncludeFile takes less than a kilobyte; the rest is as if it could not be read."""
Found = Callable[[str, str, "bytes | MfstoreError"], None]
"""Called with the flow and the key of an artifact, and the pickle it is, or why that cannot be read."""


def read_descriptions(
    root: Root, blobs: Iterable[BlobName], packed: Iterable[tuple[str, PackedArtifact]], described: Container[BlobName],
    listed: Mapping[BlobName, ObjectInfo], found: Found,
) -> None:  # fmt: skip
    """The pickles of artifacts that stand for IncludeFiles, in any order and from any thread. ``described`` are the
    blobs with a metadata file, ``listed`` tells how long blobs are."""

    def work(name: BlobName, blob: StoredBlob | MfstoreError) -> None:
        try:
            if isinstance(blob, MfstoreError):
                raise blob
            content = blob.content(DESCRIBED_BYTES)
        except MfstoreError as error:
            found(*name, error)
            return
        found(*name, content)

    read_blobs(root, blobs, described, work, listed)
    with ExitStack() as stack:
        store = None
        for flow, (name, key, bundle) in packed:
            try:
                if bundle is None:
                    content = inline_pickle(key)
                else:
                    store = store or stack.enter_context(open_packed_store(root))
                    content = store.get_bytes(bundle, name=name)
            except MfstoreError as error:
                found(flow, key, error)
                continue
            except ValueError as problem:
                found(flow, key, CorruptObject(str(problem)))
                continue
            found(flow, key, content)


class IncludeCheck:
    """What is known of the IncludeFiles of a root."""

    def __init__(self, root: Root, holdings: Holdings, refuse: Callable[[str, MfstoreError], None]) -> None:
        self._root = root
        self._refuse = refuse
        self._holdings = holdings
        self._lock = threading.Lock()
        self._described: dict[BlobName, set[str]] = {}
        self._packed: dict[tuple[str, PackedArtifact], set[str]] = {}
        self.problems: dict[BlobName, Problem] = {
            name: EMPTY for name, info in holdings.includes.items() if not info.size
        }
        """What is wrong with each that is not as it should be, as far as is known."""
        self.touched: dict[BlobName, set[str]] = {}
        """The artifacts that readers find each by."""

    def refer(self, prefix: tuple[str, str, str, str], found: layout.References, readable: bool) -> None:
        """Count what one file of a task refers to; ``readable``: readers take it."""
        flow = prefix[0]
        for label in found.included & found.artifacts.keys():
            names = self._described.setdefault((flow, found.artifacts[label]), set())
            names.update(["/".join((*prefix, label))] if readable else [])
        for artifact in found.packed_included:
            names = self._packed.setdefault((flow, artifact), set())
            names.update(["/".join((*prefix, artifact.name))] if readable else [])

    def expect(self) -> None:
        """Look what the artifacts name: what lies below this root should be there."""
        names: dict[tuple[str, str], set[str]] = {}
        for (flow, key), labels in self._described.items():
            names.setdefault((flow, key), set()).update(labels)
        for (flow, artifact), labels in self._packed.items():
            names.setdefault((flow, artifact.key), set()).update(labels)

        def told(flow: str, key: str, content: bytes | MfstoreError) -> None:
            for include in () if isinstance(content, MfstoreError) else self._named(content):
                with self._lock:
                    self.touched.setdefault(include, set()).update(names[flow, key])
                    if include not in self._holdings.includes and names[flow, key]:
                        self.problems.setdefault(include, ("missing", "no such IncludeFile"))

        blobs = [name for name in self._described if name in self._holdings.blobs]
        read_descriptions(self._root, blobs, self._packed, self._holdings.metas, self._holdings.blobs, told)

    def _named(self, content: bytes) -> Iterator[BlobName]:
        for scheme, place, flow, key in layout.includes_in(content):
            if self._root.remote:
                here = f"{scheme}://{place}" == f"{self._root.url}/data"
            else:
                here = scheme == "local" and Path(place).resolve() == Path(self._root.backend.root, "data").resolve()
            if here:
                yield flow, key

    def read(self, names: Iterable[BlobName]) -> None:
        """Read IncludeFiles and compare them with their names."""
        by_path = {layout.include_path(*name): name for name in names}

        def again(path: str, data: bytes | LongBlob) -> bytes | LongBlob:
            return data.again() if isinstance(data, LongBlob) else self._root.backend.read_again(path)

        def work(path: str, data: bytes | LongBlob | MfstoreError) -> None:
            name = by_path[path]
            try:
                if isinstance(data, MfstoreError):
                    raise data
                # One bad read is no damage.
                problem = _wrong(name[1], data) and _wrong(name[1], again(path, data))
            except NotFound:
                return  # removed since it was listed
            except MfstoreError as error:
                self._refuse(path, error)
                return
            with self._lock:
                if problem is None:
                    self.problems.pop(name, None)
                else:
                    self.problems[name] = problem

        read_objects(self._root, by_path, work, lambda path: self._holdings.includes[by_path[path]].size)

    def confirm_missing(self) -> None:
        """Look again at what seems missing: it may have been stored since the listing."""
        drop_stored(self._root, self.problems, layout.include_path)

    def findings(self) -> Iterator[MetaflowFinding]:
        """Each that is not as it should be."""
        for name, problem in self.problems.items():
            yield include_finding(name, problem, self.touched.get(name, ()))


def _wrong(key: str, data: bytes | LongBlob) -> Problem | None:
    if not len(data):
        return EMPTY
    try:
        found, size = encoding.digest_of(data)
    except CorruptObject as error:
        return "damaged", error.message
    return None if found == key else ("wrong-hash", f"its {size} bytes have the SHA-1 {found}")
