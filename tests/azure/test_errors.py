"""What Azure answers: verdicts, errors that say what to do, and the words of S3 that jobs look for."""

import pickle

import pytest

from mfstore import errors
from mfstore.azure import answers
from mfstore.azure.errors import problem, verdict
from mfstore.azure.rights import CONTRIBUTOR, READER
from mfstore.azure.settings import Account
from mfstore.s3 import calls
from mfstore.s3.aws.errors import Verdict
from mfstore.s3.calls import Call, Reply
from mfstore.s3.urls import AzureContainer

BOX = AzureContainer("box")
GET = Call("GetObject", BOX, "some/key")
ACCOUNT = Account("acct", "https://acct.blob.core.windows.net", key="a2V5")
ID = {"x-ms-request-id": "REQUEST"}


def reply(status, code="", call=GET, text="", detail="", **headers):
    said = {"x-ms-error-code": code} if code else {}
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}\nRequestId:REQUEST\nTime:now</Message>"
    body += f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail></Error>"
    found = Reply(call, status, headers={**ID, **said, **headers}, data=body.encode())
    answers.translate(found)
    return found


TABLE = [
    (404, "BlobNotFound", errors.NotFound, "no such object"),
    (404, "ContainerNotFound", errors.NotFound, "no such container"),
    (404, "ContainerBeingDeleted", errors.NotFound, "being deleted"),
    (404, "ResourceNotFound", errors.AccessDenied, "not public"),  # a refusal is never "absent"
    (404, "", errors.NotFound, "object"),
    (403, "AuthorizationPermissionMismatch", errors.AccessDenied, "sp="),
    (403, "AuthorizationFailure", errors.AccessDenied, "firewall"),
    (403, "AuthenticationFailed", errors.AccessDenied, "account key is wrong"),
    (403, "KeyBasedAuthenticationNotPermitted", errors.AccessDenied, "az login"),
    (409, "PublicAccessNotPermitted", errors.AccessDenied, "anonymous"),
    (401, "NoAuthenticationInformation", errors.AccessDenied, "credentials"),
    (401, "InvalidAuthenticationInfo", errors.AccessDenied, "az login"),
    (403, "", errors.AccessDenied, "access denied"),
    (409, "BlobArchived", errors.AccessDenied, "set-tier"),
    (409, "BlobImmutableDueToPolicy", errors.AccessDenied, "immutability policy"),
    (409, "BlobImmutableDueToLegalHold", errors.AccessDenied, "legal hold"),
    (412, "LeaseIdMissing", errors.AccessDenied, "lease"),
    (409, "SnapshotsPresent", errors.AccessDenied, "snapshots"),
    (412, "ConditionNotMet", errors.Conflict, "condition"),
    (409, "BlobAlreadyExists", errors.Conflict, "already"),
    (412, "CannotVerifyCopySource", errors.Conflict, "copy"),
    (404, "CannotVerifyCopySource", errors.Unsupported, "copy"),
    (409, "InvalidBlobType", errors.Conflict, "append blob"),
    (416, "InvalidRange", errors.InvalidRange, "bytes"),
    (400, "InvalidResourceName", errors.InvalidKey, "name"),
    (400, "Crc64Mismatch", errors.BackendError, "changed on their way"),
    (400, "InvalidBlobOrBlock", errors.BackendError, "another upload"),
    (400, "InvalidInput", errors.BackendError, "words"),
    (500, "InternalError", errors.BackendError, "words"),
    (503, "ServerBusy", errors.BackendError, "words"),
    (200, "", errors.BackendError, "not what Azure sends"),
    (407, "", errors.BackendError, "proxy"),
]


@pytest.mark.parametrize(("status", "code", "kind", "word"), TABLE, ids=lambda value: str(value))
def test_an_error_says_what_it_is_and_where(status, code, kind, word):
    error = problem(GET, reply(status, code, text="words"), ACCOUNT, False, None)
    assert type(error) is kind
    assert word in str(error)
    for named in ("acct", "az://box", "some/key", "REQUEST", code):
        assert named in str(error)
    found = pickle.loads(pickle.dumps(error))
    assert (str(found), found.service_code, found.request_id) == (str(error), code or None, "REQUEST")


@pytest.mark.parametrize(("operation", "role"), [
    ("GetObject", READER), ("ListObjectsV2", READER), ("PutObject", CONTRIBUTOR), ("DeleteObject", CONTRIBUTOR),
    ("CopyObject", CONTRIBUTOR), ("CompleteMultipartUpload", CONTRIBUTOR),
])  # fmt: skip
def test_a_refusal_names_the_role_or_the_letter_that_is_missing(operation, role):
    call = Call(operation, BOX, "k")
    error = problem(call, reply(403, "AuthorizationPermissionMismatch", call), ACCOUNT, True, None)
    assert role in str(error)
    assert "container box of the account acct" in str(error)
    assert error.operation == operation
    assert all("/containers/box" in resource for _, resource in error.rights)
    by_signature = problem(call, reply(403, "AuthorizationPermissionMismatch", call), ACCOUNT, False, None)
    assert "sp=" in str(by_signature)
    assert role not in str(by_signature)


