"""Buckets that keep versions of what is deleted, and locks that keep objects from it: what a collection says of them."""

import contextlib
import json
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

import mfstore
from mfstore import errors
from mfstore.backends.base import ObjectLock
from mfstore.backends.locks import speaks_of_locks
from mfstore.backends.s3.backend import S3Backend
from mfstore.backends.s3.locks import default_retention, lock_in
from mfstore.cli import main
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.versions import RULE_DAYS, VersionsKept, read_versions, removed_after
from mfstore.s3.aws.errors import problem
from mfstore.s3.calls import Call, Reply
from tests.backends.test_s3 import options
from tests.rigs.gc import DAY, noise
from tests.rigs.metaflow_trees import task, upload
from tests.servers.base import boto_client, client_options

LAST = RunPolicy(last=1, grace=0.0)


def rule(days, prefix="", **more):
    return {
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "NoncurrentVersionExpiration": {"NoncurrentDays": days},
        **more,
    }


@pytest.mark.parametrize(
    ("rules", "days"),
    [
        ([], None),
        ([rule(30)], 30),
        ([rule(30), rule(7, "team/")], 7),
        ([rule(30, "team/flows/")], 30),
        ([rule(30, "team/flows/Flow/")], None),
        ([rule(30, "other/")], None),
        ([rule(30) | {"Status": "Disabled"}], None),
        ([{"Status": "Enabled", "Prefix": "team/", "NoncurrentVersionExpiration": {"NoncurrentDays": 3}}], 3),
        ([rule(30) | {"Filter": {"And": {"Prefix": "", "Tags": [{"Key": "a", "Value": "b"}]}}}], None),
        ([rule(30) | {"Filter": {"ObjectSizeGreaterThan": 5}}], None),
        ([rule(30) | {"NoncurrentVersionExpiration": {"NoncurrentDays": 3, "NewerNoncurrentVersions": 2}}], None),
        ([{"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 3}}], None),
    ],
)
def test_which_rules_remove_versions(rules, days):
    assert removed_after(rules, "team/flows/") == days


def test_the_rule_that_is_proposed_is_one_that_removes_them():
    for prefix in ("", "team/flows/"):
        proposed = VersionsKept("Enabled", prefix=prefix).rule
        assert removed_after([proposed], prefix) == RULE_DAYS
        assert removed_after([proposed], "") == (None if prefix else RULE_DAYS)


def test_what_people_are_told():
    assert VersionsKept().notes(5) == []
    (unknown,) = VersionsKept("unknown").notes(5)
    assert "s3:GetBucketVersioning" in unknown
    (on_azure,) = VersionsKept("unknown", scheme="az").notes(5)
    assert "containers/blobs/read" in on_azure and "s3:" not in on_azure
    kept, proposed = VersionsKept("Enabled", prefix="p/").notes(5_000_000)
    assert "5.0 MB at least" in kept and '"Prefix": "p/"' in proposed
    (removed,) = VersionsKept("Enabled", removed_after=30).notes(1)
    assert "30 days later" in removed
    assert "may not be read (s3:GetLifecycleConfiguration)" in VersionsKept("Enabled", rules="unknown").notes(1)[0]
    assert "suspended" in VersionsKept("Suspended").notes(1)[0]
    assert "COMPLIANCE for 3 days" in VersionsKept("Enabled", "COMPLIANCE for 3 days").notes(1)[1]
    assert "s3:GetBucketObjectLockConfiguration" in VersionsKept("Enabled", "unknown").notes(1)[1]


def test_what_headers_say_of_locks():
    lock = lock_in(
        {"x-amz-object-lock-mode": "COMPLIANCE", "x-amz-object-lock-retain-until-date": "2027-01-15T08:00:00.316198Z"}
    )
    assert lock == ObjectLock("COMPLIANCE", 1_800_000_000.0)
    assert lock.holds(1_799_999_999) and not lock.holds(1_800_000_001)
    assert lock_in({"x-amz-object-lock-legal-hold": "ON"}).holds(2e9)
    assert not lock_in({}).holds(0)
    assert ObjectLock("GOVERNANCE").holds(2e9), "without an end it is taken to last"
    assert (
        lock_in({"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": "soon"}).until is None
    )
    assert default_retention({}) == default_retention({"ObjectLockConfiguration": {}}) == ""
    on = {"ObjectLockEnabled": "Enabled"}
    assert default_retention({"ObjectLockConfiguration": on}) == "Enabled"
    years = {"Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Years": 2}}}
    assert default_retention({"ObjectLockConfiguration": {**on, **years}}) == "GOVERNANCE for 2 years"
    assert speaks_of_locks(refusal("Access Denied because object protected by object lock."))
    assert speaks_of_locks(refusal("forbidden by object lock"))
    assert not speaks_of_locks(refusal("Access Denied"))
    named = "User: arn:aws:iam::1:user/u is not authorized to perform: s3:DeleteObject on resource: arn:aws:s3:::b/worm"
    assert not speaks_of_locks(refusal(named))


def refusal(words):
    """The error for a deletion that the service refuses so, of an object with a name that speaks of locks."""
    call = Call("DeleteObject", "bucket", "retention/worm")
    body = f"<Error><Code>AccessDenied</Code><Message>{words}</Message></Error>".encode()
    return problem(call, Reply(call, 403, data=body), lambda call: "http://localhost")


# ---- servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def s3(s3_server):
    """boto3's client, for what an administrator does."""
    client = boto_client(s3_server)
    yield client
    client.close()


@pytest.fixture
def versioned(s3):
    """A bucket that keeps versions."""
    name = f"versions-{uuid.uuid4().hex[:16]}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def lockable(s3):
    """A bucket whose objects may be locked."""
    name = f"locks-{uuid.uuid4().hex[:16]}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def root_in(tmp_path, s3_server, s3_env, monkeypatch):
    """Make a root with three runs of one flow in a bucket."""
    for name, value in (
        ("AWS_ACCESS_KEY_ID", s3_server.access_key), ("AWS_SECRET_ACCESS_KEY", s3_server.secret_key),
        ("AWS_DEFAULT_REGION", s3_server.region), ("AWS_ENDPOINT_URL_S3", s3_server.url),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    with contextlib.ExitStack() as stack:

        def make(bucket):
            for number in range(3):
                artifacts = {"own": f"{number} " * 1000, "all": "x" * 1000}
                task(tmp_path / "mf", "Flow", str(number), "start", 1, artifacts, age=(30 - number) * DAY)
            root = Root(f"s3://{bucket}/team/flows")
            stack.callback(root.close)
            upload(tmp_path / "mf", root.backend)
            return root

        yield make


# radosgw 16 keeps no conditions in a bucket with versioning, so that a collection there refuses to begin.
executes = pytest.mark.parametrize("s3_server", ["ministack"], indirect=True)
# ministack refuses a whole request for one object that may not be deleted.
refuses_one = pytest.mark.parametrize("s3_server", ["radosgw"], indirect=True)


def keys_below(s3, bucket, prefix):
    return {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())}


@executes
def test_a_root_in_a_bucket_that_keeps_versions(root_in, versioned, s3, capsys):
    root = root_in(versioned)
    collect_metaflow(root, LAST)
    before = {info.key: info.size for info in root.backend.list("Flow/")}
    plan, done = collect_metaflow(root, LAST)
    assert set(done.removed) == {"Flow/0", "Flow/1"}
    kept, proposed = plan.storage_notes
    assert "keeps versions" in kept and "no lifecycle rule" in kept and "put-bucket-lifecycle-configuration" in proposed
    # What it says is so: all of it is still there.
    left = {entry["Key"]: entry["Size"] for entry in s3.list_object_versions(Bucket=versioned)["Versions"]}
    assert all(left[f"team/flows/{key}"] == size for key, size in before.items())
    # And the rule that it shows is one that the service takes, and that it knows again.
    s3.put_bucket_lifecycle_configuration(
        Bucket=versioned, LifecycleConfiguration={"Rules": [json.loads(proposed[proposed.index("{") :])]}
    )
    found = read_versions(root.backend)
    assert found.state == "Enabled" and found.removed_after == RULE_DAYS and found.lock == ""
    main(["gc", "--metaflow", root.url, "--keep-last", "1"], standalone_mode=False)
    assert "keeps versions" not in capsys.readouterr().out, "nothing goes"


def test_what_may_not_be_asked_is_said(root_in, versioned, s3):
    root = root_in(versioned)
    assert read_versions(root.backend) == VersionsKept("Enabled", prefix="team/flows/")
    deny(s3, versioned, "s3:GetBucketVersioning", "")
    assert read_versions(root.backend).state == "unknown"
    plan = plan_metaflow_gc(root, LAST)
    assert plan.condemn and "s3:GetBucketVersioning" in plan.storage_notes[0]


def test_locks_are_read_and_that_they_may_not_be(lockable, s3_server, s3):
    for letter in "abcd":
        s3.put_object(Bucket=lockable, Key=f"place/{letter}", Body=b"x")
    until = datetime.now(UTC) + timedelta(days=1)
    s3.put_object_retention(Bucket=lockable, Key="place/a", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until})
    s3.put_object_legal_hold(Bucket=lockable, Key="place/b", LegalHold={"Status": "ON"})
    s3.put_object_legal_hold(Bucket=lockable, Key="place/c", LegalHold={"Status": "OFF"})
    with contextlib.closing(S3Backend(f"s3://{lockable}/place", **options(s3_server))) as backend:
        assert read_versions(backend).locks_objects
        found = backend.locks(["a", "b", "c", "d", "absent"])
        assert set(found) == {"a", "b"} and found["b"].legal_hold and found["a"].mode == "GOVERNANCE"
        assert abs(found["a"].until - until.timestamp()) < 2
        assert backend.locks(["c", "d"]) == backend.locks([]) == {}
        deny(s3, lockable, "s3:GetObjectRetention", "/*")
        with pytest.raises(errors.AccessDenied):
            backend.locks(["d"])


