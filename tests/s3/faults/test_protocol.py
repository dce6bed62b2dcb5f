"""The S3 client and answers that are wrong, late, lost or refused: cases A07 and A24 to A41 of the scoreboard, on both
engines."""

import os
import random

import numpy
import pytest

import mfstore
from mfstore._core import crc
from mfstore.errors import AccessDenied, BackendError, Conflict, CorruptObject, InvalidRange, Unsupported
from mfstore.s3 import BulkClient, PutItem
from mfstore.s3.transfers import downloads
from mfstore.s3.transfers.uploads import UploadSource
from mfstore.testing.actions import (
    Action,
    CloseAfter,
    CloseOnReuse,
    Duplicate,
    DuplicateHeader,
    Headers,
    IgnoreRange,
    Informational,
    LoseResponse,
    Status,
    WrongObject,
    WrongRange,
    access_denied,
    error_in_200,
    gzip_label,
)
from tests.rigs.raw_server import Server
from tests.rigs.s3_faults import KIB, MIB, Held, check_error, fault

pytestmark = pytest.mark.usefixtures("quick")

DATA = random.Random(2).randbytes(6 * MIB)
SMALL = DATA[: 100 * KIB]
LARGE = DATA[: 4 * MIB]


# ---- how long a body is ---------------------------------------------------------------------


@pytest.fixture
def answering(engine, s3_env):
    """``answering(head, body)``: a client of a server that answers everything with these bytes, then hangs up; and the
    server."""
    opened = []

    def make(head, body, again=False, **options):
        def answer(connection, request):
            connection.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + (b"" if request.method == "HEAD" else body))
            return again

        server = Server(answer)
        keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": "secret"}
        client = BulkClient(
            "bucket", engine=engine, endpoint_url=server.origin, region_name="us-east-1", attempts=3, **keys, **options
        )
        opened.extend([client, server])
        return client, server

    yield make
    for one in opened:
        one.close()


def chunked(data):
    return b"".join(
        b"%x\r\n%s\r\n" % (len(data[at : at + 999]), data[at : at + 999]) for at in range(0, len(data), 999)
    )


SUM = b"x-amz-checksum-crc64nvme: " + crc.encode("CRC64NVME", crc.update("CRC64NVME", SMALL)).encode() + b"\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("head", "body", "error"),
    [
        (CHUNKS, chunked(SMALL) + b"0\r\n\r\n", None),
        (CHUNKS, chunked(SMALL), BackendError),
        (CHUNKS, chunked(SMALL)[:-1000], BackendError),
        (b"", SMALL, Unsupported),
        (SUM, SMALL, None),
        (SUM, SMALL[:-1], CorruptObject),
    ],
    ids=["chunked", "no last chunk", "within a chunk", "no length", "no length but a checksum", "and cut"],
)
def test_a07_a_body_without_length(answering, head, body, error):
    client, _ = answering(head, body)
    (outcome,) = client.get_many(["k"], on_error="return")
    if error is None:
        assert outcome.data == SMALL
    else:
        assert isinstance(outcome.error, error) and outcome.error.key == "k", outcome.error


LARGE_SUM = b"x-amz-checksum-crc64nvme: %s\r\n" % crc.encode("CRC64NVME", crc.update("CRC64NVME", LARGE)).encode()


