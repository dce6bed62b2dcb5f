"""The S3 client and a network and servers that fail: cases A01 to A16 of the scoreboard, on both engines."""

import random
from dataclasses import replace

import pytest

from mfstore.errors import BackendError, CorruptObject
from mfstore.s3.transfers import downloads, scheduler
from mfstore.s3.transfers.retry import RetryPolicy
from mfstore.testing.actions import (
    EmptyBody,
    FlipRequest,
    FlipResponse,
    Reset,
    ResetConnect,
    ResetUpload,
    Slow,
    Stall,
    StallConnect,
    Status,
    Truncate,
    WrongLength,
    request_timeout,
    slow_down,
)
from tests.rigs.s3_faults import KIB, MIB, check_error, fault

pytestmark = pytest.mark.usefixtures("quick")

DATA = random.Random(1).randbytes(6 * MIB)
SMALL = DATA[: 100 * KIB]
LARGE = DATA[: 4 * MIB]
WINDOW = MIB
"""What may be lost on its way when a connection is reset."""
PATIENT = 100
"""Tries, where a time-out is short so that one fault is soon over: without the fault too, a machine that is busy takes
longer now and then."""

sizes = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])


def connect_timeout(seconds):
    from botocore.config import Config

    return Config(connect_timeout=seconds)


# ---- connections --------------------------------------------------------------------------


def test_a01_connection_refused_then_up(rig, monkeypatch):
    rig.store("k", SMALL)
    proxy = rig.proxy()
    proxy.stop_listening()
    delay = RetryPolicy.delay

    def up_after_three(policy, verdict, attempt, draw):
        if attempt == 3:
            proxy.start_listening()
        return delay(policy, verdict, attempt, draw)

    monkeypatch.setattr(RetryPolicy, "delay", up_after_three)
    (outcome,) = rig.client(proxy, attempts=40).get_many(["k"])
    assert outcome.data == SMALL and outcome.attempts == 4


def test_a01_connection_refused_for_good(rig):
    proxy = rig.proxy()
    proxy.stop_listening()
    (outcome,) = rig.client(proxy, attempts=3).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", f"127.0.0.1:{proxy.port}", "Check the endpoint")
    assert outcome.error.attempts == 3


@pytest.mark.parametrize("action", [Reset(), ResetConnect(), Truncate(size=0)], ids=["request", "connect", "fin"])
@sizes
def test_a02_reset_before_the_response_of_a_get(rig, action, data):
    rig.store("k", data)
    proxy = rig.proxy(fault(action, count=1))
    (outcome,) = rig.client(proxy).get_many(["k"])
    assert outcome.data == data


@pytest.mark.parametrize(
    "action", [Reset(), ResetConnect(), ResetUpload(fraction=0.5)], ids=["request", "connect", "body"]
)
@pytest.mark.parametrize("data", [SMALL, DATA], ids=["single", "parts"])
def test_a02_reset_before_the_response_of_a_put(any_rig, action, data):
    proxy = any_rig.proxy(fault(action, method="PUT", count=1))
    any_rig.client(proxy).put_many({"k": data})
    assert any_rig.stored("k") == data and not any_rig.uploads()


@pytest.fixture
def unsplit(quick, monkeypatch):
    """One request per object: of a split one, what the first request had under way beyond its piece comes on top."""
    monkeypatch.setattr(downloads, "SHORTEST_PIECE", 8 * MIB)
    monkeypatch.setattr(downloads, "LONGEST_PIECE", 64 * MIB)


# ---- bodies -------------------------------------------------------------------------------


def moved(proxy):
    """Bytes of bodies that came to the client."""
    return sum(entry.response_bytes for entry in proxy.requests("GET"))


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.999])
@sizes
def test_a03_reset_mid_body(any_rig, fraction, data, unsplit):
    any_rig.store("k", data)
    proxy = any_rig.proxy(fault(Reset(fraction=fraction), count=1))
    result = any_rig.client(proxy, concurrency=1).get_many(["k"]).wait()
    assert result[0].data == data
    if data is LARGE:
        assert moved(proxy) <= len(data) + WINDOW
        again = proxy.requests("GET")[1]
        etag = any_rig.boto.head_object(Bucket=any_rig.bucket, Key="k")["ETag"]
        assert fraction < 0.01 or (again.headers["range"] and again.headers["if-match"] == etag)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
