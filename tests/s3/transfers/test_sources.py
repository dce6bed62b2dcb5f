"""Where the bytes of an upload come from: files of every kind, and memory that is no bytes."""

import array
import ctypes
import io
import os
from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore.errors import BackendError, Conflict, MfstoreError, NotSerializable, Unsupported
from mfstore.s3 import BulkClient, PutItem
from mfstore.s3.transfers import uploads
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs.raw_server import Server
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)


@pytest.fixture
def world():
    return SimulatedS3()


# ---- files ----------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs /proc")
def test_a_file_that_says_it_is_empty_is_read_to_its_end(world):
    simulated_client(world).put_many({"k": Path("/proc/self/environ")})
    assert world.objects["k"] == Path("/proc/self/environ").read_bytes() != b""


def test_a_file_that_says_it_is_longer_is_read_to_its_end(world, monkeypatch, tmp_path):
    """As those of /sys, which say 4096."""
    path = tmp_path / "file"
    path.write_bytes(b"value")
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*real(fd)[:6], 4096, *real(fd)[7:]]))
    simulated_client(world).put_many({"k": path})
    assert world.objects["k"] == b"value"


def test_special_files_are_refused_by_name(world, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # nobody writes to it: opening it would wait
    reader, writer = os.pipe()
    paths = [fifo, Path(f"/dev/fd/{reader}"), Path(os.devnull)]
    try:
        outcomes = simulated_client(world).put_many([(str(n), path) for n, path in enumerate(paths)], "return")
    finally:
        os.close(reader)
        os.close(writer)
    assert [type(outcome.error) for outcome in outcomes] == [Unsupported] * 3
    assert all(str(path) in str(outcome.error) for path, outcome in zip(paths, outcomes, strict=True))
    assert "open_write" in outcomes[0].error.hint and not world.objects


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("more", [-1, 1])
def test_a_file_that_grows_or_shrinks_while_it_is_sent_is_told_by_name(world, monkeypatch, tmp_path, more, parts):
    monkeypatch.setattr(uploads, "PART_BYTES", 1 << 17)
    if parts:
        monkeypatch.setattr(uploads, "LONGEST_SINGLE_PUT", 1 << 17)
    path = tmp_path / "log"
    path.write_bytes(bytes(1 << 18))

    def change(call):
        os.truncate(path, (1 << 18) + more)

    world.plan[2 if parts else 1] = change
    (outcome,) = simulated_client(world).put_many({"k": path}, on_error="return")
    assert isinstance(outcome.error, BackendError) and str(path) in str(outcome.error)
    assert "length" in str(outcome.error) and not world.uploads
    if parts:
        assert not world.objects and "Nothing was stored" in outcome.error.hint


# ---- memory ---------------------------------------------------------------------------


class Nothing:
    """No buffer, no file, no path."""

    def __repr__(self):
        return "<nothing>"


def closed_file():
    file = io.BytesIO(b"x")
    file.close()
    return file


NO_BYTES = {
    "objects": np.array(["a", {}, None], dtype=object),
    "objects in a field": np.array([(1, "a")], dtype=[("O", "i4"), ("b", "O")]),
    "a view of objects": memoryview(np.array(["a"], dtype=object)),
    "objects among parts": [b"x", np.array(["a"], dtype=object)],
    "pointers": (ctypes.c_char_p * 2)(b"a", b"b"),
    "strided": np.arange(10)[::2],
    "strided among parts": [b"x", np.arange(10)[::2]],
    "Fortran": np.asfortranarray(np.ones((3, 3))),
    "dates": np.array(["2020"], dtype="M8[s]"),
    "text among parts": ["a"],
    "a closed file": closed_file(),
    "no file to read": io.FileIO(os.devnull, "wb"),
    "half a surrogate pair": "\ud800",
    "a number": 3,
    "nothing": Nothing(),
}


@pytest.mark.parametrize("name", NO_BYTES)
def test_what_is_no_bytes_fails_alone_and_says_what_to_do(world, name):
    items = [("a", b"1"), ("bad", NO_BYTES[name]), ("c", b"3")]
    outcomes = simulated_client(world).put_many(items, on_error="return")
    assert [outcome.ok for outcome in outcomes] == [True, False, True] and world.objects == {"a": b"1", "c": b"3"}
    error = outcomes[1].error
    assert isinstance(error, NotSerializable) and isinstance(error, TypeError)
    assert outcomes[1].item == outcomes[1].key == error.key == "bad"


@pytest.mark.parametrize("name", ["objects", "objects in a field", "pointers", "strided", "Fortran", "dates"])
def test_a_store_refuses_them_as_bytes_too(name):
    store = mfstore.open("memory://")
    with pytest.raises(NotSerializable):
        store.put_bytes(NO_BYTES[name])
    assert not list(store.keys())


def test_memory_of_every_kind_arrives_as_it_is(world):
    arrays = [
        np.arange(6, dtype="c16").reshape(2, 3), np.array([(1, 2.0)], dtype=[("O", "i1"), ("P", "f8")]),
        np.array([True]), np.zeros((0, 3)), array.array("H", [1, 2]), (ctypes.c_int * 3)(1, 2, 3), bytearray(b"abc"),
    ]  # fmt: skip
    simulated_client(world).put_many({str(number): value for number, value in enumerate(arrays)})
    assert [world.objects[str(number)] for number in range(len(arrays))] == [bytes(value) for value in arrays]


# ---- items ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        PutItem("bad", b"x", content_type="a\r\nb: c"),
        PutItem("bad", b"x", content_type=5),
        PutItem("bad", b"x", metadata=5),
        PutItem("bad", b"x", options=5),
        PutItem("bad", b"x", if_match=5),
        PutItem("bad", b"x", options={"SSECustomerKey": 7}),
    ],
    ids=["two headers", "no text", "metadata", "options", "if_match", "a customer's key"],
)
@pytest.mark.parametrize("engine", ["native", "aiobotocore"])
def test_an_item_with_a_bad_setting_fails_alone(engine, bad, s3_env):
    def answer(connection, request):
        connection.reply("200 OK", ['ETag: "e"', "Content-Length: 0"])
        return True

    keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    server = Server(answer)
    try:
        with BulkClient("bucket", engine=engine, endpoint_url=server.origin, attempts=1, **keys) as client:
            outcomes = client.put_many([("a", b"1"), bad, ("c", b"3")], on_error="return")
    finally:
        server.close()
    assert [outcome.ok for outcome in outcomes] == [True, False, True], outcomes
    assert isinstance(outcomes[1].error, MfstoreError) and outcomes[1].key == outcomes[1].error.key == "bad"


