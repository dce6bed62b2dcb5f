"""The control plane against botocore: what errors and listings mean."""

import errno
import pickle
from datetime import datetime
from urllib.parse import quote

import pytest

pytest.importorskip("botocore")

from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore import errors
from mfstore.s3 import calls as words
from mfstore.s3.aws.errors import fault, problem
from mfstore.s3.calls import Call, Options, Reply
from tests.rigs.control_planes import control_plane
from tests.rigs.s3_wire import error_body

REGION = "eu-west-1"
KEY = "some/key ü"


@pytest.fixture(autouse=True)
def env(s3_env):
    return s3_env


# Errors


GET = Call("GetObject", "bucket", "k")
TABLE = [
    (404, "NoSuchKey", errors.NotFound, "no such object"),
    (404, "NoSuchBucket", errors.NotFound, "no such bucket"),
    (404, "NoSuchUpload", errors.NotFound, "no such multipart upload"),
    (404, "", errors.NotFound, "object"),
    (403, "AccessDenied", errors.AccessDenied, "s3:ListBucket"),
    (403, "", errors.AccessDenied, "s3:ListBucket"),
    (401, "", errors.AccessDenied, "s3:GetObject on arn:aws:s3:::bucket/k"),
    (403, "SignatureDoesNotMatch", errors.AccessDenied, "secret access key"),
    (403, "InvalidAccessKeyId", errors.AccessDenied, "AWS_ACCESS_KEY_ID"),
    (400, "ExpiredToken", errors.AccessDenied, "aws sso login"),
    (400, "InvalidToken", errors.AccessDenied, "AWS_SESSION_TOKEN"),
    (403, "RequestTimeTooSkewed", errors.AccessDenied, "clock"),
    (403, "InvalidObjectState", errors.AccessDenied, "restore-object"),
    (416, "InvalidRange", errors.InvalidRange, "bytes"),
    (412, "PreconditionFailed", errors.Conflict, "condition"),
    (409, "ConditionalRequestConflict", errors.Conflict, "same time"),
    (409, "", errors.Conflict, "condition"),
    (501, "NotImplemented", errors.Unsupported, "words"),
    (301, "PermanentRedirect", errors.BackendError, "another region"),
    (400, "AuthorizationHeaderMalformed", errors.BackendError, "region"),
    (400, "BadDigest", errors.BackendError, "changed on their way"),
    (407, "", errors.BackendError, "proxy"),
    (500, "InternalError", errors.BackendError, "words"),
    (503, "SlowDown", errors.BackendError, "words"),
    (200, "InternalError", errors.BackendError, "not what S3 sends"),
]


@pytest.mark.parametrize(("status", "code", "kind", "said"), TABLE)
def test_errors(status, code, kind, said):
    reply = Reply(GET, status, headers={"x-amz-request-id": "R1"}, data=error_body(code) if code else b"")
    error = problem(GET, reply, control_plane(region=REGION).host)
    assert type(error) is kind and said in str(error)
    assert (error.status, error.service_code, error.request_id) == (status, code or None, "R1")
    assert (error.key, error.backend) == ("k", "s3://bucket")
    assert f"HTTP {status}" in str(error) and "R1" in str(error) and (code in str(error))
    error.where(attempts=3)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.__dict__ == error.__dict__ and "3 attempts" in str(again)


@pytest.mark.parametrize(
    ("failure", "number", "kind", "said"),
    [
        (words.CONNECT, 0, errors.BackendError, "http://127.0.0.1:1"),
        (words.DNS, 0, errors.BackendError, "host name"),
        (words.TLS, 0, errors.BackendError, "AWS_CA_BUNDLE"),
        (words.PROXY, 0, errors.BackendError, "NO_PROXY"),
        (words.STALL, 0, errors.BackendError, "stalled"),
        (words.DISK, errno.ENOSPC, errors.OutOfSpace, "No space"),
        (words.DISK, errno.EDQUOT, errors.OutOfSpace, "quota"),
        (words.DISK, errno.EIO, errors.BackendError, "local file"),
    ],
)
def test_failures(failure, number, kind, said):
    control = control_plane(region=REGION, endpoint_url="http://127.0.0.1:1")
    error = problem(GET, Reply(GET, failure=failure, errno=number, message="m"), control.host)
    assert type(error) is kind and said in str(error)


@pytest.mark.parametrize(
    ("url", "options", "is_hinted"),
    [
        ("http://127.0.0.1:1", {"ServerSideEncryption": "AES256"}, True),
        ("http://127.0.0.1:1", {"SSECustomerAlgorithm": "AES256"}, True),
        ("http://127.0.0.1:1", {"StorageClass": "STANDARD"}, False),
        ("https://127.0.0.1:1", {"ServerSideEncryption": "AES256"}, False),
    ],
)
def test_encryption_that_is_refused_over_http(url, options, is_hinted):
    """radosgw says no more than InvalidRequest (rgw_crypt_require_ssl, its default)."""
    call = Call("PutObject", "bucket", "k", Options(options))
    control = control_plane(region=REGION, endpoint_url=url)
    error = problem(call, Reply(call, 400, data=error_body("InvalidRequest")), control.host)
    assert type(error) is errors.BackendError and ("over https" in (error.hint or "")) is is_hinted


@given(st.binary(max_size=300))
def test_error_bodies_of_any_kind(data):
    fault(data)
    fault(error_body("X")[: len(data)] + data)


