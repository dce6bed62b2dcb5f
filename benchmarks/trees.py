"""Ten versions of a directory in mfstore, restic, borg and ``tar | zstd``: ``python -m benchmarks.trees``.

The directory is made of installed packages (texts and shared libraries), of a table as CSV and of an array of floats.
Each further version edits, adds and removes some files and appends rows. Every version is stored by a process of its
own, as a command line is, and the CPU is that of the process and of all that it starts. Restored is the last version,
and compared with what was stored. restic encrypts, which nobody can turn off; borg and the others do not.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

VERSIONS = 10
PACKAGES = ("numpy", "pandas", "click", "rich")
ROWS = 200_000
EDITED, ADDED, REMOVED = 20, 5, 5
"""Files of one version."""

PUT = """
import sys, mfstore
root, source, threads = sys.argv[1:]
with mfstore.open(root, threads=int(threads)) as store:
    store.put_tree(source, "tree", base="tree" if "tree" in store else None)
"""
GET = """
import sys, mfstore
with mfstore.open(sys.argv[1], threads=int(sys.argv[3])) as store:
    store.get_tree("tree", sys.argv[2])
"""


class Mfstore:
    needs = ()

    def __init__(self, place, threads):
        self.root, self.threads = place / "store", str(threads)

    def begin(self):
        pass

    def put(self, source, number):
        return [sys.executable, "-c", PUT, self.root, source, self.threads]

    def get(self, to, number):
        return [sys.executable, "-c", GET, self.root, to, self.threads]

    def restored(self, to, source):
        return to


class Restic:
    needs = ("restic",)

    def __init__(self, place, threads):
        self.root, self.place = place / "repository", place
        self.environment = {"RESTIC_PASSWORD": "x", "GOMAXPROCS": str(threads)}

    def _command(self, *words):
        return ["restic", "-q", "--cache-dir", self.place / "cache", "-r", self.root, *words]

    def begin(self):
        run(self._command("init"), self.environment)

    def put(self, source, number):
        return self._command("backup", source)

    def get(self, to, number):
        return self._command("restore", "latest", "--target", to)

    def restored(self, to, source):
        return to / source.relative_to("/")


class Borg:
    needs = ("borg",)

    def __init__(self, place, threads):
        self.root = place / "repository"
        self.environment = {"BORG_BASE_DIR": str(place / "home"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def begin(self):
        run(["borg", "init", "-e", "none", self.root], self.environment)

    def put(self, source, number):
        return ["borg", "create", "--compression", "zstd,3", f"{self.root}::{number}", source]

    def get(self, to, number):
        return ["sh", "-c", 'mkdir "$1" && cd "$1" && exec borg extract "$2"', "sh", to, f"{self.root}::{number}"]

    def restored(self, to, source):
        return to / source.relative_to("/")


class TarZstd:
    needs = ("tar", "zstd")

    def __init__(self, place, threads):
        self.root, self.threads = place / "archives", threads

    def begin(self):
        self.root.mkdir()

    def put(self, source, number):
        script = f'tar -C "$1" -cf - . | zstd -q -3 -T{self.threads} -o "$2"'
        return ["sh", "-c", script, "sh", source, self.root / f"{number}.tar.zst"]

    def get(self, to, number):
        script = 'mkdir "$1" && zstd -q -dc "$2" | tar -C "$1" -xpf -'
        return ["sh", "-c", script, "sh", to, self.root / f"{number}.tar.zst"]

    def restored(self, to, source):
        return to


PEERS = {"mfstore": Mfstore, "restic": Restic, "borg": Borg, "tar | zstd": TarZstd}


def run(command, environment=None):
    """Seconds of CPU and of the clock that a command takes, with all that it starts."""
    begun = time.perf_counter()
    process = subprocess.Popen([*map(str, command)], env={**os.environ, **(environment or {})})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} failed with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - begun


def stored(root):
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def make(source):
    """The first version."""
    for name in PACKAGES:
        (origin,) = importlib.util.find_spec(name).submodule_search_locations
        shutil.copytree(origin, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    numbers = np.random.default_rng(1)
    rows = numbers.integers(0, 10_000, (ROWS, 4))
    with (source / "table.csv").open("w") as file:
        file.writelines(f"{n},{a},{b},{c / 100},item {d % 700}\n" for n, (a, b, c, d) in enumerate(rows.tolist()))
    np.save(source / "weights.npy", numbers.normal(size=2_000_000).astype("f4"))


def change(source, number):
    """Make the next version of it."""
    chance = random.Random(number)
    files = sorted(path for path in source.rglob("*.py") if path.is_file())
    chosen = chance.sample(files, EDITED + REMOVED)
    for path in chosen[:EDITED]:
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        lines.insert(chance.randrange(len(lines) + 1), f"# edited in version {number}\n")
        path.write_text("".join(lines))
    for path in chosen[EDITED:]:
        path.unlink()
    for added in range(ADDED):
        text = "".join(f"value_{n} = {chance.randrange(10**6)}\n" for n in range(200))
        (source / f"added_{number}_{added}.py").write_text(text)
    with (source / "table.csv").open("a") as file:
        file.writelines(f"{n},{chance.randrange(10**4)},new\n" for n in range(500))


def snapshot(top):
    """What is to be the same, by path."""
    return {
        str(path.relative_to(top)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(top.rglob("*"))
    }


def measure(name, made, place, source, number):
    """Store this version: CPU, time, and bytes that were added."""
    before = stored(made.root) if made.root.exists() else 0
    cpu, seconds = run(made.put(source, number), getattr(made, "environment", None))
    return {"cpu": cpu, "seconds": seconds, "bytes": stored(made.root) - before}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--versions", type=int, default=VERSIONS)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    peers = {}
    for name, kind in PEERS.items():
        missing = [program for program in kind.needs if shutil.which(program) is None]
        if missing:
            print(f"without {name}: install {', '.join(missing)}", file=sys.stderr)
        else:
            peers[name] = kind
    with tempfile.TemporaryDirectory(prefix="trees-") as directory:
        top = Path(directory)
        source = top / "source"
        source.mkdir()
        make(source)
        size = sum(path.lstat().st_size for path in source.rglob("*") if path.is_file())
        count = sum(path.is_file() for path in source.rglob("*"))
        made, found = {}, {}
        for number, (name, kind) in enumerate(peers.items()):
            place = top / str(number)
            place.mkdir()
            made[name] = kind(place, options.threads)
            made[name].begin()
            found[name] = []
        for number in range(options.versions):
            if number:
                change(source, number)
            for name in peers:
                found[name].append(measure(name, made[name], top, source, number))
        expected = snapshot(source)
        for name in peers:
            to = top / f"restored {name[:3]}"
            cpu, seconds = run(made[name].get(to, options.versions - 1), getattr(made[name], "environment", None))
            if snapshot(made[name].restored(to, source)) != expected:
                sys.exit(f"{name} has restored something else")
            found[name].append({"cpu": cpu, "seconds": seconds})
            shutil.rmtree(to)
    if options.json:
        print(json.dumps({"files": count, "size": size, "threads": options.threads, "found": found}))
        return
    print(f"{count:,} files, {size / 1e6:.1f} MB; threads: {options.threads}\n")
    print("| | CPU of version 1 | bytes | CPU of the other versions, each | bytes of all of them | CPU of a restore |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, (first, *more, restore) in found.items():
        each = sum(one["cpu"] for one in more) / max(len(more), 1)
        total = sum(one["bytes"] for one in more)
        print(
            f"| {name} | {first['cpu']:.2f} s | {first['bytes'] / 1e6:.1f} MB | {each:.2f} s | {total / 1e6:.2f} MB"
            f" | {restore['cpu']:.2f} s |"
        )


if __name__ == "__main__":
    main()
