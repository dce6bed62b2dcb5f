"""Listings that are odd, foreign or endless; on a simulated S3."""

import pytest

from mfstore.errors import BackendError, NotFound
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)


@pytest.fixture
def world():
    return SimulatedS3({"a": b"1", "b": b"22", "c": b"333"})


def page(rows, token=""):
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    truncated = str(bool(token)).lower()
    return 200, {}, f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{rows}</ListBucketResult>".encode()


def row(key, size="1", date="2026-01-01T00:00:00.000Z"):
    told = f"<Size>{size}</Size>" if size is not None else ""
    return f"<Contents><Key>{key}</Key>{told}<LastModified>{date}</LastModified></Contents>"


def test_sizes_that_a_page_does_not_tell_are_asked_for(world):
    world._ListObjectsV2 = lambda call: page(row("a", None) + row("b", "2") + row("gone", None) + row("c", ""))
    found = list(simulated_client(world).list())
    assert [(entry.key, entry.size) for entry in found] == [("a", 1), ("b", 2), ("c", 3)]
    world._HeadObject = lambda call: world._error(403, "AccessDenied")
    with pytest.raises(PermissionError):
        list(simulated_client(world).list())


@pytest.mark.parametrize(
    ("date", "seconds"),
    [("Thu, 01 Jan 2026 00:00:00 GMT", 1767225600.0), (" 2026-01-01T00:00:00Z ", 1767225600.0), ("yesterday", None)],
)
def test_dates_of_every_form(world, date, seconds):
    world._ListObjectsV2 = lambda call: page(row("a", date=date) + row("b"))
    assert [entry.modified for entry in simulated_client(world).list()] == [seconds, 1767225600.0]


@pytest.mark.parametrize("rows", [row("p/a") + row("q/b"), "<CommonPrefixes><Prefix>q/</Prefix></CommonPrefixes>"])
def test_what_was_not_asked_for_is_not_passed_on(world, rows):
    world._ListObjectsV2 = lambda call: page(rows)
    with pytest.raises(BackendError, match="not asked for") as caught:
        list(simulated_client(world, attempts=10).list("p/"))
    assert "q/" in str(caught.value) and world.count == 3


def test_a_listing_that_is_none_is_asked_for_three_times(world):
    world._ListObjectsV2 = lambda call: (200, {}, b"<ListBucketResult><Contents></ListBucketResult>")
    with pytest.raises(BackendError, match="cannot be read"):
        list(simulated_client(world, attempts=10).list())
    assert world.count == 3


@pytest.mark.parametrize("circle", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("lead", [0, 5])
def test_a_listing_that_goes_round_in_circles_ends(world, circle, lead):
    """However long the circle, and what leads to it, without a memory of all pages."""
    tokens = [*range(lead), *[lead + at % circle for at in range(1000)]]
    world._ListObjectsV2 = lambda call: page(row("a"), f"t{tokens[world.count]}")
    with pytest.raises(BackendError, match="circles"):
        list(simulated_client(world).list())
    assert world.count <= 3 * max(circle, lead) + 5


def test_a_checksum_that_is_none_is_told(world):
    headers = {**world._headers("a"), "x-amz-checksum-crc64nvme": "%%%"}
    world._GetObject = lambda call: (200, headers, b"1")
    client = simulated_client(world, attempts=10)
    with pytest.raises(BackendError, match="none") as caught:
        list(client.get_many(["a"]))
    assert "verify=False" in caught.value.hint and world.count == 3
    assert next(iter(client.get_many(["a"], verify=False))).data == b"1"


def test_a_head_that_tells_no_length_is_no_empty_object(world):
    world._HeadObject = lambda call: (200, {"etag": '"e"'}, b"")
    for result in (
        simulated_client(world).head_many(["a"], on_error="return"),
        simulated_client(world).copy({"a": "d"}, on_error="return"),
    ):
        (outcome,) = result
        assert isinstance(outcome.error, BackendError) and not isinstance(outcome.error, NotFound)
        assert "how long" in str(outcome.error)
