"""Users of radosgw with the policies that ``mfstore policy`` prints: each does its whole job and nothing beyond, and
without any part of its policy something is refused.

That each part is needed is judged for AWS, by the rules of tests/rigs/policies.py, over what the job asked for; and for
each statement on radosgw, by one operation.
"""

import json
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError

from mfstore.errors import AccessDenied
from mfstore.format.recipes import recipe_path
from mfstore.maintenance.lifecycle import lifecycle_warnings
from mfstore.maintenance.versions import UNKNOWN, read_versions
from mfstore.policy.documents import bucket_policy
from mfstore.policy.places import place
from mfstore.s3.aws.rights import LISTING
from tests.policy import jobs
from tests.rigs.command_line import mfstore
from tests.rigs.flows import MFSTORE, PACKED
from tests.rigs.policies import Asked, allows, asked_by, parts_left_out

pytestmark = pytest.mark.server

NOTHING = {"Statement": [{"Sid": "Nothing", "Effect": "Deny", "Action": "s3:CreateBucket", "Resource": "*"}]}
BROAD = {"Statement": [{"Sid": "Broad", "Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}]}
"""What administrators have granted besides."""


def besides(rig, role):
    """What a job asks for that does not happen on radosgw 16, or not each time."""
    below, bucket = f"{rig.place.bucket}/{rig.place.prefix}", rig.place.bucket
    found = {
        "collector": [
            ("s3:AbortMultipartUpload", f"{below}packs/x"),  # when an upload in parts fails
            ("s3:DeleteObject", f"{below}refs/x"),  # removed refs, where deletions take conditions
            ("s3:GetObjectLegalHold", f"{below}recipes/x"),  # without it the answer to HeadObject leaves it out
            ("s3:GetBucketObjectLockConfiguration", bucket),  # where the bucket keeps versions
            ("s3:GetObjectRetention", f"{below}recipes/x"),  # where it has Object Lock
            ("s3:GetLifecycleConfiguration", bucket),
        ],
        "benchmark": [
            ("s3:AbortMultipartUpload", f"{below}mfstore-bench-x/objects/1"),
            ("s3:DeleteObjectVersion", f"{below}mfstore-bench-x/objects/1"),  # by another client, many in a request
        ],
    }
    if rig.place.kind == "stock":
        found["writer"] = [("s3:AbortMultipartUpload", f"{below}Granted/data/x")]
    if rig.place.kind == "packed":  # deletions of another process are not in the log
        found["writer"] = [
            ("s3:AbortMultipartUpload", f"{below}mf.store/packs/x"),
            ("s3:DeleteObject", f"{below}mf.store/.mfstore-probe-x"),
            ("s3:PutObject", f"{below}mf.cards/Granted/x"),
        ]
    return [Asked(action, resource) for action, resource in found.get(role, ())]


MAY_BE_REFUSED = {
    "writer": ("s3:DeleteObject index/", "s3:GetObjectRetention index/"),
    "auditor": ("s3:PutObject verify/progress", "s3:PutObject mf.maintenance/verify"),
}
"""What a role asks for and goes on without: fragments of the index are marked as merged where they cannot be deleted,
and how far verification has come is not remembered."""
REFUSED_BY_RADOSGW = ("s3:GetEncryptionConfiguration", "s3:GetBucketPublicAccessBlock")
"""The first it does not know; for the second it wants s3:GetBucketPolicy."""


def accepted(rig, role, asked):
    """Whether it is one of those; or of the doctor, who tries whether one may write, and asks for the bucket by
    HeadBucket, to which a refusal is an answer as well."""
    if role == "auditor" and ("/.mfstore-probe-" in asked.resource or asked == Asked(LISTING, rig.place.bucket)):
        return True
    told = f"{asked.action} {asked.resource.removeprefix(f'{rig.place.bucket}/{rig.place.prefix}')}"
    return told.startswith(MAY_BE_REFUSED.get(role, ("nothing",)))


STORE_JOBS = {
    "writer": jobs.write, "reader": jobs.read, "signer": jobs.sign, "collector": jobs.collect, "auditor": jobs.audit,
    "benchmark": jobs.bench,
}  # fmt: skip


def check(rig, role, job):
    """The job is done; what it asks for is allowed by the policy for AWS too; and each part of that is needed."""
    rig.become(rig.document(role))
    found = rig.asked(job)
    refused = [one for one in found.refused if not accepted(rig, role, one) and one.action not in REFUSED_BY_RADOSGW]
    assert [str(one) for one in refused] == []
    document = rig.document(role, radosgw=False)
    needed = [one for one in found.rights if not accepted(rig, role, one)]
    assert [str(one) for one in needed if not allows([document], one)] == []
    needed += besides(rig, role)
    assert [str(one) for one in needed if not allows([document], one)] == []
    attacks = attacked(document)
    assert [str(one) for one in attacks if allows([document, BROAD], one)] == []
    for part, less in parts_left_out(document):
        refused = [one for one in needed if not allows([less], one)]
        assert refused or any(allows([less, BROAD], one) for one in attacks), f"nothing needs {part}"


CHANGES = (
    "s3:PutObject", "s3:PutObjectAcl", "s3:PutObjectVersionAcl", "s3:PutObjectTagging", "s3:PutObjectVersionTagging",
    "s3:PutObjectRetention", "s3:PutObjectLegalHold", "s3:DeleteObject", "s3:DeleteObjectVersion",
    "s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging", "s3:AbortMultipartUpload",
)  # fmt: skip
"""What changes an object, by name: policies have patterns of them."""


def attacked(document):
    """One object below each resource that the policy denies, and each action on it."""
    return [
        Asked(action, resource.replace("*", "x"))
        for statement in document["Statement"]
        if statement["Effect"] == "Deny"
        for action in (CHANGES if statement["Sid"] == "ProtectCollector" else statement["Action"])
        for resource in ([statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"])
    ]


@pytest.mark.parametrize("role", STORE_JOBS)
def test_in_a_store_each_role_does_its_job_and_needs_each_part_of_its_policy(rig, role):
    if role != "writer":
        jobs.fill(rig)
    check(rig, role, STORE_JOBS[role])


@pytest.mark.parametrize("rig", ["stock"], indirect=True)
@pytest.mark.parametrize(("role", "job"), [("collector", jobs.collect_root), ("auditor", jobs.audit_root)])
def test_in_a_root_each_role_does_its_job_and_needs_each_part_of_its_policy(rig, role, job):
    jobs.fill_root(rig)
    check(rig, role, job)


@pytest.mark.flow
@pytest.mark.parametrize("rig", ["stock", "packed"], indirect=True)
def test_a_flow_runs_by_the_policy_of_a_writer_and_who_reads_finds_it(rig):
    """By the policy that names the flow; one that names none allows as much. Cards and the Client are the same in both
    profiles: the stock one has them."""
    table = rig.home / "table.csv"
    table.write_text("a,b\n1,2")
    packed = rig.place.kind == "packed"
    more = {"side": PACKED} if packed else {"side": MFSTORE, "GRANTED_CARD": "1"}

    def run(rig):
        rig.run_id = rig.flows().run("granted.py", "run", "--table", str(table), **more).run_id

    everywhere = rig.document("writer", radosgw=False)
    rig.place = rig.place_of(rig.place.kind, ["Granted"])
    check(rig, "writer", run)
    assert all(allows([everywhere], one) for one in asked_by(rig.proxy.log))
    if not packed:
        rig.become(rig.document("reader"))
        assert rig.flows().read(f"Granted/{rig.run_id}")
        rig.become(rig.document("collector"))
        done = migrated(rig, "packed")["executed"]
        assert done["artifacts"] and not done["failures"], done


def migrated(rig, profile):
    """What a migration of the root has done: in a process of its own, for which Metaflow's settings are read anew."""
    command = ["migrate", "--metaflow", rig.url, "--to", profile, "--execute", "--idle", "0", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "mfstore", *command], env=rig.flows().environment(), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.mark.parametrize("rig", ["locked"], indirect=True)
def test_in_a_bucket_with_locks(rig):
    """radosgw 16 keeps no conditions there, so that nothing can be collected: what a plan asks is asked by itself."""
    document = rig.document("collector")
    with rig.owner(single_writer=True) as store:
        path = recipe_path(store.put_bytes(jobs.noise(3)))

    def ask():
        with closing(rig.backend()) as backend:
            assert read_versions(backend).lock == "Enabled"
            assert backend.locks([path]) == {}

    rig.become(document)
    assert {one.action for one in rig.asked(lambda _: ask()).rights} >= {*LOCKS}
    for left_out, seen in (("ReadLocks", AccessDenied), ("ReadSettings", AssertionError)):
        rig.become(without(document, left_out))
        with pytest.raises(seen):
            ask()


LOCKS = ("s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:GetObjectRetention")


def without(document, sid):
    """The policy without one of its statements."""
    left = [one for one in document["Statement"] if one["Sid"] != sid]
    assert len(left) == len(document["Statement"]) - 1
    return {**document, "Statement": left}


@pytest.mark.parametrize("role", ["writer", "collector"])
@pytest.mark.parametrize("rig", ["store", "packed"], indirect=True)
def test_the_doctor_tells_each_role_what_it_may(rig, role):
    (jobs.fill if rig.place.kind == "store" else jobs.fill_root)(rig)
    rig.become(rig.document(role))
    (found,) = (one for one in jobs.examined(rig)["rights"] if one["name"] == "you")
    may = {may for may, answer in found["facts"].items() if answer}
    assert may == {"load", "list", "save", "set-refs", *(["collect"] if role == "collector" else [])}


@pytest.mark.parametrize("rig", ["whole"], indirect=True)
def test_a_store_that_is_the_whole_bucket(rig):
    jobs.fill(rig)
    rig.become(rig.document("reader"))
    jobs.read(rig)
    rig.become(rig.document("writer"))
    for job in (save, save_much, set_ref):
        job(rig)
    with pytest.raises(AccessDenied):
        collect_twice(rig)


# ---- nothing beyond ----------------------------------------------------------------------------

RULES = {"Rules": [{"ID": "x", "Status": "Enabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 1}}]}


def attempts(rig, boto):
    """What somebody may try, by name."""
    bucket, below = rig.bucket, rig.place.prefix

    def put(key):
        return lambda: boto.put_object(Bucket=bucket, Key=key, Body=b"x")

    def delete(key):
        return lambda: boto.delete_object(Bucket=bucket, Key=key)

    def parts():
        boto.create_multipart_upload(Bucket=bucket, Key=f"{below}gc/state")

    def copy():
        boto.copy_object(Bucket=bucket, Key=f"{below}gc/state", CopySource={"Bucket": bucket, "Key": f"{below}refs/a"})

    def several():
        found = boto.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"{below}refs/a"}]})
        if found.get("Errors"):
            raise ClientError({"Error": found["Errors"][0]}, "DeleteObjects")

    state = {"Bucket": bucket, "Key": f"{below}gc/state"}

    def abort():
        begun = rig.server.boto.create_multipart_upload(**state)["UploadId"]
        boto.abort_multipart_upload(**state, UploadId=begun)

    return {
        "open the state to all": lambda: boto.put_object_acl(**state, ACL="public-read"),
        "tag the state": lambda: boto.put_object_tagging(**state, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}),
        "take tags off the state": lambda: boto.delete_object_tagging(**state),
        "retain the state": lambda: boto.put_object_retention(
            **state, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": datetime(2100, 1, 1, tzinfo=UTC)}
        ),
        "lock the state": lambda: boto.put_object_legal_hold(**state, LegalHold={"Status": "ON"}),
        "give up an upload of the state": abort,
        "load": lambda: boto.get_object(Bucket=bucket, Key=f"{below}refs/a"),
        "list": lambda: boto.list_objects_v2(Bucket=bucket, Prefix=f"{below}refs/"),
        "save": put(f"{below}packs/ab/x"),
        "sign": put(f"{below}signatures/ab/x/y"),
        "set a ref": put(f"{below}refs/b"),
        "bench": put(f"{below}mfstore-bench-1/x"),
        "write the state": put(f"{below}gc/state"),
        "write the state in parts": parts,
        "write the state by a copy": copy,
        "condemn": put(f"{below}gc/condemned/1"),
        "hold": put(f"{below}gc/holds/a.json"),
        "write the log": put(f"{below}gc/log/2026/x"),
        "note what was verified": put(f"{below}verify/progress"),
        "quarantine": put(f"{below}quarantine/packs/x.1"),
        "write anything else": put(f"{below}anything"),
        "delete a ref's object": delete(f"{below}refs/b"),
        "delete several": several,
        "delete the state": delete(f"{below}gc/state"),
        "delete the log": delete(f"{below}gc/log/2026/x"),
        "release a hold": delete(f"{below}gc/holds/a.json"),
        "load beside": lambda: boto.get_object(Bucket=bucket, Key="team/other/refs/a"),
        "load from a place with a longer name": lambda: boto.get_object(Bucket=bucket, Key=f"{below[:-1]}2/refs/a"),
        "save beside": put("team/other/packs/x"),
        "delete beside": delete("team/other/refs/a"),
        "list beside": lambda: boto.list_objects_v2(Bucket=bucket, Prefix="team/other/"),
        "list above": lambda: boto.list_objects_v2(Bucket=bucket, Prefix="team/"),
        "list the bucket": lambda: boto.list_objects_v2(Bucket=bucket),
        "set lifecycle rules": lambda: boto.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration=RULES
        ),
        "read the bucket's policy": lambda: boto.get_bucket_policy(Bucket=bucket),
        "remove the bucket's policy": lambda: boto.delete_bucket_policy(Bucket=bucket),
        "suspend versioning": lambda: boto.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}
        ),
    }


