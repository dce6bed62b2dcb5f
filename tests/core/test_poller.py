"""Which sockets are ready: with what this system has for it, with poll, which every one has, and with kqueue."""

import ctypes
import errno
import os
import socket
import subprocess

import pytest

from mfstore._core import transfer
from tests import ROOT

READABLE, WRITABLE, HUNG_UP = 1, 2, 4


class Watch(ctypes.Structure):
    pass


READY = ctypes.CFUNCTYPE(None, ctypes.POINTER(Watch), ctypes.c_uint)
Watch._fields_ = (("fd", ctypes.c_int), ("told", ctypes.c_uint), ("ready", READY))


ELSEWHERE = {"poll": ["-DMF_POLL"], "kqueue": ["-DMF_KQUEUE", f"-I{ROOT / 'tests/rigs/kqueue'}"]}


@pytest.fixture(scope="module", params=["own", *ELSEWHERE])
def library(request, tmp_path_factory):
    path = transfer.__file__
    if request.param in ELSEWHERE:
        path = str(tmp_path_factory.mktemp(request.param) / "poller.so")
        how = [*ELSEWHERE[request.param], "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
        source = ROOT / "src/http/poller.c"
        subprocess.run(["gcc", *how, f"-I{ROOT / 'src'}", "-o", path, str(source)], check=True)
    library = ctypes.CDLL(path)
    library.mf_poller_new.restype = ctypes.c_void_p
    return library


class Poller:
    def __init__(self, library):
        self.library = library
        self.poller = ctypes.c_void_p(library.mf_poller_new())
        self.told = []
        self.watches = {}
        self.sockets = []

    def close(self):
        for name in list(self.watches):
            self.want(name, 0)
        self.library.mf_poller_free(self.poller)
        for each in self.sockets:
            each.close()

    def pair(self, name, act=None):
        """Watches one end; the other is returned. ``act`` is called when it is ready."""
        ours, theirs = socket.socketpair()
        self.sockets += [ours, theirs]

        def ready(watch, what):
            self.told.append((name, what))
            if act is not None:
                act()

        self.watches[name] = Watch(ours.fileno(), 0, READY(ready))
        return ours, theirs

    def want(self, name, what):
        return self.library.mf_poller_want(self.poller, ctypes.byref(self.watches[name]), ctypes.c_uint(what))

    def forget(self, name):
        """As who frees it at once: nothing may look at it again."""
        assert self.want(name, 0) == 0
        watch = self.watches.pop(name)
        ctypes.memset(ctypes.byref(watch), 0xFF, ctypes.sizeof(watch))

    def wait(self, milliseconds=0):
        self.told.clear()
        assert self.library.mf_poller_wait(self.poller, milliseconds, None) >= 0
        return sorted(self.told)


@pytest.fixture
def poller(library):
    poller = Poller(library)
    yield poller
    poller.close()


def test_what_is_asked_for_is_told_as_long_as_it_is_so(poller):
    ours, theirs = poller.pair("a")
    assert poller.want("a", READABLE) == 0 and poller.wait() == []
    theirs.send(b"xy")
    assert poller.wait(-1) == poller.wait() == [("a", READABLE)]
    ours.recv(1)
    assert poller.wait() == [("a", READABLE)]
    ours.recv(1)
    assert poller.wait() == []
    assert poller.want("a", READABLE | WRITABLE) == 0 and poller.wait() == [("a", WRITABLE)]
    theirs.send(b"x")
    assert {what for _, what in (*poller.wait(), *poller.wait())} <= {READABLE | WRITABLE, READABLE, WRITABLE}
    assert poller.want("a", 0) == 0 and poller.wait() == []
    assert poller.want("a", WRITABLE) == 0 and poller.wait() == [("a", WRITABLE)]


def test_who_is_gone_is_told_to_those_who_read(poller):
    _, theirs = poller.pair("a")
    poller.want("a", READABLE)
    theirs.close()
    ((_, what),) = poller.wait(-1)
    assert what & READABLE


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_watch_that_is_freed_within_a_round_is_not_looked_at(poller, first):
    """Whichever of the two is told first frees the other."""
    pairs = {name: poller.pair(name, lambda other=other: forget(other)) for name, other in (("a", "b"), ("b", "a"))}

    def forget(name):
        if name in poller.watches:
            poller.forget(name)

    for name in (first, *({"a", "b"} - {first})):
        poller.want(name, READABLE)
        pairs[name][1].send(b"x")
    assert len(poller.wait(-1)) == 1
    assert len(poller.watches) == 1 and len(poller.wait()) == 1


def test_what_is_begun_within_a_round_is_told_in_the_next(poller):
    _, theirs = poller.pair("a", lambda: [poller.want(f"new{number}", WRITABLE) for number in range(100)])
    for number in range(100):
        poller.pair(f"new{number}")
    poller.want("a", READABLE)
    theirs.send(b"x")
    assert poller.wait(-1) == [("a", READABLE)]
    poller.forget("a")
    assert poller.wait() == sorted((f"new{number}", WRITABLE) for number in range(100))


def test_one_that_wants_no_more_within_a_round(poller):
    ours, theirs = poller.pair("a")
    poller.pair("b", lambda: poller.want("a", WRITABLE))
    poller.want("b", WRITABLE)
    poller.want("a", READABLE)
    theirs.send(b"x")
    poller.wait(-1)
    assert poller.wait() == [("a", WRITABLE), ("b", WRITABLE)]
    assert ours.recv(1) == b"x"


def test_what_is_no_descriptor(poller):
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    poller.watches["a"] = Watch(read, 0, READY(lambda watch, what: poller.told.append(("a", what))))
    code = poller.want("a", READABLE)
    if code == 0:  # poll looks when it waits
        assert poller.wait() == [("a", READABLE | HUNG_UP)]
    else:
        assert code == errno.EBADF
        del poller.watches["a"]
