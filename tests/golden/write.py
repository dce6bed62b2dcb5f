"""Writes the golden store of this version: ``python -m tests.golden.write``. Refuses to touch one that exists.

Run it once for each release whose format or writer differs; what it wrote is then read by every later version.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

import mfstore
from mfstore.backends.local import LocalBackend
from tests.rigs.delta_stores import store_as_deltas
from tests.rigs.small_trees import small_trees

HERE = Path(__file__).parent


def objects():
    """The same objects for ever; only plain Python and numpy, so that any version of anything can compare them."""
    rng = np.random.Generator(np.random.PCG64(2013))
    words = ["alpha", "beta", "gamma", "delta"]
    return {
        "none": None,
        "nested": {"a": [1, 2.5, None, ("x", b"y")], "s": {"p", "q"}, "big": 2**100},
        "inline": [{"id": n, "word": words[n % 4]} for n in range(300)],
        "body": [f"line {n}: {words[n % 4]}" for n in range(20_000)],
        "ramp": np.arange(40_000, dtype="<i8").reshape(200, 200),
        "noise": rng.integers(0, 256, 70_000, dtype=np.uint8).tobytes(),
        "dates": np.arange(12_000).astype("<M8[s]"),
        "fortran": np.asfortranarray(np.arange(20_000, dtype="<f8").reshape(100, 200) // 7),
        "text": "ü" * 40_000,
        "mutable": bytearray(b"m" * 70_000),
        "floats": np.round(rng.normal(size=20_000), 2),
    }


def versions():
    """Pairs of an older version and what is saved with it as its base, so that it lies there as deltas; of ``notes`` two
    chunks lie in the recipe as a group. Stores written by 0.1.0 have none of them."""
    rng = np.random.Generator(np.random.PCG64(2014))
    noise = rng.integers(0, 256, 200_000, dtype=np.uint8)
    edited = noise.copy()
    edited[::20_011] ^= 1
    weights = rng.normal(size=60_000).astype("<f4")
    moved = weights * (1 + np.float32(1e-4) * rng.normal(size=60_000).astype("<f4"))
    lines = [f"row {n}: {n * n % 7919}" for n in range(20_000)]
    notes = "".join(f"note {n}: {n * n % 100}\n" for n in range(4000))
    alone = rng.integers(0, 256, 200_000, dtype=np.uint8).tobytes()
    return {
        "edited": (noise.tobytes(), edited.tobytes()),
        "moved": (weights, moved),
        "shifted": (noise.tobytes(), edited.tobytes()[:90_000] + b"inserted" + edited.tobytes()[90_000:]),
        "in the recipe": (alone, alone[:60_000] + b"inserted here" + alone[60_000:]),
        "bundle": (
            {"lines": lines, "weights": weights},
            {"lines": [*lines[:9000], "new", *lines[9000:]], "weights": moved},
        ),
        "notes": (notes.encode(), notes.encode() + b"one more"),
    }


def noted():
    """What is stored with a note, first by itself and then in a ref, and the note. Its body lies in the recipe and its
    segment in a pack, as where requests are expensive. Stores written until 0.2.0.dev0 have none of it."""
    rng = np.random.Generator(np.random.PCG64(2015))
    return {"column": rng.normal(size=20_000)}, {"auc": 0.5, "tags": ["ü", None], "of": {"n": 1}}


def directory(top):
    """A directory that is the same for ever, in a new place: files that lie together, one by itself, and one twice.
    Stores written until 0.2.0.dev1 have none."""
    rng = np.random.Generator(np.random.PCG64(2016))
    top.mkdir()
    (top / "sub" / "empty").mkdir(parents=True)
    for n in range(6):
        (top / "sub" / f"{n}.txt").write_text(f"line {n}\n" * 3000)
    (top / "large.bin").write_bytes(rng.integers(0, 256, 400_000, dtype=np.uint8).tobytes())
    (top / "again.bin").write_bytes((top / "large.bin").read_bytes())
    (top / "link").symlink_to("sub/0.txt")
    for n, path in enumerate([*sorted(top.rglob("*")), top]):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o640)
        os.utime(path, ns=(10**18 + n, 10**18 + n), follow_symlinks=False)
    os.utime(top, ns=(10**18, 10**18))
    return top


class FarAway(LocalBackend):
    """A directory whose recipes are those of S3."""

    capabilities = LocalBackend.capabilities._replace(inline=16 << 10)


def write(root):
    """Store them one by one, as a bundle, as raw bytes and under a ref, in a store whose index is a tree of all levels;
    returns the keys."""
    with small_trees(), patch("mfstore.saving.describing.user", lambda: "golden@example"):
        return _write(root)


def _write(root):
    store = mfstore.open(root)
    keys = {name: store.put(obj) for name, obj in objects().items()}
    keys["(bundle)"] = store.save(objects())
    keys["(bytes)"] = store.put_bytes(b"raw bytes " * 20_000)
    for name, (old, new) in versions().items():
        inline = name == "in the recipe"
        with mfstore.open(root, delta=not inline) as versioned:
            store_one = versioned.save if isinstance(old, dict) else versioned.put
            keys[f"(older) {name}"] = store_one(old)
            keys[f"(delta) {name}"] = store_one(new, base=keys[f"(older) {name}"])
            if inline:  # where no writer puts deltas, and every reader reads them
                store_as_deltas(versioned.backend, keys[f"(delta) {name}"], keys[f"(older) {name}"], inline=True)
    with patch("mfstore.backends.local.LocalBackend", FarAway), mfstore.open(root) as far_away:
        obj, note = noted()
        keys["(noted)"] = far_away.put(obj, note=note)
        far_away.refs.set("golden/noted", keys["(noted)"], note={**note, "auc": 0.75})
    with TemporaryDirectory() as scratch:
        keys["(tree)"] = store.put_tree(directory(Path(scratch) / "source"))
    store.refs["golden/bundle"] = keys["(bundle)"]
    return keys


if __name__ == "__main__":
    target = HERE / f"store-{mfstore.__version__}"
    if target.exists():
        sys.exit(f"{target} exists and is never written again")
    keys = write(target)
    for leftover in (".lock", ".swept", ".reserve"):
        (target / leftover).unlink(missing_ok=True)
    (HERE / f"keys-{mfstore.__version__}.json").write_text(json.dumps(keys, indent=1) + "\n")
    shutil.rmtree(target / "__pycache__", ignore_errors=True)
