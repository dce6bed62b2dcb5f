"""Local files as destinations: whole or not at all, replacing nothing, leaving nothing open."""

import ctypes
import errno
import gc
import os
import sys

import pytest

from mfstore.errors import BackendError, Conflict, InvalidKey, OutOfSpace, Unsupported
from mfstore.host import file_systems
from mfstore.host.file_systems import move_new
from mfstore.s3.transfers import destinations, scheduler
from mfstore.s3.transfers.destinations import Destination, Partial
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs.descriptors import open_below
from tests.rigs.simulated_s3 import BIG, MIB, SimulatedS3, simulated_client


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)


def no_links(*_):
    raise OSError(errno.EPERM, "no links here")


@pytest.fixture(params=["renameat2", "unknown to the system", "unknown to the file system"])
def renames(request, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    if request.param == "unknown to the system":
        monkeypatch.setattr(file_systems, "_renameat2", lambda: None)
    elif request.param != "renameat2":

        def refused(*_):
            ctypes.set_errno(errno.EINVAL)
            return -1

        monkeypatch.setattr(file_systems, "_renameat2", lambda: refused)


def test_a_new_name_is_taken_and_no_other(tmp_path, renames):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"1")
    move_new(source, target)
    assert target.read_bytes() == b"1" and not source.exists()
    source.write_bytes(b"2")
    with pytest.raises(FileExistsError):
        move_new(source, target)
    assert target.read_bytes() == b"1" and source.read_bytes() == b"2"


def test_a_name_that_cannot_be_had_is_not_left_behind(tmp_path, renames):
    with pytest.raises(OSError, match="No such file"):
        move_new(tmp_path / "none", tmp_path / "target")
    assert not list(tmp_path.iterdir())


def test_who_was_faster_stays(tmp_path, renames):
    world = SimulatedS3({"k": b"1"})
    world.plan[1] = lambda call: (tmp_path / "k").write_bytes(b"other") and None
    (outcome,) = simulated_client(world).get_many(["k"], into="files", dest=tmp_path, on_error="return")
    assert isinstance(outcome.error, Conflict) and (tmp_path / "k").read_bytes() == b"other"
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


@pytest.mark.second
def test_the_same_item_twice_is_the_same_file(tmp_path):
    world = SimulatedS3({"k": b"1", "big": BIG, "other": b"3"})
    outcomes = simulated_client(world).get_many(["k", "big", "k", "big", "k"], into="files", dest=tmp_path)
    assert [outcome.ok for outcome in outcomes] == [True] * 5 and (tmp_path / "big").read_bytes() == BIG
    # Not so others, whose names are made the same.
    outcomes = simulated_client(world).get_many(
        ["k", "other", ("big", 0, 1)], into="files", dest=lambda key: tmp_path / "one", on_error="return"
    )
    assert [type(outcome.error) for outcome in outcomes] == [type(None), Conflict, Conflict]
    outcomes = simulated_client(world).get_many(["k"], into="files", dest=tmp_path, on_error="return")
    assert isinstance(outcomes[0].error, Conflict), "another operation's"


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    file.write_bytes(b"old")
    world = SimulatedS3({"pipe": b"1", "link": b"1", "file": b"1"})
    outcomes = simulated_client(world).get_many(
        ["pipe", "link", "file"], into="files", dest=tmp_path, overwrite=True, on_error="return"
    )
    assert [type(outcome.error) for outcome in outcomes] == [Unsupported, Unsupported, type(None)]
    assert pipe.is_fifo() and link.is_symlink() and file.read_bytes() == b"1" and len(os.listdir(tmp_path)) == 3


def test_folder_markers_become_directories(tmp_path):
    world = SimulatedS3({"a/": b"", "a/b/": b"", "a/b/k": b"1", "full/": b"22", "large/": BIG})
    outcomes = simulated_client(world).get_many(world.objects, into="files", dest=tmp_path, on_error="return")
    assert [type(outcome.error) for outcome in outcomes] == [type(None)] * 3 + [InvalidKey] * 2
    assert (tmp_path / "a/b").is_dir() and (tmp_path / "a/b/k").read_bytes() == b"1"
    assert outcomes[0].path == str(tmp_path / "a") and {path.name for path in tmp_path.iterdir()} == {"a"}


