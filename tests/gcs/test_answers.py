"""Answers of Google Cloud Storage in the words of S3."""

import json
import pickle

import pytest

from mfstore.errors import AccessDenied, BackendError, Conflict, InvalidRange, NotFound, Unsupported
from mfstore.gcs import answers, errors
from mfstore.gcs.answers import ObjectHeaders, translate
from mfstore.maintenance.lifecycle import PARTS, endangered
from mfstore.s3.aws.errors import Verdict
from mfstore.s3.calls import RESET, TLS, Call, Reply
from mfstore.s3.transfers.copies import put_again
from mfstore.s3.urls import GcsBucket

OBJECT = {
    "etag": '"md5"', "x-goog-generation": "42", "x-goog-hash": "md5=x==,crc32c=AAAAAA==", "content-length": "3",
    "x-goog-meta-mfstore-bytes": "3", "x-guploader-uploadid": "ID", "x-goog-stored-content-encoding": "identity",
}  # fmt: skip


def reply(operation, status=200, headers=(), said=b"", **more):
    call = Call(operation, GcsBucket("b"), "k", **more)
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    found = Reply(call, status, headers={"x-guploader-uploadid": "ID", **dict(headers)}, data=body)
    translate(found)
    return found


def refused(operation="GetObject", status=403, reason="forbidden", message="", anonymous=False, **more):
    said = {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}}
    found = reply(operation, status, said=said, **more)
    return errors.problem(found.call, found, lambda call: "host", None, anonymous)


def test_the_headers_of_an_object():
    headers = reply("GetObject", headers=OBJECT).headers
    expected = {
        "etag": "42", "x-amz-version-id": "42", "x-amz-checksum-crc32c": "AAAAAA==", "x-amz-meta-mfstore-bytes": "3",
        "x-amz-request-id": "ID", "content-length": "3",
    }  # fmt: skip
    for name, value in expected.items():
        assert headers[name] == headers.get(name) == dict(headers)[name] == value and name in headers
    assert "x-goog-meta-mfstore-bytes" not in dict(headers)
    assert headers.get("x-amz-checksum-crc64nvme") is None and "x-amz-meta-other" not in headers
    assert pickle.loads(pickle.dumps(headers)) == dict(headers)


@pytest.mark.parametrize(("stored", "came", "told"), [
    ("gzip", "gzip", True), ("identity", None, True), (None, None, True), ("gzip", None, False),
])  # fmt: skip
def test_a_checksum_of_other_bytes_is_none(stored, came, told):
    said = {"x-goog-stored-content-encoding": stored, "content-encoding": came}
    headers = reply("GetObject", headers={**OBJECT, **{n: v for n, v in said.items() if v}}).headers
    if stored is None:
        headers = answers.ObjectHeaders({"x-goog-hash": "crc32c=AAAAAA=="})
    assert (headers.get("x-amz-checksum-crc32c") is not None) == told


def test_what_was_put_has_its_generation():
    found = reply("PutObject", said={"generation": "7", "crc32c": "AAAAAA=="})
    assert (found.headers["etag"], found.headers["x-amz-request-id"]) == ("7", "ID")


@pytest.mark.parametrize(
    ("operation", "status", "google"),
    [
        ("GetObject", 200, False), ("HeadObject", 200, False), ("PutObject", 200, False), ("DeleteObject", 204, True),
        ("HeadObject", 404, True), ("DeleteObject", 412, True),
    ],
)  # fmt: skip
def test_what_is_not_googles_says_nothing_of_an_object(operation, status, google):
    found = Reply(Call(operation, GcsBucket("b"), "k"), status, headers={"content-length": "0"}, data=b"")
    translate(found, google)
    assert errors.verdict(found) is Verdict.TRANSIENT
    error = errors.problem(found.call, found, lambda call: "host", None, False)
    assert type(error) is BackendError
    assert f"HTTP {status}" in str(error)
    refused = Reply(Call(operation, GcsBucket("b"), "k"), 403, headers={}, data=b"")
    translate(refused, google)
    assert refused.status == 403


def test_how_far_an_upload_is():
    found = reply("UploadPart", 308, {"range": "bytes=0-524287"})
    assert (found.status, found.headers[answers.KEPT]) == (200, "524288") and "etag" not in found.headers
    assert reply("UploadPart", 308).headers[answers.KEPT] == "0"
    assert reply("UploadPart", said={"generation": "7"}).headers["etag"] == "7"
    begun = reply("CreateMultipartUpload", headers={"location": "https://x/?upload_id=1"})
    assert answers.parse(begun.call, begun) == {"UploadId": "https://x/?upload_id=1"}
    assert reply("AbortMultipartUpload", 499).status == 204


