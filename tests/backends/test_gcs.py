"""Stores in Google Cloud Storage: the contract, on fake-gcs-server behind a front that keeps to Google's word."""

import gzip
import itertools
import json
import os
import pickle
import subprocess
import sys
import time
from urllib.parse import quote

import numpy as np
import pytest
from google.auth.credentials import AnonymousCredentials

import mfstore
from mfstore import errors
from mfstore.backends.base import ObjectLock
from mfstore.backends.gcs import GcsBackend, lock_in
from mfstore.s3 import BulkClient, PutItem
from mfstore.s3.transfers import uploads
from mfstore.s3.transfers.retry import RetryPolicy
from mfstore.testing import BackendTests, NetworkFault
from mfstore.testing.actions import (
    FlipRequest,
    FlipResponse,
    LoseResponse,
    Reset,
    ResetUpload,
    Status,
    Truncate,
    google_error,
)

pytestmark = pytest.mark.server


class TestGcs(BackendTests):
    @pytest.fixture(autouse=True)
    def running(self, gcs_server, monkeypatch):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
        self.server = gcs_server
        self.bucket = gcs_server.new_bucket()

    def make_backend(self, tmp_path):
        return GcsBackend(f"gs://{self.bucket}/a store")

    def raw_set(self, backend, key, data):
        head = json.dumps({"name": backend.prefix + key}).encode()
        body = b"--x\r\nContent-Type: application/json\r\n\r\n" + head
        body += b"\r\n--x\r\nContent-Type: application/octet-stream\r\n\r\n" + data + b"\r\n--x--"
        headers = {"Content-Type": "multipart/related; boundary=x"}
        path = f"upload/storage/v1/b/{self.bucket}/o"
        answer = self.server.request("POST", path, "uploadType=multipart", headers, body)
        assert answer.status == 200, answer

    def raw_get(self, backend, key):
        path = f"storage/v1/b/{self.bucket}/o/{quote(backend.prefix + key, safe='')}"
        answer = self.server.request("GET", path, "alt=media")
        assert answer.status == 200, answer
        return answer.body


# ---- the bulk client -------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(gcs_server):
    return gcs_server.new_bucket()


@pytest.fixture
def proxied(gcs_server, fault_proxy_of, bucket, unhedged):
    """A client behind a proxy, and that."""
    proxy = fault_proxy_of(gcs_server)
    with BulkClient(f"gs://{bucket}", endpoint_url=proxy.url, anonymous=True, retry_seconds=60) as client:
        yield client, proxy


@pytest.fixture
def small_parts(monkeypatch):
    """What is longer than a MiB goes in parts of one."""
    for name in ("LONGEST_ELSEWHERE", "LONGEST_COPIED", "PART_BYTES", "ORDERED_PART"):
        monkeypatch.setattr(uploads, name, 1 << 20)


DATA = os.urandom((3 << 20) + 12345)
HEAD = [f"bytes 0-{(1 << 20) - 1}/*", f"bytes {1 << 20}-{(2 << 20) - 1}/*"]
TAIL = [f"bytes {2 << 20}-{(3 << 20) - 1}/*", f"bytes {3 << 20}-{len(DATA) - 1}/{len(DATA)}"]
ASKED = f"bytes */{len(DATA)}"


def one(results):
    (outcome,) = list(results)
    return outcome