# ---- what does not fit -----------------------------------------------------------------


@pytest.mark.parametrize("length", [1 << 50, 1 << 62, 100 * 10**9])
@pytest.mark.parametrize("into", ["bytes", "files"])
def test_an_object_that_claims_more_than_there_is_room_for(tmp_path, monkeypatch, length, into):
    if into == "bytes":

        class Full:
            def __init__(self, limit):
                pass

            def take(self, size):
                raise MemoryError

        monkeypatch.setattr(scheduler, "FreshBytesPool", Full)
    else:

        def full(fd, offset, size):
            raise OSError(errno.EFBIG if size > 1 << 48 else errno.ENOSPC, "no room")

        monkeypatch.setattr(os, "posix_fallocate", full)
    world = SimulatedS3({"k": BIG})
    headers = world._headers("k") | {"content-length": str(length)}
    world._GetObject = lambda call: (200, headers, BIG)
    where = {"dest": tmp_path} if into == "files" else {}
    (outcome,) = simulated_client(world).get_many(["k"], into=into, on_error="return", **where)
    assert isinstance(outcome.error, OutOfSpace if into == "files" else BackendError)
    assert outcome.error.key == "k" and outcome.error.hint and not list(tmp_path.iterdir())


# ---- what is left, and when it is believed -----------------------------------------------------


@pytest.mark.second
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("boot", ["same", "other", "untold"])
def test_ranges_that_a_power_cut_may_have_taken_are_not_believed(tmp_path, monkeypatch, checked, boot):
    """They were in the page cache alone. With a checksum of the whole the end tells; without one nothing would."""
    world = SimulatedS3({"k": BIG}, checksums=checked)
    left = Destination(tmp_path / "k", False, True)
    left.create(len(BIG))
    half = 16 * MIB
    lost = boot != "same"
    os.pwrite(left.fd, bytes(half) if lost else BIG[:half], 0)
    sum_of = ("crc64nvme", destinations.crc.update("CRC64NVME", BIG)) if checked else None
    if boot == "untold":
        monkeypatch.setattr(destinations, "BOOT_ID", tmp_path / "none")
    left.save(Partial("s3://b/k", world.etag("k"), len(BIG), sum_of, ((0, half),)))
    left.discard(keep=True)
    if boot == "other":
        other = tmp_path.parent / f"{tmp_path.name}-boot"
        other.write_text("another")
        monkeypatch.setattr(destinations, "BOOT_ID", other)
    result = simulated_client(world).get_many(["k"], into="files", dest=tmp_path, resume=True)
    assert (tmp_path / "k").read_bytes() == BIG and [path.name for path in tmp_path.iterdir()] == ["k"]
    if not lost:
        assert result.stats.requests < 5


# ---- descriptors ------------------------------------------------------------------------


def test_a_close_that_fails_is_told_and_leaves_nothing_open(tmp_path, monkeypatch):
    class Failing(destinations.FileIO):
        def close(self):
            fails = not self.closed
            super().close()
            if fails:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(destinations, "FileIO", Failing)
    (outcome,) = simulated_client(SimulatedS3({"k": b"1"})).get_many(
        ["k"], into="files", dest=tmp_path, on_error="return"
    )
    assert isinstance(outcome.error, OutOfSpace) and not list(tmp_path.iterdir())
    assert open_below(tmp_path) == []


@pytest.mark.second
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("step", range(1, 60, 6))
def test_ctrl_c_anywhere_leaves_no_descriptor(tmp_path, resume, step):
    """At every few steps of the interpreter within opening: what was opened is closed when its owner is gone."""
    left = step

    def interrupt(frame, event, argument):
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code.co_filename == destinations.__file__:
            left -= 1
            if not left:
                raise KeyboardInterrupt
        return interrupt

    destination = Destination(tmp_path / "k", False, resume)
    sys._getframe().f_trace_opcodes = True  # CPython 3.12 heeds it only if some frame had it before settrace
    sys.settrace(interrupt)
    try:
        destination.create(10)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    del destination
    gc.collect()
    assert open_below(tmp_path) == []