def test_a_page():
    item = {"name": "a", "size": "5", "updated": "2026-11-30T12:00:00.5Z", "generation": "3"}
    listing = reply("ListObjectsV2", said={"items": [item, {**item, "name": "b"}], "prefixes": ["c/"]},
                    params={"StartAfter": "a"})  # fmt: skip
    page = answers.page(listing.call, listing)
    assert [(one.key, one.size, one.etag) for one in page.objects] == [("b", 5, "3")], "where it begins is not in it"
    assert (page.prefixes, page.next_token) == (("c/",), None)
    for wrong in (b"<html>", b"[]", {"items": [{"name": "a"}]}):
        odd = reply("ListObjectsV2", said=wrong)
        with pytest.raises(BackendError):
            answers.page(odd.call, odd)


def test_a_rewrite_goes_on_or_is_done():
    going = reply("CopyObject", said={"done": False, "rewriteToken": "t"})
    assert answers.parse(going.call, going) == {"RewriteToken": "t"}
    done = reply("CopyObject", said={"done": True, "resource": {"generation": "8"}})
    assert answers.parse(done.call, done) == {"CopyObjectResult": {"ETag": "8"}}


def rules(*said):
    found = reply("GetBucketLifecycleConfiguration", said={"lifecycle": {"rule": list(said)}})
    return answers.parse(found.call, found)["Rules"]


def test_lifecycle_rules_in_the_words_of_s3():
    delete = {"action": {"type": "Delete"}, "condition": {"age": 30, "matchesPrefix": ["x/", "store/packs/"]}}
    found = rules(delete)
    assert [(rule["Filter"]["Prefix"], rule["Expiration"]) for rule in found] == [
        ("x/", {"Days": 30}), ("store/packs/", {"Days": 30}),
    ]  # fmt: skip
    (danger,) = endangered(found, "store/", PARTS)
    assert (danger.action, danger.parts) == ("expire", ("packs/",)) and "30 days" in danger.text
    assert endangered(rules({"action": {"type": "Delete"}, "condition": {"createdBefore": "2026-01-01"}}), "s/")


@pytest.mark.parametrize("condition", [
    {"isLive": False, "age": 3}, {"numNewerVersions": 2}, {"daysSinceCustomTime": 4}, {"daysSinceNoncurrentTime": 7},
])  # fmt: skip
def test_rules_that_take_nothing_of_a_store(condition):
    assert endangered(rules({"action": {"type": "Delete"}, "condition": condition}), "store/") == []


def test_moves_to_colder_classes_can_be_read():
    move = {"action": {"type": "SetStorageClass", "storageClass": "ARCHIVE"}, "condition": {"age": 1}}
    assert endangered(rules(move), "store/") == []
    assert rules() == []


def test_versions_and_locks_of_a_bucket():
    def parsed(operation, said):
        found = reply(operation, said=said)
        return answers.parse(found.call, found)

    assert parsed("GetBucketVersioning", {"versioning": {"enabled": True}}) == {"Status": "Enabled"}
    assert parsed("GetBucketVersioning", {}) == {}
    policy = {"retentionPolicy": {"retentionPeriod": "86401", "isLocked": True}}
    said = parsed("GetObjectLockConfiguration", policy)["ObjectLockConfiguration"]
    assert said["Rule"]["DefaultRetention"] == {"Mode": "COMPLIANCE", "Days": 2}
    assert parsed("GetObjectLockConfiguration", {}) == {}


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "reason", "verdict"), [
    (401, "authError", Verdict.REFRESH), (403, "forbidden", Verdict.FATAL), (403, "rateLimitExceeded", Verdict.THROTTLED),
    (404, "notFound", Verdict.FATAL), (408, "", Verdict.TRANSIENT), (409, "conflict", Verdict.FATAL),
    (412, "conditionNotMet", Verdict.FATAL), (429, "rateLimitExceeded", Verdict.THROTTLED),
    (500, "backendError", Verdict.TRANSIENT), (502, "", Verdict.TRANSIENT), (503, "", Verdict.THROTTLED),
    (504, "", Verdict.TRANSIENT), (501, "", Verdict.FATAL), (308, "", Verdict.FATAL),
])  # fmt: skip
def test_what_is_tried_again(status, reason, verdict):
    said = {"error": {"code": status, "message": "m", "errors": [{"reason": reason}]}}
    assert errors.verdict(reply("PutObject", status, said=said)) is verdict


def test_bytes_that_changed_are_sent_again():
    message = 'Provided CRC32C "AAAAAA==" doesn\'t match calculated CRC32C "mnG7TA==".'
    said = {"error": {"code": 400, "message": message, "errors": [{"reason": "invalid"}]}}
    assert errors.verdict(reply("PutObject", 400, said=said)) is Verdict.TRANSIENT


def test_connections_that_break_are_tried_again():
    call = Call("PutObject", GcsBucket("b"), "k")
    assert errors.verdict(Reply(call, failure=RESET)) is Verdict.TRANSIENT
    assert errors.verdict(Reply(call, failure=TLS)) is Verdict.FATAL
    error = errors.problem(call, Reply(call, failure=TLS), lambda call: "host", None, False)
    assert error.backend == "gs://b" and "REQUESTS_CA_BUNDLE" in error.hint


