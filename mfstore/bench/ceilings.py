"""What this machine could do at most: hashing, codecs, loopback, disk. Measured in a second or two before the run."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from blake3 import blake3

from mfstore import errors
from mfstore._core.codec import LZ4, ZSTD, Codec
from mfstore.bench.payloads import payload
from mfstore.saving.codecs import EFFORTS
from mfstore.settings import usable_cpus

SECONDS = 0.15
"""For each. Over 0.1 s they repeat within 5 % on an idle machine."""
SAMPLE_BYTES = 4 << 20
DISK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Bytes per second. None where it was not measured."""

    cpus: int
    """That this process may use; ``_all`` means all of them at work."""
    hash_one: float
    """BLAKE3, the digest of chunks."""
    hash_all: float
    encode_lz4: float
    """One core, on bytes of which half can be removed."""
    encode_zstd: float
    decode_zstd: float
    loopback: float
    """TCP from one thread to another."""
    disk_write: float | None
    """A new file of 64 MiB, synced."""
    disk_read: float | None
    """The same file, most likely from the page cache."""


def measure_ceilings(directory: Path | None = None) -> Ceilings:
    """Of this machine, and of the file system of ``directory``. OSError when that is full."""
    cpus = usable_cpus()
    noise, half = payload(SAMPLE_BYTES, 0, "noise"), payload(SAMPLE_BYTES, 50, "half")
    codec, level = Codec(errors), EFFORTS["balanced"].plain
    encode = partial(codec.encode, half, [SAMPLE_BYTES], width=0, level=level, keep=1.0)
    packed, _ = codec.encode(half, [SAMPLE_BYTES], ZSTD, 0, level, 1.0)
    room = bytearray(SAMPLE_BYTES)
    disk = _disk(directory) if directory is not None else (None, None)
    decode = partial(codec.decode, packed, room, [(0, len(packed), ZSTD, 0, 0, SAMPLE_BYTES)])
    return Ceilings(
        cpus, _rate(lambda: blake3(noise).digest(), 1), _rate(lambda: blake3(noise).digest(), cpus),
        _rate(partial(encode, codec=LZ4), 1), _rate(partial(encode, codec=ZSTD), 1), _rate(decode, 1), _loopback(),
        *disk,
    )  # fmt: skip


def _rate(work: Callable[[], object], threads: int) -> float:
    """Bytes per second of calls that take SAMPLE_BYTES bytes each."""
    work()

    def run(_: int) -> int:
        done = 0
        while perf_counter() < deadline:
            work()
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        begin = perf_counter()
        deadline = begin + SECONDS
        return sum(pool.map(run, range(threads))) * SAMPLE_BYTES / (perf_counter() - begin)


def _loopback() -> float:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
    block = bytes(1 << 20)

    def send() -> None:
        with sender, suppress(OSError):
            while perf_counter() < deadline:
                sender.sendall(block)

    begin = perf_counter()
    deadline = begin + SECONDS
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    got, room = 0, bytearray(1 << 20)
    with receiver:
        while size := receiver.recv_into(room):
            got += size
    thread.join()
    return got / (perf_counter() - begin)


def _disk(directory: Path) -> tuple[float, float]:
    path = directory / "ceiling"
    block = payload(1 << 20, 0, "disk")
    try:
        begin = perf_counter()
        with open(path, "xb", buffering=0) as file:
            for _ in range(DISK_BYTES // len(block)):
                file.write(block)
            os.fsync(file.fileno())
        written = perf_counter() - begin
        room = bytearray(1 << 20)
        begin = perf_counter()
        with open(path, "rb", buffering=0) as file:
            while file.readinto(room):
                pass
        return DISK_BYTES / written, DISK_BYTES / (perf_counter() - begin)
    finally:
        path.unlink(missing_ok=True)
