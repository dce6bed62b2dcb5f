"""Mutational fuzzer of the decoders in Python: recipes, packs, index fragments, manifests, the configuration, refs.

Starts from objects a store really wrote, damages them, and in half of the cases seals them again: a decoder
that is only ever stopped by its checksum has not been tested. Only ``MfstoreError`` may come out.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import mfstore
from mfstore import description, errors
from mfstore._core.codec import CHUNK_LIMIT, DELTAS, ZSTD, Codec
from mfstore._core.memory import xxh3
from mfstore.backends.memory import MemoryBackend
from mfstore.errors import MfstoreError
from mfstore.format import description as description_format
from mfstore.format import fragments, manifest, packs, recipes, tree
from mfstore.format.manifest import Omitted, TreeEntry

MEMORY = 2 << 30
"""Address space: a length that is believed before it is checked shows as MemoryError."""
PATIENCE = 5
"""Seconds one input may take."""
MOST_FINDINGS = 20

NUMBERS = (0, 1, 2, 3, 31, 32, 33, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1,
           2**63, 2**64 - 1)  # fmt: skip
WORDS = (
    b"[", b"]", b"{", b"}", b'"', b",", b":", b"null", b"true", b"-1", b"1e999", b"NaN",
    b"\\ud800", b"\xff\xfe", b"9" * 5000, b"9" * 400, b"[" * 3000, b'{"a":' * 3000, b"types", b'{"types":[]}',
    b"MFSR", b"MFSC", b"MFSP", b"MFSE", b"MFSI", b"\x28\xb5\x2f\xfd",
)  # fmt: skip


class HangError(Exception):
    """An input took longer than PATIENCE."""


class Fuzzer:
    """One generator, so that a seed says everything about a run."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.codec = Codec(errors)
        self._collect()

    def _collect(self) -> None:
        """Valid objects, from a store in memory, without what differs from run to run."""
        noise = random.Random(7)
        self.store = mfstore.open("memory://", threads=1)
        backend = self.store.backend
        assert isinstance(backend, MemoryBackend)
        self.backend = backend
        small = {"a": 1, "text": "word " * 400, "nested": [{"x": i} for i in range(200)]}
        numbers = struct.pack("<20000q", *range(20000))
        self.objects: dict[str, Any] = {}
        self.bases: dict[str, str] = {}
        """Artifacts that were saved with a base, so that their recipes have deltas, and what that is."""
        for obj in (None, small, numbers, bytearray(numbers), "t" * 5000, noise.randbytes(3000)):
            self.objects[self.store.put(obj)] = obj
        old = noise.randbytes(300_000)
        edited, moved = bytearray(old), bytearray(old)
        for at in range(0, len(old), 5000):
            edited[at] ^= 1
        moved[::4] = noise.randbytes(len(moved[::4]))
        for obj, new in ((old, bytes(edited)), (bytes(edited), old[:9] + old), (old, bytes(moved))):
            base = self.store.put(obj)
            self.objects[base] = obj
            key = self.store.put(new, base=base)
            self.objects[key], self.bases[key] = new, base
        for bundle in (
            {},
            {"x": 1},
            small,
            {"big": noise.randbytes(400_000), "rows": numbers, "same": numbers, "ünï": [1.5] * 3000},
            {f"name{i}": noise.randbytes(1500) for i in range(20)},
        ):
            self.objects[self.store.save(bundle)] = bundle
        for key in self.objects:
            self.store.refs["some/ref"] = key
        self.recipes = {k: bytes(backend.get(recipes.recipe_path(k))) for k in self.objects}
        self.packs = [self._fixed_nonce(bytes(backend.get(info.key))) for info in backend.list("packs/")]
        self.fragments = [bytes(backend.get(info.key)) for info in backend.list("index/")]
        self.nodes = {
            name: tree.encode_node(name, tree.divided(name, marks), 1, bytes(tree.SIZES) if name == tree.ROOT else b"")
            for name in (tree.ROOT, tree.NodeName(1, 7), tree.NodeName(2, 4095))
            for marks in [[self.random.randbytes(tree.MARK) for _ in range(100)]]
        }
        entries = [TreeEntry("", manifest.DIRECTORY, 0o755, 10**18)]
        entries += [TreeEntry(path, manifest.DIRECTORY, 0o700, n) for n, path in enumerate(("a", "a/b", "c", "a/b/d"))]
        entries += [TreeEntry(f"a/l{n}", manifest.LINK, 0o777, -n, target="../" * n + "x") for n in range(3)]
        digests = [noise.randbytes(32) for _ in range(4)]
        entries += [
            TreeEntry(f"a/b/{n}.txt", manifest.FILE, 0o644, n, 100 + n % 4, digests[n % 4]) for n in range(12)
        ]  # fmt: skip
        left = [Omitted("a/s", "socket"), Omitted("c/é", "vanished")]
        self.manifests = [manifest.encode(entries, left), manifest.encode(entries[:1], [])]
        document = json.loads(backend.get(description_format.PATH))
        document["uuid"] = "0f5b0e3c-6a51-4d6e-9d1e-0a4c5f1b7e21"
        self.config = json.dumps(document, indent=2).encode()
        self.ref_path = next(backend.list("refs/")).key
        document = json.loads(backend.get(self.ref_path))
        document["history"] = [[row[0], 1700000000.5 + i] for i, row in enumerate(document["history"])]
        self.ref = json.dumps(document).encode()
        self.config_backend = MemoryBackend()
        # Files are read by other code than memory, with allocations of its own.
        self.directory = tempfile.TemporaryDirectory(prefix="mfstore-fuzz-")
        self.local = mfstore.open(self.directory.name, threads=1, fsync="none")
        for key, obj in self.objects.items():
            bundle = recipes.decode(self.recipes[key], self.codec).kind == recipes.BUNDLE
            if (self.local.save(obj) if bundle else self.local.put(obj, base=self.bases.get(key))) != key:
                raise AssertionError("equal content has two keys")
        self.local_recipes = {k: bytes(self.local.backend.get(recipes.recipe_path(k))) for k in self.objects}
        codecs = {
            place.codec for data in self.recipes.values() for place in recipes.decode(data, self.codec).placements
        }
        assert self.packs and self.fragments and codecs >= set(DELTAS)

    def close(self) -> None:
        self.local.close()
        self.store.close()
        self.directory.cleanup()

    @staticmethod
    def _fixed_nonce(pack: bytes) -> bytes:
        size = packs.FOOTER.size
        fields = packs.FOOTER.unpack(pack[-size:])
        trailer = pack[fields[6] : -size]
        return pack[:-size] + packs.encode_footer(fields[4], fields[3], fields[6], bytes(16), trailer, fields[5])

    # ---- mutation ---------------------------------------------------------------------

    def mutate(self, data: bytes, donors: list[bytes] | None = None) -> bytes:
        """A few changes of bytes, numbers and lengths."""
        damaged = bytearray(data)
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 8))):
            self._change(damaged, donors)
        return bytes(damaged)

    def _change(self, data: bytearray, donors: list[bytes] | None) -> None:
        pick = self.random
        at = self._place(len(data))
        kind = pick.randrange(9)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << pick.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = pick.randrange(256)
        elif kind == 2:
            data[at:at] = pick.randbytes(pick.choice((1, 2, 7, 32, 36, 56, 64)))
        elif kind == 3:
            del data[at : at + pick.choice((1, 2, 7, 24, 32, 36, 56, 1000))]
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            # Fields are little-endian and mostly aligned: a number in place of another.
            size = pick.choice((1, 2, 4, 8))
            number = pick.choice((*NUMBERS, pick.randrange(2 * len(data) + 2), len(data)))
            data[at // size * size : at // size * size + size] = (number % 256**size).to_bytes(size, "little")
        elif kind == 6:
            donor = pick.choice(donors) if donors else bytes(data)
            start = pick.randrange(len(donor) + 1)
            length = pick.choice((1, 8, 36, 56, 500, len(donor)))
            end = at + (length if pick.randrange(2) else 0)
            data[at:end] = donor[start : start + length]
        elif kind == 7:
            data[at:at] = data[at : at + pick.choice((1, 16, 36, 56))] * pick.choice((1, 2, 50, 3000))
        else:
            data[at:at] = pick.choice(WORDS)

    def _place(self, length: int) -> int:
        # Headers are at the beginning and footers at the end; most of the middle is payload.
        near = self.random.randrange(3)
        if near == 0:
            return self.random.randrange(min(length, 96) + 1)
        if near == 1:
            return length - self.random.randrange(min(length, 160) + 1)
        return self.random.randrange(length + 1)

    def half(self) -> bool:
        return bool(self.random.randrange(2))

    # ---- recipes ----------------------------------------------------------------------

    def _recipe_bytes(self) -> tuple[str, bytes]:
        key = self.random.choice(list(self.recipes))
        data = self.recipes[key]
        donors = list(self.recipes.values())
        if self.half():
            return key, self.mutate(data, donors)
        if self.half():
            return key, self._reseal_recipe(self.mutate(data, donors))
        return key, self._rebuild_recipe(data, self.random.randrange(6))

    def _reseal_recipe(self, data: bytes) -> bytes:
        """Lengths and seal of bytes that were changed anywhere."""
        size = recipes.HEADER.size
        if len(data) < size:
            return data
        fields = list(recipes.HEADER.unpack_from(data))
        if self.random.randrange(4):
            fields[0], fields[1] = recipes.MAGIC, recipes.VERSION
            fields[9] = min(fields[9], len(data) - size)
            fields[10] = len(data) - size - fields[9]
            if not fields[2] & recipes.COMPRESSED:
                fields[11] = fields[10]
        return self._seal_recipe(fields, data[size:])

    def _seal_recipe(self, fields: list[Any], rest: bytes) -> bytes:
        header = recipes.HEADER.pack(*fields[:-1], 0)
        seal = recipes._seal(header, rest[: fields[10]])
        return recipes.HEADER.pack(*fields[:-1], seal) + rest

    def _rebuild_recipe(self, data: bytes, part: int) -> bytes:
        """One of content, description, packs, placements, bases with their pieces, and inline bytes changed; all
        lengths right."""
        sections, fields = self.split_recipe(data)
        sections[part] = self.mutate(sections[part])
        return self.join_recipe(sections, fields)

    def split_recipe(self, data: bytes) -> tuple[list[bytes], list[Any]]:
        size = recipes.HEADER.size
        fields = list(recipes.HEADER.unpack_from(data))
        flags, content, about, n_packs = fields[2], fields[5], fields[6], fields[7]
        stored, length = fields[10], fields[11]
        tables = data[size : size + stored]
        if flags & recipes.COMPRESSED:
            unpacked = bytearray(length)
            self.codec.decode(tables, unpacked, [(0, stored, ZSTD, 0, 0, length)])
            tables = bytes(unpacked)
        places = content + about + 32 * n_packs
        ends = [0, content, content + about, places, places + recipes.PLACEMENT.size * fields[8], len(tables)]
        sections = [tables[ends[i] : ends[i + 1]] for i in range(5)]
        return [*sections, data[size + stored :]], fields

    def join_recipe(self, sections: list[bytes], fields: list[Any]) -> bytes:
        content, about, names, places, older, inline = sections
        # What is left over after whole entries goes where it can be: the lengths must add up.
        names = names[: len(names) // 32 * 32]
        places = places[: len(places) // recipes.PLACEMENT.size * recipes.PLACEMENT.size]
        tables = b"".join((content, about, names, places, older))
        stored, flags = tables, recipes.BASES if older else 0
        if tables and self.half():
            squeezed, sizes = self.codec.encode(tables, [len(tables)], ZSTD, 0, 1, 1.5)
            if sizes[0]:
                stored, flags = bytes(squeezed), flags | recipes.COMPRESSED
        fields = [*fields]
        fields[2] = flags
        fields[5:12] = [len(content), len(about), len(names) // 32, len(places) // recipes.PLACEMENT.size,
                        len(inline), len(stored), len(tables)]  # fmt: skip
        return self._seal_recipe(fields, stored + inline)

    def recipe(self) -> Callable[[], object]:
        key, data = self._recipe_bytes()
        expected = bytes.fromhex(key) if self.half() else None

        def work() -> None:
            literal = recipes.literal_of(data, key)
            decoded = recipes.decode(data, self.codec, expected)
            if literal is not None and [literal] != [artifact.literal for artifact in decoded.artifacts]:
                raise AssertionError("what is taken from a recipe without its seal is something else")
            # What every caller relies on without looking again.
            count = sum(len(artifact.chunks) for artifact in decoded.artifacts)
            if count != len(decoded.placements) or len(decoded.described.types) != len(decoded.artifacts):
                raise AssertionError("decoded recipe is inconsistent")
            for artifact in decoded.artifacts:
                placed = artifact.size if artifact.literal is None else 0
                if sum(chunk.usize for chunk in artifact.chunks) != placed:
                    raise AssertionError("decoded artifact is inconsistent")

        return self._keep(data, work)

    def load(self) -> Callable[[], object]:
        """A whole, verified read: the right object or an error, whatever the recipe says of places."""
        key = self.random.choice(list(self.recipes))
        store, kept = (self.store, self.recipes) if self.half() else (self.local, self.local_recipes)
        data = self._rebuild_recipe(kept[key], self.random.choice((2, 3, 4, 5)))

        def work() -> None:
            path = recipes.recipe_path(key)
            store.backend.put(path, [data])
            try:
                found = store.get(key, verify=True)
            finally:
                store.backend.put(path, [kept[key]])
            if found != self.objects[key]:
                raise AssertionError("a damaged recipe gave another object")

        return self._keep(data, work)

    # ---- packs ------------------------------------------------------------------------

    def pack(self) -> Callable[[], object]:
        data = self.random.choice(self.packs)
        size = packs.FOOTER.size
        fields = packs.FOOTER.unpack(data[-size:])
        algorithm, count, pieces, at, nonce = *fields[3:6], *fields[6:8]
        trailer = data[at:-size]
        # The chunks are no concern of these decoders: only their length counts.
        if self.half():
            tail = self.mutate(trailer + data[-size:], self.packs)
            length = at + len(tail)
        else:
            if self.half():
                trailer = self.mutate(trailer, self.packs)
            if self.half():
                pieces = pieces if self.half() else self.random.randrange(4)
                count = max(0, len(trailer) - pieces * packs.PIECE.size) // packs.ENTRY.size
            else:
                count = self.random.choice((*NUMBERS, count)) % 2**32
            if self.random.randrange(4) == 0:
                at = self.random.choice((*NUMBERS, at - 1, at + 1))
            footer = bytearray(packs.encode_footer(count, algorithm, at, nonce, trailer, pieces))
            if self.random.randrange(4) == 0:
                footer = bytearray(self.mutate(bytes(footer)))
                footer[-8:] = xxh3(bytes(footer[:-8])).to_bytes(8, "little")
            tail = trailer + bytes(footer)
            length = self.random.choice((fields[6], at)) + len(tail)

        def work() -> None:
            footer = tail[-size:]
            start, _ = packs.decode_footer(footer, length)
            # As a reader does: the trailer is what lies between, and may be shorter than promised.
            trailer = tail[max(0, len(tail) - (length - start)) : len(tail) - size]
            for entry in packs.decode_trailer(trailer, footer, start):
                if entry.offset + entry.csize > start:
                    raise AssertionError("entry lies outside the chunks")
            for found in packs.decode_pieces(trailer, footer).values():
                if not found or any(not 0 < piece.length <= CHUNK_LIMIT - piece.start for piece in found):
                    raise AssertionError("piece lies outside a chunk")

        return self._keep(tail, work)

    # ---- index ------------------------------------------------------------------------

    def fragment(self) -> Callable[[], object]:
        data = self.random.choice(self.fragments)
        if self.half():
            data = self.mutate(data, self.fragments)
        elif self.half():
            data = self._reseal_fragment(self.mutate(data, self.fragments))
        else:
            data = self._rebuild_fragment(data)

        def work() -> None:
            decoded = fragments.decode_fragment(data, "index/fuzz")
            for position in range(len(decoded)):
                decoded.location(position)
            fragments.merge_fragments([decoded], 1)

        def merge() -> None:
            # Apart from location, which would raise first.
            fragments.merge_fragments([fragments.decode_fragment(data, "index/fuzz")], 1)

        return self._keep(data, work if self.half() else merge)

    def _reseal_fragment(self, data: bytes) -> bytes:
        size = fragments.HEADER.size
        if len(data) < size:
            return data
        fields = list(fragments.HEADER.unpack_from(data))
        if self.random.randrange(4):
            fields[0], fields[1] = fragments.MAGIC, fragments.VERSION
            rows, left = divmod(max(len(data) - size - 32 * fields[4], 0), fragments.ENTRY.size)
            fields[6] = rows
            data = data[: len(data) - left]
        header = fragments.HEADER.pack(*fields[:-1], 0)[:-8]
        seal = xxh3(header + xxh3(data[size:]).to_bytes(8, "little"))
        return fragments.HEADER.pack(*fields[:-1], seal) + data[size:]

    def _rebuild_fragment(self, data: bytes) -> bytes:
        """Whole rows and names, changed; mostly still sorted."""
        fields = fragments.HEADER.unpack_from(data)
        start = fragments.HEADER.size + 32 * fields[4]
        width = fragments.ENTRY.size
        names, rows = data[fragments.HEADER.size : start], data[start:]
        if self.half():
            names = self.mutate(names)
        if self.half():
            rows = self.mutate(rows)
        table = [rows[i : i + width] for i in range(0, len(rows) // width * width, width)]
        if self.random.randrange(4):
            table = [row for _, row in sorted({row[:32]: row for row in table}.items())]
        whole = [names[i : i + 32] for i in range(0, len(names) // 32 * 32, 32)]
        return fragments._seal(whole, table, fields[3])

    def node(self) -> Callable[[], object]:
        name = self.random.choice(list(self.nodes))
        data = self.mutate(self.nodes[name], list(self.nodes.values()))
        if self.half() and len(data) >= tree.HEADER.size:
            data = self._reseal_node(data, name)
        at = self.random.randrange(len(data) + 1)

        def work() -> None:
            node = tree.decode_node(data, name)
            for bucket in node.buckets:
                for mark in bucket.split():
                    list(bucket.packs(mark))
            tree.encode_node(name, [bucket.split() for bucket in node.buckets], 1, node.sizes)

        def bucket() -> None:
            tree.decode_bucket(data[at:], name, 3)

        return self._keep(data, work if self.random.randrange(4) else bucket)

    def _reseal_node(self, data: bytes, name: tree.NodeName) -> bytes:
        """Header and buckets with seals that are right, as far as there are any."""
        fields = list(tree.HEADER.unpack_from(data))
        fields[0], fields[1], fields[2], fields[6] = tree.MAGIC, tree.VERSION, *name
        root = name == tree.ROOT
        sizes = data[tree.HEADER.size : tree.HEADER.size + tree.SIZES] if root else b""
        fields[7] = tree._seal_of_header(tree.HEADER.pack(*fields[:-1], 0), sizes)
        out = bytearray(data)
        out[: tree.HEADER.size] = tree.HEADER.pack(*fields)
        start = tree.HEADER.size + len(sizes)
        for number in range(tree.FANOUT):
            at = start + number * fields[5]
            if at + tree.BUCKET.size > len(out):
                break
            count = tree.BUCKET.unpack_from(out, at)[0]
            marks = bytes(out[at + tree.BUCKET.size : at + tree.BUCKET.size + count * tree.MARK])
            if len(marks) == count * tree.MARK:
                out[at : at + tree.BUCKET.size] = tree.BUCKET.pack(count, tree._seal_of_bucket(name, number, marks))
        return bytes(out)

    # ---- trees ------------------------------------------------------------------------

    def manifest(self) -> Callable[[], object]:
        data = self.mutate(self.manifests[0], self.manifests)

        def work() -> None:
            found = manifest.decode(data)
            kinds = {}
            for entry in found.entries:
                parts = entry.path.split("/") if entry.path else []
                above = kinds.get("/".join(parts[:-1])) if parts else manifest.DIRECTORY
                if not {"", ".", ".."}.isdisjoint(parts) or "\0" in entry.path or above != manifest.DIRECTORY:
                    raise AssertionError("a path leads out of its tree")
                if entry.path in kinds or not 0 <= entry.offset <= entry.offset + entry.size <= found.size:
                    raise AssertionError("an entry comes twice, or lies outside the contents")
                kinds[entry.path] = entry.kind
            if manifest.decode(manifest.encode(found.entries, found.omitted)) != found:
                raise AssertionError("a manifest is not read as it is written")

        return self._keep(data, work)

    # ---- JSON -------------------------------------------------------------------------

    def configuration(self) -> Callable[[], object]:
        data = self._json(self.config)

        def work() -> None:
            self.config_backend.put(description_format.PATH, [data])
            found = description.load(self.config_backend)
            if found is None:
                raise AssertionError("a configuration that is there was not found")
            for operation in description_format.OPERATIONS:
                try:
                    found.require(operation, "memory://fuzz")
                except MfstoreError as error:
                    str(error)

        return self._keep(data, work)

    def refs(self) -> Callable[[], object]:
        data = self._json(self.ref)

        def work() -> None:
            self.backend.put(self.ref_path, [data])
            try:
                self.store.refs.history("some/ref")
            finally:
                self.backend.put(self.ref_path, [self.ref])

        return self._keep(data, work)

    def _json(self, data: bytes) -> bytes:
        if self.half():
            return self.mutate(data)
        document = json.loads(data)
        for _ in range(self.random.choice((1, 1, 2, 4))):
            self._replace(document)
        return json.dumps(document).encode()

    def _replace(self, node: Any) -> None:
        """Another value somewhere: what checksums cannot protect, types must."""
        pick = self.random
        while True:
            places = list(node) if isinstance(node, dict) else range(len(node))
            if not places:
                return
            place = pick.choice(list(places))
            if isinstance(node[place], (dict, list)) and node[place] and pick.randrange(3):
                node = node[place]
                continue
            if pick.randrange(6) == 0:
                del node[place]
            else:
                node[place] = pick.choice(
                    (None, True, 0, -1, 10**400, 1e308, float("inf"), "", "x", "\ud800", [], {}, [[]], [None],
                     {"a": 1}, ["x", 1], "sha256", "md5", [["x"]], 2, 1.0)
                )  # fmt: skip
            return

    # ---- running ----------------------------------------------------------------------

    def _keep(self, data: bytes, work: Callable[[], object]) -> Callable[[], object]:
        self.last = data
        return work

    def targets(self) -> list[Callable[[], Callable[[], object]]]:
        often = [self.recipe, self.recipe, self.recipe]
        return [*often, self.load, self.pack, self.fragment, self.node, self.manifest, self.configuration,
                self.refs]  # fmt: skip


def where(error: BaseException) -> str:
    """The innermost line of mfstore's own code: what makes findings different."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "mfstore" in frame.filename and "fuzz" not in frame.filename]
    frame = (own or frames)[-1]
    return f"{type(error).__name__} at {frame.filename.rpartition('/')[2]}:{frame.lineno}"


def on_alarm(signum: int, frame: object) -> None:
    raise HangError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0, help="0 for a new one")
    parser.add_argument("--runs", type=int, default=0, help="stop after so many inputs; 0 for no limit")
    options = parser.parse_args()
    seed = options.seed or random.SystemRandom().randrange(1, 2**31)
    print(f"fuzz_tables: seed {seed}", flush=True)  # noqa: T201
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGALRM, on_alarm)
    fuzzer = Fuzzer(seed)
    targets = fuzzer.targets()
    outcomes: Counter[str] = Counter()
    seen: set[str] = set()
    end = time.monotonic() + options.seconds
    runs = 0
    while time.monotonic() < end and (not options.runs or runs < options.runs) and len(seen) < MOST_FINDINGS:
        target = targets[fuzzer.random.randrange(len(targets))]
        work = target()
        runs += 1
        try:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            work()
            outcomes[f"{target.__name__}: accepted"] += 1
        except MfstoreError as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            outcomes[f"{target.__name__}: {re.sub('[0-9]+', 'N', error.message)[:70]}"] += 1
        except Exception as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            label = f"{target.__name__}: {where(error)}"
            if label not in seen:
                seen.add(label)
                print(f"\nFOUND {label}, seed {seed}, input {runs}", file=sys.stderr)  # noqa: T201
                traceback.print_exception(error, limit=-4)
                shown = base64.b64encode(fuzzer.last[:3000]).decode()
                print(f"input of {len(fuzzer.last)} bytes, base64: {shown}", file=sys.stderr)  # noqa: T201
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:9}  {outcome}")  # noqa: T201
    fuzzer.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"fuzz_tables: {runs} inputs, {len(seen)} findings, {peak} MiB peak")  # noqa: T201
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