@executes
def test_a_run_under_legal_hold_or_retention_stays_and_the_others_go(root_in, lockable, s3, capsys):
    root = root_in(lockable)
    data = [f"team/flows/Flow/{number}/start/1/0.data.json" for number in (0, 1)]
    s3.put_object_legal_hold(Bucket=lockable, Key=data[0], LegalHold={"Status": "ON"})
    collect_metaflow(root, LAST)
    main(["gc", "--metaflow", root.url, "--keep-last", "1", "--grace", "0s"], standalone_mode=False)
    assert "locked   Flow/0: Flow/0/start/1/0.data.json is under legal hold" in capsys.readouterr().out
    plan, done = collect_metaflow(root, LAST)
    assert done.removed == ("Flow/1",) and list(plan.locked) == [("Flow", "0")]
    assert "Object Lock is on" in " ".join(plan.storage_notes)
    # The run is whole, with what it refers to.
    needed = json.loads(root.backend.get("Flow/0/start/1/0.data.json"))["objects"].values()
    assert all(root.backend.exists_many([f"Flow/data/{key[:2]}/{key}" for key in needed]))
    # Released, and put under retention instead.
    s3.put_object_legal_hold(Bucket=lockable, Key=data[0], LegalHold={"Status": "OFF"})
    until = datetime.now(UTC) + timedelta(days=3)
    s3.put_object_retention(Bucket=lockable, Key=data[0], Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until})
    plan, done = collect_metaflow(root, LAST)
    assert done.removed == () and f"governance retention until {until:%Y-%m-%d %H:%M} UTC" in plan.locked["Flow", "0"]
    assert abs(plan.waiting["Flow", "0"] - until.timestamp()) < 2
    s3.put_object_retention(
        Bucket=lockable, Key=data[0], BypassGovernanceRetention=True,
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(seconds=1)},
    )  # fmt: skip
    time.sleep(1.5)
    _, done = collect_metaflow(root, LAST)
    assert done.removed == ("Flow/0",)