@pytest.mark.second
@pytest.mark.parametrize("into", ["bytes", "files"])
@pytest.mark.parametrize(
    ("head", "body", "error"),
    [
        (CHUNKS, chunked(LARGE) + b"0\r\n\r\n", None),
        (CHUNKS, chunked(LARGE), BackendError),
        (CHUNKS + LARGE_SUM, chunked(LARGE[:-1]) + b"0\r\n\r\n", CorruptObject),
        (b"", LARGE, Unsupported),
        (LARGE_SUM, LARGE, None),
        (LARGE_SUM, LARGE[:-1], CorruptObject),
    ],
    ids=["chunked", "no last chunk", "another checksum", "no length", "no length but a checksum", "and cut"],
)
def test_a07_a_long_body_without_length(answering, head, body, error, into, tmp_path):
    """It comes as one stream, if anything tells its end."""
    client, _ = answering(head, body)
    where = {"dest": tmp_path} if into == "files" else {}
    (outcome,) = client.get_many(["k"], into=into, on_error="return", **where)
    if error is None:
        found = outcome.data if into == "bytes" else (tmp_path / "k").read_bytes()
        assert found == LARGE and outcome.size == len(LARGE)
    else:
        assert isinstance(outcome.error, error) and not list(tmp_path.glob("*k*")), outcome.error
        assert not list(tmp_path.glob(".mfstore*"))


def test_a07_a_stream_without_length_that_breaks_is_begun_anew(answering):
    client, server = answering(CHUNKS, chunked(LARGE) + b"0\r\n\r\n")
    whole, server.answer = server.answer, None

    def answer(connection, request):
        if len(server.requests) == 1:
            connection.send(b"HTTP/1.1 200 OK\r\n" + CHUNKS + b"\r\n" + chunked(LARGE)[:-5000])
            return False
        return whole(connection, request)

    server.answer = answer
    (outcome,) = client.get_many(["k"])
    assert outcome.data == LARGE and len(server.requests) == 2 and "range" not in server.requests[1].headers


@pytest.mark.second
@pytest.mark.parametrize("size", [100, 2 * MIB])
@pytest.mark.parametrize("work", ["get", "range", "head", "copy", "put"])
def test_a24_a_page_is_no_object(answering, size, work):
    """As of a portal that wants somebody to log in, or of a gateway: 200, and not the service's."""
    page = b"<html>" + b"x" * size
    client, server = answering(b"Content-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n" % len(page), page)
    result = {
        "get": lambda: client.get_many(["k"], on_error="return"),
        "range": lambda: client.get_many([("k", 0, 5)], on_error="return"),
        "head": lambda: client.head_many(["k"], on_error="return"),
        "copy": lambda: client.copy({"k": "l"}, on_error="return"),
        "put": lambda: client.put_many({"k": b"1"}, on_error="return"),
    }[work]()
    (outcome,) = result
    assert isinstance(outcome.error, (BackendError, Unsupported)) and len(server.requests) == 3, outcome


RANGES = [("k", 0, 500), ("k", 1000, 500), ("k", -8, None), ("k", 99_990, 5000)]


@pytest.mark.second
@pytest.mark.parametrize("head", [CHUNKS, b"", None], ids=["chunked", "large", "small"])
def test_a33_a_service_that_ignores_ranges(answering, head):
    """The whole comes, as one stream, and what is wanted is cut out."""
    data = LARGE if head is not None else SMALL
    whole = chunked(data) + b"0\r\n\r\n" if head == CHUNKS else data
    client, server = answering((head or b"Content-Length: %d\r\n" % len(data)) + b"x-amz-request-id: r\r\n", whole)
    for item, outcome in zip(RANGES, client.get_many(RANGES), strict=True):
        start, length = item[1:]
        wanted = data[start:] if length is None else data[start : start + length]
        assert outcome.data == wanted and outcome.size == len(wanted)
    assert [bytes(outcome.data) for outcome in client.get_ranges([("k", 1000, 500)])] == [data[1000:1500]]
    (outcome,) = client.get_many([("k", len(data), 1)], on_error="return")
    assert isinstance(outcome.error, InvalidRange)
    assert len(server.requests) == 6, "one for each range"


INTO = [("k", 0, 500), ("k", 1000, 90_000), ("k", 1_500_000, 2_600_000), ("k", len(LARGE) - 7, 7)]
UNTIL_CLOSE = b"Connection: close\r\n"


