"""What goes in wrong: each mistake is an error that names the key and what to do next, and leaves nothing behind; on
both engines."""

import os
import subprocess

import pytest

from mfstore.errors import (
    AccessDenied,
    BackendError,
    Conflict,
    InvalidKey,
    InvalidRange,
    MfstoreError,
    NotFound,
    OutOfSpace,
)
from mfstore.testing.actions import access_denied, expired_token, redirect
from tests.rigs.s3_faults import MIB, fault

pytestmark = pytest.mark.usefixtures("quick")

LARGE = os.urandom(6 * MIB)


def failed(result):
    (outcome,) = result
    return outcome.error


READS = {
    "get": lambda client, key: failed(client.get_many([key], on_error="return")),
    "range": lambda client, key: failed(client.get_ranges([(key, 0, 1)], on_error="return")),
    "head": lambda client, key: failed(client.head_many([key], on_error="return")),
    "copy": lambda client, key: failed(client.copy({key: "copy"}, on_error="return")),
}
WRITES = {
    "put": lambda client, key: failed(client.put_many({key: b"1"}, on_error="return")),
    "parts": lambda client, key: failed(client.put_many({key: LARGE}, on_error="return")),
    "delete": lambda client, key: failed(client.delete_many([key], on_error="return")),
}


def checked(error, kind, key, *words):
    """Of a copy, the pair's destination is the key."""
    assert isinstance(error, kind), error
    assert error.hint and error.key in (key, "copy"), error
    for word in words:
        assert word in str(error), error


@pytest.mark.parametrize("work", READS | WRITES)
def test_a_bucket_that_does_not_exist(any_rig, work):
    client = any_rig.client()
    error = (READS | WRITES)[work](client, "s3://no-such-bucket-anywhere/some/key")
    # The answer to a HEAD has no body, and so does not tell which of the two is missing.
    checked(error, NotFound, "some/key", "no such", "bucket", "in s3://no-such-bucket-anywhere", "Check the")
    assert error.attempts == 1


@pytest.mark.parametrize("work", READS)
def test_a_key_that_does_not_exist(any_rig, work):
    checked(READS[work](any_rig.client(), "some/key"), NotFound, "some/key", "no such object", "listing of its prefix")
    assert any_rig.keys() == []


@pytest.mark.parametrize("work", READS | WRITES)
def test_a_wrong_region(rig, work):
    proxy = rig.proxy(fault(redirect(region="eu-west-3")))
    checked((READS | WRITES)[work](rig.client(proxy), "k"), BackendError, "k", "region eu-west-3", "Give region=")


