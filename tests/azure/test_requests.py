"""Requests of Azure, made of calls by S3's names."""

import base64
from urllib.parse import parse_qs, urlsplit

import pytest

from mfstore import errors
from mfstore.azure.credentials import Authorization
from mfstore.azure.requests import block_id, metadata_headers, new_upload, request, said_of_upload, shared_route
from mfstore.azure.settings import Account
from mfstore.s3.calls import NO_OPTIONS, Call, Options
from mfstore.s3.urls import AzureContainer

BOX = AzureContainer("box")
ACCOUNT = Account("acct", "http://127.0.0.1:10000", "/acct")
SAS = Authorization((), "sv=1&sig=a%2Bb")
BEARER = Authorization((("authorization", "Bearer x"),))


def made(call, who=SAS, checksum=None):
    found = request(call, ACCOUNT, who, checksum)
    url = urlsplit(found.url)
    return found.method, url.path, parse_qs(url.query, keep_blank_values=True), dict(found.headers), found.body


def test_what_gets_share():
    route = shared_route("GetObject", NO_OPTIONS, BOX, ACCOUNT, BEARER)
    assert (route.method, route.origin, route.path) == ("GET", "http://127.0.0.1:10000", "/acct/box/")
    assert dict(route.headers)["authorization"] == "Bearer x"
    assert shared_route("HeadObject", NO_OPTIONS, BOX, ACCOUNT, SAS).query == SAS.query


def test_a_put():
    call = Call(
        "PutObject", BOX, "a b/ü~c+d", Options(ContentType="text/plain", StorageClass="cool"), if_match="0x1",
        metadata={"mfstore-bytes": "5"}, body=[b"hello"],
    )  # fmt: skip
    method, path, query, headers, body = made(call, checksum=("CRC64NVME", base64.b64encode(bytes(range(8))).decode()))
    assert (method, path, body) == ("PUT", "/acct/box/a%20b/%C3%BC~c%2Bd", None)
    assert query == {"sv": ["1"], "sig": ["a+b"]}
    assert headers["x-ms-blob-type"] == "BlockBlob"
    assert headers["x-ms-blob-content-type"] == "text/plain"
    assert headers["x-ms-access-tier"] == "Cool"
    assert headers["x-ms-meta-mfstore_bytes"] == "5"
    assert headers["if-match"] == '"0x1"'
    assert base64.b64decode(headers["x-ms-content-crc64"]) == bytes(reversed(range(8)))
    assert made(Call("PutObject", BOX, "k", if_none_match=True))[3]["if-none-match"] == "*"
    assert made(Call("PutObject", BOX, "k"), BEARER)[3]["authorization"] == "Bearer x"


