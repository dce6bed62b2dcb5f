"""The front before fake-gcs-server does what Google documents, found out with http.client's kin alone."""

import contextlib
import http.client
import json
import socket
import threading
from urllib.parse import urlsplit

import pytest

from mfstore.testing import NetworkFault
from mfstore.testing.actions import LoseResponse
from tests.servers import gcs_rules

pytestmark = pytest.mark.server
GRANULE = gcs_rules.GRANULE


@pytest.fixture
def bucket(gcs_server):
    return Bucket(gcs_server, gcs_server.new_bucket())


class Bucket:
    """One bucket, and what the tests do with it."""

    def __init__(self, server, name):
        self.server, self.name = server, name

    def object(self, method, name, query="", **more):
        return self.server.request(method, f"storage/v1/b/{self.name}/o/{name}", query, **more)

    def read(self, name, **headers):
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.server.request("GET", f"{self.name}/{name}", headers=named)

    def insert(self, name, data=b"data", query="", **said):
        """A multipart upload."""
        said = json.dumps({"name": name, **said}).encode()
        body = b"--x\r\nContent-Type: application/json\r\n\r\n%b\r\n--x\r\nContent-Type: a/b\r\n\r\n%b\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/related; boundary=x"}
        where = f"upload/storage/v1/b/{self.name}/o"
        return self.server.request("POST", where, f"uploadType=multipart&{query}", headers, body % (said, data))

    def start(self, name, query="", **said):
        """A resumable upload."""
        where = f"upload/storage/v1/b/{self.name}/o"
        body = json.dumps({"name": name, **said}).encode()
        answer = self.server.request("POST", where, f"uploadType=resumable&{query}", body=body)
        assert answer.status == 200
        return answer.headers["location"]

    def send(self, location, span, data=b"", method="PUT", **headers):
        url = urlsplit(location)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        asked = {"Content-Range": f"bytes {span}", **named}
        return self.server.request(method, url.path[1:], url.query, asked, data)

    def generation(self, name):
        return json.loads(self.object("GET", name).body)["generation"]


def reason(answer):
    return answer.status, json.loads(answer.body)["error"]["errors"][0]["reason"]


NOT_MET = (412, "conditionNotMet")
ABSENT = (404, "notFound")


def test_an_object_is_inserted_replaced_and_deleted_under_conditions(bucket):
    assert bucket.insert("a/k", query="ifGenerationMatch=0").status == 200
    first = bucket.generation("a%2Fk")
    assert reason(bucket.insert("a/k", b"other", "ifGenerationMatch=0")) == NOT_MET
    assert reason(bucket.insert("a/k", b"other", "ifGenerationMatch=7")) == NOT_MET
    assert bucket.read("a/k").body == b"data"
    assert bucket.insert("a/k", b"other", f"ifGenerationMatch={first}").status == 200
    second = bucket.generation("a%2Fk")
    assert second != first
    assert reason(bucket.object("DELETE", "a%2Fk", f"ifGenerationMatch={first}")) == NOT_MET
    assert reason(bucket.object("DELETE", "a%2Fk", "ifGenerationMatch=0")) == NOT_MET
    assert reason(bucket.object("DELETE", "a%2Fk", "ifMetagenerationMatch=7")) == NOT_MET
    assert bucket.object("DELETE", "a%2Fk", f"ifGenerationNotMatch={second}").status == 304
    assert bucket.read("a/k").body == b"other"
    deleted = bucket.object("DELETE", "a%2Fk", f"ifGenerationMatch={second}")
    assert (deleted.status, deleted.body) == (204, b"")
    assert reason(bucket.insert("a/k", query=f"ifGenerationMatch={second}")) == NOT_MET


def test_what_is_absent_is_absent_under_any_condition_but_for_an_upload(bucket):
    for query in ("", "ifGenerationMatch=0", "ifGenerationMatch=7"):
        answer = bucket.object("DELETE", "none", query)
        assert reason(answer) == ABSENT
        assert f"No such object: {bucket.name}/none" in answer.body.decode()
        assert reason(bucket.object("GET", "none", query)) == ABSENT
    assert b"<Code>NoSuchKey<" in bucket.read("none", x_goog_if_generation_match="7").body
    assert b"<Code>NoSuchBucket<" in Bucket(bucket.server, "no-such-bucket").read("none").body
    nowhere = bucket.server.request("GET", "storage/v1/b/no-such-bucket/o")
    assert (reason(nowhere), b"bucket does not exist" in nowhere.body) == (ABSENT, True)
    assert reason(Bucket(bucket.server, "no-such-bucket").insert("k")) == ABSENT


