"""Listings that are odd, foreign or endless; on a simulated S3."""

import pytest

from mfstore.errors import BackendError, NotFound
from mfstore.s3.aws import pages
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


HEAD = '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
ENCODED = (
    "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>%2F</NextContinuationToken>"
)


def plain(key, etag="&quot;e&quot;", more="", size="7"):
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag>"
        f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass>{more}</Contents>"
    )


OWNER = "<Owner><ID>1</ID><DisplayName>n</DisplayName></Owner><Type>Normal</Type>"
PAGES = {
    "plain": ENCODED + plain("a%2Fb") + plain("a%3D%2B+c%C3%BC", more=OWNER),
    "of a line feed": ENCODED + plain("a%0Ab") + plain("c"),
    "not encoded": plain("a%2Fb+c") + plain("ü"),
    "entities": plain("a&amp;b") + plain("c&lt;"),
    "one with an entity": plain("a") + plain("c&#x41;") + plain("d"),
    "quotes by number": plain("a", "&#34;e&#34;"),
    "prefixes before": "<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>" + plain("a"),
    "prefixes between": plain("a") + "<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>" + plain("b"),
    "spaces between": plain("a") + "\n" + plain("b"),
    "another order": plain("a") + "<Contents><Size>1</Size><Key>b</Key></Contents>",
    "a comment": plain("a") + "<!-- " + plain("b") + " -->",
    "sections": plain("a") + plain("<![CDATA[<b>]]>"),
    "unknown elements": plain("a", more="<Restored><By>x</By></Restored>") + plain("b"),
    "a prefix of this name": "<Prefix>Contents</Prefix>" + plain("a"),
    "large": plain("a", size="1" * 18) + plain("b", size="1" * 20),
    "another tag at the end": plain("a") + plain("b").replace("<Contents>", "<Contents >"),
    "no storage class": (plain("a") + plain("b")).replace("<StorageClass>STANDARD</StorageClass>", ""),
}


@pytest.mark.parametrize("rows", PAGES.values(), ids=PAGES)
def test_what_is_plain_is_read_as_what_is_not(rows, monkeypatch):
    body = f"{HEAD}{rows}</ListBucketResult>".encode()
    found = pages.page(body)
    monkeypatch.setattr(pages, "_plain_entries", lambda body: ([], body))
    assert pages.page(body) == found and found.objects


def test_most_pages_are_plain():
    entries, rest = pages._plain_entries(f"{HEAD}{PAGES['plain']}</ListBucketResult>".encode())
    assert len(entries) == 2 and b"Contents" not in rest


@pytest.mark.parametrize("cut", ["</ListBucketResult>", "</Contents></ListBucketResult>"])
def test_half_a_page_is_none(cut):
    body = f"{HEAD}{PAGES['plain']}</ListBucketResult>"
    with pytest.raises(BackendError):
        pages.page(body.removesuffix(cut).encode())


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
