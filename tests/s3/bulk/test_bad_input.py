"""What no request can say is an outcome of its own item, with the same error on both engines, and nothing of it is
sent."""

import io
from functools import partial
from pathlib import Path

import pytest

from mfstore.errors import BackendError, InvalidKey, InvalidRange, MfstoreError, MfstoreWarning, NotSerializable
from mfstore.s3 import BulkClient, PutItem
from mfstore.s3.headers import checked_metadata, header_value
from tests.rigs.raw_server import Server

LISTING = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"


def answer(connection, request):
    body = {"GET": b"data", "POST": b"<DeleteResult></DeleteResult>"}.get(request.method, b"")
    headers = ['ETag: "e"']
    if "list-type" in request.path:
        body = LISTING
    elif "x-amz-copy-source" in request.headers:
        body = b'<CopyObjectResult><ETag>"e"</ETag></CopyObjectResult>'
    if "range" in request.headers:
        body = body[:2]
        headers.append("Content-Range: bytes 0-1/4")
    length = 4 if request.method == "HEAD" else len(body)
    connection.reply("206 X" if "range" in request.headers else "200 OK", [*headers, f"Content-Length: {length}"], body)


@pytest.fixture
def server():
    server = Server(answer)
    yield server
    server.close()


@pytest.fixture
def clients(server):
    """One of each engine."""
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    found = [BulkClient("b", endpoint_url=server.origin, engine=one, **keys) for one in ("native", "aiobotocore")]
    yield found
    for client in found:
        client.close()


def alike(name, clients, server, run, kind, words, bad=1, of=3):
    """The error of the ``bad`` item, the same of both; the others succeed. ``name`` is for who reads a failure."""
    said = []
    for client in clients:
        server.requests.clear()
        outcomes = list(run(client))
        assert len(outcomes) == of, name
        good = [outcome.error for number, outcome in enumerate(outcomes) if number != bad]
        assert good == [None] * (of - 1), name
        error = outcomes[bad].error
        assert type(error) is kind and words in str(error), (name, error)
        assert not any("x-bad" in request.path or b"x-bad" in request.body for request in server.requests), name
        said.append((error.key, error.message, error.found, error.hint))
    assert said[0] == said[1], name


def put(items, client):
    return client.put_many(items, on_error="return")


def closed():
    file = io.BytesIO(b"x")
    file.close()
    return file


def released():
    view = memoryview(b"x")
    view.release()
    return view


ASCII, BLANKS = "printable ASCII only", "loses the blanks"
ITEMS = {
    "content type with a line break": ({"content_type": "a/b\r\nX-Y: z"}, ASCII),
    "content type that is not ASCII": ({"content_type": "text/ü"}, ASCII),
    "content type with a zero byte": ({"content_type": "a\0b"}, ASCII),
    "content type with a blank at its end": ({"content_type": "text/plain "}, BLANKS),
    "content type that is a number": ({"content_type": 7}, "ContentType"),
    "metadata with a blank in its name": ({"metadata": {"a b": "c"}}, "no name of metadata"),
    "metadata with a colon in its name": ({"metadata": {"a:b": "c"}}, "no name of metadata"),
    "metadata with a line break in its name": ({"metadata": {"a\n": "c"}}, "no name of metadata"),
    "metadata without a name": ({"metadata": {"": "c"}}, "no name of metadata"),
    "metadata with a line break": ({"metadata": {"a": "c\nd"}}, ASCII),
    "metadata with a tab": ({"metadata": {"a": "c\td"}}, ASCII),
    "metadata that is not ASCII": ({"metadata": {"a": "ü"}}, ASCII),
    "metadata with half a surrogate pair": ({"metadata": {"a": "\ud800"}}, ASCII),
    "metadata with blanks at its ends": ({"metadata": {"a": " c"}}, BLANKS),
    "metadata that is a number": ({"metadata": {"a": 1}}, "is a text"),
    "metadata whose names are one": ({"metadata": {"A": "1", "a": "2"}}, "lower case"),
    "metadata that is no mapping": ({"metadata": ["a"]}, "mapping"),
    "encryption with a line break": ({"encryption": "AES\n256"}, ASCII),
    "key of encryption that is not ASCII": ({"kms_key": "ü"}, ASCII),
    "condition with a line break": ({"if_match": '"a"\r\nX: y'}, ASCII),
    "condition that is a number": ({"if_match": 5}, "is a text"),
    "option that nothing takes": ({"options": {"CachControl": "no"}}, "no parameter of S3's operations"),
    "option of a wrong type": ({"options": {"CacheControl": 5}}, "CacheControl"),
    "option with a line break": ({"options": {"CacheControl": "a\nb"}}, ASCII),
    "option that is not ASCII": ({"options": {"ContentDisposition": "attachment; filename=ü"}}, ASCII),
    "option with a blank before it": ({"options": {"CacheControl": " no-cache"}}, BLANKS),
    "option that is no date": ({"options": {"Expires": object()}}, "Expires"),
    "option that names another object": ({"options": {"Key": "other"}}, "do not say Key"),
    "option that gives other data": ({"options": {"Body": b"other"}}, "do not say Body"),
    "metadata among the options": ({"options": {"Metadata": {"a b": "c"}}}, "no name of metadata"),
    "options that are no mapping": ({"options": ["CacheControl"]}, "mapping"),
}