@executes
def test_a_key_of_a_store_under_retention_stays(lockable, s3_server, s3):
    store = mfstore.open(f"s3://{lockable}/store", **client_options(s3_server))
    with store:
        kept, locked, gone = (store.put(noise(number)) for number in range(3))
        store.refs["kept"] = kept
        until = datetime.now(UTC) + timedelta(days=3)
        s3.put_object_retention(
            Bucket=lockable, Key=f"store/recipes/{locked[:2]}/{locked}",
            Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until},
        )  # fmt: skip
        store.plan_gc(grace=0).execute()
        plan = store.plan_gc(grace=0)
        assert plan.decision.kept["under retention or legal hold of the storage"].recipes == 1
        assert any("Object Lock is on" in note for note in plan.storage_notes)
        assert plan.execute().deleted.recipes == 1
        assert not store.exists(gone) and (store.get(locked) == noise(1)).all()
    # A compliance lock cannot be lifted: the bucket goes with its server.


@refuses_one
def test_a_deletion_that_a_lock_refuses_is_told_from_others(lockable, s3_server, s3):
    """radosgw hides an object that is locked, as S3 does: here a policy refuses that too, as other services do by
    themselves."""
    names = [f"place/{letter}" for letter in "abcd"]
    for name in names:
        s3.put_object(Bucket=lockable, Key=name, Body=b"x")
    until = datetime.now(UTC) + timedelta(days=1)
    s3.put_object_retention(Bucket=lockable, Key="place/b", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until})
    deny(s3, lockable, "s3:DeleteObject", "/place/b")
    with contextlib.closing(S3Backend(f"s3://{lockable}/place", **options(s3_server))) as backend:
        etags = {info.key: info.etag for info in backend.list("")}
        with pytest.raises(errors.Locked, match="governance retention until") as caught:
            backend.delete_unchanged({**etags, "c": "0" * 32})
        assert set(caught.value.locks) == {"b"} and set(caught.value.changed) == {"c"} and caught.value.key == "b"
        assert keys_below(s3, lockable, "place/") == {"place/b", "place/c"}
        with pytest.raises(errors.Locked):
            backend.delete_many(["b", "c"])
        assert keys_below(s3, lockable, "place/") == {"place/b"}
        s3.put_object(Bucket=lockable, Key="place/a", Body=b"x")
        deny(s3, lockable, "s3:DeleteObject", "/place/*")
        with pytest.raises(errors.AccessDenied) as caught:
            backend.delete_many(["a", "b"])
        assert not isinstance(caught.value, errors.Locked) and caught.value.key == "a", "not all for a lock"


def deny(s3, bucket, action, resource):
    """Refuse it, whoever asks."""
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": [action],
        "Resource": [f"arn:aws:s3:::{bucket}{resource}"],
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