def test_reads_take_conditions(bucket):
    bucket.insert("k")
    here = bucket.generation("k")
    assert bucket.read("k", x_goog_if_generation_match=here, Range="bytes=1-2").body == b"at"
    refused = bucket.read("k", x_goog_if_generation_match="7")
    assert (refused.status, b"<Code>PreconditionFailed<" in refused.body) == (412, True)
    assert bucket.object("GET", "k", f"alt=media&ifGenerationMatch={here}").body == b"data"
    assert reason(bucket.object("GET", "k", "alt=media&ifGenerationMatch=7")) == NOT_MET
    assert reason(bucket.object("GET", "k", "ifGenerationMatch=7")) == NOT_MET
    assert bucket.object("GET", "k", f"ifGenerationNotMatch={here}").status == 304


def test_a_copy_takes_conditions_on_both_ends(bucket):
    bucket.insert("from")
    bucket.insert("to", b"to")
    source, target = bucket.generation("from"), bucket.generation("to")
    way = f"from/rewriteTo/b/{bucket.name}/o/to"
    assert reason(bucket.object("POST", way, "ifGenerationMatch=0")) == NOT_MET
    assert reason(bucket.object("POST", way, "ifSourceGenerationMatch=7")) == NOT_MET
    assert reason(bucket.object("POST", f"none/rewriteTo/b/{bucket.name}/o/to")) == ABSENT
    assert bucket.read("to").body == b"to"
    assert bucket.object("POST", way, f"ifSourceGenerationMatch={source}&ifGenerationMatch={target}").status == 200
    assert bucket.read("to").body == b"data"
    assert bucket.object("POST", f"from/rewriteTo/b/{bucket.name}/o/new", "ifGenerationMatch=0").status == 200


