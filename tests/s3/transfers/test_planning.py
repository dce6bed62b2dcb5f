"""The pure parts of the S3 client: what to retry, how many at once, what to fetch together, how to cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore.errors import InvalidKey, InvalidRange
from mfstore.s3 import BulkStats, Outcome
from mfstore.s3.aws.errors import Verdict, classify
from mfstore.s3.bulk.items import Address, address_of, plan_ranges, source_of
from mfstore.s3.calls import Call, Reply
from mfstore.s3.transfers.downloads import LONGEST_PIECE, SHORTEST_PIECE, cut_pieces
from mfstore.s3.transfers.retry import RetryPolicy, RetryQuota, asked_delay
from mfstore.s3.transfers.scheduler import FEWEST_CALLS, MOST_CALLS, Limiter, calls_to_fill
from mfstore.s3.transfers.uploads import LARGEST_OBJECT, LARGEST_PART, MOST_PARTS, part_size, slice_parts

MIB = 1 << 20


# ---- retrying ---------------------------------------------------------------------------


def reply(status=0, code=None, failure=None, operation="GetObject", **fields):
    data = f"<Error><Code>{code}</Code></Error>".encode() if code else None
    return Reply(Call(operation, "b", "k"), status=status, failure=failure, data=data, **fields)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (reply(200), Verdict.FINE),
        (reply(206), Verdict.FINE),
        (reply(failure="reset", reused=True), Verdict.FREE),
        (reply(failure="reset"), Verdict.TRANSIENT),
        (reply(200, failure="reset", reused=True, first_byte=1.0), Verdict.TRANSIENT),
        (reply(200, failure="truncated"), Verdict.TRANSIENT),
        (reply(failure="connect"), Verdict.TRANSIENT),
        (reply(failure="stall"), Verdict.TRANSIENT),
        (reply(failure="tls"), Verdict.FATAL),
        (reply(200, failure="disk"), Verdict.FATAL),
        (reply(failure="cancelled"), Verdict.FATAL),
        (reply(500), Verdict.TRANSIENT),
        (reply(502), Verdict.TRANSIENT),
        (reply(504), Verdict.TRANSIENT),
        (reply(503), Verdict.THROTTLED),
        (reply(503, "SlowDown"), Verdict.THROTTLED),
        (reply(429), Verdict.THROTTLED),
        (reply(400, "RequestTimeout"), Verdict.TRANSIENT),
        (reply(400, "BadDigest"), Verdict.TRANSIENT),
        (reply(409, "OperationAborted"), Verdict.TRANSIENT),
        (reply(409, "ConditionalRequestConflict"), Verdict.TRANSIENT),
        (reply(400, "ExpiredToken"), Verdict.REFRESH),
        (reply(403, "RequestTimeTooSkewed"), Verdict.SKEWED),
        (reply(301), Verdict.MOVED),
        (reply(307), Verdict.MOVED),
        (reply(400, "AuthorizationHeaderMalformed"), Verdict.MOVED),
        (reply(400, operation="HeadObject", headers={"x-amz-bucket-region": "eu-west-1"}), Verdict.MOVED),
        (reply(400, operation="HeadObject"), Verdict.REFRESH),
        (reply(403, "AccessDenied"), Verdict.FATAL),
        (reply(404, "NoSuchKey"), Verdict.FATAL),
        (reply(412, "PreconditionFailed"), Verdict.FATAL),
        (reply(416, "InvalidRange"), Verdict.FATAL),
        (reply(501, "NotImplemented"), Verdict.FATAL),
        (reply(400, "InvalidRequest"), Verdict.FATAL),
    ],
)
def test_what_a_reply_calls_for(answer, verdict):
    assert classify(answer) is verdict


@pytest.mark.parametrize("body", [b"<Error><Code>SlowDown</Code><Mess", b"<html>sorry<p><Code>SlowDown</Code></html>"])
def test_a_code_in_what_is_no_xml_counts(body):
    assert classify(Reply(Call("GetObject", "b", "k"), status=400, data=body)) is Verdict.THROTTLED


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-amz-retry-after": "1500"}, 1.5),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:27:53 GMT"}, 7.0),
        ({"retry-after": "Wednesday, 21-Oct-26 07:28:00 GMT", "date": "Wed Oct 21 07:27:53 2026"}, 7.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:07 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:07 GMT"}, 20.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:27:53 GMT"}, 0.0),
        ({"retry-after": "99999999999999"}, 20.0),
        ({"retry-after": "9" * 5000}, 20.0),
        ({"x-amz-retry-after": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_delay_a_server_asks_for(headers, seconds):
    assert asked_delay(reply(503, headers=headers), 20.0) == seconds


def test_delays_grow_and_have_full_jitter():
    policy = RetryPolicy()
    longest = [policy.delay(Verdict.TRANSIENT, attempt, lambda: 1.0) for attempt in range(1, 40)]
    assert longest[:3] == [0.05, 0.1, 0.2] and longest == sorted(longest) and longest[-1] == policy.cap
    assert policy.delay(Verdict.TRANSIENT, 5, lambda: 0.0) == 0.0
    assert policy.delay(Verdict.THROTTLED, 1, lambda: 1.0) > longest[0]
    assert policy.delay(Verdict.FREE, 1, lambda: 1.0) == 0.0


def test_without_tokens_retries_wait_for_their_turn():
    quota = RetryQuota()
    waits = [quota.wait(100.0) for _ in range(200)]
    assert waits[:100] == [0.0] * 100
    assert waits[100:] == pytest.approx([number / quota.RATE for number in range(1, 101)])
    for _ in range(10):
        quota.succeeded()
    assert quota.wait(100.0) == 0.0


# ---- concurrency ------------------------------------------------------------------------


def test_the_formula_is_the_papers():
    # s3_clients survey, section 2: 28 requests of 8 MiB, 26 of 16 MiB, 24 of 64 MiB fill 10 Gbit/s
    assert [calls_to_fill(size * MIB) for size in (8, 16, 64)] == [28, 26, 24]
    assert calls_to_fill(1) == MOST_CALLS and calls_to_fill(1 << 40, 1e6) == FEWEST_CALLS


def test_throttling_cuts_once_a_round_trip_and_calm_brings_it_back():
    limiter = Limiter(size=MIB)
    before = limiter.limit
    for number in range(50):
        limiter.slow_down(10.0 + number / 10_000)
    assert limiter.limit == pytest.approx(before * 0.7)
    for number in range(1, 20):
        limiter.slow_down(10.0 + number)
    assert limiter.limit == 1.0
    rounds = 0
    while limiter.limit < before:
        rounds += 1
        for _ in range(int(limiter.limit)):
            limiter.succeeded(40.0 + 0.05 * rounds, MIB, 0.05)
    assert rounds <= 12  # round trips


def test_more_is_tried_while_it_brings_more():
    limiter = Limiter(size=4096.0)
    limiter.ceiling = limiter.limit = 16.0
    limiter.highest = 1000
    now, seen = 0.0, []
    for _ in range(20_000):
        now += 0.01 / min(limiter.limit, 300)  # a service that gives its best to 300
        limiter.succeeded(now, 4096, 0.01)
        seen.append(limiter.limit)
    assert 250 <= max(seen) <= 1000


@pytest.mark.parametrize(("seconds", "limit"), [(0.002, range(59, 90)), (0.06, range(MOST_CALLS, 300))])
def test_far_away_small_objects_have_as_many_calls_as_they_need_after_two_round_trips(seconds, limit):
    limiter = Limiter()
    for round_trip in (1, 2):
        for _ in range(int(limiter.limit)):
            limiter.succeeded(round_trip * seconds, 4096, seconds)
    assert int(limiter.limit) in limit


def test_who_was_throttled_and_who_is_near_a_busy_service_come_to_more_calls_step_by_step():
    throttled, busy = Limiter(), Limiter()
    throttled.slow_down(0.0)
    busy.succeeded(0.001, 4096, 0.001)
    for limiter in (throttled, busy):
        before = limiter.limit
        for number in range(300):
            limiter.succeeded(0.06 + number / 1000, 4096, 0.06)
        assert before < limiter.limit < 120


def test_a_fixed_concurrency_only_falls_when_throttled():
    limiter = Limiter(fixed=10)
    for number in range(1000):
        limiter.succeeded(number / 100, 10 * MIB, 0.1)
    assert limiter.limit == 10
    limiter.slow_down(100.0)
    assert limiter.limit == 7


# ---- cutting ------------------------------------------------------------------------------


@given(st.integers(0, 1 << 40), st.integers(1, 300))
def test_pieces_cover_the_object(length, pieces):
    length = min(length, 1 << 34)
    bounds = cut_pieces(length, pieces)
    assert bounds[0][0] == 0 and bounds[-1][1] == length
    assert all(first[1] == second[0] for first, second in pairwise(bounds))
    assert all(SHORTEST_PIECE <= stop - start <= LONGEST_PIECE for start, stop in bounds[:-1])


@given(st.integers(1, LARGEST_OBJECT))
def test_parts_are_few_and_large_enough(size):
    part = part_size(size)
    assert 5 * MIB <= part <= LARGEST_PART and -(-size // part) <= MOST_PARTS


def test_what_no_parts_can_hold_is_refused():
    with pytest.raises(InvalidRange):
        part_size(LARGEST_OBJECT + 1)


@given(st.lists(st.binary(max_size=20), max_size=8), st.data())
def test_slices_of_parts(parts, data):
    whole = b"".join(parts)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert b"".join(slice_parts([memoryview(part) for part in parts], start, stop)) == whole[start:stop]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5000), st.integers(1, 500)), max_size=30),
    st.integers(0, 300),
    st.integers(1, 2000),
)
def test_ranges_are_fetched_together(items, gap, span):
    wanted = [(number, item, Address("b", item[0], item[1], item[1] + item[2])) for number, item in enumerate(items)]
    seen = []
    for _, key, ranges in plan_ranges(wanted, gap, span):
        end = None
        for index, item, start, length in ranges:
            assert item == items[index] == (key, start, length)
            assert end is None or start <= end + gap
            end = max(end or 0, start + length)
            seen.append(index)
        first = min(start for _, _, start, _ in ranges)
        assert len(ranges) == 1 or end - first <= span
    assert sorted(seen) == list(range(len(items)))


# ---- items --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("k", Address("b", "k")),
        ("s3://other/a//b/", Address("other", "a//b/")),
        (("k", 5, 10), Address("b", "k", 5, 15)),
        (("k", 5, None), Address("b", "k", 5, None)),
        (("k", -5, None), Address("b", "k", -5, None)),
        (("k", None, None), Address("b", "k")),
        (
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/name/key/part",
            Address("arn:aws:s3:eu-west-1:123456789012:accesspoint/name", "key/part"),
        ),
        *(
            (f"s3://{arn}/key/p:a", Address(arn, "key/p:a"))
            for arn in (
                "arn:aws:s3:eu-west-1:123456789012:accesspoint:name",
                "arn:aws:s3::123456789012:accesspoint/m.mrap",
                "arn:aws-cn:s3-object-lambda:cn-north-1:123456789012:accesspoint/ol",
                "arn:aws:s3-outposts:eu-west-1:123456789012:outpost/op-1/accesspoint/ap",
                "arn:aws:s3-outposts:eu-west-1:123456789012:outpost:op-1:accesspoint:ap",
            )
        ),
    ],
)
def test_items(item, expected):
    assert address_of(item, "b") == expected


@pytest.mark.parametrize("item", ["", "s3://", "s3://b", "s3://b/", 5, None, ("k", 1), "x" * 1025, "\ud800"])
def test_items_that_name_nothing(item):
    with pytest.raises(InvalidKey):
        address_of(item, "b")


@pytest.mark.parametrize("item", [("k", -5, 2), ("k", 0, -1), ("k", 0, 0)])
def test_ranges_that_cannot_be(item):
    with pytest.raises(InvalidRange):
        address_of(item, "b")


def test_what_can_be_stored(tmp_path):
    assert source_of("ü") == (["ü".encode()], None)
    assert source_of(tmp_path / "f") == (None, str(tmp_path / "f"))
    assert source_of([b"1", b"2"]) == ([b"1", b"2"], None)
    with pytest.raises(TypeError, match="cannot store a int"):
        source_of(5)


# ---- statistics -----------------------------------------------------------------------------


def test_statistics_of_many_items_stay_small():
    stats = BulkStats("native", "get_many")
    for number in range(100_000):
        stats.add(Outcome(number, "k", "b", f"k{number}", size=10, seconds=number / 100_000))
    assert stats.items == 100_000 and stats.bytes == 1_000_000
    assert len(stats.latencies) <= 2 * stats.SAMPLE
    assert stats.percentile(0.5) == pytest.approx(0.5, abs=0.02) and stats.percentile(0.99) == pytest.approx(
        0.99, abs=0.02
    )
    assert [key for _, key in stats.slowest] == [f"k{number}" for number in range(99_999, 99_994, -1)]
