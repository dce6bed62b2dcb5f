"""What a copy keeps: all that was said of the object, however it is copied."""

import pytest

from mfstore.errors import AccessDenied, NotFound
from mfstore.s3.transfers import copies, uploads
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

DATA = bytes(range(250)) * 40
SAID = {
    "CacheControl": "max-age=60",
    "ContentDisposition": 'attachment; filename="a"',
    "ContentEncoding": "zstd",
    "ContentLanguage": "de",
    "ContentType": "text/csv",
    "Expires": "Wed, 21 Oct 2015 07:28:00 GMT",
    "ServerSideEncryption": "aws:kms",
    "SSEKMSKeyId": "arn:aws:kms:eu-west-1:1:key/a",
    "BucketKeyEnabled": "true",
    "StorageClass": "STANDARD_IA",
    "WebsiteRedirectLocation": "/b",
}
METADATA = {"name": "value"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)
    monkeypatch.setattr(uploads, "PART_BYTES", 3000)


@pytest.fixture(params=["one request", "parts"])
def world(request, monkeypatch):
    if request.param == "parts":
        monkeypatch.setattr(copies, "LARGEST_COPY", 4000)
        monkeypatch.setattr(copies, "COPIED_PART", 3000)
    world = SimulatedS3({"k": DATA})
    world.said["k"], world.metadata["k"], world.tags["k"] = dict(SAID), dict(METADATA), {"a b": "ä&="}
    return world


def said(world, key):
    found = dict(world.said[key])
    if found.get("Expires") is not None and not isinstance(found["Expires"], str):
        found["Expires"] = found["Expires"].strftime("%a, %d %b %Y %H:%M:%S GMT")
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in found.items()}


@pytest.mark.parametrize("target", ["copy", "k"])
def test_a_copy_keeps_all_that_was_said_of_the_object(world, target):
    (outcome,) = simulated_client(world).copy({"k": target})
    assert outcome.ok and outcome.size == len(DATA) and world.objects[target] == DATA
    assert said(world, target) == SAID and world.metadata[target] == METADATA
    assert world.tags[target] == {"a b": "ä&="} and not world.uploads


def test_what_the_options_say_is_not_the_originals(world):
    options = {"ServerSideEncryption": "AES256", "StorageClass": "GLACIER", "MetadataDirective": "REPLACE"}
    options |= {"Metadata": {"other": "x"}, "TaggingDirective": "REPLACE", "Tagging": "c=d"}
    simulated_client(world).copy({"k": "copy"}, options=options)
    assert said(world, "copy") == {
        "ServerSideEncryption": "AES256", "StorageClass": "GLACIER", "WebsiteRedirectLocation": "/b",
    }  # fmt: skip
    assert world.tags["copy"] == {"c": "d"}


@pytest.mark.parametrize("kind", ["GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "INTELLIGENT_TIERING"])
@pytest.mark.parametrize("target", ["copy", "k"])
def test_a_copy_can_be_read_at_once(world, kind, target):
    """Of an archived object that was restored, without which it could not have been copied."""
    world.said["k"] = {"StorageClass": kind}
    simulated_client(world).copy({"k": target})
    assert world.said[target].get("StorageClass") == (None if kind in copies.ARCHIVED else kind)
    world.said["k"] = {"StorageClass": kind}
    simulated_client(world).copy({"k": target}, options={"StorageClass": "GLACIER"})
    assert world.said[target]["StorageClass"] == "GLACIER"


@pytest.mark.parametrize("number", range(1, 9))
def test_a_copy_survives_any_lost_answer(world, number):
    world.lost = {number}
    outcomes = simulated_client(world).copy({"k": "copy"})
    assert [outcome.ok for outcome in outcomes] == [True] and world.objects["copy"] == DATA
    # Of an upload whose beginning was not answered nobody knows the id.
    lost = number <= len(world.log) and world.log[number - 1][0] == "CreateMultipartUpload"
    assert len(world.uploads) == lost


def test_tags_that_may_not_be_read_fail_the_copy_and_say_what_to_do(world, monkeypatch):
    monkeypatch.setattr(copies, "LARGEST_COPY", 4000)
    world._GetObjectTagging = lambda call: world._error(403, "AccessDenied")
    (outcome,) = simulated_client(world).copy({"k": "copy"}, on_error="return")
    assert isinstance(outcome.error, AccessDenied) and not world.uploads and "copy" not in world.objects
    assert "GetObjectTagging" in outcome.error.hint


def test_a_key_that_may_not_be_used_fails_the_copy_and_says_what_to_do(world):
    for operation in ("_CopyObject", "_CreateMultipartUpload"):
        setattr(world, operation, lambda call: world._error(403, "AccessDenied"))
    (outcome,) = simulated_client(world).copy({"k": "copy"}, on_error="return")
    assert SAID["SSEKMSKeyId"] in outcome.error.hint and "kms:GenerateDataKey" in outcome.error.hint


@pytest.mark.parametrize("encryption", ["AES256", "aws:kms"])
@pytest.mark.parametrize("bucket", ["b", "other"])
def test_the_encryption_that_all_objects_have_undoes_no_other_buckets_default(world, encryption, bucket):
    world.said["k"] = {"ServerSideEncryption": encryption}
    simulated_client(world).copy({"k": f"s3://{bucket}/copy"})
    kept = encryption == "aws:kms" or bucket == "b"
    assert world.said["copy"].get("ServerSideEncryption") == (encryption if kept else None)


def test_a_copy_of_nothing_is_not_found(world):
    (outcome,) = simulated_client(world).copy({"none": "copy"}, on_error="return")
    assert isinstance(outcome.error, NotFound)