def spans(proxy):
    """What the parts of uploads said they were."""
    return [entry.headers.get("content-range") for entry in proxy.requests("PUT")]


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize(("action", "nth", "expected"), [
    (None, None, [*HEAD, *TAIL]),
    (LoseResponse(), 2, [*HEAD, ASKED, *TAIL]),
    (ResetUpload(size=700_000), 2, None),
    (google_error(503, "backendError"), 2, [*HEAD, ASKED, HEAD[1], *TAIL]),
    (LoseResponse(), 4, [*HEAD, *TAIL, ASKED]),
    (google_error(410, "gone"), 3, [*HEAD, TAIL[0], *HEAD, *TAIL]),
    (google_error(404, "notFound"), 3, [*HEAD, TAIL[0], *HEAD, *TAIL]),
], ids=["", "lost", "broken", "503", "last lost", "410", "404"])  # fmt: skip
def test_an_upload_in_parts_goes_on_where_it_broke(proxied, small_parts, tmp_path, from_file, action, nth, expected):
    client, proxy = proxied
    proxy.faults = [NetworkFault(action=action, method="PUT", nth=nth)] if action else []
    (tmp_path / "file").write_bytes(DATA)
    put = one(client.put_many([PutItem("a b/ü", tmp_path / "file" if from_file else DATA, if_none_match=True)]))
    if expected is None:  # how much of it came is not said
        assert spans(proxy)[:3] == [*HEAD, ASKED]
        goes_on = int(spans(proxy)[3].removeprefix("bytes ").partition("-")[0])
        assert 1 << 20 <= goes_on <= (1 << 20) + 700_000 and goes_on % (256 << 10) == 0
    else:
        assert spans(proxy) == expected
    got = one(client.get_many(["a b/ü"]))
    assert got.data == DATA and got.etag == put.etag and put.etag.isdigit()


def test_parts_that_changed_on_their_way_make_no_object(proxied, small_parts):
    """The last part carries the checksum of all."""
    client, proxy = proxied
    proxy.faults = [NetworkFault(action=FlipRequest(size=500_000), method="PUT", nth=2)]
    with pytest.raises(errors.BackendError, match="changed on their way|refused"):
        one(client.with_parts(policy=RetryPolicy(attempts=1)).put_many([("key", DATA)]))
    assert list(client.list("")) == []
    assert proxy.requests("DELETE", query="upload_id"), "it was given up"


def test_a_read_that_breaks_goes_on_in_the_same_generation(proxied):
    client, proxy = proxied
    put = one(client.put_many([("key", DATA)]))
    proxy.faults = [NetworkFault(action=Truncate(size=2 << 20), method="GET", nth=1)]
    assert one(client.get_many(["key"])).data == DATA
    second = proxy.requests("GET")[1].headers
    assert second["x-goog-if-generation-match"] == put.etag and int(second["range"][6:].partition("-")[0]) >= 1 << 20
    proxy.faults = [
        NetworkFault(action=Truncate(size=2 << 20), method="GET", nth=1),
        NetworkFault(action=Status(412, "PreconditionFailed"), method="GET", nth=1),
    ]
    proxy.clear()
    assert one(client.get_many(["key"])).data == DATA, "it was replaced meanwhile: begun anew"
    assert len(proxy.requests("GET")) == 3


def test_what_an_upload_in_parts_was_to_replace_is_not_there(proxied, small_parts):
    client, proxy = proxied
    failed = one(client.put_many([PutItem("key", DATA, if_match="12345")], on_error="return"))
    assert isinstance(failed.error, errors.NotFound | errors.Conflict) and "upload" not in failed.error.message
    assert len(proxy.requests("POST")) == 1, "not begun anew"


def test_an_object_that_is_not_what_was_sent_is_no_success(proxied, small_parts):
    """Where the service does not look at the checksum of all."""
    client, proxy = proxied
    made = json.dumps({"generation": "5", "crc32c": "AAAAAA=="}).encode()
    proxy.faults = [NetworkFault(action=Status(200, body=made), method="PUT", nth=4)]
    with pytest.raises(errors.BackendError, match="not what was sent"):
        one(client.put_many([("key", DATA)]))