def test_bombs_are_refused():
    bomb = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Error><Code>&b;</Code></Error>'
    assert fault(bomb).code == ""
    hidden = b'<?xml version="1.0" encoding="cp037"?>' + "<!DOCTYPE x><Error><Code>A</Code></Error>".encode("cp037")
    assert fault(hidden).code == ""
    control = control_plane(region=REGION)
    call = Call("ListObjectsV2", "bucket")
    with pytest.raises(errors.BackendError):
        control.page(call, Reply(call, 200, data=bomb))
    with pytest.raises(errors.BackendError):
        control.parse(Call("ListParts", "bucket", "k"), Reply(call, 200, data=bomb))


@pytest.mark.parametrize("operation", ["CompleteMultipartUpload", "CopyObject", "UploadPartCopy", "DeleteObjects"])
def test_errors_inside_a_200(operation):
    control, call = control_plane(region=REGION), Call(operation, "bucket", "k")
    with pytest.raises(errors.BackendError, match="InternalError"):
        control.parse(
            call, Reply(call, 200, data=b"   \n" + error_body("InternalError").replace(b"<?xml version='1.0'?>", b""))
        )
    with pytest.raises(errors.BackendError):
        control.parse(call, Reply(call, 200, data=b"<CompleteMultipartUploadResult><ETag>"))
    with pytest.raises(errors.Conflict):
        control.parse(call, Reply(call, 200, data=error_body("PreconditionFailed")))


def test_parsed_output():
    control = control_plane(region=REGION)
    call = Call("CompleteMultipartUpload", "bucket", "k")
    answer = b'<CompleteMultipartUploadResult xmlns="x"><ETag>"e-2"</ETag></CompleteMultipartUploadResult>'
    parsed = control.parse(call, Reply(call, 200, headers={"x-amz-version-id": "v"}, data=answer))
    assert parsed["ETag"] == '"e-2"' and parsed["VersionId"] == "v"
    call = Call("DeleteObjects", "bucket")
    answer = b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    parsed = control.parse(call, Reply(call, 200, data=answer))
    assert parsed["Deleted"] == [{"Key": "a"}] and parsed["Errors"][0]["Code"] == "AccessDenied"
    call = Call("HeadObject", "bucket", "k")
    assert control.parse(call, Reply(call, 200, headers={"content-length": "5"}))["ContentLength"] == 5
    call = Call("AbortMultipartUpload", "bucket", "k")
    assert "ResponseMetadata" in control.parse(call, Reply(call, 204))


# Listings

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
moments = st.datetimes(datetime(2006, 1, 1), datetime(2100, 1, 1)).map(
    lambda when: when.replace(microsecond=when.microsecond // 1000 * 1000)
)
entries = st.tuples(
    names, st.integers(0, 1 << 50), moments, st.none() | st.just('"e"'), st.none() | st.just("STANDARD")
)


@settings(deadline=None)
@given(
    st.lists(entries, max_size=5), st.lists(names, max_size=3), st.none() | st.text("ab/+=", min_size=1), st.booleans()
)
def test_pages_are_botocores(objects, prefixes, token, spaced):
    parts = []
    for key, size, modified, etag, storage in objects:
        parts.append(
            f"<Contents><Key>{quote(key)}</Key><LastModified>{modified.isoformat(timespec='milliseconds')}Z</LastModified>"
        )
        if etag is not None:
            parts.append("<ETag>&quot;e&quot;</ETag>")
        parts.append(f"<Size>{size}</Size>")
        if storage is not None:
            parts.append(f"<StorageClass>{storage}</StorageClass>")
        parts.append("</Contents>")
    parts += [f"<CommonPrefixes><Prefix>{quote(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes]
    if token is not None:
        parts.append(f"<NextContinuationToken>{token}</NextContinuationToken>")
    space = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"' if spaced else ""
    data = (
        f"<?xml version='1.0' encoding='UTF-8'?>\n<ListBucketResult{space}><Name>b</Name><EncodingType>url</EncodingType>"
        f"<IsTruncated>{str(token is not None).lower()}</IsTruncated>{''.join(parts)}</ListBucketResult>"
    ).encode()
    call = Call("ListObjectsV2", "bucket")
    ours, theirs = LIST.page(call, Reply(call, 200, data=data)), LIST.parse(call, Reply(call, 200, data=data))
    assert [(o.key, o.size, o.modified, o.etag, o.storage_class) for o in ours.objects] == [
        (o["Key"], o["Size"], o["LastModified"], o.get("ETag"), o.get("StorageClass"))
        for o in theirs.get("Contents", [])
    ]
    assert list(ours.prefixes) == [p["Prefix"] for p in theirs.get("CommonPrefixes", [])] == prefixes
    assert [o.key for o in ours.objects] == [o[0] for o in objects]
    assert ours.next_token == theirs.get("NextContinuationToken") == token


LIST = control_plane(region=REGION, anonymous=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<ListBucketResult>",
        b"<html/>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>k</Key><Size>x</Size></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>k</Key><Size>-1</Size></Contents></ListBucketResult>",
    ],
)
def test_pages_that_are_none(data):
    call = Call("ListObjectsV2", "bucket")
    with pytest.raises(errors.BackendError):
        LIST.page(call, Reply(call, 200, data=data))


def test_a_page_that_is_an_error():
    call = Call("ListObjectsV2", "bucket")
    with pytest.raises(errors.NotFound, match="bucket"):
        LIST.page(call, Reply(call, 200, data=error_body("NoSuchBucket")))
