"""Plain requests: without a job as long as all goes well, and with the same outcomes as with one whatever comes."""

import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore._core import crc
from mfstore.errors import AccessDenied, BackendError, InvalidKey, NotFound
from mfstore.s3 import BulkClient
from mfstore.s3.bulk import client as bulk
from mfstore.s3.engines.interface import Engine
from mfstore.s3.transfers import hedging
from mfstore.s3.transfers.retry import RetryPolicy, RetryQuota
from tests.rigs.raw_server import Server
from tests.rigs.soak import lasting

DATA = b"0123456789"
DENIED = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
KINDS = ("whole", "unverified", "range", "end", "head", "put", "read")


def summed(name, data=DATA):
    return crc.encode(name, crc.update(name, data))


def good(request):
    """What S3 answers."""
    body, status, headers = (
        DATA,
        "200 OK",
        ['ETag: "e1"', "x-amz-request-id: R", f"x-amz-checksum-crc32: {summed('CRC32')}"],
    )
    if request.method == "PUT":
        return status, [*headers, "Content-Length: 0"], b""
    if wanted := request.headers.get("range", "").removeprefix("bytes="):
        first, _, last = wanted.partition("-")
        begin, end = (int(first), int(last or 9)) if first else (10 - int(last), 9)
        body, status = DATA[begin : end + 1], "206 Partial Content"
        headers.append(f"Content-Range: bytes {begin}-{end}/10")
    return status, [*headers, f"Content-Length: {len(body)}"], body


class Laneless(Engine):
    """The native engine, with a call for each request."""

    def __init__(self, inner):
        self.name, self.inner = inner.name, inner

    def channel(self):
        channel = self.inner.channel()
        channel.lane = lambda *_: None
        return channel

    def close(self):
        self.inner.close()