def test_items_to_put_that_cannot_be_said(clients, server):
    for name, (fields, words) in ITEMS.items():
        items = [("good", b"1"), PutItem("x-bad", b"1", **fields), ("fine", b"2")]
        alike(name, clients, server, partial(put, items), InvalidKey, words)


DATA = {
    "closed file": (closed(), NotSerializable, "the file cannot be read"),
    "released memory": (released(), NotSerializable, "released memoryview"),
    "released part": ([b"a", released()], NotSerializable, "released memoryview"),
    "half a surrogate pair": ("a\ud800", NotSerializable, "no UTF-8"),
    "nothing": (None, NotSerializable, "cannot store a NoneType"),
    "path with a zero byte": (Path("a\0b"), BackendError, "embedded null"),
}


def test_data_that_cannot_be_sent(clients, server):
    for name, (data, kind, words) in DATA.items():
        items = [("good", b"1"), ("x-bad", data), ("fine", b"2")]
        alike(name, clients, server, partial(put, items), kind, words)


KEYS = {
    "half a surrogate pair": ("x-bad\ud800", InvalidKey, "half a surrogate pair"),
    "number": (5, InvalidKey, ""),
    "bucket with a blank": ("s3://x bad/key", InvalidKey, "bucket name"),
    "bucket with a line break": ("s3://x-bad\r\nHost/key", InvalidKey, "bucket name"),
    "too long": ("x-bad" * 300, InvalidKey, "1024 bytes"),
}


@pytest.mark.parametrize("work", ["get_many", "head_many", "delete_many"])
def test_keys_that_cannot_be_sent(clients, server, work):
    for name, (key, kind, words) in KEYS.items():
        items = ["good", key, "fine"]

        def run(client, items=items):
            outcomes = getattr(client, work)(items, on_error="return")
            return sorted(outcomes, key=lambda outcome: items.index(outcome.item))

        alike(name, clients, server, run, kind, words)