def test_whatever_an_items_function_raises_is_its_outcome(world, tmp_path):
    world.objects = {"a": b"1", "bad": b"2", "c": b"3"}

    def dest(key):
        if key == "bad":
            raise ZeroDivisionError("of mine")
        return tmp_path / key

    outcomes = simulated_client(world).get_many(world.objects, into="files", dest=dest, on_error="return")
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error.__cause__, ZeroDivisionError) and outcomes[1].key == "bad"


@pytest.mark.parametrize(
    ("method", "bad"),
    [("get_many", ("k", "x", 1)), ("get_ranges", ("k", "x", 1)), ("read_many", ("k", 0, 3, 5)), ("head_many", 5),
     ("delete_many", b"k"), ("copy", ("k", 3))],
)  # fmt: skip
def test_an_item_that_is_none_fails_alone(world, method, bad):
    world.objects["k"] = b"123"
    good = {"get_ranges": ("k", 0, 1), "read_many": ("k", 0, 1, None), "copy": ("k", "l")}.get(method, "k")
    outcomes = list(getattr(simulated_client(world), method)([good, bad, good], on_error="return"))
    assert sorted((outcome.index, outcome.ok) for outcome in outcomes) == [(0, True), (1, False), (2, True)]
    assert all(isinstance(outcome.error, MfstoreError) for outcome in outcomes if not outcome.ok)


def test_named_parameters_given_as_options_are_kept(world):
    options = {"ContentType": "text/csv", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key"}
    client = simulated_client(world)
    client.put_many([("a", b""), PutItem("b", b"", content_type="text/plain"), ("c", b"")], options=options)
    client.put_many([("d", b"")], options=options, content_type="text/html")
    assert world.said["a"] == world.said["c"] == options
    assert world.said["b"] == {**options, "ContentType": "text/plain"}
    assert world.said["d"] == {**options, "ContentType": "text/html"}


# ---- keys that XML cannot hold -----------------------------------------------------------


ODD_KEYS = ["a\x01b", "\x1f", "\ufffe", "\uffff", "c\rd"]


def test_keys_that_xml_cannot_hold_are_deleted_one_by_one(world):
    plain = ["tab\t", "line\n", "\x85", "\u2028", "<&>", "\U0001f600", "\x7f"]
    keys = [*plain[:3], *ODD_KEYS, *plain[3:]]
    world.objects = dict.fromkeys([*keys, "left"], b"x")
    outcomes = simulated_client(world).delete_many(keys)
    assert [outcome.key for outcome in outcomes] == keys and all(outcome.ok for outcome in outcomes)
    assert list(world.objects) == ["left"]
    assert [operation for operation, _ in world.log].count("DeleteObjects") == 1


def test_a_condition_holds_for_them_too(world):
    world.objects = dict.fromkeys(ODD_KEYS, b"x")
    match = {key: world.etag(key) if key == "\uffff" else '"other"' for key in ODD_KEYS}
    outcomes = simulated_client(world).delete_many(ODD_KEYS, on_error="return", if_match=match)
    assert [type(outcome.error) for outcome in outcomes] == [Conflict, Conflict, Conflict, type(None), Conflict]
    assert "\uffff" not in world.objects and len(world.objects) == 4


@pytest.mark.parametrize(("status", "body", "fine"), [(204, b"", True), (404, "NoSuchKey", True),
    (404, "NoSuchBucket", False), (403, "AccessDenied", False), (200, b"<html></html>", False)])  # fmt: skip
def test_what_a_single_deletion_is_answered_with(world, status, body, fine):
    answer = world._error(status, body) if isinstance(body, str) else (status, {}, body)
    world._DeleteObject = lambda call: answer
    (outcome,) = simulated_client(world).delete_many(["\x01"], on_error="return")
    assert outcome.ok is fine
