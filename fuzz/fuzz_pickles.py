"""Mutational fuzzer of the unpickler: what it makes of damaged pickles, as a whole and in pieces, beside what CPython's
makes of them."""

from __future__ import annotations

import argparse
import base64
import datetime
import io
import pickle
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from mfstore._core.pickler import Joined
from mfstore._core.unpickler import Unpickler
from mfstore.pickling.streams import dump

MEMORY = 2 << 30
"""Address space: a length that is believed before it is checked shows as MemoryError."""
PATIENCE = 5
"""Seconds one input may take."""
MOST_FINDINGS = 20
OPCODES = b"NKMJG\x88\x89\x8a\x8b\x8cX\x8dCB\x8e\x96\x97(]})teaus\x85\x86\x87\x8f\x90\x9101Rb\x81\x92\x93\x94hj."
ERRORS = pickle.UnpicklingError, EOFError


class Fixed(type):
    """A class that no pickle changes: damaged ones give states to classes too."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise AttributeError(name)


class Plain(metaclass=Fixed):
    """Attributes in a dict."""


class Slots(metaclass=Fixed):
    """Attributes in slots."""

    __slots__ = ("p", "q")


class SetsState(metaclass=Fixed):
    """Takes its state itself."""

    def __getstate__(self) -> Any:
        return vars(self).get("state", 0)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class List(list, metaclass=Fixed):
    """Not quite a list."""


class Reduces(metaclass=Fixed):
    """What it is made from comes as an argument."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def __reduce__(self) -> Any:
        return Reduces, (self.part,), {"x": 1}


CLASSES = (Plain, Slots, SetsState, List, Reduces, datetime.datetime, datetime.date, datetime.timedelta, set)
KNOWN = {(kind.__module__, kind.__name__): kind for kind in CLASSES}


class HangError(Exception):
    """An input took longer than PATIENCE."""


class Only(pickle.Unpickler):
    """Finds a few harmless classes, whatever a damaged pickle asks for. None of numpy: a dtype does not survive every
    state that it is given."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        raise pickle.UnpicklingError("unknown")


def finder() -> Callable[[str, str], Any]:
    """What finds a class as Only does."""
    found = Only(io.BytesIO(b"\x80\x05N."))
    found.load()
    return found.find_class


def objects(pick: random.Random) -> Any:
    """A random graph with shared parts and cycles."""
    pool: list[Any] = [None, 1, 2**70, -5, 1.5, "text", "ünïcödé €", b"bytes", bytearray(b"ab"), (1, 2), ()]
    pool += [datetime.datetime(2024, 2, 29, tzinfo=None), datetime.date(2024, 1, 31), datetime.timedelta(5, 4, 3)]
    for _ in range(pick.randrange(1, 12)):
        made: Any = pick.choice((Plain, Slots, SetsState, List, list, dict, tuple, frozenset))()
        some = [pick.choice(pool) for _ in range(pick.randrange(7))]
        if isinstance(made, list):
            made += some
        elif isinstance(made, dict):
            made.update((f"key {number}", one) for number, one in enumerate(some))
        elif isinstance(made, tuple):
            made = tuple(some)
        elif isinstance(made, frozenset):
            made = {one for one in some if isinstance(one, (int, str, bytes, float))}
        elif isinstance(made, Slots):
            made.p = some
        elif isinstance(made, SetsState):
            made.state = some
        else:
            made.x, made.y = some, pick.choice(pool)
        pool.append(pick.choice((made, made, Reduces(made))))
    holders = [one for one in pool if isinstance(one, list)]
    if holders:
        pick.choice(holders).append(pool[-1])
    return pool[-1] if pick.randrange(2) else pool


def stream_of(value: Any) -> bytes:
    """Its canonical pickle."""
    joined = Joined()
    dump(value, joined)
    return joined.all()


def damaged(pick: random.Random, stream: bytes, others: list[bytes]) -> bytes:
    """With a few bytes changed, left out, or taken from elsewhere."""
    out = bytearray(stream)
    for _ in range(pick.choice((1, 1, 2, 4))):
        at = pick.randrange(2, max(3, len(out)))
        what = pick.randrange(5)
        if what == 0:
            out[at : at + 1] = bytes([pick.randrange(256)])
        elif what == 1:
            out[at : at + 1] = bytes([pick.choice(OPCODES)])
        elif what == 2:
            out[at:at] = bytes([pick.choice(OPCODES)])
        elif what == 3:
            del out[at : at + pick.randrange(1, 5)]
        else:
            other = pick.choice(others)
            low = pick.randrange(2, len(other))
            out[at:at] = other[low : low + pick.randrange(1, 30)]
    return bytes(out)


def verdict(load: Callable[[], Any]) -> Any:
    """What came out, as its own canonical pickle, or the kind of error."""
    try:
        value = load()
    except ERRORS:
        return "no pickle"
    except (HangError, MemoryError):
        raise
    except Exception as error:
        return type(error).__name__
    try:
        return stream_of(value)
    except Exception as error:
        return f"read, {type(error).__name__}"


def compare(stream: bytes, size: int) -> str:
    """AssertionError when the unpickler and CPython's differ; otherwise what both say."""
    own = Unpickler(finder)
    if not own.looks_through([stream]):
        # CPython's goes on until it meets what is wrong, with opcodes that take any amount of memory.
        return "another's"
    found = verdict(lambda: own.load([stream]))
    expected = verdict(lambda: Only(io.BytesIO(stream)).load())
    if found != expected:
        raise AssertionError(f"{found!r:.300} is not {expected!r:.300}")
    again = verdict(lambda: Unpickler(finder).load(cut(stream, size)))
    if again != expected:
        raise AssertionError(f"in pieces {again!r:.300} is not {expected!r:.300}")
    return "read" if isinstance(found, bytes) else found


def cut(stream: bytes, size: int) -> list[bytes]:
    """In pieces of ``size`` bytes."""
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def on_alarm(signum: int, frame: object) -> None:
    """A handler of SIGALRM."""
    raise HangError


def main() -> int:
    """Damage, compare, and tell what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0, help="0 for a new one")
    options = parser.parse_args()
    seed = options.seed or random.SystemRandom().randrange(1, 2**31)
    print(f"fuzz_pickles: seed {seed}", flush=True)  # noqa: T201
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGALRM, on_alarm)
    pick = random.Random(seed)
    outcomes: Counter[str] = Counter()
    findings = runs = 0
    end = time.monotonic() + options.seconds
    streams: list[bytes] = []
    while time.monotonic() < end and findings < MOST_FINDINGS:
        if runs % 1000 == 0:
            streams = [stream_of(objects(pick)) for _ in range(50)]
        stream = damaged(pick, pick.choice(streams), streams)
        runs += 1
        try:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            outcomes[compare(stream, pick.randrange(1, 20))] += 1
        except Exception as error:
            findings += 1
            print(f"\nFOUND {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
            print(f"input of {len(stream)} bytes, base64: {base64.b64encode(stream).decode()}", file=sys.stderr)  # noqa: T201
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:9}  {outcome}")  # noqa: T201
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"fuzz_pickles: {runs} inputs, {findings} findings, {peak} MiB peak")  # noqa: T201
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
