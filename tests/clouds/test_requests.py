"""What is asked of Azure and Google Cloud, counted; and the plain requests that go without jobs."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace
from urllib.parse import parse_qsl

import numpy as np
import pytest

import mfstore
from mfstore._core import crc
from mfstore.errors import NotFound
from mfstore.s3.bulk.client import BulkClient
from tests.rigs.raw_server import Server

pytestmark = pytest.mark.server
SMALL = {f"artifact {number:02}": list(range(number * 10)) for number in range(20)}
ANSWERS = {
    '{"b": [1, {"generation": "9"}, "}"], "\\"generation": null, "generation" : "7" , "crc32c":"%s"}': "7",
    ' {"crc32c":"%s","generation":"7"}\n': "7",
    '{"generation": "6", "generation": "7", "crc32c": "%s"}': "7",
    '{"a": {"generation": "9"}, "crc32c": "%s"}': None,
    '{"generation": "9", "crc32c": "%s"': None,
    '["generation", "9"]': None,
    "{}": None,
}
"""Of a plain upload, and the generation that they say. The first two are read in C, the others elsewhere."""


@pytest.fixture
def watched(cloud, fault_proxy_of, monkeypatch):
    """A cloud by way of a proxy that counts."""
    proxy = fault_proxy_of(cloud.server)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    options = {"endpoint_url": f"{proxy.url}/{cloud.server.account}"} if cloud.scheme == "az" else {}

    def counts():
        found = Counter(entry.method for entry in proxy.requests())
        proxy.clear()
        return dict(found)

    return SimpleNamespace(cloud=cloud, proxy=proxy, counts=counts, options=options)


def opened(watched, **options):
    return mfstore.open(watched.cloud.url("store"), **watched.options, **options)


def test_few_requests(watched):
    """A save is one request or two, a load one and its coalesced ranges."""
    store = opened(watched)
    store.save({"the first": 1})
    watched.counts()
    key = store.save(SMALL)
    put = "PUT" if watched.cloud.scheme == "az" else "POST"
    assert watched.counts() == {"GET": 1, put: 1}
    other = opened(watched)
    watched.counts()
    assert other.load(key, ["artifact 03"]) == {"artifact 03": SMALL["artifact 03"]}
    assert watched.counts() == {"GET": 1}
    array = np.random.default_rng(1).integers(0, 1 << 63, 1 << 17)
    key = store.put(array)
    watched.counts()
    other = opened(watched)
    watched.counts()
    np.testing.assert_array_equal(other.get(key), array)
    assert watched.counts()["GET"] <= 3


def test_plain_requests_say_what_jobs_say(watched):
    """One PUT and one GET each; checksum, type and etag as of the requests that a control plane makes one by one."""
    cloud, (plain, whole) = watched.cloud, ('a "b"/c d', "a/é")  # the second key is no plain one
    with BulkClient(cloud.url(), **watched.options) as client:
        stored = [*client.put_many([(plain, b"some bytes"), (whole, b"some bytes")], content_type="text/plain")]
        sent = watched.proxy.requests("PUT" if cloud.scheme == "az" else "POST")
        got = list(client.get_many([plain, whole, (plain, 5, 3), cloud.url("none")], on_error="return"))
        heads = client.head_many([plain, whole])
    said = [{name: value for name, value in one.headers.items() if name.startswith("x-ms-")} for one in sent]
    assert len(sent) == 2
    assert said[0] == said[1]
    assert ("x-ms-content-crc64" in said[0]) == (cloud.scheme == "az")
    assert [bytes(found.data) for found in got[:3]] == [b"some bytes", b"some bytes", b"byt"]
    assert isinstance(got[3].error, NotFound)
    for put, get, head in zip(stored, got, heads, strict=False):
        assert put.etag == get.etag == head.etag
        assert put.size == get.size == head.size == 10
        assert head.headers["content-type"] == "text/plain"
        assert put.request_id and get.request_id
        assert put.url == cloud.url(put.key)
    if cloud.scheme == "gs":
        assert all(found.headers["x-amz-checksum-crc32c"] for found in got[:2])


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_of_google_to_plain_uploads(answer):
    body = answer.replace("%s", crc.encode("CRC32C", crc.update("CRC32C", b"some bytes", 0))).encode()

    def reply(connection, request):
        connection.reply("200 OK", [f"Content-Length: {len(body)}", "Content-Type: application/json"], body)

    server = Server(reply)
    try:
        with BulkClient("gs://box", endpoint_url=server.origin, anonymous=True, attempts=1) as client:
            (found,) = client.put_many([("key", b"some bytes")], on_error="return")
    finally:
        server.close()
    assert found.etag == ANSWERS[answer], found


def test_a_copy_that_google_makes_in_steps_goes_on_until_it_is_whole():
    """Large objects between locations or classes: each answer but the last names where the next request goes on."""
    asked = []

    def reply(connection, request):
        path, _, query = request.path.partition("?")
        if request.method == "HEAD":
            connection.reply("200 OK", ["Content-Length: 5", "x-goog-generation: 3", "x-guploader-uploadid: ID"])
            return
        asked.append((request.method, path, query))
        done = len(asked) == 3
        told = {"done": True, "resource": {"generation": "7"}} if done else {"done": False, "rewriteToken": len(asked)}
        body = json.dumps(told).encode()
        connection.reply("200 OK", [f"Content-Length: {len(body)}", "x-guploader-uploadid: ID"], body)

    server = Server(reply)
    try:
        with BulkClient("gs://box", endpoint_url=server.origin, anonymous=True, attempts=1) as client:
            (found,) = client.copy([("a", "b")])
    finally:
        server.close()
    assert found.etag == "7"
    assert [(method, path) for method, path, _ in asked] == [("POST", "/storage/v1/b/box/o/a/rewriteTo/b/box/o/b")] * 3
    tokens = [dict(parse_qsl(query)).get("rewriteToken") for *_, query in asked]
    assert tokens == [None, "1", "2"]