LOCKED_OUT = {
    "open the state to all", "tag the state", "take tags off the state", "retain the state", "lock the state",
}  # fmt: skip
"""What a collector does not do itself. Denied everybody else."""
READS = {"load", "list"}
WRITES = {"save", "set a ref"}
COLLECTS = {
    "write the state", "write the state in parts", "write the state by a copy", "condemn", "hold", "write the log",
    "note what was verified", "quarantine", "delete a ref's object", "delete several", "release a hold",
    "give up an upload of the state",
}  # fmt: skip
ALLOWED = {
    "reader": READS, "auditor": READS, "signer": READS | {"sign"}, "writer": READS | WRITES, "collector": READS | WRITES | COLLECTS,
    "benchmark": {"bench"},
}  # fmt: skip


def tried(rig):
    """Which of the attempts are not refused."""
    for below in (rig.place.prefix, f"{rig.place.prefix[:-1]}2/", "team/other/"):
        for key in ("refs/a", "gc/state", "gc/log/2026/x"):
            rig.server.boto.put_object(Bucket=rig.bucket, Key=below + key, Body=b"x")
    done, boto = set(), rig.boto()
    for name, attempt in attempts(rig, boto).items():
        boto.close()  # radosgw closes the connection of an upload that it refuses
        try:
            attempt()
            done.add(name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDenied":  # such as that there is no such policy
                done.add(name)
    boto.close()
    return done


@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_may_do_nothing_else(rig, role):
    document = rig.document(role)
    rig.become(document)
    rig.proxy.clear()
    assert tried(rig) == ALLOWED[role]
    assert judged_alike(rig, [document]) > 20


NOT_JUDGED = (
    "lifecycle", "policy", "versioning", "acl", "tagging", "retention", "legal-hold", "delete",
)  # fmt: skip
"""Queries of what is not in the table of rights, or of many objects."""


def judged_alike(rig, documents):
    """How many of the requests radosgw judged as the rules do by which the rest of the tests judge."""
    count = 0
    for one in rig.proxy.log:
        if one.query.startswith(NOT_JUDGED):
            continue
        rights = asked_by([one], by_radosgw=True)
        assert (one.status != 403) == all(allows(documents, right) for right in rights), (one.method, one.path)
        count += 1
    return count


@pytest.mark.parametrize(
    ("role", "denied"),
    [
        (
            "writer",
            COLLECTS - {"delete a ref's object", "delete several"}
            | {"delete the state", "delete the log"}
            | LOCKED_OUT,
        ),
        ("collector", {"delete the log"}),
    ],
)
def test_what_is_denied_stays_so_whatever_else_is_allowed(rig, role, denied):
    rig.become(rig.document(role), BROAD)
    everything = set(attempts(rig, None))
    rig.proxy.clear()
    assert everything - tried(rig) == denied
    assert judged_alike(rig, [rig.document(role), BROAD]) > 20
    protecting = {"writer": "ProtectCollector", "collector": "KeepLog"}[role]
    rig.become(without(rig.document(role), protecting), BROAD)
    assert everything - tried(rig) == set()


# ---- without a statement -----------------------------------------------------------------------


def load(rig):
    with rig.open() as store:
        store.get("models/a")


def look_for_absent(rig):
    with rig.open() as store:
        store.exists("0" * 64)


def name_refs(rig):
    with rig.open() as store:
        store.refs.list()


def save(rig):
    with rig.open() as store:
        store.put([1, 2])


def save_much(rig):
    """What does not lie in a recipe is looked for in the index, which is listed."""
    with rig.open() as store:
        store.put_bytes(jobs.noise(10))


def set_ref(rig):
    """No object is left on which conditions were tried."""
    with rig.open() as store:
        store.refs["models/c"] = store.resolve("models/a")
    listed = rig.server.boto.list_objects_v2(Bucket=rig.bucket, Prefix=f"{rig.place.prefix}.mfstore-probe-")
    if listed["KeyCount"]:
        raise AccessDenied("left behind")


def collect_twice(rig):
    with rig.open() as store:
        for _ in range(2):
            store.plan_gc(grace=0, keep_last=1).execute(yes_really=True)


def know_rules(rig):
    with rig.open() as store:
        if lifecycle_warnings(store.backend) or read_versions(store.backend).state == UNKNOWN:
            raise AccessDenied("not known")


def see_uploads(rig):
    _told(lambda: rig.boto().list_multipart_uploads(Bucket=rig.bucket))


def see_who_may_read(rig):
    _told(lambda: rig.boto().get_bucket_policy_status(Bucket=rig.bucket))


def _told(ask):
    try:
        ask()
    except ClientError as error:
        raise AccessDenied(str(error)) from error


def bench(rig):
    mfstore("bench", rig.url, "-y", "--size", "1KiB", "--count", "1", "--operation", "put", env=rig.environment())


STATEMENTS = {
    "reader": {"List": name_refs, "Read": load, "TellAbsentOnRadosgw": look_for_absent},
    "signer": {"List": name_refs, "Read": load, "Sign": jobs.sign, "TellAbsentOnRadosgw": look_for_absent},
    "writer": {
        "List": save_much, "Read": load, "Write": save, "RemoveProbes": set_ref, "DeleteTogetherOnRadosgw": set_ref,
        "TellAbsentOnRadosgw": save,
    },
    "auditor": {
        "List": name_refs, "Read": load, "ReadSettings": know_rules, "ReadExposure": see_who_may_read,
        "ListUploads": see_uploads, "TellAbsentOnRadosgw": look_for_absent,
    },
    "collector": {
        "List": collect_twice, "Read": load, "ReadSettings": know_rules, "Collect": collect_twice,
        "Delete": collect_twice, "DeleteTogetherOnRadosgw": collect_twice, "TellAbsentOnRadosgw": collect_twice,
    },
}  # fmt: skip
"""What is refused without each statement. Of the others: ``test_what_is_denied_stays_so…`` (ProtectCollector, KeepLog)
and ``test_in_a_bucket_with_locks`` (ReadLocks)."""


@pytest.mark.parametrize("role", STATEMENTS)
def test_without_a_statement_something_is_refused(rig, role):
    jobs.fill(rig)
    document = rig.document(role)
    elsewhere = {"ProtectCollector", "KeepLog", "ReadLocks"}
    assert {one["Sid"] for one in document["Statement"]} - elsewhere == set(STATEMENTS[role])
    for sid, job in STATEMENTS[role].items():
        rig.become(without(document, sid))
        try:
            job(rig)
            pytest.fail(f"nothing is refused without {sid}")
        except AccessDenied:
            pass
        rig.sweep()
    rig.become(document)
    for job in {*STATEMENTS[role].values()}:
        job(rig)


# ---- as the policy of a bucket, and with a key ---------------------------------------------------


def test_as_the_policy_of_a_bucket(rig):
    """radosgw 16 does not know aws:PrincipalArn: whom the collector's policy denies its state is judged as AWS would."""
    principal = f"arn:aws:iam:::user/{rig.user}"
    rig.become(NOTHING)
    for role in ("writer", "reader"):
        document = bucket_policy(role, rig.place, [principal], radosgw=True)
        rig.server.boto.put_bucket_policy(Bucket=rig.bucket, Policy=json.dumps(document))
        assert tried(rig) == ALLOWED[role]


def test_nobody_but_the_collector_changes_its_state():
    where = place("s3://bucket/team")
    collector, others = "arn:aws:iam::123456789012:role/collector", "arn:aws:iam::123456789012:role/admin"
    second = "arn:aws:iam::123456789012:user/repairs"
    document = bucket_policy("collector", where, [collector, second])
    for asked in attacked(document):
        assert not allows([document, BROAD], asked, others)
        assert not allows([document, BROAD], asked)  # nor somebody who does not say who he is
        assert allows([document, BROAD], asked, collector) or asked.resource.endswith("gc/log/x")
    state = Asked("s3:PutObject", "arn:aws:s3:::bucket/team/gc/state")
    assert allows([document], state, collector) and not allows([document], state, others)
    assert allows([document], state, second)
    load = Asked("s3:GetObject", "arn:aws:s3:::bucket/team/refs/x")
    assert allows([document], load, collector) and not allows([document], load, others)
    assert allows([BROAD, without(document, "ProtectCollector")], state, others)
