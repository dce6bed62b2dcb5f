"""The parts of saving and loading as a handle puts them together, over memory, for tests of one of them alone."""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from mfstore import errors
from mfstore._core.codec import Codec
from mfstore.backends.base import Capabilities
from mfstore.backends.memory import MemoryBackend
from mfstore.format.digests import BLAKE3, digest_function
from mfstore.format.fragments import Location
from mfstore.format.packs import PackBuilder, PackEntry, PackName, pack_path
from mfstore.host.workers import Workers
from mfstore.loading.fetch import Fetcher
from mfstore.loading.pack_reader import PackReader
from mfstore.loading.reliance import Reliance
from mfstore.loading.verified import VerifiedRanges
from mfstore.saving.context import SaveContext
from mfstore.saving.drafts import Run
from mfstore.saving.guard import Guard
from mfstore.saving.index import ChunkIndex

DIGEST = digest_function(BLAKE3)
KIB, MIB = 1 << 10, 1 << 20


class CountingBackend(MemoryBackend):
    """Memory that notes what was read of packs, and has the capabilities that a test asks for."""

    def __init__(self, **capabilities):
        super().__init__()
        self.capabilities = Capabilities(cheap_reads=True)._replace(**capabilities)
        self.reads = []

    def get_range(self, key, start, length):
        self.reads.append((key, start, length))
        return super().get_range(key, start, length)


@dataclass
class Parts:
    """Everything that one handle shares, in reach."""

    backend: CountingBackend
    workers: Workers
    index: ChunkIndex
    verified: VerifiedRanges
    reader: PackReader
    fetcher: Fetcher
    context: SaveContext


def parts(*, memory=64 * MIB, threads=1, **capabilities):
    """New ones, over an empty backend."""
    backend = CountingBackend(**capabilities)
    workers = Workers(threads)
    verified = VerifiedRanges(backend)
    reader = PackReader(backend, workers, DIGEST)
    reliance = Reliance(reader, verified)
    index = ChunkIndex(backend, DIGEST, BLAKE3, reliance.trailers)
    fetcher = Fetcher(reader, index.find_all, verified)
    context = SaveContext(
        backend=backend, workers=workers, chunk_index=index, fetcher=fetcher, reliance=reliance,
        verified=verified, guard=Guard(backend, lambda: False, verified.clear), digest=DIGEST, algorithm=BLAKE3,
        compress="balanced", memory=memory,
    )  # fmt: skip
    return Parts(backend, workers, index, verified, reader, fetcher, context)


def noise(seed, length):
    """Bytes that neither shrink nor resemble another seed's."""
    return np.random.default_rng(seed).bytes(length)


def run_of(data, *ends, held=True, hashed=False):
    """A run of opaque bytes, in one chunk unless it is cut at ``ends``."""
    run = Run(memoryview(data), [*ends] or [len(data)], 1, held)
    if hashed:
        run.ids = run.hash(DIGEST)
    return run


def stored_pack(backend, chunks):
    """Store a pack of raw chunks; its name, and where each chunk lies by its id."""
    builder = PackBuilder(BLAKE3)
    for data in chunks:
        builder.add(memoryview(data), [(DIGEST(data), len(data), len(data))], 0, 0, True)
    return _put(backend, builder)


def stored_groups(backend, groups):
    """Store a pack of groups, each a list of chunks, one of them by itself raw; as ``stored_pack``."""
    builder = PackBuilder(BLAKE3)
    for chunks in groups:
        ends = list(accumulate(map(len, chunks)))
        if len(chunks) == 1:
            builder.add(memoryview(chunks[0]), [(DIGEST(chunks[0]), ends[0], ends[0])], 0, 0, True)
            continue
        encoded, _ = Codec(errors).encode_group(b"".join(chunks), ends, 3, 2.0)
        builder.add_group(
            encoded, [(DIGEST(data), end - len(data), len(data)) for data, end in zip(chunks, ends, strict=True)]
        )
    return _put(backend, builder)


def _put(backend, builder):
    name, stored = builder.close(DIGEST)
    backend.put(pack_path(name), stored)
    pack = PackName(bytes.fromhex(name))
    return name, {entry.id: Location(pack, *entry[1:]) for entry in builder.entries}


def listed_pack(made, chunks, store=stored_pack):
    """``stored_pack``, or another such, and an index fragment that lists it."""
    name, located = store(made.backend, chunks)
    entries = [PackEntry(chunk_id, *at[1:]) for chunk_id, at in located.items()]
    key, data = made.index.make_fragment([(bytes.fromhex(name), entries)])
    made.backend.put(key, [data])
    made.index.forget()
    return name, located


def damage(backend, name, offset):
    """Flip one byte of a pack."""
    data = bytearray(backend.get(pack_path(name)))
    data[offset] ^= 0xFF
    backend.put(pack_path(name), [data])
