"""A directory as a place for a store or a root: what its file system can do, and what this user may do there."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mfstore.display.amounts import size
from mfstore.doctor.findings import Finding
from mfstore.doctor.tried import SCRATCH
from mfstore.host.file_systems import file_system, on_network
from mfstore.host.permissions import refused_because

FEW_INODES = 10_000
LITTLE = 1 << 30
BODY = b"mfstore doctor was here; this file may be deleted\n"
USES: Mapping[str, str] = {
    "list": "to list",
    "read": "to load",
    "put": "to save",
    "put-if-new": "to create a store, and refs",
    "sync": "to be sure that what is saved is on disk",
    "rename": "to save: a file appears whole, under its name",
    "rename-no-replace": "to set refs, unless somebody else did; else a file takes the name first",
    "lock": "to keep processes of one machine apart; else by what lies in the directory alone",
    "delete": "to collect, and to remove temporary files",
}
"""What is tried, and what it is needed for."""


def place(root: Path) -> Iterator[Finding]:
    """The directory and its file system."""
    there = next((path for path in (root, *root.parents) if path.is_dir()), None)
    if root.exists() and not root.is_dir():
        yield Finding("directory", f"{root} is no directory", "broken", "Name another place")
        return
    if there is None:
        yield Finding("directory", f"{root}: nothing of it may be seen", "broken", "Check its path and its owner")
        return
    if there != root:
        yield Finding("directory", f"{root} does not exist; the first save makes it", facts={"exists": False})
    else:
        info = root.stat()
        mode = f"{info.st_uid}:{info.st_gid}, mode {info.st_mode & 0o7777:04o}"
        yield Finding("directory", f"{root}, which belongs to {mode}", facts={"exists": True})
    kind = file_system(str(there)) or "of an unknown type"
    facts = {"type": kind, "network": on_network(str(there))}
    if facts["network"]:
        yield Finding(
            "file system", f"{kind}: other machines write to it as well", "doubtful",
            "It works; syncing costs more, and arrays are not mapped. Locks of other machines are not relied on",
            facts=facts,
        )  # fmt: skip
    else:
        yield Finding("file system", kind, facts=facts)
    yield room(str(there))


def room(where: str) -> Finding:
    """Bytes and files that it still takes."""
    free = shutil.disk_usage(where).free
    found = os.statvfs(where)
    facts = {"bytes": free, "inodes": found.f_favail if found.f_files else None}
    text = f"{size(free)} free" + (f", {found.f_favail:,} inodes" if found.f_files else "")
    if free < LITTLE or (found.f_files and found.f_favail < FEW_INODES):
        hint = "Make room: what was stored stays whole on a full disk, and nothing new is taken"
        return Finding("room", text, "doubtful", hint, facts=facts)
    return Finding("room", text, facts=facts)


def tried(root: Path) -> Iterator[Finding]:
    """What this user may do there, tried on files of its own in a directory of its own that is removed again."""
    if not root.is_dir():
        parent = next((path for path in root.parents if path.is_dir()), Path(root.anchor))
        yield _asked("make it", parent, os.access(parent, os.W_OK | os.X_OK))
        return
    yield _done("list", root, lambda: _list_one(root))
    yield _done("read", root, lambda: _read_one(root))
    scratch = root / f"{SCRATCH}{os.urandom(8).hex()}"
    put = _done("put", scratch, lambda: _put(scratch))
    yield put
    if put.state != "fine":
        yield _as_a_whole(False)
        return
    try:
        yield from _in_scratch(scratch)
    finally:
        gone = _done("delete", scratch, lambda: shutil.rmtree(scratch))
        if gone.state != "fine":
            with suppress(OSError):
                shutil.rmtree(scratch, ignore_errors=True)
    yield gone if gone.state == "fine" else gone._replace(text=f"{gone.text}; {scratch} stays")
    yield _as_a_whole(True)


def _put(scratch: Path) -> None:
    scratch.mkdir()
    (scratch / "file").write_bytes(BODY)
    if (scratch / "file").read_bytes() != BODY:
        raise OSError(errno.EIO, "other bytes came back than were written")


def _list_one(root: Path) -> None:
    with os.scandir(root) as found:
        next(found, None)


def _read_one(root: Path) -> None:
    """Read a byte of the first file that is found; without one there is nothing that could be refused."""
    for number, (folder, _, files) in enumerate(os.walk(root, onerror=_raise)):
        for name in files:
            with (Path(folder) / name).open("rb") as file:
                file.read(1)
            return
        if number == 100:
            return


def _raise(error: OSError) -> None:
    raise error


def _in_scratch(scratch: Path) -> Iterator[Finding]:
    file = scratch / "file"

    def exclusive() -> None:
        os.close(os.open(scratch / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        with suppress(FileExistsError):
            os.close(os.open(scratch / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            raise OSError(errno.ENOTSUP, "a file was made twice")

    def sync() -> None:
        for path in (file, scratch):
            opened = os.open(path, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)

    def lock() -> None:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def rename() -> None:
        (scratch / "other").write_bytes(b"1")
        file.replace(scratch / "other")
        (scratch / "other").replace(file)

    def no_replace() -> None:
        from mfstore.host.file_systems import move_new

        (scratch / "taken").write_bytes(b"1")
        with suppress(FileExistsError):
            move_new(file, scratch / "taken")
            raise OSError(errno.ENOTSUP, "a file was replaced that should not be")

    acts: Mapping[str, Callable[[], None]] = {
        "put-if-new": exclusive, "sync": sync, "rename": rename, "rename-no-replace": no_replace, "lock": lock
    }  # fmt: skip
    for name, act in acts.items():
        yield _done(name, scratch, act)
    yield _names(scratch)
    yield _links(scratch)


def _names(scratch: Path) -> Finding:
    (scratch / "case").write_bytes(b"")
    if (scratch / "CASE").exists():
        return Finding(
            "names", "upper and lower case are the same", "doubtful",
            "Refs and flows whose names differ by case alone take each other's place", facts={"case": False},
        )  # fmt: skip
    return Finding("names", "upper and lower case are told apart", facts={"case": True})


def _links(scratch: Path) -> Finding:
    try:
        os.link(scratch / "file", scratch / "link")
    except OSError as error:
        return Finding("hard links", f"none ({error.strerror}); mfstore does without", "absent", facts={"links": False})
    return Finding("hard links", "yes; mfstore does without", facts={"links": True})


def _done(name: str, where: Path, act: Callable[[], object]) -> Finding:
    begin = time.perf_counter()
    facts = {"use": USES[name]}
    try:
        act()
    except PermissionError as error:
        why, hint = refused_because(str(error.filename or where), error.errno or errno.EACCES)
        return Finding(name, f"refused: {why}", "refused", hint, facts={**facts, "answer": "refused"})
    except OSError as error:
        if error.errno == errno.EROFS:
            why, hint = refused_because(str(where), errno.EROFS)
            return Finding(name, f"refused: {why}", "refused", hint, facts={**facts, "answer": "refused"})
        if name in ("lock", "rename-no-replace"):
            return Finding(name, f"not offered here: {error.strerror}", "absent", facts={**facts, "answer": "absent"})
        return Finding(name, f"failed: {error}", "broken", facts={**facts, "answer": "failed"})
    milliseconds = 1000 * (time.perf_counter() - begin)
    return Finding(
        name, f"{'allowed':17}{USES[name]}", facts={**facts, "answer": "allowed", "milliseconds": milliseconds}
    )


def _asked(name: str, where: Path, may: bool) -> Finding:
    if may:
        return Finding(name, f"allowed          in {where}", facts={"answer": "allowed"})
    why, hint = refused_because(str(where / "new"), errno.EACCES)
    return Finding(name, f"refused: {why}", "refused", hint, facts={"answer": "refused"})


def _as_a_whole(saves: bool) -> Finding:
    facts = {"load": True, "save": saves, "collect": saves}
    text = "you can load, save and collect" if saves else "you can load; you cannot save or collect"
    return Finding("you", text, "fine" if saves else "refused", facts=facts)
