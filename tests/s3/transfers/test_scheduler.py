"""What the scheduler does, call by call, against a simulated S3: every call failed once, every answer lost once."""

import contextlib
import os
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore._core import crc
from mfstore.errors import (
    AccessDenied,
    BackendError,
    Conflict,
    CorruptObject,
    InvalidKey,
    MfstoreError,
    NotFound,
    OutOfSpace,
)
from mfstore.s3 import BulkClient, PutItem
from mfstore.s3.engines import choice
from mfstore.s3.transfers import copies, downloads, uploads
from mfstore.s3.transfers.destinations import Destination, Partial
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs import simulated_s3
from tests.rigs.concurrency import in_threads
from tests.rigs.descriptors import open_below
from tests.rigs.simulated_s3 import MIB, SimulatedChannel, SimulatedS3, simulated_client
from tests.rigs.soak import lasting

BIG = simulated_s3.BIG[: 5 * MIB]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Retries at once, and pieces and parts an eighth as long: what is tested is which calls are made, not when."""
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)
    for module, name in (
        (downloads, "SHORTEST_PIECE"), (downloads, "LONGEST_PIECE"),
        (uploads, "LONGEST_SINGLE_PUT"), (uploads, "PART_BYTES"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, getattr(module, name) // 8)


def client_on(world, **arguments):
    return simulated_client(world, **arguments)


# ---- results --------------------------------------------------------------------------


@pytest.mark.second
def test_results_come_in_order_and_duplicates_each_get_theirs():
    world = SimulatedS3({f"k{i}": bytes([i]) * i for i in range(100)} | {"big": BIG})
    keys = [f"k{i}" for i in range(100)] + ["big", "k7", "big", "k7"]
    result = client_on(world).get_many(iter(keys))
    outcomes = list(result)
    assert [o.key for o in outcomes] == keys
    assert [o.data for o in outcomes] == [world.objects[key] for key in keys]
    assert all(type(o.data) is bytes for o in outcomes)
    assert result.stats.items == len(keys) and result.stats.bytes == sum(len(world.objects[key]) for key in keys)
    assert result.stats.verified == result.stats.bytes


def test_unordered_results_are_the_same_ones():
    world = SimulatedS3({f"k{i}": bytes([i]) * i for i in range(100)}, plan={3: 503, 20: "reset"})
    outcomes = list(client_on(world).get_many([f"k{i}" for i in range(100)], ordered=False))
    assert [o.key for o in outcomes] != [f"k{i}" for i in range(100)]
    assert {o.index: o.data for o in outcomes} == {i: bytes([i]) * i for i in range(100)}


@pytest.mark.parametrize("on_error", ["return", "omit"])
def test_every_key_has_an_outcome(on_error):
    world = SimulatedS3({"a": b"1", "b": b"22"})
    outcomes = list(client_on(world).get_many(["a", "none", "b", "", "b"], on_error=on_error))
    if on_error == "omit":
        assert [o.data for o in outcomes] == [b"1", b"22", b"22"]
        return
    assert [type(o.error) for o in outcomes] == [type(None), NotFound, type(None), InvalidKey, type(None)]
    assert outcomes[1].error.key == "none" and outcomes[1].error.attempts == 1


def test_an_error_is_raised_with_what_was_done_before():
    world = SimulatedS3({"a": b"1"})
    with pytest.raises(NotFound) as caught:
        list(client_on(world).get_many(["a", "none", "a"]))
    assert "1 items had succeeded before" in caught.value.__notes__[0]


def test_waited_results_are_kept_and_streamed_ones_are_iterated_once():
    world = SimulatedS3({"a": b"1", "b": b"2"})
    result = client_on(world).get_many(["a", "b"]).wait()
    assert [o.data for o in result] == [o.data for o in result] == [b"1", b"2"]
    assert len(result) == 2 and result[1].data == b"2" and result[-1:][0].data == b"2"
    assert result.to_dict()["stats"]["items"] == 2 and "get_many" in repr(result) and "<table>" in result._repr_html_()
    streamed = client_on(world).get_many(["a"])
    list(streamed)
    with pytest.raises(RuntimeError, match="wait"):
        list(streamed)
    with pytest.raises(TypeError, match="wait"):
        len(streamed)


def test_items_are_taken_as_they_are_needed():
    taken = 0

    def keys():
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield f"k{number % 10}"

    world = SimulatedS3({f"k{i}": b"x" for i in range(10)})
    outcomes = iter(client_on(world).get_many(keys()))
    for _ in range(500):
        next(outcomes)
    assert taken < 500 + 3 * 256  # what was handed out, and at most what may be in flight
    outcomes.close()


def test_concurrency_is_what_was_asked_for():
    world = SimulatedS3({f"k{i}": b"x" for i in range(500)})
    list(client_on(world, concurrency=7).get_many([f"k{i}" for i in range(500)]))
    assert world.most <= 7


# ---- every call failed, every answer lost -------------------------------------------------


def fail_each(run, check, plans):
    """Run with the n-th call failing, for every n until a run makes fewer calls."""
    for number in range(1, 60):
        for plan in plans:
            world = run(number, plan)
            check(world, number, plan)
        if world.count < number:
            return
    raise AssertionError("never came to an end")


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["reset", "truncated", "stall", "first-byte", "connect", 500, 503])
def test_a_get_survives_any_call_failing_once(plan):
    """Of statuses, one of each verdict (test_planning.py)."""
    big = BIG[: 3 * MIB]

    def run(number, plan):
        world = SimulatedS3({"big": big, "a": b"1"}, plan={number: plan})
        assert [o.data for o in client_on(world).get_many(["a", "big", "a"])] == [b"1", big, b"1"]
        return world

    fail_each(run, lambda *_: None, [plan])


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_broken_body_is_continued_where_it_broke(share):
    for number in range(1, 8):
        world = SimulatedS3(
            {"big": BIG, "a": b"1" * 1000}, body_faults={number: lambda body: (body[: int(len(body) * share)], "reset")}
        )
        result = client_on(world).get_many(["big", "a"])
        assert [o.data for o in result] == [BIG, b"1" * 1000]
        assert result.stats.verified == len(BIG) + 1000


@pytest.mark.slow
def test_a_flipped_byte_is_fetched_again_once_and_then_reported():
    def flip(body):
        return bytes([body[0] ^ 1]) + body[1:], None

    for key, most in (("a", 1), ("big", 6)):
        for number in range(1, most):
            world = SimulatedS3({"big": BIG, "a": b"1" * 1000}, body_faults={number: flip})
            result = client_on(world).get_many([key])
            assert [o.data for o in result] == [world.objects[key]]
            assert result.stats.verify_failures <= 1
        world = SimulatedS3({"big": BIG, "a": b"1" * 1000}, body_faults=dict.fromkeys(range(1, 100), flip))
        with pytest.raises(CorruptObject, match="CRC64NVME"):
            list(client_on(world).get_many([key]))


def test_verify_false_takes_what_comes():
    world = SimulatedS3({"a": b"11"}, body_faults={1: lambda body: (b"xx", None)})
    assert next(iter(client_on(world).get_many(["a"], verify=False))).data == b"xx"


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["reset", 500, 503])
def test_a_put_survives_any_call_failing_once(plan):
    def run(number, plan):
        world = SimulatedS3(plan={number: plan})
        client_on(world).put_many({"big": BIG, "a": b"1"})
        return world

    def check(world, number, plan):
        assert world.objects == {"big": BIG, "a": b"1"} and not world.uploads

    fail_each(run, check, [plan])


@pytest.mark.slow
@pytest.mark.parametrize("conditional", [False, True])
def test_a_put_survives_any_lost_answer(conditional):
    def run(number, _):
        world = SimulatedS3(lost={number})
        items = [
            PutItem("big", [BIG[:5], BIG[5:]], if_none_match=conditional),
            PutItem("a", "1", if_none_match=conditional),
        ]
        client_on(world).put_many(items)
        return world

    def check(world, number, _):
        assert world.objects == {"big": BIG, "a": b"1"}
        # Of a lost "upload created" nobody knows the id: the bucket's lifecycle rule removes it.
        assert len(world.uploads) <= 1

    fail_each(run, check, [None])


def test_a_conditional_put_conflicts_with_somebody_elses_write():
    world = SimulatedS3({"a": b"theirs", "big": b"theirs"})
    for lost in ((), {1}, {2}):
        world.lost, world.count = set(lost), 0
        result = client_on(world).put_many(
            [PutItem("a", b"ours", if_none_match=True), PutItem("big", BIG, if_none_match=True)], on_error="return"
        )
        assert [type(o.error) for o in result] == [Conflict, Conflict]
        assert world.objects == {"a": b"theirs", "big": b"theirs"}


@pytest.mark.second
@pytest.mark.parametrize("plan", [403, 400, 501])
def test_a_failed_upload_leaves_nothing(plan):
    for number in range(2, 6):
        world = SimulatedS3(plan={number: plan})
        with pytest.raises(MfstoreError):
            client_on(world).put_many({"big": BIG})
        assert world.objects == {} and world.uploads == {}


def test_tries_run_out():
    world = SimulatedS3({"a": b"1"}, plan=dict.fromkeys(range(1, 100), 500))
    with pytest.raises(BackendError) as caught:
        list(client_on(world, attempts=4).get_many(["a"]))
    assert world.count == 4 and caught.value.attempts == 4 and caught.value.status == 500


def test_refusals_are_not_retried():
    for status, kind in ((403, AccessDenied), (404, NotFound)):
        world = SimulatedS3({"a": b"1"}, plan={1: status})
        with pytest.raises(kind):
            list(client_on(world).get_many(["a"]))
        assert world.count == 1


@pytest.mark.slow
def test_an_object_that_changes_while_it_is_read_is_read_anew():
    newer = BIG[::-1]
    world = SimulatedS3({"big": BIG})

    def replace(call):
        world.objects["big"] = newer

    for number in (2, 3, 4):
        world.objects["big"], world.count = BIG, 0
        world.plan = {number: replace}
        (outcome,) = client_on(world).get_many(["big"])
        assert outcome.data in (BIG, newer)


@pytest.mark.slow
def test_an_object_that_never_stops_changing_is_a_conflict():
    world = SimulatedS3({"big": BIG})

    def replace(call):
        if call.start:
            world.objects["big"] = os.urandom(len(BIG))

    world.plan = dict.fromkeys(range(1, 200), replace)
    with pytest.raises(Conflict, match="keeps changing"):
        list(client_on(world).get_many(["big"]))


def test_throttling_lowers_the_concurrency():
    world = SimulatedS3({f"k{i}": b"x" for i in range(300)}, plan=dict.fromkeys(range(1, 20), 503))
    result = client_on(world).get_many([f"k{i}" for i in range(300)])
    assert all(o.data == b"x" for o in result)
    assert result.stats.throttled == 19 and result.stats.requests == 319


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_bursts_of_failures_are_survived_without_a_storm(share):
    chance = random.Random(11)
    plan = {number: 500 for number in range(1, 100_000) if chance.random() < share}
    world = SimulatedS3({f"k{i}": b"x" for i in range(200)}, plan=plan)
    client = client_on(world, attempts=200)
    client.transfers.quota.RATE = 1e9
    assert all(o.data == b"x" for o in client.get_many([f"k{i}" for i in range(200)]))
    assert world.count <= 200 / (1 - share) * 1.5


@pytest.mark.slow
@settings(max_examples=lasting(60), deadline=None)
@given(st.data())
def test_any_mixture_of_failures_gives_right_bytes_or_an_error(data):
    plan = data.draw(
        st.dictionaries(
            st.integers(1, 40), st.sampled_from(["reset", "stall", "truncated", 500, 503, 403, 404, 412, 409])
        )
    )
    lost = data.draw(st.sets(st.integers(1, 40), max_size=5))
    objects = {f"k{i}": bytes([i]) * (i * 300_000) for i in range(8)}
    world = SimulatedS3(objects, plan=plan, lost=lost)
    client = client_on(world, attempts=3, memory=MIB)
    for outcome in client.get_many(objects, on_error="return"):
        assert outcome.error is not None or outcome.data == objects[outcome.key]
    for outcome in client.put_many({f"n{key}": value for key, value in objects.items()}, on_error="return"):
        if outcome.error is None:
            assert world.objects[outcome.key] == objects[outcome.key[1:]]


# ---- files --------------------------------------------------------------------------------


def test_files_arrive_whole(tmp_path):
    world = SimulatedS3({"a/b": b"1", "big": BIG, "empty": b""})
    result = client_on(world).get_many(["a/b", "big", "empty"], into="files", dest=tmp_path)
    assert [o.path for o in result] == [str(tmp_path / name) for name in ("a/b", "big", "empty")]
    assert (tmp_path / "big").read_bytes() == BIG and (tmp_path / "empty").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "big", "empty"]


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "a//b", "a//", "/", ".", "a/./b", "nul\0", "x" * 300])
def test_keys_that_are_no_safe_file_names_are_refused(tmp_path, key):
    world = SimulatedS3({key: b"1"})
    (outcome,) = client_on(world).get_many([key], into="files", dest=tmp_path / "dest", on_error="return")
    assert isinstance(outcome.error, InvalidKey) and world.count == 0
    assert not list(tmp_path.rglob("*"))


def test_existing_files_are_replaced_only_on_demand(tmp_path):
    world = SimulatedS3({"a": b"new", "big": BIG})
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "big").write_bytes(b"old")
    client = client_on(world)
    result = client.get_many(["a", "big"], into="files", dest=tmp_path, on_error="return")
    assert [type(o.error) for o in result] == [Conflict, Conflict] and world.count == 0
    assert (tmp_path / "a").read_bytes() == b"old"
    client.get_many(["a", "big"], into="files", dest=tmp_path, overwrite=True)
    assert (tmp_path / "a").read_bytes() == b"new" and (tmp_path / "big").read_bytes() == BIG


@pytest.mark.second
def test_a_failed_download_leaves_nothing(tmp_path):
    for number in range(1, 6):
        world = SimulatedS3({"big": BIG}, plan=dict.fromkeys(range(number, 99), 500))
        with pytest.raises(BackendError):
            client_on(world).get_many(["big"], into="files", dest=tmp_path)
        assert not list(tmp_path.iterdir())


def test_a_full_disk_is_out_of_space(tmp_path, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    world = SimulatedS3({"big": BIG})
    with pytest.raises(OutOfSpace, match="disk is full"):
        client_on(world).get_many(["big"], into="files", dest=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_download_is_resumed(tmp_path):
    world = SimulatedS3({"big": BIG}, plan=dict.fromkeys(range(3, 99), 500))
    with pytest.raises(BackendError):
        client_on(world).get_many(["big"], into="files", dest=tmp_path, resume=True)
    assert not (tmp_path / "big").exists()
    world.plan, world.log = {}, []
    client_on(world).get_many(["big"], into="files", dest=tmp_path, resume=True)
    assert (tmp_path / "big").read_bytes() == BIG
    assert len(world.log) < 5  # the pieces that were missing
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


@pytest.mark.second
def test_a_changed_object_is_not_resumed(tmp_path):
    world = SimulatedS3({"big": BIG}, plan=dict.fromkeys(range(3, 99), 500))
    with pytest.raises(BackendError):
        client_on(world).get_many(["big"], into="files", dest=tmp_path, resume=True)
    world.plan, world.objects["big"] = {}, BIG[::-1]
    client_on(world).get_many(["big"], into="files", dest=tmp_path, resume=True)
    assert (tmp_path / "big").read_bytes() == BIG[::-1]
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


@pytest.mark.second
def test_a_damaged_partial_download_is_found_out(tmp_path):
    world = SimulatedS3({"big": BIG}, plan=dict.fromkeys(range(3, 99), 500))
    with pytest.raises(BackendError):
        client_on(world).get_many(["big"], into="files", dest=tmp_path, resume=True)
    (part,) = tmp_path.glob("*.part")
    with open(part, "r+b") as file:
        file.write(b"damage")
    world.plan = {}
    client_on(world).get_many(["big"], into="files", dest=tmp_path, resume=True)
    assert (tmp_path / "big").read_bytes() == BIG


# ---- ending early -----------------------------------------------------------------------


def test_leaving_a_loop_ends_everything(tmp_path):
    world = SimulatedS3({"big": BIG} | {f"k{i}": b"x" for i in range(50)})
    outcomes = iter(client_on(world).get_many([*[f"k{i}" for i in range(50)], "big"]))
    next(outcomes)
    outcomes.close()
    files = iter(
        client_on(world).get_many(["k1", "big", "big"], into="files", dest=lambda key: tmp_path / key, stream=True)
    )
    next(files)
    files.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_leaving_a_loop_gives_up_open_uploads():
    world = SimulatedS3()
    outcomes = iter(client_on(world, concurrency=2).put_many([("a", b"1"), ("big", BIG), ("b", b"1")], stream=True))
    assert next(outcomes).key == "a"
    outcomes.close()
    assert world.uploads == {}


@pytest.mark.parametrize("error", [AccessDenied("expired"), OSError("no more threads")])
def test_an_upload_that_cannot_be_given_up_does_not_keep_the_rest_open(monkeypatch, tmp_path, error):
    world, submit, close, closed = SimulatedS3({"k": b"x"}), SimulatedChannel.submit, SimulatedChannel.close, []

    def refusing(channel, calls):
        if any(call.operation == "AbortMultipartUpload" for call in calls):
            raise error
        submit(channel, calls)

    monkeypatch.setattr(SimulatedChannel, "submit", refusing)
    monkeypatch.setattr(SimulatedChannel, "close", lambda channel: [close(channel), closed.append(channel)])
    place = tmp_path / "big"
    place.write_bytes(BIG)
    items = [("a", b"1"), PutItem("big", place), ("b", b"1")]
    outcomes = iter(client_on(world, concurrency=2).put_many(items, stream=True))
    assert next(outcomes).key == "a"
    assert open_below(tmp_path) == [str(place)]
    with contextlib.suppress(OSError):
        outcomes.close()
    assert closed, "nobody may read from the caller's memory any more"
    assert open_below(tmp_path) == [], "and its files are closed"


# ---- found in review ---------------------------------------------------------------------


def test_a_call_that_cannot_be_made_fails_alone(monkeypatch):
    world, submit = SimulatedS3(), SimulatedChannel.submit

    def refusing(channel, calls):
        if any(call.options.get("Bad") for call in calls):
            raise InvalidKey("refused")
        submit(channel, calls)

    monkeypatch.setattr(SimulatedChannel, "submit", refusing)
    items = [("a", b"1"), PutItem("b", b"2", options={"Bad": 1}), ("c", b"3")]
    outcomes = client_on(world).put_many(items, on_error="return")
    assert [type(o.error) for o in outcomes] == [type(None), InvalidKey, type(None)]
    assert world.objects == {"a": b"1", "c": b"3"}


def test_a_damaged_whole_leftover_is_fetched_anew(tmp_path):
    world = SimulatedS3({"k": BIG})
    left = Destination(tmp_path / "k", False, True)
    left.create(len(BIG))
    checksum = "crc64nvme", crc.update("CRC64NVME", BIG)
    left.save(Partial("s3://b/k", world.etag("k"), len(BIG), checksum, ((0, len(BIG)),)))
    left.discard(keep=True)
    client_on(world).get_many(["k"], into="files", dest=tmp_path, resume=True)
    assert (tmp_path / "k").read_bytes() == BIG


def test_while_all_fails_no_more_wait_for_another_try_than_may_be_in_flight():
    plan = dict.fromkeys(range(1, 2000), "connect")
    result = client_on(SimulatedS3(plan=plan), concurrency=16).get_many(["k"] * 2000, on_error="return")
    scheduler = result._start()
    scheduler.retries.policy = RetryPolicy(attempts=100)
    scheduler.retries.quota.tokens = 0.0
    for _ in range(100):
        scheduler.pump(0.0)
    assert len(scheduler._calls.delayed) <= 32


@pytest.mark.parametrize("status", [204, 202])
def test_a_success_that_is_no_object_is_none(status):
    world = SimulatedS3({"a": b"123"})
    world._GetObject = lambda call: (status, {}, b"")
    (outcome,) = client_on(world).get_many(["a"], on_error="return")
    assert isinstance(outcome.error, BackendError)


def test_an_error_that_names_no_key_is_not_taken_for_deleted():
    world = SimulatedS3({"a": b"1"})
    body = b"<DeleteResult><Error><Code>AccessDenied</Code><Message>m</Message></Error></DeleteResult>"
    world._DeleteObjects = lambda call: (200, {}, body)
    outcomes = client_on(world).delete_many(["a", "b"], on_error="return")
    assert [type(o.error) for o in outcomes] == [AccessDenied, AccessDenied]


@pytest.mark.second
def test_two_resumable_downloads_of_one_file_do_not_meet(tmp_path):
    world = SimulatedS3({"big": BIG})
    result = client_on(world).get_many(["big", "big"], into="files", dest=tmp_path, resume=True, overwrite=True)
    assert [o.ok for o in result] == [True, True]
    assert (tmp_path / "big").read_bytes() == BIG and [path.name for path in tmp_path.iterdir()] == ["big"]


def test_a_bad_item_to_put_fails_alone():
    world = SimulatedS3()
    items = ["no pair", ("a", b"1"), ("b", 5), PutItem("c", b"2", metadata={"name": "nö"}), ("d", b"3")]
    result = client_on(world).put_many(items, on_error="return")
    assert [o.ok for o in result] == [False, True, False, False, True]
    assert isinstance(result[2].error, TypeError) and world.objects == {"a": b"1", "d": b"3"}


NO_ANSWERS = [
    b" \n",
    b"<html><body>welcome</body></html>",
    b"<!DOCTYPE html><html></html>",
    b"<ListBucketResult></ListBucketResult>",
    b"{}",
]


@pytest.mark.second
@pytest.mark.parametrize("body", NO_ANSWERS)
def test_an_answer_to_a_completion_that_is_none_is_asked_about(body):
    world = SimulatedS3()
    complete = world._CompleteMultipartUpload
    answers = []

    def blank(call):
        status, headers, found = complete(call)
        answers.append(status)
        return status, headers, found if len(answers) > 1 else body

    world._CompleteMultipartUpload = blank
    client_on(world).put_many({"big": BIG})
    assert world.objects["big"] == BIG and answers == [200, 404]


@pytest.mark.parametrize("what", ["ours", "ours by its id", "another", "gone", "slow down"])
def test_a_repeated_completion_that_does_not_name_the_object_is_asked_about_once(what):
    """As Ceph answers where the upload was completed before, and the answer was lost."""
    world = SimulatedS3()
    complete, head = world._CompleteMultipartUpload, world._HeadObject
    heads, lost = [], []

    def nameless(call):
        if not lost:
            lost.append(complete(call))
            return 200, {}, b""
        if what == "another":
            world.objects["big"] = b"another"
        elif what == "gone":
            del world.objects["big"]
        return 200, {}, b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>"

    def looked_at(call):
        heads.append(call.key)
        return world._error(503, "SlowDown") if what == "slow down" else head(call)

    world._CompleteMultipartUpload, world._HeadObject = nameless, looked_at
    (outcome,) = client_on(world).put_many([PutItem("big", BIG, if_none_match=what == "ours by its id")])
    named = world.etag("big").strip('"') if "ours" in what else None
    assert (outcome.etag, outcome.size, heads) == (named, len(BIG), ["big"])


def test_a_completion_that_never_names_the_object_costs_no_request_more():
    """As older versions of Ceph answer always."""
    world = SimulatedS3()
    complete, heads = world._CompleteMultipartUpload, []

    def nameless(call):
        complete(call)
        return 200, {}, b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>"

    world._CompleteMultipartUpload, world._HeadObject = nameless, heads.append
    (outcome,) = client_on(world).put_many([PutItem("big", BIG)])
    assert (outcome.etag, outcome.size, heads) == (None, len(BIG), [])


@pytest.mark.second
@pytest.mark.parametrize("body", NO_ANSWERS)
@pytest.mark.parametrize(
    "operation",
    [
        "PutObject", "CreateMultipartUpload", "CompleteMultipartUpload", "CopyObject", "UploadPartCopy",
        "DeleteObjects", "ListObjectsV2",
    ],
)  # fmt: skip
def test_an_answer_that_is_not_the_operations_is_no_success(operation, body, monkeypatch):
    """A proxy's page, another operation's answer: nothing was done, or nobody knows. It is asked for a few times."""
    monkeypatch.setattr(copies, "LARGEST_COPY", 1 << 20)
    if operation in ("PutObject", "CopyObject"):
        monkeypatch.setattr(copies, "LARGEST_COPY", 1 << 30)
        monkeypatch.setattr(uploads, "LONGEST_SINGLE_PUT", 1 << 30)
    if (operation == "ListObjectsV2" and b"ListBucket" in body) or (operation == "PutObject" and not body.strip()):
        return
    world = SimulatedS3({"k": BIG})
    setattr(world, f"_{operation}", lambda call: (200, {}, body))
    client = client_on(world, attempts=8)
    with pytest.raises(BackendError) as caught:
        if "Copy" in operation:
            client.copy({"k": "copy"})
        elif operation == "DeleteObjects":
            client.delete_many(["k"])
        elif operation == "ListObjectsV2":
            list(client.list())
        else:
            client.put_many({"big": BIG})
    assert world.log.count((operation, {"DeleteObjects": None, "ListObjectsV2": None}.get(operation, "big"))) <= 8
    if operation in ("PutObject", "CompleteMultipartUpload"):
        assert "unknown" in caught.value.hint
    assert not world.uploads and (operation == "ListObjectsV2" or caught.value.attempts == (8 if body == b" \n" else 3))


def test_an_upload_without_an_id_is_no_upload():
    world = SimulatedS3()
    body = b"<InitiateMultipartUploadResult></InitiateMultipartUploadResult>"
    world._CreateMultipartUpload = lambda call: (200, {}, body)
    (outcome,) = client_on(world).put_many({"big": BIG}, on_error="return")
    assert isinstance(outcome.error, BackendError) and "did not name the upload" in str(outcome.error)


def test_a_refusal_inside_a_200_is_a_refusal():
    world = SimulatedS3({"k": b"1"})
    world._CopyObject = lambda call: (200, {}, world._error(403, "AccessDenied")[2])
    (outcome,) = client_on(world).copy({"k": "copy"}, on_error="return")
    assert isinstance(outcome.error, AccessDenied) and outcome.attempts == 1


def test_threads_that_begin_together_make_one_engine(s3_env, monkeypatch):
    begun = threading.Barrier(4)
    made = []
    real = choice.choose

    def choose(*given):
        made.append(real(*given))
        with contextlib.suppress(threading.BrokenBarrierError):
            begun.wait(0.2)  # the others have begun too, and wait or make their own
        return made[-1]

    monkeypatch.setattr(choice, "choose", choose)
    with BulkClient("bucket", region_name="us-east-1") as client:
        engines = []
        assert in_threads(lambda _: engines.append(client.engine), range(4)) == []
    assert len(engines) == 4 and len(made) == 1