def test_a03_reset_of_every_fourth_body(rig, fraction, tmp_path):
    rig.store("k", DATA)
    proxy = rig.proxy(fault(Reset(fraction=fraction), every=4))
    result = rig.client(proxy, attempts=20).get_many(["k"], into="files", dest=tmp_path / "dest")
    assert (tmp_path / "dest" / "k").read_bytes() == DATA and [path.name for path in (tmp_path / "dest").iterdir()] == [
        "k"
    ]
    assert result.stats.verified == len(DATA)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
@sizes
def test_a04_fin_mid_body(rig, fraction, data):
    rig.store("k", data)
    proxy = rig.proxy(fault(Truncate(fraction=fraction), count=1))
    (outcome,) = rig.client(proxy).get_many(["k"])
    assert outcome.data == data


def test_a04_fin_mid_body_for_good(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(Truncate(fraction=0.5)))
    (outcome,) = rig.client(proxy, attempts=3).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "the answer ended early")
    assert len(proxy.log) == 3


@sizes
def test_a05_content_length_too_large(rig, data):
    rig.store("k", data)
    proxy = rig.proxy(fault(WrongLength(1000), count=1))
    (outcome,) = rig.client(proxy, stall_timeout=0.4, concurrency=1, attempts=PATIENT).get_many(["k"])
    assert outcome.data == data
    assert len({entry.connection for entry in proxy.log}) > 1


@sizes
def test_a06_content_length_too_small(rig, data):
    rig.store("k", data)
    rig.store("other", SMALL[::-1])
    proxy = rig.proxy(fault(WrongLength(-1000), path="/k$", count=1))
    with rig.client(proxy, concurrency=1) as client:
        result = client.get_many(["k", "other", "k", "other"]).wait()
    assert [outcome.data for outcome in result] == [data, SMALL[::-1]] * 2
    assert result.stats.verify_failures <= 1
    damaged = proxy.log[0].connection
    assert all(entry.connection != damaged for entry in proxy.log[1:])


@sizes
def test_a06_content_length_too_small_for_good(rig, data):
    rig.store("k", data)
    proxy = rig.proxy(fault(WrongLength(-1000)))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    assert isinstance(outcome.error, (CorruptObject, BackendError)) and outcome.error.key == "k"


@pytest.mark.parametrize("action", [EmptyBody()], ids=["empty"])
@sizes
def test_a08_empty_body(rig, action, data):
    rig.store("k", data)
    proxy = rig.proxy(fault(action, count=1))
    result = rig.client(proxy).get_many(["k"]).wait()
    assert result[0].data == data and result.stats.verify_failures == 1
    proxy.faults = [fault(action)]
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    check_error(outcome.error, CorruptObject, rig, "k", "CRC64NVME", "store it again")


@sizes
@pytest.mark.parametrize("size", [0, None], ids=["first", "any"])
def test_a09_flipped_on_get(rig, data, size, unsplit):
    rig.store("k", data)
    proxy = rig.proxy(fault(FlipResponse(size), count=1))
    result = rig.client(proxy).get_many(["k"]).wait()
    assert result[0].data == data and result.stats.verify_failures == 1
    assert moved(proxy) <= 2 * len(data) + len(data) // 2 + WINDOW


@sizes
def test_a09_flipped_on_every_get(rig, data, tmp_path, unsplit):
    rig.store("k", data)
    proxy = rig.proxy(fault(FlipResponse()))
    client = rig.client(proxy)
    result = client.get_many(["k"], on_error="return").wait()
    check_error(result[0].error, CorruptObject, rig, "k", "CRC64NVME", "store it again")
    assert result.stats.verify_failures == 2 and moved(proxy) <= 2 * len(data) + WINDOW
    with pytest.raises(CorruptObject):
        client.get_many(["k"], into="files", dest=tmp_path / "dest")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("data", [SMALL, DATA], ids=["single", "parts"])
def test_a10_flipped_on_put(any_rig, data):
    proxy = any_rig.proxy(fault(FlipRequest(), method="PUT", count=1))
    result = any_rig.client(proxy).put_many({"k": data})
    assert any_rig.stored("k") == data and result.stats.retries >= 1 and not any_rig.uploads()


