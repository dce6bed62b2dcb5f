"""What -v, -q and --log-format do."""

import json
import logging
import warnings

import pytest

from mfstore.cli.logs import logging_as
from mfstore.host.logs import DEBUG, INFO, log
from mfstore.progress import HIDDEN, display_of
from mfstore.testing import FaultProxy, NetworkFault
from mfstore.testing.actions import Status
from tests.rigs.command_line import mfstore as command
from tests.rigs.s3_cases import environment_of


def say():
    log(DEBUG, "s3", "found %s", "it")
    log(INFO, "s3", "again")
    logging.getLogger("mfstore.gc").error("it failed\x1b[2J")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd", RuntimeWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("verbose", "quiet", "shown"),
    [
        (0, False, "gc py"),
        (1, False, "s3 gc py"),
        (2, False, "s3 s3 gc py"),
        (5, False, "s3 s3 gc py"),
        (0, True, "gc"),
    ],
)
def test_how_much_is_logged(capsys, verbose, quiet, shown):
    before = logging.getLogger("mfstore").handlers[:]
    with logging_as(verbose, quiet, "json"):
        say()
        assert HIDDEN.get() is quiet and (not quiet or display_of(True) is None)
    rows = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [row["logger"].removeprefix("mfstore.").partition(".")[0] for row in rows] == shown.split()
    assert all(row.keys() == {"time", "level", "logger", "message"} for row in rows)
    assert rows[-1 if quiet else -2]["level"] == "error" and rows[-1]["time"].endswith("Z")
    assert logging.getLogger("mfstore").handlers == before and not HIDDEN.get()


def test_as_text(capsys):
    with logging_as(2, False, "text"):
        say()
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("mfstore.s3").warning("no", exc_info=True)
    found = capsys.readouterr().err.splitlines()
    assert found[:2] == ["mfstore: debug: s3: found it", "mfstore: s3: again"]
    assert found[2].startswith("mfstore: error: gc: it failed") and "\x1b" not in found[2]
    assert "odd" in found[3] and found[3].startswith("mfstore: warning: ")


def test_a_request_that_is_tried_again(ministack, monkeypatch, tmp_path):
    bucket = ministack.create_bucket("logs-of-the-command-line")
    (tmp_path / "file").write_text("text")
    for options, told in ((("-v",), True), ((), False), (("-q",), False)):
        with FaultProxy(
            ministack.url, [NetworkFault(action=Status(503), path="/recipes/", method="PUT", nth=1)]
        ) as proxy:
            done = command(
                *options, "put", "-s", f"s3://{bucket}/s{len(options)}{told}", tmp_path / "file",
                env=environment_of(ministack, AWS_ENDPOINT_URL_S3=proxy.url),
            )  # fmt: skip
        assert ("PutObject of s3://logs-of-the-command-line/" in done.stderr and "HTTP 503" in done.stderr) is told


def test_both_are_too_much(tmp_path):
    assert "give one of them" in command("-v", "-q", "ls", "-s", tmp_path, code=2).stderr