@pytest.mark.parametrize("parts", [False, True])
def test_somebody_elses_object_behind_a_lost_answer_is_a_conflict(proxied, small_parts, parts, bucket):
    client, proxy = proxied
    data = DATA if parts else b"mine"
    other = BulkClient(f"gs://{bucket}", endpoint_url=client.options.connection.endpoint_url, anonymous=True)
    method, nth = ("PUT", 4) if parts else ("POST", 1)
    proxy.faults = [NetworkFault(action=LoseResponse(), method=method, nth=nth)]
    put = one(client.put_many([PutItem("key", data, if_none_match=True)]))
    assert put.error is None, "its own write is no conflict"
    assert one(client.head_many(["key"])).size == len(data)
    proxy.faults = []
    theirs = one(other.put_many([("key", b"theirs")]))
    for condition in ({"if_none_match": True}, {"if_match": one(client.head_many(["key"])).etag + "1"}):
        proxy.faults = [NetworkFault(action=LoseResponse(), method=method, nth=nth)]
        failed = one(client.put_many([PutItem("key", data, **condition)], on_error="return"))
        assert isinstance(failed.error, errors.Conflict), failed.error
    assert one(client.get_many(["key"])).data == b"theirs"
    assert one(client.put_many([PutItem("key", b"new", if_match=theirs.etag)])).error is None


def test_every_operation_of_the_bulk_client(proxied, tmp_path):
    client, _ = proxied
    items = [(f"in/{number}", bytes([number]) * number) for number in range(5)]
    put = list(client.put_many(items, metadata={"Who": "me"}, content_type="text/plain"))
    assert all(outcome.request_id for outcome in put)
    heads = list(client.head_many([f"in/{number}" for number in range(5)]))
    assert [(head.size, head.metadata["who"]) for head in heads] == [(number, "me") for number in range(5)]
    assert [head.etag for head in heads] == [outcome.etag for outcome in put]
    listed = list(client.list("in/"))
    assert [(entry.key, entry.size, entry.etag) for entry in listed] == [
        (f"in/{number}", number, put[number].etag) for number in range(5)
    ]  # fmt: skip
    assert [entry.key for entry in client.list("", recursive=False)] == ["in/"]
    assert [entry.key for entry in client.list("in/", start_after="in/2")] == ["in/3", "in/4"]
    ranges = list(client.get_ranges([("in/4", 1, 2), ("in/3", 0, 3)]))
    assert [bytes(outcome.data) for outcome in ranges] == [b"\4\4", b"\3\3\3"]
    files = list(client.get_many([f"in/{number}" for number in range(5)], into="files", dest=tmp_path))
    assert [(tmp_path / f"in/{number}").read_bytes() for number in range(5)] == [data for _, data in items]
    assert len(files) == 5
    copied = one(client.copy([("in/4", "out/4")]))
    head = one(client.head_many(["out/4"]))
    assert (head.etag, head.metadata["who"], head.headers["content-type"]) == (copied.etag, "me", "text/plain")
    gone = list(client.delete_many(["in/0", "in/1", "never"], if_match={"in/1": "7"}, on_error="return"))
    assert [type(outcome.error) for outcome in gone] == [type(None), errors.Conflict, type(None)]
    assert [entry.key for entry in client.list("in/")] == [f"in/{number}" for number in range(1, 5)]
    missing = one(client.get_many(["never"], on_error="return"))
    assert isinstance(missing.error, errors.NotFound) and missing.error.request_id


def test_what_s3_alone_has_is_said_by_name(bucket):
    url = f"gs://{bucket}"
    for name, value in {"session": object(), "request_payer": "requester", "kms_key": "x"}.items():
        with pytest.raises(errors.Unsupported, match=f"{name} is for S3"):
            BulkClient(url, **{name: value})
    with pytest.raises(errors.Unsupported, match="CRC64NVME|CRC32"):
        BulkClient(url, checksum="CRC32")
    with BulkClient(url, anonymous=True) as client, pytest.raises(errors.Unsupported, match="Tagging is no option"):
        one(client.put_many([("a", b"")], options={"Tagging": "a=b"}))


@pytest.mark.parametrize("fault", [
    google_error(408, ""), google_error(429, "rateLimitExceeded"), google_error(500, "backendError"),
    google_error(503, "backendError"), Status(503, "ServiceUnavailable"), Reset(), LoseResponse(),
], ids=["408", "429", "500", "503", "503 in XML", "reset", "lost"])  # fmt: skip
def test_every_third_request_fails_and_all_is_done(proxied, fault):
    client, proxy = proxied
    proxy.faults = [NetworkFault(action=fault, every=3)]
    items = {f"key {number}": os.urandom(100 * number) for number in range(6)}
    list(client.put_many(items.items()))
    assert {outcome.key: outcome.data for outcome in client.get_many([*items])} == items
    assert [entry.key for entry in client.list("")] == [*items]
    list(client.delete_many([*items][1:]))
    assert [entry.key for entry in client.list("")] == ["key 0"]