def test_an_upload_in_blocks():
    upload = new_upload({"Metadata": {"mfstore-write": "w"}, "ContentType": "text/plain", "ChecksumAlgorithm": "x"})
    assert said_of_upload(upload) == {"Metadata": {"mfstore-write": "w"}, "ContentType": "text/plain"}
    assert said_of_upload(new_upload({})) == {}
    _, _, query, _, body = made(Call("CreateMultipartUpload", BOX, "k", params={}))
    assert (query["comp"], body) == (["block"], b"\0")
    ids = {len(block_id(upload, number)) for number in (0, 1, 10_000, 50_000)} | {len(query["blockid"][0])}
    assert len(ids) == 1  # Azure takes no others
    _, _, query, _, body = made(Call("UploadPart", BOX, "k", part=7, upload=upload, body=[b"x"]))
    assert (query["blockid"], body) == ([block_id(upload, 7)], None)
    params = {"UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 2}, {"PartNumber": 1}]}}
    call = Call("CompleteMultipartUpload", BOX, "k", params=params, if_none_match=True)
    method, _, query, headers, body = made(call)
    assert (method, query["comp"]) == ("PUT", ["blocklist"])
    assert body.index(block_id(upload, 1).encode()) < body.index(block_id(upload, 2).encode())
    assert headers["x-ms-meta-mfstore_write"] == "w"
    assert headers["x-ms-blob-content-type"] == "text/plain"
    assert headers["if-none-match"] == "*"
    assert made(Call("AbortMultipartUpload", BOX, "k", params={"UploadId": upload}))[0] == "HEAD"


def test_two_names_that_are_one_are_refused():
    with pytest.raises(errors.InvalidKey, match="hyphens"):
        metadata_headers({"a-b": "1", "a_b": "2"})


def test_what_a_request_carries_is_not_shown():
    who = Authorization((("authorization", "Bearer SECRET"),), "sig=SECRET")
    made = request(Call("DeleteObject", BOX, "k"), ACCOUNT, who)
    assert "SECRET" not in repr(made)
    assert "SECRET" not in repr(shared_route("GetObject", NO_OPTIONS, BOX, ACCOUNT, who))


def test_copies():
    source = {"CopySource": {"Bucket": BOX, "Key": "a b"}, "CopySourceIfMatch": "0x1"}
    method, path, _, headers, _ = made(Call("CopyObject", BOX, "c", params=source), BEARER)
    assert (method, path) == ("PUT", "/acct/box/c")
    assert headers["x-ms-copy-source"] == "http://127.0.0.1:10000/acct/box/a%20b"
    assert headers["x-ms-copy-source-authorization"] == "Bearer x"
    assert headers["x-ms-source-if-match"] == '"0x1"'
    assert headers["x-ms-requires-sync"] == "true"
    assert made(Call("CopyObject", BOX, "c", params=source))[3]["x-ms-copy-source"].endswith(f"/a%20b?{SAS.query}")
    again = {**source, "MetadataDirective": "REPLACE", "Metadata": {"mfstore-bytes": "5"}}
    _, _, query, headers, _ = made(Call("CopyObject", BOX, "a b", params=again))
    assert query["comp"] == ["metadata"]  # onto itself: nothing is copied
    assert (headers["x-ms-meta-mfstore_bytes"], headers["if-match"]) == ("5", '"0x1"')
    renamed = Options({"MetadataDirective": "REPLACE", "Metadata": {"n": "w"}})
    assert made(Call("CopyObject", BOX, "c", options=renamed, params=source))[3]["x-ms-meta-n"] == "w"
    for name, key in (("ContentType", "c"), ("ContentType", "a b"), ("StorageClass", "a b")):
        with pytest.raises(errors.Unsupported, match=name):  # which Azure would not do, nor say so
            made(Call("CopyObject", BOX, key, options=Options({name: "Cool"}), params=source))
    part = {**source, "CopySourceRange": "bytes=0-9", "PartNumber": 3, "UploadId": new_upload({})}
    _, _, query, headers, _ = made(Call("UploadPartCopy", BOX, "c", params=part))
    assert (query["comp"], headers["x-ms-source-range"]) == (["block"], "bytes=0-9")


def test_listings():
    params = {"Prefix": "a/ü", "Delimiter": "/", "StartAfter": "a/x", "ContinuationToken": "2!m", "MaxKeys": 1000}
    _, path, query, _, _ = made(Call("ListObjectsV2", BOX, None, params=params))
    assert path == "/acct/box"
    assert (query["prefix"], query["startFrom"], query["marker"]) == (["a/ü"], ["a/x"], ["2!m"])
    assert (query["maxresults"], query["include"]) == (["5000"], ["metadata"])
    assert made(Call("ListObjectsV2", BOX, None, params={"MaxKeys": 7}))[2]["maxresults"] == ["7"]
    assert made(Call("DeleteObject", BOX, "k", if_match='"0x1"'))[3]["if-match"] == '"0x1"'


@pytest.mark.parametrize(("call", "kind", "word"), [
    (Call("PutObject", BOX, "a/../b"), errors.InvalidKey, "URLs"),
    (Call("PutObject", BOX, "k", metadata={"a b": "c"}), errors.InvalidKey, "metadata"),
    (Call("PutObject", BOX, "k", metadata={"1a": "c"}), errors.InvalidKey, "metadata"),
    (Call("PutObject", BOX, "k", Options(ServerSideEncryption="AES256")), errors.Unsupported, "ServerSideEncryption"),
    (Call("PutObject", BOX, "k", Options(Tagging="a=b")), errors.Unsupported, "Tagging"),
    (Call("PutObject", BOX, "k", Options(StorageClass="GLACIER")), errors.Unsupported, "Hot, Cool, Cold, Archive"),
    (Call("GetBucketLifecycleConfiguration", BOX), errors.Unsupported, "lifecycle"),
    (Call("GetObjectTagging", BOX, "k"), errors.Unsupported, "tags"),
    (Call("PutBucketPolicy", BOX), errors.Unsupported, "PutBucketPolicy"),
])  # fmt: skip
def test_what_azure_does_not_have_is_said_by_name(call, kind, word):
    with pytest.raises(kind, match=word):
        made(call)


def test_another_checksum_than_azures_is_refused():
    with pytest.raises(errors.Unsupported, match="CRC64NVME"):
        made(Call("PutObject", BOX, "k"), checksum=("CRC32C", "AAAAAA=="))
