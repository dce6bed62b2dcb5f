"""What a store's handle has done, as values, for Prometheus, and in a file for node_exporter."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mfstore.display.amounts import count, duration, size
from mfstore.display.cards import Card
from mfstore.display.prometheus import Family, counter, labelled, text_of
from mfstore.display.shown import Shown
from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.s3.bulk.metrics import ClientMetrics
    from mfstore.s3.transfers.scheduler import Traffic
    from mfstore.stats import SessionStats

READABLE = 0o644
"""Whoever collects metrics is another user than whoever writes them."""


class ReadCounts(NamedTuple):
    """What was read by a store's handle, as of ``StoreMetrics``."""

    cache_hits: int = 0
    cache_misses: int = 0
    verify_failures: int = 0
    cached_reads: int = 0
    fetched_reads: int = 0
    cached_bytes: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class StoreMetrics(Shown):
    """What this process has done by one handle of a store since it was opened. Sizes in bytes."""

    url: str
    saves: int
    """Operations that stored something, each however many artifacts."""
    loads: int
    """Operations that loaded something; of many keys, each counts."""
    artifacts: int
    """Artifacts saved."""
    saved: int
    """Bytes of them."""
    duplicate: int
    """Of these, bytes that were stored already."""
    stored: int
    """Bytes written for the others."""
    objects: int
    """Objects written."""
    loaded: int
    """Bytes of the artifacts loaded."""
    seconds: Mapping[str, float]
    """By stage: ``encode`` (of saves, until everything is encoded), ``commit`` (until it is durable) and ``load``. Of
    operations side by side each counts. Small values that lie in their keys are loaded in no time."""
    cache_hits: int
    """Parts of the index of a remote store that this host had read already."""
    cache_misses: int
    """Parts that it had not."""
    cached_reads: int
    """Reads of contents of a remote store that were answered by this host's cache, where there is one."""
    fetched_reads: int
    """Reads that it did not answer."""
    cached_bytes: int
    """Bytes that came from it, as they are stored."""
    verify_failures: int
    """Chunks that differed from their digest when they were read, whether or not a whole copy was found."""
    s3: ClientMetrics | None
    """The requests; None of a store that is not in S3."""

    def families(self) -> list[Family]:
        """As metrics of Prometheus, labelled with the store's URL."""
        hits = [({"result": "hit"}, self.cache_hits), ({"result": "miss"}, self.cache_misses)]
        own = [
            Family(
                "mfstore_operations_total", "counter", "Saves and loads.",
                [({"operation": "save"}, self.saves), ({"operation": "load"}, self.loads)],
            ),
            counter("mfstore_saved_artifacts_total", "Artifacts saved.", self.artifacts),
            counter("mfstore_saved_bytes_total", "Bytes of the artifacts saved.", self.saved),
            counter("mfstore_duplicate_bytes_total", "Bytes saved that were stored already.", self.duplicate),
            counter("mfstore_stored_bytes_total", "Bytes written.", self.stored),
            counter("mfstore_stored_objects_total", "Objects written.", self.objects),
            counter("mfstore_loaded_bytes_total", "Bytes of the artifacts loaded.", self.loaded),
            Family(
                "mfstore_stage_seconds_total", "counter", "Seconds in each stage of saves and loads.",
                [({"stage": stage}, seconds) for stage, seconds in self.seconds.items()],
            ),
            Family("mfstore_cache_lookups_total", "counter", "Parts of the index asked of this host's cache.", hits),
            Family(
                "mfstore_cache_reads_total", "counter", "Reads of contents asked of this host's cache.",
                [({"result": "hit"}, self.cached_reads), ({"result": "miss"}, self.fetched_reads)],
            ),
            counter("mfstore_cache_read_bytes_total", "Bytes of contents from this host's cache.", self.cached_bytes),
            counter("mfstore_verify_failures_total", "Chunks that differed from their digest.", self.verify_failures),
        ]  # fmt: skip
        return labelled([*own, *(self.s3.families() if self.s3 is not None else ())], {"store": self.url})

    def prometheus(self) -> str:
        """As text of Prometheus."""
        return text_of(self.families())

    def _card(self) -> Card:
        saved = f"{count(self.artifacts, 'artifact')} in {count(self.saves, 'save')}, {size(self.saved)}"
        if self.duplicate:
            saved += f", of which {size(self.duplicate)} were there already"
        facts = [
            ("saved", saved), ("written", f"{size(self.stored)} in {count(self.objects, 'object')}"),
            ("loaded", f"{size(self.loaded)} in {count(self.loads, 'load')}"),
            ("took", ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in self.seconds.items())),
        ]  # fmt: skip
        if self.cached_reads or self.fetched_reads:
            reads = count(self.cached_reads + self.fetched_reads, "read")
            facts.append(("cache", f"{self.cached_reads:,} of {reads}, {size(self.cached_bytes)}"))
        if self.verify_failures:
            facts.append(("differed", count(self.verify_failures, "chunk")))
        if self.s3 is None:
            return Card("metrics", self.url, tuple(facts))
        facts.append(("S3" if self.url.startswith("s3://") else "service", self.s3.summary))
        return Card("metrics", self.url, tuple(facts), self.s3._card().grids)


def store_metrics(url: str, session: SessionStats, traffic: Traffic | None, reads: ReadCounts) -> StoreMetrics:
    """What was counted."""
    if traffic is not None:
        from mfstore.s3.bulk.metrics import client_metrics

    return StoreMetrics(
        url=url, saves=session.saves, loads=session.loads, artifacts=session.artifacts, saved=session.logical,
        duplicate=session.duplicate, stored=session.stored, objects=session.objects, loaded=session.loaded,
        seconds={
            "encode": session.saving - session.committing, "commit": session.committing, "load": session.loading,
        },
        **reads._asdict(), s3=None if traffic is None else client_metrics(traffic.now()),
    )  # fmt: skip


class Metrics(Protocol):
    """What ``Store.metrics`` and ``BulkClient.metrics`` return."""

    def families(self) -> list[Family]:
        """As metrics of Prometheus."""


class Measured(Protocol):
    """A store or a client."""

    def metrics(self) -> Metrics:
        """What it has done."""


def write_metrics(path: str | os.PathLike[str], *sources: Measured) -> None:
    """Write what stores and clients have done into a file, for the textfile collector of node_exporter, which reads
    ``*.prom`` of a directory.

    The file is whole at any time: it is replaced. Its directory must be there.

    Args:
        path: The file.
        sources: Stores, bulk clients. Stores are told apart by their URL; of two clients the numbers would be mixed up.

    Raises:
        OSError: it cannot be written, or is no regular file.
    """
    write_families(path, [family for source in sources for family in source.metrics().families()])


def write_families(path: str | os.PathLike[str], families: list[Family]) -> None:
    """As ``write_metrics``, any metrics."""
    target = writable_target(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text_of(families))
            os.fchmod(file.fileno(), READABLE)
        os.replace(temporary, target)  # noqa: PTH105
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def writable_target(path: str | os.PathLike[str]) -> Path:
    """The file that is replaced: what a link names, so that the link stays. OSError for a device, a pipe or a
    directory, which would be replaced as well."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "no regular file, and would be replaced by one", str(target))
    return target