def test_a10_flipped_on_every_put(any_rig):
    proxy = any_rig.proxy(fault(FlipRequest(), method="PUT"))
    for data in (SMALL, DATA):
        (outcome,) = any_rig.client(proxy, attempts=3).put_many({"k": data}, on_error="return")
        check_error(outcome.error, BackendError, any_rig, "k", "changed on their way", "3 attempts")
        assert any_rig.keys() == [] and not any_rig.uploads()


# ---- time-outs ----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["request", "response", "body"])
@sizes
def test_a11_stalled(rig, where, data):
    rig.store("k", data)
    proxy = rig.proxy(fault(Stall(where=where, fraction=0.5 if where == "body" else None), count=1))
    limits = {"first_byte_timeout": 0.4, "stall_timeout": 0.4, "attempts": PATIENT}
    (outcome,) = rig.client(proxy, **limits).get_many(["k"])
    assert outcome.data == data


def test_a11_stalled_for_good(rig):
    proxy = rig.proxy(fault(Stall()))
    (outcome,) = rig.client(proxy, first_byte_timeout=0.2, attempts=2).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "no answer in time", "2 attempts")


@pytest.mark.parametrize("where", ["request", "response", "body", "connect"])
def test_a11_stalled_for_longer_than_retries_may_take(rig, ministack, where):
    """Each time-out ends a try, and no try begins after the deadline."""
    rig.store("k", SMALL)
    limits = {"first_byte_timeout": 0.3, "stall_timeout": 0.3, "retry_seconds": 0.5, "attempts": 1000}
    if where == "connect":
        proxy = rig.proxy(fault(StallConnect()), tls=ministack.authority.server_context())
        limits.update(verify=ministack.ca_file, config=connect_timeout(0.3))
    else:
        proxy = rig.proxy(fault(Stall(where=where, fraction=0.5 if where == "body" else None)))
    (outcome,) = rig.client(proxy, **limits).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", f"127.0.0.1:{proxy.port}")
    assert 1 <= outcome.error.attempts <= 3


def test_a11_stalled_put(rig):
    proxy = rig.proxy(fault(Stall(), count=1))
    rig.client(proxy, first_byte_timeout=0.4, attempts=PATIENT).put_many({"k": SMALL})
    assert rig.stored("k") == SMALL


def test_a11_stalled_tls_handshake(rig, ministack):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(StallConnect(), count=1), tls=ministack.authority.server_context())
    client = rig.client(proxy, verify=ministack.ca_file, config=connect_timeout(0.4), attempts=PATIENT)
    assert next(iter(client.get_many(["k"]))).data == SMALL


def test_a11_black_hole(rig):
    proxy = rig.proxy()
    proxy.stop_answering()
    client = rig.client(proxy, attempts=2, config=connect_timeout(0.3))
    (outcome,) = client.get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", f"127.0.0.1:{proxy.port}", "Check the endpoint")
    proxy.start_listening()
    rig.store("k", SMALL)
    assert next(iter(client.get_many(["k"]))).data == SMALL


@sizes
def test_a12_slow_loris(rig, data):
    rig.store("k", data)
    # A byte each two seconds, more than the stall time-out apart; and 25, a fortieth of the least that counts.
    for rate in (0.5, 50):
        proxy = rig.proxy(fault(Slow(rate, size=10), count=1))
        (outcome,) = rig.client(proxy, stall_timeout=0.5, attempts=PATIENT).get_many(["k"])
        assert outcome.data == data


def test_a12_slow_loris_for_good(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(Slow(50, size=10)))
    client = rig.client(proxy, stall_timeout=0.3, attempts=2)
    (outcome,) = client.get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "stalled", "2 attempts")


@pytest.mark.parametrize("work", ["get", "list"])
def test_a12_a_slow_loris_is_asked_three_times(rig, work):
    """What drips does so for as long as it is let: not for all tries, whose time-outs would add up to minutes."""
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(Slow(50, size=10), method="GET"))
    client = rig.client(proxy, stall_timeout=0.3, attempts=20)
    with pytest.raises(BackendError, match="stalled"):
        list(client.get_many(["k"]) if work == "get" else client.list())
    assert len(proxy.requests()) == 3