def test_a_refusal_names_what_is_missing_and_who_has_it():
    message = (
        "me@x.iam.gserviceaccount.com does not have storage.objects.create access to the Google Cloud Storage object."
    )
    error = refused("PutObject", message=message)
    assert isinstance(error, AccessDenied) and error.operation == "PutObject"
    assert error.rights == (("storage.objects.create", "projects/_/buckets/b/objects/k"),)
    text = str(error)
    for part in ("storage.objects.create", "roles/storage.objectUser", "gs://b", "key k", "request ID", "HTTP 403"):
        assert part in text, part
    error = refused("PutObject")
    assert error.rights == (("storage.objects.create", "projects/_/buckets/b/objects/k"),)
    assert "storage.objects.delete besides" in error.hint, "to replace is to delete"
    error = refused("PutObject", if_match="3")
    assert [right for right, _ in error.rights] == ["storage.objects.create", "storage.objects.delete"]
    error = refused("GetObject")
    assert "roles/storage.objectViewer" in error.hint and "storage.objects.list" in error.hint
    assert "storage.objects.list on projects/_/buckets/b " in str(refused("ListObjectsV2")) + " "
    assert "No credentials were sent" in refused("GetObject", anonymous=True).hint
    assert "roles/storage.bucketViewer" in refused("GetBucketVersioning").hint


def test_the_xml_api_says_the_same():
    body = (
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access denied.</Message><Details>x does not have "
        b"storage.objects.list access to the Google Cloud Storage bucket.</Details></Error>"
    )
    found = reply("GetObject", 403, said=body)
    error = errors.problem(found.call, found, lambda call: "host", "my-project", False)
    assert error.rights == (("storage.objects.list", "projects/_/buckets/b"),)
    assert error.backend == "gs://b" and error.hint.endswith("The project is my-project")


@pytest.mark.parametrize(("kind", "status", "reason", "message"), [
    (NotFound, 404, "notFound", "No such object: b/k"), (NotFound, 404, "notFound", "The specified bucket does not exist."),
    (Conflict, 412, "conditionNotMet", ""), (InvalidRange, 416, "requestedRangeNotSatisfiable", ""),
    (AccessDenied, 401, "authError", "Invalid Credentials"), (Unsupported, 501, "notImplemented", ""),
    (BackendError, 400, "invalid", "x"), (BackendError, 500, "backendError", ""), (BackendError, 307, "", ""),
])  # fmt: skip
def test_each_refusal_is_one_of_ours(kind, status, reason, message):
    assert type(refused("GetObject", status, reason, message)) is kind


def test_codes_are_those_of_s3():
    assert refused(status=404, reason="notFound", message="No such object: b/k").service_code == "NoSuchKey"
    missing = refused(status=404, reason="notFound", message="The specified bucket does not exist.")
    assert missing.service_code == "NoSuchBucket" and "no such bucket" in str(missing)
    assert refused(status=412, reason="conditionNotMet").service_code == "PreconditionFailed"


@pytest.mark.parametrize(("reason", "message", "word"), [
    ("retentionPolicyNotMet", "Object 'b/k' is subject to bucket's retention policy", "retention"),
    ("objectUnderActiveHold", "Object 'b/k' is under active Temporary hold", "hold"),
])  # fmt: skip
def test_what_a_lock_keeps_is_told_as_such(reason, message, word):
    from mfstore.backends.locks import speaks_of_locks

    error = refused("DeleteObject", 403, reason, message)
    assert speaks_of_locks(error) and word in str(error) and message in str(error)
    assert not speaks_of_locks(refused("DeleteObject"))


def test_what_the_answer_says_of_itself_is_nothing_of_the_object():
    headers = reply("GetObject", headers={**OBJECT, "expires": "Mon, 30 Nov 2026 23:45:52 GMT"}).headers
    assert headers.get("expires") is None and "expires" not in dict(headers), "a copy is not to say it"


def test_rules_that_remove_versions():
    from mfstore.maintenance.versions import VersionsKept, removed_after

    expire = {"action": {"type": "Delete"}, "condition": {"daysSinceNoncurrentTime": 7}}
    assert removed_after(rules(expire), "store/") == 7
    for more in ({"numNewerVersions": 3}, {"matchesStorageClass": ["NEARLINE"]}):
        assert removed_after(rules({**expire, "condition": {**expire["condition"], **more}}), "store/") is None
    (told,) = VersionsKept("unknown", scheme="gs").notes(1)
    assert "storage.buckets.get" in told and "s3:" not in told
    assert not [note for note in VersionsKept("Enabled", scheme="gs").notes(1) if "aws" in note]


def test_what_google_makes_of_the_time_is_not_said_of_a_copy():
    said = {"expires": "Tue, 01 Dec 2026 00:00:00 GMT", "cache-control": "private, max-age=0", "x-goog-generation": "1"}
    headers = ObjectHeaders(said)
    assert "expires" not in headers and "expires" not in dict(headers) and headers.get("etag") == "1"
    assert put_again(headers) == {"CacheControl": "private, max-age=0"}