RANGES = {
    "texts": ("x-bad", "a", "b"), "parts of bytes": ("x-bad", 1.5, 2), "far away": ("x-bad", 2**70, 1),
    "too long": ("x-bad", 0, 2**70), "from far before the end": ("x-bad", -(2**70), None),
    "before its beginning": ("x-bad", 3, -1), "nothing": ("x-bad", 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("work", ["get_many", "get_ranges"])
def test_ranges_that_are_none(clients, server, work):
    for name, wanted in RANGES.items():
        items = [("good", 0, 2), wanted, ("fine", 0, 2)]

        def run(client, items=items):
            return getattr(client, work)(items, on_error="return")

        if work == "get_many" or wanted[2] is not None:  # get_ranges has none that count from the end
            alike(name, clients, server, run, InvalidRange, "")


PAIRS = {"no pair": 5, "one": ("x-bad",), "source": ("x-bad\ud800", "b"), "destination": ("a", "x-bad\ud800")}


def test_copies_that_cannot_be_said(clients, server):
    for name, pair in PAIRS.items():
        pairs = [("good", "1"), pair, ("fine", "2")]
        alike(name, clients, server, lambda client, pairs=pairs: client.copy(pairs, on_error="return"), InvalidKey, "")


OPTIONS = {
    "nothing takes it": ({"NoSuchThing": 1}, "no parameter of S3's operations"),
    "line break": ({"RequestPayer": "x\r\ny: z"}, ASCII),
    "not ASCII": ({"ExpectedBucketOwner": "ü"}, ASCII),
    "wrong type": ({"RequestPayer": 5}, "RequestPayer"),
    "another object": ({"Bucket": "other"}, "do not say Bucket"),
}


@pytest.mark.parametrize("work", ["get_many", "head_many", "delete_many", "get_ranges", "copy"])
def test_options_of_a_call(clients, server, work):
    items = {"get_ranges": [("x-bad", 0, 2)], "copy": [("x-bad", "x-bad-too")]}.get(work, ["x-bad"])
    for name, (options, words) in OPTIONS.items():

        def run(client, options=options):
            return getattr(client, work)(items, on_error="return", options=options)

        alike(name, clients, server, run, InvalidKey, words, bad=0, of=1)


def test_the_condition_of_a_put_is_its_items(clients, server):
    """Whose answer was lost would meet its own object, and be told of a conflict that there is not."""
    for options in ({"IfNoneMatch": "*"}, {"IfMatch": "e"}):

        def run(client, options=options):
            return client.put_many([("x-bad", b"")], on_error="return", options=options)

        alike(str(options), clients, server, run, InvalidKey, "no option of put_many", bad=0, of=1)


CHECKSUMS = {
    "algorithm that uploads do not have": (
        {"ChecksumAlgorithm": "SHA256"},
        "ChecksumAlgorithm is none that uploads carry",
    ),
    "algorithm that is none": ({"ChecksumAlgorithm": 5}, "ChecksumAlgorithm is none that uploads carry"),
    "value": ({"ChecksumCRC32C": "AAAAAA=="}, "ChecksumCRC32C is no option of put_many"),
    "value of another kind": ({"ChecksumSHA256": "A" * 43 + "="}, "ChecksumSHA256 is no option of put_many"),
    "kind of a large object's": ({"ChecksumType": "COMPOSITE"}, "ChecksumType is no option of put_many"),
}


def test_checksums_of_a_put_that_cannot_be_kept_to(clients, server):
    for name, (options, words) in CHECKSUMS.items():

        def of_a_call(client, options=options):
            return client.put_many([("x-bad", b"")], on_error="return", options=options)

        items = [("good", b"1"), PutItem("x-bad", b"1", options=options), ("fine", b"2")]
        alike(name, clients, server, of_a_call, InvalidKey, words, bad=0, of=1)
        alike(name, clients, server, partial(put, items), InvalidKey, words)
    with pytest.raises(InvalidKey, match="checksum is none that uploads carry"):
        BulkClient("b", checksum="MD5")


def test_the_checksum_that_a_put_chooses(clients, server):
    data = b"123456789"
    of_call, of_item = {"ChecksumAlgorithm": "CRC32", "CacheControl": "no-cache"}, {"ChecksumAlgorithm": "CRC32C"}
    for client in clients:
        server.requests.clear()
        client.put_many([("a", data), PutItem("b", data, options=of_item)], options=of_call)
        client.put_many([("c", data)], options={"ChecksumAlgorithm": None})
        said = {request.path: sent(request.headers, "x-amz-checksum-") for request in server.requests}
        assert said == {
            "/b/a": {"crc32": "y/Q5Jg=="}, "/b/b": {"crc32c": "4waSgw=="}, "/b/c": {"crc64nvme": "rosUhgp5mIg="},
        }  # fmt: skip


def sent(headers, prefix):
    return {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}


def test_what_a_secret_was_is_not_said(clients):
    for client in clients:
        options = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "geheim\n"}
        (outcome,) = client.head_many(["k"], on_error="return", options=options)
        assert isinstance(outcome.error, MfstoreError) and "geheim" not in str(outcome.error)


def test_one_condition_of_many_deletions(clients, server):
    """The others of the request are deleted."""

    def run(client):
        return client.delete_many(["good", "x-bad", "fine"], on_error="return", if_match={"x-bad": "a\n"})

    alike("condition", clients, server, run, InvalidKey, ASCII)


def test_prefixes_that_are_none(clients):
    for client in clients:
        for prefix in (5, b"x", None, "x\ud800"):
            with pytest.raises(InvalidKey):
                list(client.list(["", prefix]))


def test_what_a_header_says():
    for value in ("", "a", "a b", "~!"):
        assert header_value("name", value) is value
    assert checked_metadata(None) is None and checked_metadata({}) == {}
    given = {"a-b_c.d": "", "B": "x  y"}
    assert checked_metadata(given) is given


def test_a_text_that_a_file_is_called_as_is_warned_of(clients, tmp_path):
    """It is stored all the same; a path object stands for the file."""
    file = tmp_path / "model.bin"
    file.write_bytes(b"weights")
    client = clients[0]
    for items in ({"other": "x", "model": str(file)}, [("model", str(file))]):
        with pytest.warns(MfstoreWarning, match="give a pathlib.Path") as told:
            client.put_many(items)
        assert told[0].filename == __file__
    client.put_many(
        {"a": file, "b": "", "c": "x\0", "d": "\ud800", "e": str(tmp_path), "f": "x" * 5000}, on_error="return"
    )
    client.put_many(iter([("model", str(file))]))  # what would be taken from it is not looked at
