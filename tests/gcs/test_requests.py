"""Calls of jobs as requests of Google Cloud Storage."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from mfstore.errors import InvalidKey, Unsupported
from mfstore.gcs.requests import AS_STORED, request_of
from mfstore.gcs.requests import read_route as route_of
from mfstore.s3.calls import NO_OPTIONS, Call, Options

ORIGIN = "https://storage.googleapis.com"
ACCESS = (("authorization", "Bearer t0ken"),)


def asked(call, **more):
    """Method, path, query and the request itself."""
    request = request_of(call, ORIGIN, ACCESS, **more)
    parts = urlsplit(request.url)
    return request.method, parts.path, {name: value for name, (value,) in parse_qs(parts.query).items()}, request


def test_reads_are_a_route_that_has_the_key_in_its_path():
    route = route_of("GetObject", ORIGIN, "b", NO_OPTIONS, ACCESS)
    assert (route.method, route.origin, route.path, route.query) == ("GET", ORIGIN, "/b/", "")
    assert route.headers == (AS_STORED, *ACCESS), "what is stored as gzip comes so"
    assert route.match_header == "x-goog-if-generation-match"
    assert route_of("HeadObject", ORIGIN, "b", NO_OPTIONS, ()).method == "HEAD"
    assert route_of("GetObject", ORIGIN, "b", Options(VersionId="12"), ()).query == "generation=12"
    assert route_of("HeadObject", ORIGIN, "b", Options(ContentType="text/plain"), ()).query == "", (
        "of a write, which looks"
    )
    with pytest.raises(Unsupported, match="SSECustomerKey is no option of GetObject"):
        route_of("GetObject", ORIGIN, "b", Options(SSECustomerKey="k"), ())


def test_an_object_from_memory_is_one_request_without_a_copy():
    parts = (memoryview(b"one"), memoryview(b"two"))
    call = Call(
        "PutObject", "b", "a/ü", Options(ContentType="text/plain", SSEKMSKeyId="projects/p/key"), body=parts,
        metadata={"Who": "me"}, if_none_match=True,
    )  # fmt: skip
    method, path, query, request = asked(call, checksum="yZRlqg==", boundary="B")
    assert (method, path) == ("POST", "/upload/storage/v1/b/b/o")
    assert query["uploadType"] == "multipart" and query["ifGenerationMatch"] == "0"
    assert query["kmsKeyName"] == "projects/p/key"
    assert dict(request.headers)["content-type"] == 'multipart/related; boundary="B"'
    head, *sent, tail = request.body
    assert [one is other for one, other in zip(sent, parts, strict=True)] == [True, True]
    lines = head.split(b"\r\n")
    assert json.loads(lines[3]) == {
        "name": "a/ü", "contentType": "text/plain", "metadata": {"who": "me"}, "crc32c": "yZRlqg==",
    }  # fmt: skip
    assert lines[4:6] == [b"--B", b"Content-Type: text/plain"] and tail == b"\r\n--B--\r\n"


def test_conditions_name_a_generation():
    def condition(value):
        return asked(Call("DeleteObject", "b", "a/b", if_match=value))

    method, path, query, _ = condition('"17"')
    assert (method, path, query) == ("DELETE", "/storage/v1/b/b/o/a%2Fb", {"ifGenerationMatch": "17"})
    for wrong in ("0", "abc", "", "-1", "٣"):  # 0 would mean: only if there is none
        with pytest.raises(InvalidKey, match="names a generation"):
            condition(wrong)


def test_a_resumable_upload():
    begun = Call("CreateMultipartUpload", "b", "k", params={"Metadata": {"a": "b"}}, if_match="5")
    method, path, query, request = asked(begun)
    assert (method, path) == ("POST", "/upload/storage/v1/b/b/o")
    assert query == {"uploadType": "resumable", "name": "k", "ifGenerationMatch": "5"}
    assert json.loads(request.body) == {"name": "k", "metadata": {"a": "b"}}
    session = "https://storage.googleapis.com/upload/storage/v1/b/b/o?upload_id=x"

    def part(**params):
        call = Call("UploadPart", "b", "k", params=params, upload=session)
        request = request_of(call, ORIGIN, ACCESS, "4waSgw==")
        assert (request.method, request.url) == ("PUT", session)
        assert "authorization" not in dict(request.headers), "its URL says who may"
        return dict(request.headers)

    assert part(Offset=0, Length=100, Before=0) == {"content-range": "bytes 0-99/*"}
    last = part(Offset=100, Length=9, Before=0xDEAD, Total=109)
    assert last["content-range"] == "bytes 100-108/109"
    assert last["x-goog-hash"].startswith("crc32c=") and last["x-goog-hash"] != "crc32c=4waSgw=="
    assert part(Total=109) == {"content-range": "bytes */109"}
    method, _, _, request = asked(Call("AbortMultipartUpload", "b", "k", params={"UploadId": session}))
    assert (method, request.url) == ("DELETE", session)


def test_a_copy_is_a_rewrite():
    params = {"CopySource": {"Bucket": "a", "Key": "x/y"}, "CopySourceIfMatch": "3", "RewriteToken": "t"}
    method, path, query, request = asked(Call("CopyObject", "b", "z", params=params))
    assert (method, path) == ("POST", "/storage/v1/b/a/o/x%2Fy/rewriteTo/b/b/o/z")
    assert query == {"ifSourceGenerationMatch": "3", "rewriteToken": "t"}
    assert request.body == b"", "the copy has all that the original says"
    again = {"MetadataDirective": "REPLACE", "Metadata": {"a": "b"}, "ContentType": "text/plain"}
    *_, request = asked(Call("CopyObject", "b", "z", options=Options(again), params=params))
    assert json.loads(request.body) == {"contentType": "text/plain", "metadata": {"a": "b"}}
    *_, request = asked(Call("CopyObject", "b", "z", params={**params, **again}))  # onto itself, as for S3
    assert request.body == b"", "and so has the copy of an object onto itself"


@pytest.mark.parametrize(
    ("operation", "options", "name"),
    [
        ("CopyObject", {"ACL": "public-read"}, "ACL"),
        ("CopyObject", {"StorageClass": "NEARLINE"}, "StorageClass"),
        ("CopyObject", {"TaggingDirective": "REPLACE"}, "TaggingDirective"),
        ("PutObject", {"Metadata": {"a": "b"}}, "Metadata"),
        ("CreateMultipartUpload", {"Metadata": {"a": "b"}}, "Metadata"),
    ],
)
def test_no_option_is_dropped(operation, options, name):
    params = {"CopySource": {"Bucket": "a", "Key": "x"}} if operation == "CopyObject" else None
    with pytest.raises(Unsupported, match=name):
        asked(Call(operation, "b", "z", body=(b"",), options=Options(options), params=params))


def test_listings():
    params = {"Prefix": "a/ b", "Delimiter": "/", "StartAfter": "a/ c", "MaxKeys": 7}
    method, path, query, _ = asked(Call("ListObjectsV2", "b", params=params))
    assert (method, path) == ("GET", "/storage/v1/b/b/o")
    assert "nextPageToken" in query.pop("fields")
    assert query == {"prefix": "a/ b", "delimiter": "/", "startOffset": "a/ c", "maxResults": "7"}


@pytest.mark.parametrize("operation", ["DeleteObjects", "GetObjectTagging", "UploadPartCopy", "GetBucketAcl"])
def test_what_s3_alone_has_is_said_by_name(operation):
    with pytest.raises(Unsupported, match=f"{operation} is for S3"):
        request_of(Call(operation, "b", "k"), ORIGIN, ())


def test_what_uploads_cannot_say_is_said_by_name():
    for name in ("Tagging", "ACL", "ServerSideEncryption", "ObjectLockMode"):
        with pytest.raises(Unsupported, match=f"{name} is no option of PutObject"):
            request_of(Call("PutObject", "b", "k", Options({name: "x"}), body=()), ORIGIN, (), boundary="B")