@pytest.mark.second
@pytest.mark.parametrize("head", [CHUNKS, UNTIL_CLOSE, b""], ids=["chunked", "until close", "length"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a33_into_memory_where_ranges_are_ignored(answering, monkeypatch, tmp_path, head, pieces):
    """Into the caller's memory, memory that waits for the range, and files: what is before and after is discarded."""
    if pieces == 1:
        monkeypatch.setattr(downloads, "SHORTEST_PIECE", 64 * MIB)
    whole = chunked(LARGE) + b"0\r\n\r\n" if head == CHUNKS else LARGE
    head = (head or b"Content-Length: %d\r\n" % len(LARGE)) + b"x-amz-request-id: r\r\n"
    client, server = answering(head, whole)
    for _, start, length in INTO:
        room = bytearray(length + 2)
        assert client.get_into(("k", start, length), memoryview(room)[1:-1]) == length
        assert room[1:-1] == LARGE[start : start + length] and room[0] == room[-1] == 0
    asked = len(server.requests)
    assert asked == len(INTO) if pieces == 1 else asked <= len(INTO) + 3
    targets = [memoryview(bytearray(length)) if start else None for _, start, length in INTO]
    reads = [(*item, target) for item, target in zip(INTO, targets, strict=True)]
    for outcome, (_, start, length) in zip(client.read_many(reads, ordered=True), INTO, strict=True):
        assert outcome.data == LARGE[start : start + length]
    (outcome,) = client.get_many([INTO[2]], into="files", dest=tmp_path)
    assert (tmp_path / "k").read_bytes() == LARGE[1_500_000:4_100_000] and outcome.size == 2_600_000
    if b"close" in head:
        return  # where the object ends nothing tells
    (outcome,) = client.get_many([("k", -2_000_000, None)], into="files", dest=tmp_path, overwrite=True)
    assert (tmp_path / "k").read_bytes() == LARGE[-2_000_000:] and outcome.size == 2_000_000
    for start in (len(LARGE) - 5, len(LARGE) + 5):
        with pytest.raises(InvalidRange):
            client.get_into(("k", start, 10), memoryview(bytearray(10)))


@pytest.mark.second
def test_a33_a_long_object_where_ranges_are_ignored(answering, tmp_path):
    """It is divided once, in vain; then it comes whole. What breaks is continued in the whole, of the same version."""
    client, server = answering(b'Content-Length: %d\r\nETag: "1"\r\nx-amz-request-id: r\r\n' % len(LARGE), LARGE)
    (outcome,) = client.get_many(["k"])
    assert outcome.data == LARGE
    (outcome,) = client.get_many(["k"], into="files", dest=tmp_path)
    assert (tmp_path / "k").read_bytes() == LARGE
    whole, broken = server.answer, {}

    def answer(connection, request):
        broken.setdefault("range", request.headers.get("range"))
        if len(server.requests) == 1:
            begun = chunked(LARGE[: 3 * MIB - 5])
            connection.send(b"HTTP/1.1 200 OK\r\nx-amz-request-id: r\r\n" + CHUNKS + b"\r\n" + begun)
            return False
        return whole(connection, request)

    server.requests.clear()
    server.answer = answer
    target = memoryview(bytearray(MIB))
    assert client.get_into(("k", 2 * MIB + 1, MIB), target) == MIB
    assert target == LARGE[2 * MIB + 1 : 3 * MIB + 1] and len(server.requests) == 2


def test_a33_another_version_where_ranges_and_conditions_are_ignored(answering):
    """The rest of it is not put behind the beginning of the first."""
    client, server = answering(b"", b"")
    versions = [LARGE, LARGE[::-1]]

    def answer(connection, request):
        number = min(len(server.requests), 2)
        data = versions[number - 1]
        head = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "%d"\r\nx-amz-request-id: r\r\n\r\n'
        connection.send(head % (len(data), number), data[: 3 * MIB] if number == 1 else data)
        return False

    server.answer = answer
    (outcome,) = client.get_many([("k", MIB, 3 * MIB)])
    assert outcome.data == versions[1][MIB:]


def test_a07_streams_count_as_memory(answering):
    """As much as there is for all results, since nobody says how long they are; what they took when they have ended."""
    client, _ = answering(CHUNKS, chunked(LARGE) + b"0\r\n\r\n", memory=5 * MIB)
    result = client.get_many(["a", "b", "c"])
    for outcome in result:
        assert outcome.data == LARGE
        del outcome
    assert 5 * MIB <= result.stats.memory <= 10 * MIB
    small, _ = answering(CHUNKS, chunked(LARGE) + b"0\r\n\r\n", memory=3 * MIB)
    (outcome,) = small.get_many(["k"], on_error="return")
    assert isinstance(outcome.error, BackendError) and "MFSTORE_MEMORY" in str(outcome.error)
    assert "3145728" in str(outcome.error), "the limit is named"


@pytest.mark.second
def test_a33_a_store_where_ranges_are_ignored(rig):
    artifact = {"a": DATA, "b": numpy.arange(300_000), "c": "text" * 1000}
    url = f"s3://{rig.bucket}/store"
    with mfstore.open(url, **rig.options(rig.server.url)) as store:
        key = store.put(artifact)
    proxy = rig.proxy(fault(IgnoreRange()))
    with mfstore.open(url, **rig.options(proxy.url)) as store:
        found = store.get(key)
        assert found["a"] == DATA and found["c"] == artifact["c"] and (found["b"] == artifact["b"]).all()
        assert not store.verify("full").damage
    assert any(entry.fault is not None for entry in proxy.log)


@pytest.mark.parametrize(
    "body", [b"", b" \n ", b"<html><body>welcome</body></html>"], ids=["nothing", "blanks", "a page"]
)
def test_a24_a_200_that_does_not_say_what_was_done(answering, body):
    client, _ = answering(b"Content-Length: %d\r\n" % len(body), body)
    for result in (client.delete_many(["k"], on_error="return"), client.copy([("k", "other")], on_error="return")):
        (outcome,) = result
        assert isinstance(outcome.error, BackendError), outcome


def test_a36_a_page_longer_than_a_short_body(answering):
    """Only objects are announced."""
    key = "k" * 1000
    row = f"<Contents><Key>{key}</Key><Size>1</Size></Contents>".encode()
    body = b"<ListBucketResult>" + row * 1500 + b"</ListBucketResult>"
    for head in (b"Content-Length: %d\r\n" % len(body), CHUNKS):
        client, _ = answering(head, chunked(body) + b"0\r\n\r\n" if head is CHUNKS else body)
        assert [entry.key for entry in client.list()] == [key] * 1500


def test_a_file_that_shrinks_before_it_is_read_is_named(answering, tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.write_bytes(SMALL)
    real = UploadSource.open

    def then_shrink(source):
        real(source)
        os.truncate(path, 1000)

    monkeypatch.setattr(UploadSource, "open", then_shrink)
    client, _ = answering(b"Content-Length: 0\r\n", b"")
    (outcome,) = client.put_many({"k": path}, on_error="return")
    assert isinstance(outcome.error, BackendError) and str(path) in str(outcome.error), outcome
    assert "shorter than it was" in str(outcome.error)


def test_a07_garbage_behind_the_last_chunk(answering):
    # So short that all of it comes at once: what comes later is the next reply to aiohttp, as it is to any client that
    # has sent the next request by then.
    data = SMALL[:9000]
    garbage = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"
    client, server = answering(CHUNKS, chunked(data) + b"0\r\n\r\n" + garbage, again=True)
    for _ in range(5):
        assert [outcome.data for outcome in client.get_many(["k"] * 4, on_error="return")] == [data] * 4
    assert len(server.connections) > 1


# ---- services that are not quite S3 ------------------------------------------------------------


class Bare(Action):
    """No quotes about the ETag, and no Content-Type."""

    async def after(self, flow):
        flow.response.set("Content-Type", None)
        if etag := flow.response.get("ETag"):
            flow.response.set("ETag", etag.strip('"'))


def test_a41_etags_without_quotes_and_no_content_type(rig):
    rig.store("k", LARGE)
    proxy = rig.proxy(fault(Bare()))
    client = rig.client(proxy)
    (stored,) = client.put_many({"new": DATA})
    assert rig.stored("new") == DATA
    (got,) = client.get_many(["k"])  # in pieces
    assert got.data == LARGE and any("if-match" in request.headers for request in proxy.requests("GET"))
    (head,) = client.head_many(["new"])
    assert head.size == len(DATA) and head.etag == stored.etag and '"' not in head.etag


def test_a41_no_checksums(rig):
    """A service that knows none: it leaves them out of its answers, and stores what came all the same."""
    dropped = {f"x-amz-checksum-{name}": None for name in ("crc64nvme", "crc32c", "crc32", "type")}
    proxy = rig.proxy(fault(Headers(set=dropped)))
    client = rig.client(proxy)
    client.put_many({"k": DATA, "small": SMALL})
    assert [outcome.data for outcome in client.get_many(["k", "small"])] == [DATA, SMALL]


def test_a41_conditional_writes_that_are_not_implemented(rig):
    def conditional(request):
        return bool(request.headers.keys() & {"if-none-match", "if-match"})

    rig.store("k", SMALL)
    proxy = rig.proxy(fault(Status(501, "NotImplemented"), method="PUT", when=conditional))
    items = [PutItem("new", b"new", if_none_match=True), PutItem("k", b"new", if_match="0" * 32)]
    for outcome in rig.client(proxy).put_many(items, on_error="return"):
        check_error(outcome.error, Unsupported, rig, outcome.key)
        assert outcome.error.attempts == 1
    assert rig.keys() == ["k"] and rig.stored("k") == SMALL


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a41_no_framing_is_ever_sent_to_be_stored(rig, ministack, tmp_path, secure):
    """Services that do not know aws-chunked store its frames as if they were data."""
    proxy = rig.proxy(tls=ministack.authority.server_context() if secure else None)
    (tmp_path / "file").write_bytes(SMALL)
    client = rig.client(proxy, **({"verify": ministack.ca_file} if secure else {}))
    client.put_many({"bytes": SMALL, "file": tmp_path / "file", "parts": DATA, "empty": b""})
    assert {key: rig.stored(key) for key in rig.keys()} == {"bytes": SMALL, "file": SMALL, "parts": DATA, "empty": b""}
    for request in proxy.requests("PUT"):
        assert "content-encoding" not in request.headers and "transfer-encoding" not in request.headers
        assert not request.headers["x-amz-content-sha256"].startswith("STREAMING")


# ---- answers that say something else than they seem --------------------------------------------


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
def test_a24_an_error_inside_a_200_of_a_completion(rig, code):
    proxy = rig.proxy(fault(error_in_200(code), method="POST", query="uploadId", count=1))
    rig.client(proxy).put_many({"k": DATA})
    assert rig.stored("k") == DATA


def test_a24_an_error_inside_a_200_of_a_copy_and_a_deletion(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(error_in_200(), method="PUT", count=1), fault(error_in_200(), query="delete", count=1))
    client = rig.client(proxy)
    client.copy({"k": "copy"})
    assert rig.stored("copy") == SMALL
    assert all(o.ok for o in client.delete_many(["k", "copy"])) and rig.keys() == []
    assert len(proxy.requests("PUT")) == 2 and len(proxy.requests("POST")) == 2


def test_a24_an_error_inside_every_200(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(
        fault(error_in_200(), method="PUT", path="copy"),
        fault(error_in_200(), method="POST", query="^(delete|.*uploadId)"),
    )
    client = rig.client(proxy, attempts=3)
    for outcome in (
        *client.copy({"k": "copy"}, on_error="return"),
        *client.put_many({"big": DATA}, on_error="return"),
        *client.delete_many(["k", "copy"], on_error="return"),
    ):
        check_error(outcome.error, BackendError, rig, outcome.key, "InternalError", "3 attempts")
    assert rig.keys() == ["k"] and not rig.uploads()


def test_a26_a_completion_whose_answer_was_lost(any_rig):
    proxy = any_rig.proxy(fault(LoseResponse(), method="POST", query="uploadId", count=1))
    (outcome,) = any_rig.client(proxy).put_many({"k": DATA})
    assert outcome.etag and any_rig.stored("k") == DATA


def test_a27_a_conditional_put_whose_answer_was_lost(any_rig):
    proxy = any_rig.proxy(fault(LoseResponse(), method="PUT", count=1))
    (outcome,) = any_rig.client(proxy).put_many([PutItem("k", SMALL, if_none_match=True)])
    assert outcome.ok and any_rig.stored("k") == SMALL
    (second,) = any_rig.client(proxy).put_many([PutItem("k", b"other", if_none_match=True)], on_error="return")
    assert isinstance(second.error, Conflict) and any_rig.stored("k") == SMALL


def test_a28_a_put_whose_answers_are_all_lost_says_that_nothing_is_known(rig):
    proxy = rig.proxy(fault(LoseResponse(), method="PUT"))
    (outcome,) = rig.client(proxy, attempts=2).put_many({"k": SMALL}, on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "unknown", "again is safe")
    assert rig.client().put_many({"k": SMALL})[0].ok and rig.stored("k") == SMALL


def test_a29_a_part_that_fails_for_good_leaves_no_upload(any_rig):
    proxy = any_rig.proxy(fault(access_denied(), method="PUT", query="partNumber=2"))
    (outcome,) = any_rig.client(proxy).put_many({"k": DATA}, on_error="return")
    check_error(outcome.error, AccessDenied, any_rig, "k")
    assert any_rig.uploads() == [] and any_rig.keys() == []


@pytest.mark.parametrize("times", [2, 100], ids=["for now", "for good"])
def test_a29_an_upload_that_cannot_be_given_up_either(any_rig, times):
    refused = fault(Status(503, "SlowDown"), method="DELETE", count=times)
    proxy = any_rig.proxy(fault(access_denied(), method="PUT", query="partNumber=2"), refused)
    (outcome,) = any_rig.client(proxy).put_many({"k": DATA}, on_error="return")
    check_error(outcome.error, AccessDenied, any_rig, "k")
    left = any_rig.uploads()
    assert len(left) == (times == 100) and any_rig.keys() == []
    for upload in left:  # and the error says so
        (note,) = outcome.error.__notes__
        assert upload["UploadId"] in note and "AbortMultipartUpload" in note and "SlowDown" in note
        any_rig.boto.abort_multipart_upload(Bucket=any_rig.bucket, Key="k", UploadId=upload["UploadId"])


@pytest.mark.parametrize("action", [Duplicate(), Informational()], ids=["twice", "1xx"])
def test_a30_no_answer_is_taken_for_anothers(rig, action):
    data = {f"k{number}": bytes([number]) * 2000 for number in range(60)}
    for key, value in data.items():
        rig.store(key, value)
    proxy = rig.proxy(fault(action, every=3))
    result = rig.client(proxy, concurrency=4).get_many([*data] * 3, on_error="return")
    for outcome in result:
        assert outcome.error is not None or outcome.data == data[outcome.key]
    assert result.stats.failed == 0


@pytest.mark.parametrize("action", [Duplicate(), Informational()], ids=["twice", "1xx"])
def test_a30_no_answer_to_a_put_is_taken_for_anothers(rig, action):
    """Nor is a 100 waited for that never comes: none is asked for."""
    data = {f"k{number}": bytes([number]) * 2000 for number in range(20)} | {"large": DATA}
    proxy = rig.proxy(fault(action, method="PUT", every=3))
    rig.client(proxy, concurrency=4).put_many(data)
    assert {key: rig.stored(key) for key in data} == data
    assert not any("expect" in request.headers for request in proxy.requests())


def test_a30_an_answer_that_comes_too_late_is_nobodys(rig):
    rig.store("k", SMALL)
    rig.store("other", SMALL[::-1])
    late = Held(answer=True)
    proxy = rig.proxy(fault(late, path="/k$", count=1))
    with rig.client(proxy, concurrency=1, first_byte_timeout=1.0) as client:
        first = next(iter(client.get_many(["k"])))
        late.go.set()
        rest = [outcome.data for outcome in client.get_many(["other", "k"] * 5)]
    assert first.data == SMALL and first.attempts >= 2 and rest == [SMALL[::-1], SMALL] * 5


def test_a31_another_objects_answer_is_not_taken_where_checksums_or_sizes_tell(rig):
    rig.store("k", LARGE)
    rig.store("other", LARGE[::-1])
    proxy = rig.proxy(fault(WrongObject(f"/{rig.bucket}/other"), when=lambda request: "range" in request.headers))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    assert outcome.error is not None or outcome.data == LARGE


@pytest.mark.parametrize("action", [WrongRange(), IgnoreRange()], ids=["wrong", "ignored"])
def test_a33_a_range_that_is_another(rig, action):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(action, count=1))
    (outcome,) = rig.client(proxy).get_many([("k", 1000, 500)])
    assert outcome.data == SMALL[1000:1500]
    always = rig.proxy(fault(action))
    (outcome,) = rig.client(always, attempts=3).get_many([("k", 1000, 500)], on_error="return")
    if isinstance(action, IgnoreRange):
        assert outcome.data == SMALL[1000:1500], "cut out of the whole"
        return
    assert isinstance(outcome.error, (BackendError, Unsupported, CorruptObject)) and outcome.error.key == "k"


@pytest.mark.second
@pytest.mark.parametrize(("start", "sent"), [(1000, (1000, 1400)), (-500, (1000, 1500)), (None, (0, 400))])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["short", "announced"])
def test_a33_less_of_a_range_than_there_is(answering, data, start, sent):
    first, last = (at * len(data) // 2000 for at in sent)
    head = b"Content-Range: bytes %d-%d/%d\r\n" % (first, last - 1, len(data))
    client, _ = answering(head + b"Content-Length: %d\r\n" % (last - first), data[first:last])
    wanted = ("k", start and start * len(data) // 2000, None if start == -500 else 500 * len(data) // 2000)
    (outcome,) = client.get_many([wanted], on_error="return")
    assert isinstance(outcome.error, BackendError), outcome


def test_a34_bytes_are_bytes_whatever_the_label(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(gzip_label()))
    (outcome,) = rig.client(proxy).get_many(["k"])
    assert outcome.data == SMALL


def test_a35_headers_twice(rig):
    rig.store("k", LARGE)
    proxy = rig.proxy(fault(DuplicateHeader("ETag", '"other"')))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    assert outcome.error is not None or outcome.data == LARGE


@pytest.mark.parametrize(
    "body",
    [
        b"<ListBucketResult><Contents><Key>k</K",
        b"",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult>&a;</ListBucketResult>",
    ],
)
def test_a36_a37_listings_that_are_none(rig, body):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(Status(200, body=body), query="list-type", count=1))
    assert [entry.key for entry in rig.client(proxy).list()] == ["k"]
    always = rig.proxy(fault(Status(200, body=body), query="list-type"))
    with pytest.raises(BackendError):
        list(rig.client(always, attempts=2).list())


def test_a38_a_connection_closed_when_it_is_used_again(rig):
    data = {f"k{number}": SMALL[:1000] for number in range(40)}
    for key, value in data.items():
        rig.store(key, value)
    proxy = rig.proxy(fault(CloseOnReuse(), every=5))
    result = rig.client(proxy, attempts=3).get_many(data)
    assert [o.data for o in result] == list(data.values())


def test_a40_every_connection_closed_after_its_answer(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(CloseAfter()))
    assert [o.data for o in rig.client(proxy).get_many(["k"] * 20)] == [SMALL] * 20
    rig.client(proxy).put_many({f"p{number}": SMALL for number in range(10)})
