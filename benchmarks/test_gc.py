"""Planning a collection of a large store: memory is bounded and time grows with the number of chunks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mfstore import description, errors
from mfstore._core.codec import Codec
from mfstore.backends.local import LocalBackend
from mfstore.format import packs, recipes
from mfstore.format.about import encode_about
from mfstore.format.digests import BLAKE3, digest_function
from mfstore.format.recipes import RAW, Artifact, ChunkRef, Placement

CHUNKS_PER_PACK = 1000
CHUNK = 64 << 10
MEMORY = 1 << 30

PLAN = """
import sys, time, mfstore
begin = time.process_time()
plan = mfstore.open(sys.argv[1]).plan_gc(grace=0)
cpu = time.process_time() - begin
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
found = plan.decision
print(plan.chunks, found.condemns.amount.recipes, found.condemns.amount.packs, len(found.repacks), cpu, peak)
"""


def write_store(root, chunks):
    """Recipes of 1000 chunks whose packs are files without contents: a plan reads recipes and lists the rest. Of every
    ten recipes nine are live, and neighbours share half of their chunks."""
    backend = LocalBackend(str(root), fsync="none")
    description.create(backend)
    digest, codec = digest_function(BLAKE3), Codec(errors)
    names = [digest(f"pack {number}".encode()) for number in range(-(-chunks // CHUNKS_PER_PACK))]
    for name in names:
        path = Path(root, packs.pack_path(name.hex()))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            os.truncate(file.fileno(), CHUNKS_PER_PACK * CHUNK)
    live = []
    with backend.batch() as batch:
        for number, first in enumerate(range(0, chunks, 500)):
            numbers = range(first, min(first + 1000, chunks))
            refs = [ChunkRef(digest(at.to_bytes(8)), CHUNK) for at in numbers]
            artifact = Artifact("", RAW, len(refs) * CHUNK, None, (), refs)
            content = recipes.encode_content(recipes.ONE, BLAKE3, [artifact])
            used = sorted({at // CHUNKS_PER_PACK for at in numbers})
            rows = {pack: row for row, pack in enumerate(used)}
            places = [
                Placement(rows[at // CHUNKS_PER_PACK], at % CHUNKS_PER_PACK * CHUNK, CHUNK, 0, 0) for at in numbers
            ]
            parts = recipes.encode(
                BLAKE3, content, encode_about(["bytes"]), [names[pack] for pack in used], places, [], codec
            )
            key = digest(content).hex()
            batch.put(recipes.recipe_path(key), parts)
            if number % 10:
                live.append(key)
        batch.commit()
    return backend, live


@pytest.mark.benchmark(group="planning a collection")
@pytest.mark.parametrize("chunks", [250_000, 1_000_000])
def test_planning(benchmark, place, chunks):
    root = place()
    backend, live = write_store(root / "store", chunks)
    # Live by refs of a thousand values each, so that reading them is part of the plan.
    for number, start in enumerate(range(0, len(live), 1000)):
        rows = [[key, 0.0] for key in live[start : start + 1000]]
        backend.put(f"refs/{number}", [json.dumps({"version": 1, "history": rows}).encode()])
    done = benchmark.pedantic(
        lambda: subprocess.run(
            [sys.executable, "-c", PLAN, root / "store"], capture_output=True, text=True, check=True
        ),
        rounds=1,
    )
    words = done.stdout.split()
    found, dropped, dropped_packs, repacks = map(int, words[:4])
    cpu, peak = float(words[4]), int(words[5])
    # Only the first recipe shares half of its chunks with nobody, and each pack has chunks of a recipe that stays.
    assert (found, dropped, dropped_packs, repacks) == (chunks - 500, chunks // 5000, 0, 0)
    assert peak <= MEMORY
    benchmark.extra_info.update(
        cpu=round(cpu, 2), mib=round(peak / (1 << 20)), us_per_chunk=round(cpu / chunks * 1e6, 2)
    )
    print(f"{chunks} chunks: {cpu:.1f} s CPU, {peak / (1 << 20):.0f} MiB")
