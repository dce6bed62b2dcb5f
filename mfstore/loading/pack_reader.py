"""Chunks out of packs: read, decoded into the memory that waits for them, compared with their digests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, wait
from typing import TYPE_CHECKING

from mfstore._core.codec import GROUP, NONE
from mfstore.backends.base import RangeRead
from mfstore.errors import AccessDenied, CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.format.packs import pack_path
from mfstore.loading.reads import by_place

if TYPE_CHECKING:
    from concurrent.futures import Future

    from typing_extensions import Buffer

    from mfstore.backends.base import Backend
    from mfstore.format.digests import Digest
    from mfstore.format.recipes import ChunkRef
    from mfstore.host.workers import Workers
    from mfstore.loading.reads import ChunkRead, PackRead

    Failure = tuple[ChunkRead, MfstoreError]
    """A chunk that could not be read, and what is wrong."""

READ_BACKLOG = 64 << 20
"""Bytes read from a remote backend that may wait to be decoded; then reading pauses."""
DECODED_AT_ONCE = 128 << 10
"""Up to so many bytes the thread that reads decodes itself: handing over a task costs 30 us."""

TOGETHER = 8
"""Chunks that are decoded in one call, which needs the interpreter only before and behind."""


class PackReader:
    """Reads chunks where they are said to lie, and nowhere else."""

    def __init__(self, backend: Backend, workers: Workers, digest: Digest) -> None:
        self.backend = backend
        self.workers = workers
        self.digest = digest
        self.remote = backend.capabilities.remote
        """Whether reads are slow one by one and fast together."""
        self.differed = 0
        """Chunks that were not what their digest says."""

    def read(self, pack: str, start: int, end: int, chunks: Sequence[ChunkRead], verify: bool) -> None:
        """Fill the targets of ``chunks``, which lie between two offsets of a pack. CorruptObject when one differs from
        its digest, and, with ``verify`` or without, when a length is not right."""
        path = pack_path(pack)
        first = chunks[0]
        if len(chunks) == 1 and first.placement.codec == NONE and not first.placement.width:
            if first.placement.csize != first.chunk.usize:
                raise CorruptObject(
                    "raw chunk has two lengths", key=path, offset=start, expected=first.chunk.usize,
                    found=first.placement.csize,
                )  # fmt: skip
            self.backend.read_into(path, start, first.target)
        else:
            self.decode(chunks, start, self.backend.get_range(path, start, end - start))
        if verify:
            self.check_all(chunks, path)

    def read_each(self, together: Sequence[ChunkRead], verify: bool) -> list[Failure]:
        """Fill the targets of chunks of one place, in one read, as far as each is to be had; those that are not, with
        what is wrong."""
        return self._read_each(together, verify, self.backend.get_range)

    def read_each_again(self, together: Sequence[ChunkRead]) -> list[Failure]:
        """The same by another way, of chunks that seemed damaged: each is compared with its digest."""
        return self._read_each(together, True, self.backend.read_again)

    def _read_each(
        self, together: Sequence[ChunkRead], verify: bool, get: Callable[[str, int, int], Buffer]
    ) -> list[Failure]:
        at = together[0].placement
        path = pack_path(together[0].pack)
        try:
            data = get(path, at.offset, at.csize)
        except (AccessDenied, CorruptObject, NotFound, Unsupported) as error:
            return [(wanted, error) for wanted in together]
        try:
            self.decode(together, at.offset, data)
            whole = True
        except (CorruptObject, Unsupported) as error:
            if len(together) == 1:
                return [(together[0], error)]
            whole = False
        failed: list[Failure] = []
        for wanted in together:
            try:
                if not whole:
                    # As far as the frame decodes. What it gives then is compared, whatever was asked for.
                    self.decode([wanted], at.offset, data)
                if (verify or not whole) and wanted.scratch is None:
                    self.check(wanted.chunk, wanted.target, path, at.offset)
            except (CorruptObject, Unsupported) as error:
                failed.append((wanted, error))
        return failed

    def read_in_place(self, read: PackRead, verify: bool) -> None:
        """Fill the ``target`` of a read that has one: no memory between, no call for each chunk but the digest's."""
        assert read.target is not None
        path = pack_path(read.pack)
        self.backend.read_into(path, read.start, read.target)
        if verify:
            self.check_all(read.chunks, path)

    def read_remote(self, reads: Sequence[PackRead], work: Callable[[PackRead, Buffer | MfstoreError], None]) -> None:
        """All reads at once; ``work`` is done on each by the workers while others are on their way. What has a
        ``target`` is there, and not decoded."""
        waiting: deque[tuple[Future[None], PackRead, Buffer | MfstoreError, int]] = deque()
        backlog = 0

        def finish_first() -> None:
            nonlocal backlog
            future, read, data, size = waiting.popleft()
            backlog -= size
            try:
                future.result()
            except CancelledError:  # no thread could be started
                work(read, data)

        # A target is known when its read is asked for: finding out costs as much as a few comparisons per chunk.
        arrivals = self.backend.read_many(
            RangeRead(pack_path(read.pack), read.start, read.end - read.start, read.in_place()) for read in reads
        )
        try:
            for number, data in arrivals:
                read = reads[number]
                if len(reads) == 1 or read.decoded <= DECODED_AT_ONCE:
                    work(read, data)
                    continue
                size = 0 if read.target is not None else read.end - read.start
                waiting.append((self.workers.submit(work, read, data), read, data, size))
                backlog += size
                while waiting and (backlog > READ_BACKLOG or waiting[0][0].done()):
                    finish_first()
            while waiting:
                finish_first()
        finally:
            # Nobody may write to the caller's memory once this has returned or raised.
            if isinstance(arrivals, Generator):
                arrivals.close()
            futures = [entry[0] for entry in waiting]
            for future in futures:
                future.cancel()
            wait(futures)

    def decode(self, chunks: Sequence[ChunkRead], start: int, source: Buffer) -> None:
        """Fill the targets of ``chunks``, which are in the order of their places, from the bytes of their pack that
        begin at offset ``start``. A group is decoded once for all that lie in it."""
        codec = self.workers.thread.codec
        alone: list[tuple[int, int, int, int, memoryview]] = []
        for together in by_place(chunks):
            placement = together[0].placement
            at = placement.offset - start
            if placement.codec == GROUP:
                parts = [(one.placement.width, one.target) for one in together]
                codec.decode_group(memoryview(source)[at : at + placement.csize], parts, placement.offset)
                continue
            alone.append((at, placement.csize, placement.codec, placement.width, together[0].target))
            if len(alone) == TOGETHER:
                codec.decode_each(source, alone)
                alone.clear()
        codec.decode_each(source, alone)

    def check_all(self, chunks: Sequence[ChunkRead], path: str) -> None:
        """``check`` each, but for what deltas are decoded from: what that gives is checked."""
        for wanted in chunks:
            if wanted.scratch is None:
                self.check(wanted.chunk, wanted.target, path, wanted.placement.offset)

    def check(self, chunk: ChunkRef, data: memoryview, path: str, offset: int) -> None:
        """CorruptObject, naming the place, when these bytes are not that chunk."""
        found = self.digest(data)
        if found != chunk.id:
            self.differed += 1
            raise CorruptObject(
                "chunk differs from its digest", key=path, backend=self.backend.url, offset=offset,
                expected=chunk.id.hex(), found=found.hex(),
            )  # fmt: skip