@pytest.mark.parametrize(("status", "kind"), [(401, errors.AccessDenied), (403, errors.AccessDenied)])
def test_a_refusal_is_never_absence_nor_tried_again(proxied, status, kind):
    client, proxy = proxied
    list(client.put_many([("key", b"data")]))
    proxy.clear()
    proxy.faults = [NetworkFault(action=google_error(status, "forbidden"))]
    for ask in (
        lambda: client.get_many(["key"]), lambda: client.head_many(["key"]), lambda: client.put_many([("key", b"")]),
        lambda: client.delete_many(["key"]), lambda: client.list(""),
    ):  # fmt: skip
        with pytest.raises(kind) as told:
            list(ask())
        assert told.value.request_id == "FAULT" and f"{client.bucket}" in str(told.value)
    assert len(proxy.log) == 5


def test_a_token_that_ended_is_renewed_and_the_request_made_again(gcs_server, bucket, fault_proxy_of, unhedged):
    tokens = iter(["old", "new"])
    proxy = fault_proxy_of(gcs_server, [
        NetworkFault(
            action=google_error(401, "authError"),
            when=lambda exchange: exchange.headers.get("authorization") == "Bearer old",
        )
    ])  # fmt: skip
    with BulkClient(f"gs://{bucket}", endpoint_url=proxy.url, token=lambda: next(tokens)) as client:
        list(client.put_many([("a", b"1")]))
        assert [outcome.data for outcome in client.get_many(["a"])] == [b"1"]
    assert [entry.headers["authorization"] for entry in proxy.log] == ["Bearer old", "Bearer new", "Bearer new"]


@pytest.mark.parametrize("length", [10_000, 2 << 20])
def test_bytes_that_changed_on_their_way_are_sent_and_read_again(proxied, length):
    client, proxy = proxied
    data = os.urandom(length)
    proxy.faults = [NetworkFault(action=FlipRequest(size=5_000), method="POST", nth=1)]
    list(client.put_many([("key", data)]))
    proxy.faults = [NetworkFault(action=FlipResponse(size=5_000), method="GET", nth=1)]
    assert one(client.get_many(["key"])).data == data
    assert len(proxy.requests("POST")) == 2 and len(proxy.requests("GET")) == 2


def test_what_is_stored_as_gzip_comes_as_it_is_stored(proxied):
    client, proxy = proxied
    packed = gzip.compress(b"text " * 100)
    list(client.put_many([("a", packed)], options={"ContentEncoding": "gzip"}))
    assert one(client.get_many(["a"])).data == packed
    assert proxy.requests("GET")[0].headers["accept-encoding"] == "gzip"


# ---- stores ----------------------------------------------------------------------------------------------------------


def test_few_requests_for_small_things(gcs_server, bucket, fault_proxy_of, unhedged):
    proxy = fault_proxy_of(gcs_server)
    store = mfstore.open(f"gs://{bucket}/s", create=True, endpoint_url=proxy.url, anonymous=True)
    store.put("warm")
    proxy.clear()
    key = store.put({"a": 1})
    assert [entry.method for entry in proxy.log] == ["GET", "POST"]
    proxy.clear()
    reader = mfstore.open(f"gs://{bucket}/s", endpoint_url=proxy.url, anonymous=True)
    assert reader.get(key) == {"a": 1}
    assert [entry.method for entry in proxy.log] == ["GET", "GET"], "the description, and the recipe"


def test_a_lost_answer_to_a_conditional_write_is_no_conflict(gcs_server, bucket, fault_proxy_of, unhedged):
    proxy = fault_proxy_of(gcs_server)
    store = mfstore.open(f"gs://{bucket}/s", create=True, endpoint_url=proxy.url, anonymous=True)
    keys = [store.put(number) for number in range(3)]
    store.refs["a"] = keys[0]
    for before, value in itertools.pairwise(keys):
        proxy.faults = [NetworkFault(action=LoseResponse(), method="POST", path="upload", nth=1)]
        store.refs.set_if("a", value, before)
    assert [entry.key for entry in store.refs.history("a")] == [keys[2], keys[1], keys[0]]


