"""What is wrong with one thing of a Metaflow root, by what was read or listed of it. Without I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mfstore.errors import CorruptObject, Unsupported
from mfstore.maintenance.clock import DAY
from mfstore.maintenance.metaflow.report import MetaflowFinding
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.attempts import DATA
from mfstore.metaflow.stock import encoding

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.blob_reads import StoredBlob
    from mfstore.maintenance.metaflow.listed_blobs import BlobName
    from mfstore.maintenance.metaflow.listed_tasks import TaskName
    from mfstore.metaflow.roots.layout import ParsedPath, Task

RUNNING_SECONDS = DAY
"""An attempt that began so long ago at most and has not ended may still be running."""
EMPTY = ("empty", "no bytes: Metaflow may load them as an empty artifact")
KEY_DIGITS = 40
"""Of a key that is a SHA-1; keys of other forms (``r_…``, longer digests) promise nothing of the content."""
Problem = tuple[str, str]
"""Kind and detail of what is wrong with a blob."""


def judge(blob: StoredBlob, directory: bool) -> Problem | None:
    """What is wrong with a blob as it is stored; None when it is whole.

    ``meta-less`` and ``wrong-metadata`` are blobs whose bytes are what the key says, so that the metadata can be
    written anew; every other kind is lost. ``directory``: metadata has a file of its own, which can be missing.
    """
    metadata = blob.metadata
    version = metadata.get("cas_version") if isinstance(metadata, dict) else None
    if version is not None and version not in layout.CAS_VERSIONS:
        raise Unsupported(f"its encoding, cas_version {version}, is unknown to this mfstore")
    raw = isinstance(metadata, dict) and bool(metadata.get("cas_raw"))
    problem = _wrong(blob, raw)
    described = isinstance(metadata, dict) and version is not None
    if problem is None:
        if described or (not directory and metadata is None):
            return None
        return (
            "meta-less" if metadata is None else "wrong-metadata"
        ), "its metadata is missing, or not what it should be"
    if _wrong(blob, not raw) is None and len(blob.key) == KEY_DIGITS:
        if metadata is None:
            return "meta-less", "it is stored raw and lacks the metadata that says so: Metaflow cannot read it"
        return "wrong-metadata", "its metadata says that it is stored otherwise than it is"
    return problem


def _wrong(blob: StoredBlob, raw: bool) -> Problem | None:
    """What is wrong with a blob if it is stored like that."""
    if not len(blob.data) and not raw:
        return EMPTY
    try:
        found, size = encoding.raw_digest_of(blob.data) if raw else encoding.digest_of(blob.data)
    except CorruptObject as error:
        return "damaged", error.message
    if len(blob.key) == KEY_DIGITS and found != blob.key:
        return "wrong-hash", f"its {size} bytes have the SHA-1 {found}"
    return None


def attempt_findings(name: TaskName, task: Task, now: float) -> Iterator[MetaflowFinding]:
    """What is wrong with the attempts of a task, by listing."""
    prefix = "/".join(name)
    for attempt in sorted({*task.started, *task.done}):
        path = f"{prefix}/{attempt}.{DATA}"
        data = task.files.get((attempt, DATA))
        if attempt in task.done:
            if data is None or not data.size:
                readable = (f"{prefix}/*",) if attempt == task.readable else ()
                yield MetaflowFinding(
                    "done-without-data",
                    path,
                    "the attempt is marked done and what it stored is not written down",
                    readable,
                )
        elif attempt not in task.running(now, RUNNING_SECONDS):
            yield MetaflowFinding(
                "half-written",
                f"{prefix}/{attempt}",
                "the attempt began and never ended: readers leave it out",
                harm="none",
            )


def blob_finding(name: BlobName, problem: Problem, touched: Iterable[str]) -> MetaflowFinding:
    """What a blob that is not as it should be costs, given the artifacts that readers find in it."""
    kind, detail = problem
    finding = MetaflowFinding(kind, layout.blob_path(*name), detail, tuple(sorted(touched)), *name)
    if kind == "meta-less" and "Metaflow cannot" not in detail:
        return replace(finding, artifacts=(), harm="none")  # old versions of Metaflow wrote none
    if not finding.artifacts:
        # Nobody reads a missing one; any other is taken for stored by the next task with the same content.
        return replace(finding, harm="none" if kind == "missing" else "later")
    return finding


def include_finding(name: BlobName, problem: Problem, touched: Iterable[str]) -> MetaflowFinding:
    """What an IncludeFile that is not as it should be costs, given the artifacts that readers find it by. One that
    nobody names is taken for stored by the next run with the same file."""
    kind, detail = problem
    artifacts = tuple(sorted(touched))
    return MetaflowFinding(kind, layout.include_path(*name), detail, artifacts, *name, "data" if artifacts else "later")


def card_finding(path: ParsedPath, key: str, data: bytes | None) -> MetaflowFinding | None:
    """What is wrong with a card, or the data of one, that takes these bytes; None when nothing shows. Its name tells
    nothing of its content. ``data`` is None where it is only known that it has none."""
    found = layout.CARD_TASK.search(key)
    name = f"{path.flow}/{path.run}/{found['step'] or '*'}/{found['task']}/<card>" if found else ""
    if not data:
        return MetaflowFinding("empty", key, "no bytes", (name,) if name else ())
    try:
        text = data.decode()
        if key.endswith(".json"):
            json.loads(text)
    except (ValueError, RecursionError):
        return MetaflowFinding("damaged", key, "it is not the text that Metaflow writes", (name,) if name else ())
    return None
