"""The rules of the run themselves, shown on runs of a few tests in a process of their own."""

import re
import subprocess
import sys

import pytest

from tests import ROOT

CONFTEST = """
from tests.plugins import deadline, leftovers, markers, reruns

deadline.AGAIN, deadline.GRACE, leftovers.PATIENCE = 0.1, 0.5, 0.1

def pytest_configure(config):
    for name in ("server", "flow", "timeout(seconds)"):
        config.addinivalue_line("markers", name)
    for plugin in (deadline, leftovers, markers, reruns):
        config.pluginmanager.register(plugin)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run tests: the exit status, and what was printed."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def call(source, *arguments):
        (tmp_path / "test_these.py").write_text(source)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return call


def counts(printed):
    """What pytest's last line counts."""
    found = re.findall(r"(\d+) (passed|failed|errors|rerun)", re.findall(r"^=+ (.* in .*) =+$", printed, re.M)[-1])
    return {what: int(number) for number, what in found}


SLOW = """
import threading, time, pytest

def waits_in_a_thread():
    go.wait()

go = threading.Event()

@pytest.mark.timeout(0.2)
def test_waits():
    thread = threading.Thread(target=waits_in_a_thread, name="aside")
    thread.start()
    try:
        time.sleep(50)
    finally:
        go.set()
        thread.join()

@pytest.mark.timeout(0.2)
def test_catches():
    try:
        time.sleep(50)
    except BaseException:
        time.sleep(50)

def test_after():
    pass
"""


def test_what_takes_too_long_fails_alone_and_with_its_stack(run):
    status, printed = run(SLOW)
    assert (status, counts(printed)) == (1, {"failed": 2, "passed": 1}), printed
    assert "out of time; 1 other threads" in printed
    assert "--- aside" in printed
    assert "in waits_in_a_thread" in printed
    assert printed.count("time.sleep(50)") >= 3, printed


DEAF = """
import signal, time, pytest

@pytest.mark.timeout(0.2)
def test_hears_nothing():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(50)

@pytest.mark.parametrize("number", range(9))
def test_other(number):
    pass
"""


@pytest.mark.slow
def test_what_hears_no_exception_fails_alone_beside_other_workers(run):
    status, printed = run(DEAF, "-n2", "--maxschedchunk=1")
    assert (status, counts(printed)) == (1, {"failed": 1, "passed": 9}), printed
    assert "in test_hears_nothing" in printed  # the stack
    assert "crashed while running 'test_these.py::test_hears_nothing'" in printed


LEAVES = """
import os, socket, subprocess, threading

def test_thread(): threading.Thread(target=threading.Event().wait, daemon=True, name="stays").start()
def test_process(): globals().update(child=subprocess.Popen(["sleep", "20"]))
def test_zombie(): os.fork() or os._exit(0)
def test_socket(): globals().update(sock=socket.create_server(("127.0.0.1", 0)))
def test_cleans(): child.kill(); child.wait(); sock.close()
def test_ends_soon(): threading.Timer(0.05, int).start()
"""


def test_what_stays_is_named(run):
    status, printed = run(LEAVES)
    assert (status, counts(printed)) == (1, {"passed": 6, "errors": 4}), printed
    for name in (
        "thread 'stays'",
        ": sleep 20",
        "test_zombie - Failed: left after the test: process",
        "listening socket",
    ):
        assert name in printed, printed


ONCE = """
import pytest
from pathlib import Path

def once(name):
    path = Path(name)
    if not path.exists():
        path.touch()
        raise AssertionError("this time")

@pytest.fixture
def radosgw():
    pass

@pytest.mark.parametrize("number", range({count}))
def test_with_a_server(number, radosgw):
    once(f"server-{{number}}")

def test_alone():
    once("alone")
"""


@pytest.mark.slow
def test_up_to_two_reruns_are_borne(run):
    status, printed = run(ONCE.format(count=2), "--reruns=1", "-k", "server")
    assert (status, counts(printed)) == (0, {"passed": 2, "rerun": 2}), printed
    assert "failed once: test_these.py::test_with_a_server[1]" in printed
    status, printed = run(ONCE.format(count=5), "--reruns=1")
    assert (status, counts(printed)) == (1, {"failed": 1, "passed": 5, "rerun": 3}), printed
    assert "test_alone - AssertionError: this time" in printed


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["one", "two"])
def test_reruns_are_counted_and_few(run, workers):
    status, printed = run(ONCE.format(count=3), "--reruns=1", "-k", "server", *workers)
    assert (status, counts(printed)) == (1, {"passed": 3, "rerun": 3}), printed
    assert "3 failed once and were run again, more than 2: the run has failed" in printed