WRITER = """
import sys, numpy as np, mfstore
store = mfstore.open(sys.argv[1], create=True)
for number in range(1000):
    print(store.save({"small": number, "array": np.random.default_rng(number).random(100_000)}), flush=True)
    print(store.put(np.random.default_rng(number).random(3_000_000)), flush=True)
"""


def test_killed_in_the_middle_of_a_save(gcs_server, bucket, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    url = f"gs://{bucket}/s"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    keys = [writer.stdout.readline().strip()]
    time.sleep(0.1)  # into the large save
    writer.kill()
    keys += writer.communicate()[0].split()
    store = mfstore.open(url)
    for number, key in enumerate(keys[:2]):
        found = store.get(key)
        size = 100_000 if number == 0 else 3_000_000
        np.testing.assert_array_equal(found["array"] if number == 0 else found, np.random.default_rng(0).random(size))
    for key in store.keys():
        store.get(key)  # visible means whole


def test_handles_pickle_and_work_after_fork(gcs_server, bucket, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    store = mfstore.open(f"gs://{bucket}/s", create=True)
    key = store.put([1, 2])
    assert pickle.loads(pickle.dumps(store)).get(key) == [1, 2]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if store.get(key) == [1, 2] and store.put([3]) else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get(store.put([4])) == [4]
    secret = mfstore.open(f"gs://{bucket}/s", endpoint_url=gcs_server.url, token="ya29.s3cret")
    data = pickle.dumps(secret)
    assert b"s3cret" not in data
    monkeypatch.setattr("google.auth.default", lambda scopes: (AnonymousCredentials(), None))
    assert pickle.loads(data).get(key) == [1, 2]


def test_a_bucket_that_is_not_there_is_named(gcs_server, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    with pytest.raises(errors.NotFound, match="no such bucket"):
        mfstore.open("gs://no-such-bucket-here/s", create=True)


LOCKED = {"retention": {"mode": "Unlocked", "retainUntilTime": "2030-01-01T00:00:00Z"}}


@pytest.mark.parametrize(("said", "lock"), [
    ({}, ObjectLock()),
    ({"temporaryHold": True}, ObjectLock(legal_hold=True)),
    ({"eventBasedHold": True}, ObjectLock(legal_hold=True)),
    ({"retentionExpirationTime": "2030-01-01T00:00:00Z"}, ObjectLock("COMPLIANCE", 1893456000.0)),
    (LOCKED, ObjectLock("GOVERNANCE", 1893456000.0)),
    ({**LOCKED, "retentionExpirationTime": "2031-01-01T00:00:00Z"}, ObjectLock("COMPLIANCE", 1924992000.0)),
])  # fmt: skip
def test_what_locks_an_object(said, lock):
    assert lock_in(said) == lock


def test_a_lock_keeps_one_and_the_others_go(gcs_server, bucket, fault_proxy_of):
    held = json.dumps({"temporaryHold": True}).encode()
    proxy = fault_proxy_of(gcs_server)
    backend = GcsBackend(f"gs://{bucket}/s", endpoint_url=proxy.url, anonymous=True)
    for name in "ab":
        backend.put(f"packs/{name}", [b"1"])
    proxy.faults = [
        NetworkFault(action=google_error(403, "objectUnderActiveHold"), method="DELETE", path="packs%2Fa"),
        NetworkFault(action=Status(200, body=held), method="GET", path="packs%2Fa"),
    ]
    seen = {name: backend.head(f"packs/{name}").etag for name in "ab"}
    with pytest.raises(errors.Locked) as told:
        backend.delete_unchanged({f"packs/{name}": etag for name, etag in seen.items()})
    assert dict(told.value.locks) == {"packs/a": "legal hold"}
    assert [info.key for info in backend.list("")] == ["packs/a"]


def test_what_the_bucket_is_set_to(gcs_server, bucket, fault_proxy_of):
    proxy = fault_proxy_of(gcs_server)
    backend = GcsBackend(f"gs://{bucket}/s", endpoint_url=proxy.url, anonymous=True)
    assert (backend.lifecycle_rules(), backend.versioning(), backend.object_lock()) == ([], "", "")
    said = json.dumps({
        "lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 9}}]},
        "versioning": {"enabled": True}, "retentionPolicy": {"retentionPeriod": "86400", "isLocked": True},
    })  # fmt: skip
    proxy.faults = [NetworkFault(action=Status(200, body=said.encode()), method="GET")]
    (rule,) = backend.lifecycle_rules()
    assert rule["Expiration"] == {"Days": 9}
    assert (backend.versioning(), backend.object_lock()) == ("Enabled", "COMPLIANCE for 1 days")
    proxy.faults = [NetworkFault(action=google_error(403, "forbidden"), method="GET")]
    with pytest.raises(errors.AccessDenied, match=r"storage\.buckets\.get"):
        backend.versioning()


def test_what_is_near_its_end_is_made_young_again_with_all_that_it_was(gcs_server, bucket, fault_proxy_of, unhedged):
    proxy = fault_proxy_of(gcs_server)
    backend = GcsBackend(f"gs://{bucket}/s", endpoint_url=proxy.url, anonymous=True, expire_days=30)
    backend.put("packs/a", [b"data"])
    before = backend.head("packs/a").etag
    backend.aging.add("packs/a")
    half = json.dumps({"done": False, "rewriteToken": "t", "totalBytesRewritten": "2", "objectSize": "4"})
    proxy.faults = [NetworkFault(action=Status(200, body=half.encode()), method="POST", path="rewriteTo", nth=1)]
    backend.refresh(["packs/a"])
    first, second = proxy.requests("POST", path="rewriteTo")
    assert "rewriteToken=t" not in first.query and "rewriteToken=t" in second.query
    assert backend.head("packs/a").etag != before and backend.vouch(["packs/a"]) == {"packs/a": 4}
    assert not backend.aging


def test_a_lost_answer_to_a_move_loses_nothing(gcs_server, bucket, fault_proxy_of, unhedged):
    proxy = fault_proxy_of(gcs_server)
    backend = GcsBackend(f"gs://{bucket}/s", endpoint_url=proxy.url, anonymous=True)
    for replace in (True, False):
        etag = backend.put_if("packs/a", b"data", None)
        proxy.faults = [NetworkFault(action=LoseResponse(), method="POST", nth=1)]
        assert backend.move_unchanged("packs/a", f"quarantine/{replace}", etag, replace=replace)
    assert sorted(info.key for info in backend.list("")) == ["quarantine/False", "quarantine/True"]
    etag = backend.put_if("packs/a", b"other", None)
    with pytest.raises(errors.Conflict):
        backend.move_unchanged("packs/a", "quarantine/True", etag, replace=False)
    assert not backend.move_unchanged("packs/a", "quarantine/c", str(int(etag) - 1), replace=False)
    assert backend.get("packs/a") == b"other" and backend.get("quarantine/True") == b"data"


def test_over_tls(gcs_server, bucket):
    with BulkClient(
        f"gs://{bucket}", endpoint_url=gcs_server.https_url, token="t", verify=gcs_server.ca_file
    ) as client:
        list(client.put_many([("key", b"data")]))
        assert one(client.get_many(["key"])).data == b"data"
    with BulkClient(f"gs://{bucket}", endpoint_url=gcs_server.https_url, token="t") as client:
        with pytest.raises(errors.BackendError, match="TLS") as told:
            list(client.get_many(["key"]))
        assert "REQUESTS_CA_BUNDLE" in str(told.value) and "AWS" not in str(told.value)
    with pytest.raises(errors.Unsupported, match="does not exist"):
        list(BulkClient(f"gs://{bucket}", endpoint_url="https://x", token="t", verify="/no/such.pem").list(""))