def test_checksums_are_compared(bucket):
    right = gcs_rules.crc32c(b"data")
    assert bucket.insert("k", crc32c=right).status == 200
    for wrong in ({"crc32c": gcs_rules.crc32c(b"date")}, {"md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}):
        answer = bucket.insert("other", **wrong)
        assert (reason(answer), b"doesn't match" in answer.body) == ((400, "invalid"), True)
    for wrong in ({"said": {"crc32c": right}}, {"head": {"x_goog_hash": f"crc32c={right}"}}):
        upload = bucket.start("other", **wrong.get("said", {}))
        assert reason(bucket.send(upload, "0-3/4", b"date", **wrong.get("head", {}))) == (400, "invalid")
    assert reason(bucket.object("GET", "other")) == ABSENT
    upload = bucket.start("other", crc32c=right)
    assert bucket.send(upload, "0-3/4", b"data", x_goog_hash=f"crc32c={right}").status == 200


def test_a_resumable_upload_says_how_far_it_is(bucket):
    data = bytes(range(256)) * (GRANULE // 256) * 2 + b"end"
    upload = bucket.start("k", metadata={"some": "thing"})
    asked = bucket.send(upload, "*/*")
    assert (asked.status, "range" in asked.headers) == (308, False)
    assert bucket.send(upload, f"0-{GRANULE - 1}/*", data[:GRANULE]).headers["range"] == f"bytes=0-{GRANULE - 1}"
    for span in ("*/*", f"*/{len(data)}"):
        asked = bucket.send(upload, span)
        assert (asked.status, asked.headers["range"]) == (308, f"bytes=0-{GRANULE - 1}")
    assert reason(bucket.object("GET", "k")) == ABSENT
    assert reason(bucket.send(upload, f"{2 * GRANULE}-{2 * GRANULE}/*", b"1")) == (400, "invalid")
    assert reason(bucket.send(upload, f"{GRANULE}-{GRANULE}/*", b"1")) == (400, "invalid")
    # what is there already is not written again
    assert bucket.send(upload, f"0-{2 * GRANULE - 1}/*", bytes(GRANULE) + data[GRANULE : 2 * GRANULE]).status == 308
    done = bucket.send(upload, f"{2 * GRANULE}-{len(data) - 1}/{len(data)}", data[2 * GRANULE :])
    assert (done.status, json.loads(done.body)["size"]) == (200, str(len(data)))
    assert json.loads(bucket.send(upload, f"*/{len(data)}").body)["generation"] == bucket.generation("k")
    found = bucket.read("k")
    assert (found.body, found.headers["x-goog-meta-some"]) == (data, "thing")


def test_a_resumable_upload_ends_without_more_bytes_or_is_cancelled(bucket):
    upload = bucket.start("k")
    assert bucket.send(upload, f"0-{GRANULE - 1}/*", bytes(GRANULE)).status == 308
    assert bucket.send(upload, f"*/{GRANULE}").status == 200
    assert bucket.send(bucket.start("empty"), "*/0").status == 200
    assert bucket.read("empty").body == b""
    upload = bucket.start("other")
    assert bucket.send(upload, "*/*", method="DELETE").status == 499
    assert reason(bucket.send(upload, "0-3/4", b"data")) == ABSENT


def test_a_resumable_uploads_conditions_hold_for_its_end(bucket):
    upload, other = (bucket.start("k", "ifGenerationMatch=0") for _ in range(2))
    assert bucket.send(upload, "0-3/4", b"data").status == 200
    assert reason(bucket.send(other, "0-3/4", b"date")) == NOT_MET
    assert bucket.read("k").body == b"data"


def test_of_a_chunk_that_breaks_off_whole_granules_stay(bucket, gcs_server):
    upload = bucket.start("k")
    url = urlsplit(upload)
    with socket.create_connection((url.hostname, url.port), 60) as sock:
        length = 3 * GRANULE
        sock.sendall(
            f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
            f"Content-Range: bytes 0-{length - 1}/{length}\r\n\r\n".encode()
        )
        sock.sendall(bytes(2 * GRANULE - 5))
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(1000):
                pass
    assert bucket.send(upload, "*/*").headers["range"] == f"bytes=0-{GRANULE - 1}"


def test_a_race_to_create_and_one_to_delete_have_one_winner(bucket):
    def race(work):
        statuses = []
        threads = [threading.Thread(target=lambda: statuses.append(work().status)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statuses

    created = race(lambda: bucket.insert("k", query="ifGenerationMatch=0"))
    assert sorted(created) == [200, *[412] * 11]
    here = bucket.generation("k")
    deleted = race(lambda: bucket.object("DELETE", "k", f"ifGenerationMatch={here}"))
    assert sorted(deleted) == [204, *[404] * 11]


def test_a_token_may_what_its_judge_says(bucket, gcs_server):
    bucket.insert("a/here")
    as_user = {"headers": {"Authorization": "Bearer user"}}
    may, listed = set(), []

    def judge(permission, of, name, listing):
        listed.append(name) if listing else None
        return of == bucket.name and (name or "").startswith("a/") and permission.rpartition(".")[2] in may

    gcs_server.judge("user", judge)
    denied = (403, "forbidden")
    assert reason(bucket.object("GET", "a%2Fhere", **as_user)) == denied
    may.add("get")
    assert bucket.object("GET", "a%2Fhere", **as_user).status == 200
    assert b"<Code>AccessDenied<" in gcs_server.request("GET", f"{bucket.name}/a/none", **as_user).body, "may not list"
    assert reason(bucket.object("GET", "b%2Fhere", **as_user)) == denied
    may.add("list")
    assert reason(bucket.object("GET", "a%2Fnone", **as_user)) == ABSENT
    where = f"storage/v1/b/{bucket.name}/o"
    assert gcs_server.request("GET", where, "prefix=a/h", **as_user).status == 200
    assert reason(gcs_server.request("GET", where, **as_user)) == denied
    assert listed == ["a/h", ""]
    may.add("create")
    copy = f"a%2Fhere/rewriteTo/b/{bucket.name}/o/a%2Fcopy"
    assert [bucket.object("POST", copy, **as_user).status for _ in range(2)] == [200, 403], "to replace is to delete"
    assert reason(bucket.object("DELETE", "a%2Fcopy", **as_user)) == denied
    may.add("delete")
    assert [bucket.object(method, at, **as_user).status for method, at in (("POST", copy), ("DELETE", "a%2Fcopy"))] == [
        200,
        204,
    ]
    gcs_server.judge("user", None)
    assert bucket.object("GET", "b%2Fhere", **as_user).status == 404


def test_requests_are_counted_and_broken_before_it(bucket, fault_proxy_of):
    server = bucket.server
    proxy = fault_proxy_of(server, [NetworkFault(action=LoseResponse(), method="DELETE", count=1)])
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    bucket.insert("k")
    for number in range(3):  # one connection, kept alive
        connection.request("GET", f"/{bucket.name}/k", headers={"Host": "storage.example"})
        response = connection.getresponse()
        assert (response.read(), response.headers["x-guploader-uploadid"] is None) == (b"data", False), number
    connection.request("POST", f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name=r", b"{}")
    response = connection.getresponse()
    response.read()
    assert urlsplit(response.headers["location"]).port == proxy.port, "where the client connected"
    connection.request("DELETE", f"/storage/v1/b/{bucket.name}/o/k")
    with pytest.raises(ConnectionError):
        connection.getresponse()
    connection.close()
    assert reason(bucket.object("GET", "k")) == ABSENT
    assert [(entry.method, entry.connection) for entry in proxy.log] == [
        ("GET", 1), ("GET", 1), ("GET", 1), ("POST", 1), ("DELETE", 1),
    ]  # fmt: skip