def test_a_wrong_clock_is_told():
    error = problem(GET, reply(403, "AuthenticationFailed"), ACCOUNT, False, 3600.0)
    assert "3600 s behind" in str(error)
    ended = reply(403, "AuthenticationFailed", detail="Signature not valid in the specified time frame: Start [x]")
    assert "has ended" in str(problem(GET, ended, Account("acct", "https://h", sas="x"), False, None))
    signed = reply(
        403, "AuthenticationFailed", detail="The MAC signature found is not the same. String to sign: S3CRET"
    )
    assert "S3CRET" not in str(problem(GET, signed, ACCOUNT, False, None))


def test_what_never_came_names_the_endpoint_and_no_secret():
    failed = Reply(GET, failure=calls.CONNECT, message="refused")
    error = problem(GET, failed, Account("acct", "https://h.example", sas="sig=secret"), False, None)
    assert "h.example" in str(error)
    assert error.backend == "az://box"
    assert "secret" not in str(error)
    for failure, word in ((calls.DNS, "name of the account"), (calls.TLS, "REQUESTS_CA_BUNDLE")):
        assert word in problem(GET, Reply(GET, failure=failure, message="x"), ACCOUNT, False, None).hint


@pytest.mark.parametrize(("status", "code", "by_token", "by_key", "found"), [
    (200, "", True, False, Verdict.FINE),
    (401, "InvalidAuthenticationInfo", True, False, Verdict.REFRESH),
    (401, "InvalidAuthenticationInfo", False, False, Verdict.FATAL),
    (403, "AuthenticationFailed", True, False, Verdict.REFRESH),
    (403, "AuthenticationFailed", False, True, Verdict.SKEWED),
    (403, "AuthenticationFailed", False, False, Verdict.FATAL),
    (403, "AuthorizationPermissionMismatch", True, False, Verdict.FATAL),
    (404, "BlobNotFound", True, False, Verdict.FATAL),
    (412, "ConditionNotMet", True, False, Verdict.FATAL),
    (409, "BlobAlreadyExists", True, False, Verdict.FATAL),
    (503, "ServerBusy", True, False, Verdict.THROTTLED),
    (500, "OperationTimedOut", True, False, Verdict.THROTTLED),
    (429, "", True, False, Verdict.THROTTLED),
    (500, "InternalError", True, False, Verdict.TRANSIENT),
    (502, "", True, False, Verdict.TRANSIENT),
    (408, "", True, False, Verdict.TRANSIENT),
    (400, "Crc64Mismatch", True, False, Verdict.TRANSIENT),
    (501, "", True, False, Verdict.FATAL),
])  # fmt: skip
def test_what_a_reply_calls_for(status, code, by_token, by_key, found):
    assert verdict(reply(status, code), by_token, by_key) is found


# ---- the words of S3 ----------------------------------------------------------------------


def test_headers_have_s3s_names_besides():
    found = Reply(GET, 200, headers={
        **ID, "etag": '"0x1"', "x-ms-meta-mfstore_bytes": "5", "x-ms-meta-metaflow_user_attributes": "{}",
        "x-ms-meta-my_name": "v", "x-ms-access-tier": "Cool", "content-length": "5",
    })  # fmt: skip
    answers.translate(found)
    said = found.headers
    assert said["x-amz-request-id"] == "REQUEST"
    assert said.get("x-amz-meta-mfstore-bytes") == "5"
    assert said["x-amz-meta-metaflow-user-attributes"] == "{}"
    assert said["x-amz-meta-my_name"] == "v"
    assert said["x-amz-storage-class"] == "Cool"
    assert said["etag"] == '"0x1"'
    assert "x-amz-nothing" not in said
    assert said.get("nothing") is None
    assert dict(said) == pickle.loads(pickle.dumps(said)) == {name: said[name] for name in said}
    assert len(said) == 12


def test_a_tier_that_nobody_chose_or_that_cannot_be_read_is_no_storage_class():
    for more in ({"x-ms-access-tier": "Hot", "x-ms-access-tier-inferred": "true"}, {"x-ms-access-tier": "Archive"}):
        found = Reply(GET, 200, headers={**ID, **more})
        answers.translate(found)
        assert "x-amz-storage-class" not in found.headers


def test_a_proxys_page_is_left_as_it_is():
    found = Reply(GET, 200, headers={"content-type": "text/html"}, data=b"<html>")
    answers.translate(found)
    assert found.headers == {"content-type": "text/html"}
    for status in (200, 204, 404, 412):
        strange = Reply(Call("DeleteObject", BOX, "k"), status, headers={})
        answers.translate(strange)
        assert verdict(strange, False, True) is Verdict.TRANSIENT
        error = problem(strange.call, strange, ACCOUNT, False, None)
        assert type(error) is errors.BackendError
        assert f"HTTP {status}" in str(error)
    refused = Reply(GET, 403, headers={})
    answers.translate(refused)
    assert (refused.status, refused.fault) == (403, None)
    done = Reply(Call("CompleteMultipartUpload", BOX, "k"), 201, headers={})
    answers.translate(done)
    assert not done.data  # and so no answer


def test_codes_are_told_to_jobs_in_s3s_words():
    assert reply(404, "BlobNotFound").fault.code == "NoSuchKey"
    assert reply(404, "ContainerNotFound").fault.code == "NoSuchBucket"
    gone = reply(400, "InvalidBlockList")
    assert (gone.status, gone.fault.code) == (404, "NoSuchUpload")
    assert reply(404, "ResourceNotFound").status == 403