def test_a12_a_slow_line_is_no_slow_loris(rig):
    rig.store("k", SMALL[: 16 * KIB])
    proxy = rig.proxy(fault(Slow(4 * KIB)))
    (outcome,) = rig.client(proxy, stall_timeout=2.0).get_many(["k"])
    assert outcome.data == SMALL[: 16 * KIB] and outcome.attempts == 1


def test_a12_a_reply_that_is_no_object_may_trickle(rig):
    # As S3 does while it puts an upload together.
    proxy = rig.proxy(fault(Slow(100), method="POST", query="uploadId"))
    rig.client(proxy, stall_timeout=2.0).put_many({"k": DATA})
    assert len(proxy.requests("POST")) == 2 and rig.stored("k") == DATA


# ---- errors that pass ---------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a13_bursts_of_server_errors(rig, unhedged, share):
    count = 60
    for number in range(count):
        rig.store(f"k{number}", SMALL[:number])
    status = [500, 502, 504]
    proxy = rig.proxy(*(fault(Status(code), probability=share / 2) for code in status), seed=5)
    client = rig.client(proxy, attempts=100)
    client.transfers.quota.RATE = 1000.0
    client.transfers.policy = replace(client.transfers.policy, cap=1.0)
    result = client.get_many([f"k{number}" for number in range(count)]).wait()
    assert [outcome.data for outcome in result] == [SMALL[:number] for number in range(count)]
    assert len(proxy.log) <= count * {0.1: 1.5, 0.5: 4, 0.9: 10}[share]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a13_server_errors_for_good(rig, status):
    proxy = rig.proxy(fault(Status(status, "InternalError" if status == 500 else "")))
    (outcome,) = rig.client(proxy, attempts=3).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", f"HTTP {status}", "request FAULT", "3 attempts")
    assert len(proxy.log) == 3


def test_a14_slow_down_storm(rig, unhedged, monkeypatch):
    limiters = []

    class Watched(scheduler.Limiter):
        def __post_init__(self):
            super().__post_init__()
            self.lowest = self.limit
            limiters.append(self)

        def slow_down(self, now):
            super().slow_down(now)
            self.lowest = min(self.lowest, self.limit)

    monkeypatch.setattr("mfstore.s3.transfers.scheduler.Limiter", Watched)
    rig.store("k", b"x")
    # A cut of the limit says something once in a round trip; this long, 150 refusals of 40 at once take several.
    proxy = rig.proxy(fault(slow_down(), count=150), latency=0.1)
    client = rig.client(proxy, attempts=50, concurrency=40)
    client.transfers.policy = replace(client.transfers.policy, cap=1.0)
    result = client.get_many(["k"] * 600).wait()
    (limiter,) = limiters
    assert all(outcome.data == b"x" for outcome in result)
    assert limiter.lowest < 20 and limiter.limit > 2 * limiter.lowest
    assert result.stats.throttled == 150 and len(proxy.log) == 750


@pytest.mark.parametrize(
    "headers",
    [
        {"x_amz_retry_after": "1500"},
        {"retry_after": "2"},
        {"retry_after": "Wed, 21 Oct 2099 07:28:00 GMT"},
        {"retry_after": "-5"},
        {"retry_after": "9" * 40},
        {"x_amz_retry_after": "soon", "retry_after": "\u00b2"},
    ],
    ids=["ms", "seconds", "date", "negative", "absurd", "garbage"],
)
def test_a15_retry_after(rig, headers):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(slow_down(**headers), count=1))
    client = rig.client(proxy)
    client.transfers.policy = replace(client.transfers.policy, cap=0.2)
    (outcome,) = client.get_many(["k"])
    assert outcome.data == SMALL and len(proxy.log) == 2


@pytest.mark.parametrize(
    "action",
    [
        Status(429),
        Status(429, "TooManyRequests"),
        Status(408),
        request_timeout(),
        Status(409, "OperationAborted"),
        Status(409, "ConditionalRequestConflict"),
    ],
    ids=lambda action: f"{action.status}{action.code}",
)
def test_a16_retryable_refusals(rig, action):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(action, method="GET", count=2), fault(action, method="PUT", count=2))
    client = rig.client(proxy)
    client.put_many({"new": SMALL})
    assert next(iter(client.get_many(["k"]))).data == SMALL
    assert rig.stored("new") == SMALL and len(proxy.log) == 6
