"""Instructions and system calls of a request: ``python -m benchmarks.instructions [FILE [SIZES]]``.

Both are counted, so a busy machine changes nothing: instructions by callgrind, the thread that asks and all others
apart, and system calls by strace. What the kernel does is in neither. Under valgrind there is no AVX-512: what is
hashed or encrypted takes other instructions there than outside, so rows of large objects compare only to themselves.
"""

import ctypes
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import floor as floors
from benchmarks.s3_peers import Work, environment

MARKS = """
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void end(void) { CALLGRIND_DUMP_STATS; CALLGRIND_STOP_INSTRUMENTATION; }
"""
VALGRIND = ["valgrind", "-q", "--tool=callgrind", "--separate-threads=yes"]
SMALL, BIG = 4 << 10, 64 << 20
COUNTS = {SMALL: 1000, BIG: 2}
WARM = {SMALL: 300, BIG: 4}
ROWS = [(size, operation, secure) for size in (SMALL, BIG) for operation in ("get", "put") for secure in (False, True)]


def main(path=None, *sizes):
    """Counts rows and prints them: of small objects, unless sizes say otherwise. Large ones take half an hour."""
    from benchmarks.test_s3 import EXIST, filled, place_of
    from tests.servers import Nginx

    found = []
    with Nginx() as server:
        filled(server)
        for size, operation, secure in ROWS:
            if str(size) not in (sizes or (str(SMALL),)):
                continue
            # As many at once as the floor has connections: none is made while it is counted.
            where = {**place_of(server, secure), "concurrency": floors.at_once(size)}
            job = {
                "peer": "mfstore", "operation": operation, "size": size, "exist": EXIST[size], "where": where,
                "count": COUNTS[size],
            }  # fmt: skip
            found.append({**job, **instructions(job), "calls": calls(job), "floor": instructions_of_floor(job)})
            print(*row(found[-1]), sep=" | ", file=sys.stderr, flush=True)
    if path:
        Path(path).write_text(json.dumps({"instructions": found}, indent=1))
    table(found)


def row(one):
    """The cells of one row of the table."""
    per, unit = (1, 1e3) if one["size"] == SMALL else (1e9 / one["size"], 1e6)
    name = f"{one['operation'].upper()} {'4 KiB' if one['size'] == SMALL else '64 MiB'}"
    what = f"{name} http{'s' if one['where']['url'].startswith('https') else ''}"
    what += ", thousands" if one["size"] == SMALL else ", millions for each GB"
    numbers = [one["main"], one["others"], one["main"] + one["others"], one["floor"]]
    many = sorted(one["calls"].items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {count * per:.2f}" for name, count in many if count * per >= 0.1)
    called = f"{sum(one['calls'].values()) * per:.1f}: {shown}"
    return [what, *(f"{number * per / unit:.1f}" for number in numbers), called]


def table(found):
    """All of it, for docs/performance.md."""
    print("\n| instructions | who asks | other threads | all | floor | system calls |\n|---|--:|--:|--:|--:|---|")
    for one in found:
        print("| " + " | ".join(row(one)) + " |")


# ---- instructions ----------------------------------------------------------------------------------------


def instructions(job):
    """Of the thread that asks, and of all others, for each request."""
    with tempfile.TemporaryDirectory() as place:
        source, library = Path(place, "marks.c"), Path(place, "marks.so")
        source.write_text(MARKS)
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", source, "-o", library], check=True)
        command = [
            *VALGRIND, "--instr-atstart=no", f"--callgrind-out-file={place}/out", sys.executable, "-m",
            "benchmarks.instructions", "work", json.dumps({**job, "marks": str(library)}),
        ]  # fmt: skip
        subprocess.run(command, env=environment(job["where"]), check=True, timeout=600)
        # What is dumped upon demand is the thread's that demands it, who ends tells of all.
        main = total_of(Path(place).glob("out.1-01"))
        others = total_of(path for path in Path(place).glob("out-*") if path.name != "out-01")
    return {"main": main / job["count"], "others": others / job["count"]}


def total_of(dumps):
    """What callgrind counted in these."""
    return sum(int(re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)[1]) for dump in dumps)


def instructions_of_floor(job):
    """Of the minimal client, by what three times as many requests take more: for each request."""

    def total(count):
        with tempfile.TemporaryDirectory() as place:
            command = floors.command(job["where"], job["operation"], job["size"], job["exist"], count, rounds=1)
            out = f"--callgrind-out-file={place}/out"
            subprocess.run(
                [*VALGRIND, out, *command], env=floors.environment(job["where"]), check=True, timeout=600,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            return total_of(Path(place).glob("out-*"))

    few, many = job["count"], job["count"] * 3
    return (total(many) - total(few)) / (many - few)


def work(job):
    """In a process of its own: makes ready, and has callgrind count one portion."""
    asked = Work(job)
    asked(asked.portion(WARM[job["size"]]))
    portion = asked.portion(job["count"])
    if "marks" in job:
        marks = ctypes.CDLL(job["marks"])
        marks.begin()
        asked(portion)
        marks.end()
    else:
        asked(portion)
    asked.peer.close()


# ---- system calls ----------------------------------------------------------------------------------------


def calls(job):
    """By name, for each request: what three times as many requests take more."""

    def counted(count):
        with tempfile.NamedTemporaryFile() as told:
            command = [
                "strace", "-f", "-c", "-U", "name,calls", "-o", told.name, sys.executable, "-m",
                "benchmarks.instructions", "work", json.dumps({**job, "count": count}),
            ]  # fmt: skip
            subprocess.run(command, env=environment(job["where"]), check=True, timeout=600)
            lines = [line.split() for line in Path(told.name).read_text().splitlines()]
        return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit() and line[0] != "total"}

    few, many = counted(job["count"]), counted(job["count"] * 3)
    return {name: (count - few.get(name, 0)) / (job["count"] * 2) for name, count in many.items()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(json.loads(sys.argv[2]))
    else:
        main(*sys.argv[1:])