@pytest.mark.parametrize("work", READS | WRITES)
def test_no_credentials(rig, work, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    proxy = rig.proxy()
    client = rig.client(proxy, aws_access_key_id=None, aws_secret_access_key=None)
    checked((READS | WRITES)[work](client, "k"), AccessDenied, "k", "no AWS credentials", "AWS_ACCESS_KEY_ID", "SSO")
    assert proxy.requests() == []


@pytest.mark.parametrize("work", READS | WRITES)
def test_an_expired_token(rig, work):
    proxy = rig.proxy(fault(expired_token()))
    error = (READS | WRITES)[work](rig.client(proxy), "k")
    if work in ("head", "copy"):  # a HEAD is told no reason
        checked(error, MfstoreError, "k", "HTTP 400", "check credentials")
    else:
        checked(error, AccessDenied, "k", "expired", "aws sso login")


REFUSED = {
    "GetObject": ("get", {"method": "GET"}, "s3:GetObject", "k"),
    "GetObject of a range": ("range", {"method": "GET"}, "s3:GetObject", "k"),
    "HeadObject": ("head", {"method": "HEAD"}, "s3:GetObject", "k"),
    "HeadObject of what is copied": ("copy", {"method": "HEAD"}, "s3:GetObject", "k"),
    "CopyObject": ("copy", {"method": "PUT"}, "s3:GetObject", "k"),
    "PutObject": ("put", {"method": "PUT"}, "s3:PutObject", "k"),
    "CreateMultipartUpload": ("parts", {"query": "uploads"}, "s3:PutObject", "k"),
    "UploadPart": ("parts", {"query": "partNumber"}, "s3:PutObject", "k"),
    "CompleteMultipartUpload": ("parts", {"method": "POST", "query": "uploadId"}, "s3:PutObject", "k"),
    "DeleteObjects": ("delete", {"method": "POST"}, "s3:DeleteObject", "k"),
    "ListObjectsV2": ("list", {"query": "list-type"}, "s3:ListBucket", None),
}
"""What is refused: by what work it is asked for, how it is known, which right it needs, on what."""


@pytest.mark.parametrize("refused", REFUSED)
def test_a_refusal_names_what_was_asked_and_the_right_for_it(rig, refused):
    work, known_by, action, on = REFUSED[refused]
    rig.store("k", b"1")
    proxy = rig.proxy(fault(access_denied(), **known_by))
    client = rig.client(proxy)
    if work == "list":
        with pytest.raises(AccessDenied) as caught:
            list(client.list("k"))
        error = caught.value
    else:
        error = (READS | WRITES)[work](client, "k")
        assert error.key in ("k", "copy")
    resource = f"arn:aws:s3:::{rig.bucket}" + (f"/{on}" if on else "")
    operation = refused.partition(" ")[0]
    assert isinstance(error, AccessDenied) and error.operation == operation and (action, resource) in error.rights
    assert f"{operation} needs {action} on {resource}" in str(error) and "HTTP 403" in str(error)
    assert "Allow it" in error.hint and ("s3:ListBucket" in str(error)) == (work in READS or work == "list")
    assert error.attempts == 1 and rig.stored("k") == b"1" and not rig.uploads()


def test_a_refused_head_of_a_wrong_secret_says_where_to_look(any_rig):
    client = any_rig.client(aws_secret_access_key="wrong")
    checked(READS["head"](client, "k"), AccessDenied, "k", "HTTP 403", "check credentials, region and clock")


def test_a_range_beyond_the_end(any_rig):
    any_rig.store("k", b"123")
    client = any_rig.client()
    for item in (("k", 3, 5), ("k", 100, None)):
        checked(failed(client.get_many([item], on_error="return")), InvalidRange, "k", "no such bytes", "size")
    checked(failed(client.get_ranges([("k", 100, 5)], on_error="return")), InvalidRange, "k")
    near, far = client.get_ranges([("k", 2, 5), ("k", 50, 5)], on_error="return")
    assert bytes(near.data) == b"3"
    checked(far.error, InvalidRange, "k")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_local_disk_that_is_full(rig, small_disk):
    rig.store("large", LARGE)
    rig.store("small", b"1")
    rig.store("another", LARGE[:MIB])
    dest = small_disk / "dest"
    keys = ["small", "large", "another"]
    small, large, another = rig.client().get_many(keys, into="files", dest=dest, on_error="return")
    assert small.ok and another.ok
    checked(large.error, OutOfSpace, "large", "disk is full", str(dest / "large"), "Free space")
    assert sorted(path.name for path in dest.iterdir()) == ["another", "small"]


def test_destinations(rig, tmp_path):
    rig.store("a/k", b"new")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "k").write_bytes(b"old")
    client = rig.client()
    for work, kind, words in (
        (tmp_path, Conflict, ("destination exists", "overwrite=True")),
        (tmp_path / "a" / "k", BackendError, ("cannot write", "Not a directory", "permissions")),
    ):
        error = failed(client.get_many(["a/k"], into="files", dest=work, on_error="return"))
        checked(error, kind, "a/k", str(work), *words)
    assert (tmp_path / "a" / "k").read_bytes() == b"old"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["k"]


@pytest.mark.parametrize("key", ["../evil", "/etc/evil", "a/../../evil", "a//b"])
def test_keys_that_lead_elsewhere(rig, tmp_path, key):
    rig.store(key, b"1")
    proxy = rig.proxy()
    error = failed(rig.client(proxy).get_many([key], into="files", dest=tmp_path / "dest", on_error="return"))
    checked(error, InvalidKey, key, "no safe file name", "function from key to path")
    assert proxy.requests() == [] and not (tmp_path / "dest").exists() and not list(tmp_path.rglob("evil"))


def test_a_local_file_that_does_not_exist(rig, tmp_path):
    error = failed(rig.client().put_many({"k": tmp_path / "none"}, on_error="return"))
    checked(error, NotFound, "k", "no such local file", str(tmp_path / "none"), "Nothing was sent")
    (tmp_path / "folder").mkdir()
    error = failed(rig.client().put_many({"k": tmp_path / "folder"}, on_error="return"))
    checked(error, BackendError, "k", str(tmp_path / "folder"))
    assert rig.keys() == []
