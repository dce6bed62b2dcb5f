"""Age-based removal and deduplication: what a save relies on is made young again, and rules that do harm are
explained."""

import os
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest

import mfstore
from mfstore.backends.buckets import near_its_end
from mfstore.maintenance.lifecycle import explain
from tests.rigs.gc import DAY, noise


def header(seconds):
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def answer(age_days, life_days=None, now=1_800_000_000):
    said = {"last-modified": header(now - age_days * DAY), "date": header(now)}
    if life_days is not None:
        said["x-amz-expiration"] = f'expiry-date="{header(now + (life_days - age_days) * DAY)}", rule-id="old"'
    return said


@pytest.mark.parametrize(
    ("headers", "expire_days", "near"),
    [
        (answer(29), None, False),
        (answer(29, 30), None, True),
        (answer(2, 30), None, True),  # what is saved now lives 30 days, this only 28 more
        (answer(0.5, 30), None, False),
        (answer(0.5, 1), None, True),
        (answer(0.2, 1), None, False),
        (answer(29), 30, True),
        (answer(0.5), 30, False),
        (answer(5, 400), 8, True),
        ({}, 30, False),
        ({"last-modified": "soon"}, 30, False),
        ({**answer(29), "x-amz-expiration": "nonsense"}, None, False),
    ],
)
def test_what_is_near_its_end(headers, expire_days, near):
    assert near_its_end(headers, expire_days) is near


def age_everything(root, days):
    for path in Path(root).rglob("*"):
        os.utime(path, (time.time() - days * DAY,) * 2)


def remove_older_than(root, days):
    """What a clean-up job does."""
    for path in [path for path in Path(root).rglob("*") if path.is_file() and path.name != "mfstore.json"]:
        if time.time() - path.stat().st_mtime > days * DAY:
            path.unlink()


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
@pytest.mark.parametrize("again", ["the same", "sharing a part"])
def test_a_clean_up_job_does_not_take_what_was_saved_today(root, told, again):
    value = {"a": noise(1), "b": noise(2)}
    with mfstore.open(root) as store:
        store.save(value)
    age_everything(root, 25)
    if again == "sharing a part":
        value = {"a": value["a"], "c": noise(3)}
    with mfstore.open(root, expire_days=30 if told else None) as store:
        key = store.save(value)
    for path in Path(root).rglob("*"):  # ten days later
        os.utime(path, (path.stat().st_mtime - 10 * DAY,) * 2)
    remove_older_than(root, 30)
    try:
        with mfstore.open(root) as store:
            found = store.load(key)
        survived = all(np.array_equal(found[name], value[name]) for name in value)
    except mfstore.errors.MfstoreError:
        survived = False
    assert survived is told


def test_young_objects_are_not_touched(root):
    with mfstore.open(root, expire_days=30) as store:
        store.save({"a": noise(1)})
        before = {path: path.stat().st_mtime_ns for path in Path(root, "packs").rglob("*")}
        store.save({"a": noise(1)})
        store.save({"a": noise(1), "b": 1})
        assert {path: path.stat().st_mtime_ns for path in Path(root, "packs").rglob("*")} == before


def test_a_hit_on_s3_makes_the_object_young_again(s3_server, bucket, monkeypatch):
    """The service's clock cannot be moved, so the age at which refreshing begins is."""
    from mfstore.backends import base

    def open_store():
        return mfstore.open(
            f"s3://{bucket}/store", expire_days=30, endpoint_url=s3_server.url,
            aws_access_key_id=s3_server.access_key, aws_secret_access_key=s3_server.secret_key,
            region_name=s3_server.region,
        )  # fmt: skip

    value = {"a": noise(1, 60_000), "b": noise(2, 60_000)}
    with open_store() as store:
        key = store.save(value)
        before = {info.key: info for info in store.backend.list("")}
    time.sleep(2.1)
    with open_store() as store:
        assert store.save(value) == key  # too young to matter
        assert {info.key: info for info in store.backend.list("")} == before
    monkeypatch.setattr(base, "REFRESH_AGE", 1.0)
    with open_store() as store:
        assert store.save(value) == key
        after = {info.key: info for info in store.backend.list("")}
        for name, info in after.items():
            relied_on = name.startswith(("packs/", "recipes/"))
            assert (info.modified > before[name].modified) is relied_on, name
        # Still vouched for: nothing is read or written when it is saved once more.
        pack = next(name for name in after if name.startswith("packs/"))
        assert store.backend.vouch([pack]) == {pack: after[pack].size}
        assert all((store.load(key)[name] == value[name]).all() for name in value)


def rule(prefix="", days=30, **more):
    return {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": days}, **more}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([], []),
        ([rule()], ["30 days", "description", "refs", "data that was not saved"]),
        ([rule("team/")], ["description"]),
        ([rule("team/store/packs/")], ["data that was not saved"]),
        ([rule("team/store/packs/00")], ["data that was not saved"]),
        ([rule("team/store/index/")], []),
        ([rule("team/store/gc/holds/")], ["holds"]),
        ([rule("team/store/signatures/")], ["vouches"]),
        ([rule("team/other/")], []),
        ([rule(Status="Disabled")], []),
        ([{**rule(), "Filter": {"Tag": {"Key": "tmp", "Value": "1"}}}], []),
        ([{**rule(), "Filter": {"And": {"Prefix": "", "Tags": [{"Key": "a", "Value": "b"}]}}}], []),
        ([{**rule(), "Filter": {"And": {"Prefix": "team/", "ObjectSizeGreaterThan": 5}}}], ["description"]),
        ([{"Status": "Enabled", "Prefix": "team/store/refs/", "Expiration": {"Days": 1}}], ["refs"]),
        ([rule(Expiration={"Date": datetime(2030, 1, 2)})], ["on 2030-01-02"]),
        ([rule(Expiration={"ExpiredObjectDeleteMarker": True})], []),
        ([rule(Expiration={}, Transitions=[{"Days": 90, "StorageClass": "GLACIER"}])], ["GLACIER 90 days", "restored"]),
        ([rule(Expiration={}, Transitions=[{"Days": 90, "StorageClass": "STANDARD_IA"}])], []),
        ([rule(Expiration={}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7})], []),
    ],
)
def test_what_rules_do_to_a_store(rules, says):
    found = explain(rules, "team/store/")
    assert bool(found) is bool(says)
    for words in says:
        assert words in found[0]


def test_the_rules_of_a_bucket_are_part_of_the_plan(s3_server, bucket):
    from tests.servers.base import boto_client

    with mfstore.open(
        f"s3://{bucket}/store", endpoint_url=s3_server.url, aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key, region_name=s3_server.region,
    ) as store:  # fmt: skip
        store.put(1)
        assert store.plan_gc().warnings == ()
        rules = [
            {"ID": "sweep", "Status": "Enabled", "Filter": {"Prefix": "store/"}, "Expiration": {"Days": 30}},
        ]
        boto_client(s3_server).put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": rules}
        )
        (warning,) = store.plan_gc().warnings
        assert "lifecycle rule sweep removes objects 30 days" in warning