class World:
    """A server whose answers a test makes, and two clients: one by calls alone, one with plain requests."""

    def __init__(self, answer=good):
        self.answer = answer
        self.server = Server(self._answer)
        self.client = BulkClient(
            "bucket", engine="native", endpoint_url=self.server.origin, region_name="us-east-1", attempts=2,
            aws_access_key_id="AKID", aws_secret_access_key="secret", checksum="CRC32",
        )  # fmt: skip
        self.calls = self.client.with_parts()
        self.calls.transfers.engine = Laneless(self.calls.engine)

    def _answer(self, connection, request):
        status, headers, body = self.answer(request)
        connection.reply(status, headers, b"" if request.method == "HEAD" else body)
        return status.startswith("2") and f"Content-Length: {len(body)}" in headers

    def close(self):
        self.client.close()
        self.server.close()


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Retries without a delay, and nothing is asked twice for being late."""
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)
    monkeypatch.setattr(hedging, "EVIDENCE", 1 << 30)


def asked(client, kind, keys):
    """The outcomes of one kind of request for each key."""
    match kind:
        case "whole" | "unverified":
            return client.get_many(keys, on_error="return", verify=kind == "whole")
        case "range":
            return client.get_many([(key, 2, 4) for key in keys], on_error="return")
        case "end":
            return client.get_many([(key, -3, None) for key in keys], on_error="return")
        case "head":
            return client.head_many(keys, on_error="return")
        case "put":
            return client.put_many([(key, DATA) for key in keys], on_error="return")
    places = [(key, 2, 4, memoryview(bytearray(4))) for key in keys]
    return client.read_many(places, on_error="return", ordered=True)


def told(outcome):
    data = outcome.data
    error = None if outcome.error is None else (type(outcome.error), str(outcome.error), outcome.error.attempts)
    return (
        outcome.index, outcome.bucket, outcome.key, type(data), None if data is None else bytes(data), outcome.path,
        outcome.size, outcome.etag, error, dict(outcome.headers), outcome.attempts, outcome.last, outcome.ok,
    )  # fmt: skip


def counted(stats):
    return [
        getattr(stats, name)
        for name in ("items", "failed", "bytes", "requests", "retries", "verified", "verify_failures")
    ]


# ---- without jobs ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_well_takes_no_job(world, kind, monkeypatch):
    world.answer = good
    for name in ("GetJob", "ReadJob", "HeadJob", "PutJob", "put_item", "address_of"):
        monkeypatch.setattr(bulk, name, None)
    keys = [f"k{number}" for number in range(300)]
    outcomes = list(asked(world.client, kind, keys))
    assert [outcome.index for outcome in outcomes] == [*range(300)]
    assert all(outcome.ok for outcome in outcomes) and [outcome.key for outcome in outcomes] == keys
    assert all(outcome.attempts == 1 and 0 < outcome.first_byte <= outcome.seconds for outcome in outcomes)
    (other,) = asked(world.client, kind, ["s3://other/k"])
    assert "not callable" in str(other.error)  # that would have been a job


@pytest.mark.parametrize("kind", KINDS)
def test_good_replies_are_the_same_outcomes(world, kind):
    world.answer = good
    keys = [f"k{i}" for i in range(70)]
    plain, by_calls = asked(world.client, kind, keys), asked(world.calls, kind, keys)
    assert [told(outcome) for outcome in plain] == [told(outcome) for outcome in by_calls]
    assert counted(plain.stats) == counted(by_calls.stats)
    assert plain.stats.verified == (700 if kind == "whole" else 0)


# ---- odd replies ----------------------------------------------------------------------------

BODIES = (b"", DATA, DATA[2:6], DATA[7:], DATA[2:4], b"<html>", DENIED)
RANGES = [
    f"Content-Range: {value}"
    for value in (
        "bytes 2-5/10", "bytes 0-9/10", "bytes 2-5/*", "bytes 7-9/10", "bytes 2-4/5", "bytes 02-5/10", "bytes 2-7/10",
        "bytes 7-9/20", "bytes 2-5/4", "bytes 2-3/4", "bytes 3-5/6", "bytes 2-5/6", "octets 2-5/10", "x",
    )
]  # fmt: skip
ODD = (
    "ETag: e", 'ETag: "e2"', "ETag: ", 'ETag: W/"e"', "ETag: \xe9", "eTAG :x", "ETag:\t\"e\" ", " folded",
    *RANGES, "Content-Length: 3", "Content-Length: 010", "Content-Length: 10", "Content-Type: text/html",
    "x-amz-checksum-type: FULL_OBJECT", "x-amz-checksum-type: COMPOSITE", "x-amz-checksum-type: other",
    f"x-amz-checksum-crc32: {summed('CRC32')}", f"x-amz-checksum-crc32: {summed('CRC32', b'other')}",
    f"X-Amz-Checksum-CRC64NVME: {summed('CRC64NVME')}", f"x-amz-checksum-crc64nvme: {summed('CRC64NVME', b'other')}",
    f"x-amz-checksum-crc32c: {summed('CRC32C')}", "x-amz-checksum-crc32: abcd-2", "x-amz-checksum-crc32: none",
    "x-amz-checksum-sha256: x", "x-amz-request-id: R2", "x-amz-meta-a: b", "Location: http://elsewhere/",
)  # fmt: skip
STATUSES = ("200 OK", "200 OK", "206 Partial Content", "201 Created", "203 Odd", "404 Not Found", "416 Range", "500 Oh")


USUAL = ("ETag", "x-amz-request-id", "x-amz-checksum-crc32", "Content-Length", "Content-Range")
DROPPED = ((), *((name,) for name in USUAL), USUAL[:3])
"""Of the headers of a good answer."""


@st.composite
def replies(draw):
    """An answer, mostly near to a good one."""
    dropped = draw(st.sampled_from(DROPPED))
    more = draw(st.lists(st.sampled_from(ODD), max_size=2))
    status = draw(st.none() | st.sampled_from(STATUSES))
    body = draw(st.none() | st.sampled_from(BODIES))
    return dropped, more, status, body


def odd(reply, request):
    drop, more, status, body = reply
    usual, headers, data = good(request)
    data = data if body is None else body
    headers = [line for line in headers if not line.startswith("Content-Length")] + [f"Content-Length: {len(data)}"]
    headers = [line for line in headers if line.partition(":")[0] not in drop]
    return status or usual, headers + more, data


def compare(world, wanted, kind):
    """The outcomes of these answers are the same without jobs and with them."""
    world.answer = lambda request: odd(wanted[int(request.path.rpartition("k")[2].partition("?")[0])], request)
    keys = [f"k{number}" for number in range(len(wanted))]
    plain, by_calls = (
        asked(client.with_parts(quota=RetryQuota()), kind, keys) for client in (world.client, world.calls)
    )
    for one, other, reply in zip(plain, by_calls, wanted, strict=True):
        assert told(one) == told(other), reply
    assert counted(plain.stats) == counted(by_calls.stats)


@pytest.mark.parametrize("kind", KINDS)
def test_each_odd_thing_in_a_reply(world, kind):
    headers = [(dropped, more, None, None) for dropped in DROPPED for more in ([], *([line] for line in ODD))]
    bodies = [((), [], status, body) for status in STATUSES for body in BODIES]
    ranges = [(("Content-Range",), [line], None, body) for line in RANGES for body in BODIES]
    compare(world, headers + bodies + ranges, kind)


def test_many_odd_things_in_replies(world):
    @settings(max_examples=lasting(10))
    @given(st.lists(replies(), min_size=1, max_size=12), st.sampled_from(KINDS))
    def check(wanted, kind):
        compare(world, wanted, kind)

    check()


# ---- the scheduler's rules ------------------------------------------------------------------


def test_odd_items_are_in_their_places(world):
    world.answer = good
    items = [
        "a",
        "",
        ("b", 2, 4),
        "s3://bucket/c",
        7,
        ("d", -1, None),
        ["e", 0, 3],
        ("f", 3, 0),
        "ä",
        ("g", None, None),
    ]
    outcomes = list(world.client.get_many(items * 20, on_error="return"))
    assert [told(outcome) for outcome in outcomes] == [
        told(outcome) for outcome in world.calls.get_many(items * 20, on_error="return")
    ]
    assert [outcome.item for outcome in outcomes] == items * 20
    assert outcomes[0].data == DATA and outcomes[2].data == DATA[2:6] and isinstance(outcomes[1].error, InvalidKey)


@pytest.mark.parametrize("kind", KINDS)
def test_urls_of_one_bucket_take_no_job(world, kind, monkeypatch):
    """That of the client, or, where it has none, of the first item."""
    world.answer = good
    urls = [f"s3://bucket/k{number}" for number in range(50)]
    by_calls = [told(outcome) for outcome in asked(world.calls, kind, urls)]
    for name in ("GetJob", "ReadJob", "HeadJob", "PutJob", "put_item", "address_of"):
        monkeypatch.setattr(bulk, name, None)
    assert [told(outcome) for outcome in asked(world.client, kind, urls)] == by_calls
    assert [outcome[2] for outcome in by_calls] == [f"k{number}" for number in range(50)]
    world.client.bucket = None
    assert [told(outcome) for outcome in asked(world.client, kind, urls)] == by_calls
    for others in (["k0"], ["s3://bucket"], ["s3://bucket/"], ["s3://bucket/k", "k0"], ["s3://bucket/k", "s3://b/k"]):
        assert not [*asked(world.client, kind, others)][-1].ok  # a job that cannot be made


def test_a_bucket_that_is_none(world):
    for bucket in ("", "ä", None):
        world.client.bucket = world.calls.bucket = bucket
        for items in (["k"], ["s3:///k"], ["s3://ä/k"], [], [("s3://ö/k", 2, 4)], [()]):
            outcomes = world.client.get_many(items, on_error="return"), world.calls.get_many(items, on_error="return")
            assert [told(outcome)[:9] for outcome in outcomes[0]] == [told(outcome)[:9] for outcome in outcomes[1]]


def test_data_of_every_kind_is_put(world):
    bodies = {}

    def keep(request):
        bodies[request.path.partition("?")[0]] = request.body
        return good(request)

    world.answer = keep
    data = {"a": DATA, "b": bytearray(DATA), "c": "ä", "d": memoryview(DATA)[2:], "e": [DATA, b"x"], "f": b"", "g": ""}
    assert [outcome.size for outcome in world.client.put_many(data)] == [10, 10, 2, 8, 11, 0, 0]
    assert [bodies[f"/bucket/{key}"] for key in data] == [DATA, DATA, "ä".encode(), DATA[2:], DATA + b"x", b"", b""]


def test_no_more_are_in_flight_than_may_be(world):
    lock, now, most, refused = threading.Lock(), [0], [0], set()
    three = threading.Barrier(3)

    def answer(request):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            first = request.path not in refused
            refused.add(request.path)
        three.wait(60)  # nobody is answered before as many as may be are asked for
        with lock:
            now[0] -= 1
        return ("503 Slow", ["Content-Length: 0"], b"") if first and int(request.path[-1]) < 4 else good(request)

    world.answer = answer
    client = BulkClient(
        "bucket", engine="native", endpoint_url=world.server.origin, region_name="us-east-1", concurrency=3,
        aws_access_key_id="AKID", aws_secret_access_key="secret",
    )  # fmt: skip
    with client:
        client.transfers.quota.tokens = 1e9
        result = client.get_many([f"k{number}" for number in range(30)], ordered=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mfstore.s3.transfers.scheduler.LIMIT_CUT", 1.0)
            assert {outcome.data for outcome in result} == {DATA}
    assert most[0] == result.stats.concurrency == 3
    assert result.stats.requests == 42 and result.stats.throttled == result.stats.retries == 12


def test_what_is_late_at_the_end_is_asked_for_twice(world, monkeypatch):
    monkeypatch.setattr(hedging, "EVIDENCE", 5)
    monkeypatch.setattr(hedging, "HEDGE_FLOOR", 0.0)
    again, seen = threading.Event(), []

    def answer(request):
        if request.path.endswith("k29"):
            seen.append(request)
            if len(seen) == 1:
                again.wait(60)  # the first is answered when the second has been
        return good(request)

    world.answer = answer
    try:
        result = world.client.get_many([f"k{number}" for number in range(30)])
        assert [outcome.data for outcome in result] == [DATA] * 30
        assert len(seen) == 2 and result.stats.hedged >= 1
    finally:
        again.set()


def test_a_long_body_waits_for_memory_while_an_older_item_is_under_way(world):
    """Of nobody knows how long each takes all the memory there is: only the oldest item has it at once."""
    head = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nx-amz-request-id: R\r\nTransfer-Encoding: chunked\r\n\r\n'
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (3 << 19, bytes(3 << 19))
    first, both = threading.Event(), threading.Event()

    def answer(connection, request):
        older = request.path.endswith("k0")
        if older:
            assert first.wait(60)
            connection.hold(0.2)  # while the other is announced, and would be given the memory
        connection.send(head, body[: 5 << 18])
        if older:
            connection.hold(0.2)
            both.set()
        first.set()
        assert both.wait(60)
        connection.send(body[5 << 18 :])

    world.server.answer = answer
    result = world.client.beside("bucket", 4 << 20).get_many(["k0", "k1"])
    assert [outcome.size for outcome in result] == [3 << 19] * 2
    assert result.stats.memory < 6 << 20  # never that of both


def test_an_error_of_the_items_own_comes_out(world):
    world.answer = good

    def keys():
        yield from ("a", "b")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(world.client.get_many(keys()))
    assert [outcome.data for outcome in world.client.get_many(["a"])] == [DATA]


def test_what_nobody_asks_for_any_more_ends_at_once(world):
    """No cycle leads through requests under way, where the collector does not look."""
    end = threading.Event()

    def answer(request):
        end.wait(60)
        return good(request)

    world.answer = answer
    try:
        for client in world.client, world.calls:
            result = client.get_many(["a", "b"]).begin()
            scheduler = weakref.ref(result._begun[0])
            del result
            assert scheduler() is None
    finally:
        end.set()
    assert [outcome.data for outcome in world.client.get_many(["a"])] == [DATA]


def test_credentials_that_cannot_be_had_are_not_looked_for_by_each_item(world, monkeypatch):
    """To refresh them in vain may take seconds."""
    looked = []

    def refused():
        looked.append(1)
        raise AccessDenied("expired")

    control = world.client.transfers.control
    monkeypatch.setattr(control, "keys", None)
    monkeypatch.setattr(control, "credentials", refused)
    outcomes = list(world.client.get_many([f"k{number}" for number in range(60)], on_error="return"))
    assert [type(outcome.error) for outcome in outcomes] == [AccessDenied] * 60
    assert len(looked) < 6  # twice each time that some are sent


def test_nothing_is_written_after_the_end(world):
    asked_for, end = threading.Semaphore(0), threading.Event()

    def answer(request):
        asked_for.release()
        end.wait(60)
        return good(request)

    world.answer = answer
    memory = bytearray(40)
    places = [(f"k{number}", 0, 10, memoryview(memory)[10 * number : 10 * number + 10]) for number in range(4)]
    result = world.client.read_many(places).begin()
    for _ in places:
        assert asked_for.acquire(timeout=60)
    result._begun[0].close()
    end.set()
    world.server.close()  # which answers all
    assert bytes(memory) == bytes(40)


def test_not_found_is_what_it_is(world):
    world.answer = lambda request: ("404 Not Found", ["Content-Length: 0"], b"")
    (outcome,) = world.client.head_many(["k"], on_error="return")
    assert isinstance(outcome.error, NotFound) and outcome.attempts == 1


@pytest.mark.parametrize("n", [4, (1 << 20) + 9])
@pytest.mark.parametrize(
    ("first", "told", "came"),
    [(2, 0, -1), (2, 0, 1), (2, 1, 1), (1, 0, 0)],
    ids=["shorter", "longer", "more than asked for", "other"],
)
@pytest.mark.parametrize("total", ["*", "9999999"])
def test_a_body_that_is_not_its_range(world, n, first, told, came, total):
    """The lengths of the body and of its range are compared, and the range with what was asked for."""

    def answer(request):
        headers = ['ETag: "e1"', "x-amz-request-id: R", f"Content-Range: bytes {first}-{first + n + told - 1}/{total}"]
        return "206 Partial Content", [*headers, f"Content-Length: {n + came}"], bytes(n + came)

    world.answer = answer
    for client in world.client, world.calls:
        (outcome,) = client.get_many([("k", 2, n)], on_error="return")
        assert isinstance(outcome.error, BackendError) and outcome.data is None
