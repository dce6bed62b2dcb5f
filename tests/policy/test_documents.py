"""The documents: what AWS takes, for which places, and what is refused before it is asked."""

import fnmatch
import json
import re
from datetime import UTC, datetime
from itertools import product

import pytest

from mfstore.cli import policy as command
from mfstore.errors import InvalidKey, MfstoreError, Refused, Unsupported
from mfstore.policy.documents import IDENTITY_LIMIT, bucket_policy, identity_policy, key_policy
from mfstore.policy.lifecycle import lifecycle
from mfstore.policy.needs import ROLES
from mfstore.policy.places import PARTITIONS, place
from mfstore.policy.statements import statements
from mfstore.s3.aws.rights import ACTIONS, needed
from mfstore.s3.calls import Call, Options
from tests.policy.conftest import PREFIX
from tests.rigs.command_line import mfstore
from tests.rigs.policies import Asked, allows

KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ROLE = "arn:aws:iam::123456789012:role/tasks"
PLACES = {
    "store": place("s3://bucket/team/a"), "whole": place("s3://bucket"), "stock": place("s3://b/mf", metaflow=True),
    "packed": place("s3://b/mf", metaflow=True, packed=True),
    "flow": place("s3://b/mf", metaflow=True, packed=True, flows=["Train"]),
}  # fmt: skip


@pytest.mark.parametrize(("role", "where", "radosgw"), [*product(ROLES, PLACES, (False, True))])
def test_documents_are_such_as_aws_takes(role, where, radosgw):
    found = statements(role, PLACES[where], kms_key=KEY, radosgw=radosgw)
    document = identity_policy(found)
    assert document["Version"] == "2012-10-17" and len(json.dumps(document)) < IDENTITY_LIMIT
    sids = [one["Sid"] for one in document["Statement"]]
    assert len(set(sids)) == len(sids) and all(re.fullmatch(r"[A-Za-z0-9]+", sid) for sid in sids)
    for one in found:
        assert one.purpose and one.without and one.actions and one.resources
        if "OnRadosgw" in one.sid:
            continue
        for action in one.actions:
            kinds = {ACTIONS[name].on for name in fnmatch.filter(ACTIONS, action)}
            assert len(kinds) == 1 and ("*" not in action or one.effect == "Deny")
            for resource in one.resources:
                assert (kinds == {"key"}) == resource.startswith("arn:aws:kms:")
                assert kinds == {"key"} or (kinds == {"object"}) == ("/" in resource)
    named = bucket_policy(role, PLACES[where], [ROLE], radosgw=radosgw)
    for one in named["Statement"]:
        assert one["Principal"] == ({"AWS": [ROLE]} if one["Sid"] != "ProtectCollector" or role == "writer" else "*")


@pytest.mark.parametrize("role", ROLES)
def test_who_asks_below_a_name_that_begins_alike_is_refused(role):
    """Nothing is allowed beside the place, in any of its forms."""
    document = identity_policy(statements(role, place("s3://bucket/team/a")))
    for action in ACTIONS:
        for resource in ("arn:aws:s3:::bucket/team/ab/refs/x", "arn:aws:s3:::bucket/team/refs/x"):
            assert not allows([document], Asked(action, resource))
    for prefix in ("team/ab/", "team/", "team/a", ""):
        listed = Asked("s3:ListBucket", "arn:aws:s3:::bucket", (("s3:prefix", prefix),) if prefix else ())
        assert not allows([document], listed), prefix


def test_names_with_wildcards_are_taken_literally():
    document = identity_policy(statements("reader", place("s3://bucket/a*b?c$/d")))
    text = json.dumps(document)
    assert "arn:aws:s3:::bucket/a${*}b${?}c${$}/d/*" in text
    assert allows([document], Asked("s3:GetObject", "arn:aws:s3:::bucket/a*b?c$/d/refs/x"))
    assert not allows([document], Asked("s3:GetObject", "arn:aws:s3:::bucket/axxb?c$/d/refs/x"))
    assert allows([document], Asked("s3:ListBucket", "arn:aws:s3:::bucket", (("s3:prefix", "a*b?c$/d/refs/"),)))


def test_the_command_offers_all_roles_and_partitions():
    assert (tuple(ROLES), PARTITIONS) == (command.ROLES, command.PARTITIONS)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_partitions_and_access_points(partition):
    found = statements("reader", place("s3://bucket/x", partition=partition))
    assert found[0].resources == (f"arn:{partition}:s3:::bucket",)
    assert found[1].resources == (f"arn:{partition}:s3:::bucket/x/*",)
    point = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine"
    found = statements("reader", place(f"s3://{point}/x"))
    assert [one.resources[0] for one in found] == [point, f"{point}/object/x/*"]


@pytest.mark.parametrize("role", ROLES)
def test_what_is_encrypted_with_a_key_is_read_and_written(role):
    """As the table of rights has it for requests that name a key."""
    document = identity_policy(statements(role, PLACES["store"], kms_key=KEY))
    said = Options({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KEY})
    writes = role not in ("reader", "auditor")
    for operation in ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"):
        for right in needed(Call(operation, "bucket", "team/a/mfstore-bench-1/x", said)):
            if right.action.startswith("kms:"):
                through = (("kms:ViaService", "s3.eu-west-1.amazonaws.com"),)
                assert allows([document], Asked(right.action, right.resource, through)) == (
                    writes or right.action == "kms:Decrypt"
                )
                assert not allows([document], Asked(right.action, right.resource))
    assert allows([document], Asked("kms:Decrypt", KEY, (("kms:ViaService", "s3.eu-west-1.amazonaws.com"),)))
    (statement,) = key_policy(role, KEY, [ROLE])["Statement"]
    assert statement["Resource"] == "*" and statement["Principal"] == {"AWS": [ROLE]}
    assert ("kms:GenerateDataKey" in statement["Action"]) == writes


@pytest.mark.parametrize(
    ("region", "domain"), [("eu-west-1", "amazonaws.com"), ("cn-north-1", "amazonaws.com.cn")]
)  # fmt: skip
def test_a_key_is_used_through_s3_of_its_region_alone(region, domain):
    key = KEY.replace("eu-west-1", region)
    document = identity_policy(statements("writer", PLACES["store"], kms_key=key))
    for service, may in (
        (f"s3.{region}", True),
        ("s3.us-east-1", False),
        (f"ec2.{region}", False),
        (f"xs3.{region}", False),
    ):
        asked = Asked("kms:Decrypt", key, (("kms:ViaService", f"{service}.{domain}"),))
        assert allows([document], asked) == may, service


@pytest.mark.parametrize(("role", "where"), [*product(ROLES, ("store", "whole"))])
def test_to_tell_what_is_absent_on_radosgw_is_no_right_to_list(role, where):
    """In the whole of a bucket whoever may list it has that right anyway; who measures may list a folder."""
    found = {one.sid: one for one in statements(role, PLACES[where], radosgw=True)}
    assert ("TellAbsentOnRadosgw" in found) == (where == "store" or role == "benchmark")
    if "TellAbsentOnRadosgw" in found:
        document = identity_policy([found["TellAbsentOnRadosgw"]])
        for context, may in (((), True), ((("s3:prefix", "x"),), False), ((("s3:max-keys", "9"),), False)):
            assert allows([document], Asked("s3:ListBucket", "arn:aws:s3:::bucket", context)) == may, context


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: place("/a/directory"), InvalidKey, "s3://bucket/prefix"),
        (lambda: place("s3://*/x"), InvalidKey, "one bucket"),
        (lambda: place("s3://user:password@bucket/x"), InvalidKey, "one bucket"),
        (lambda: place("s3://arn:aws:s3:*:*:accesspoint/*/x"), InvalidKey, "one bucket"),
        (lambda: statements("reader", PLACES["store"], kms_key="arn:aws:kms:*:*:key/*"), InvalidKey, "KMS key"),
        (lambda: place("s3://bucket--use1-az4--x-s3/x"), Unsupported, "s3express:CreateSession"),
        (lambda: place("s3://b/x", metaflow=True, flows=["a/b"]), InvalidKey, "name of a flow"),
        (lambda: statements("reader", PLACES["store"], kms_key="alias/mine"), InvalidKey, "KMS key"),
        (lambda: statements("reader", PLACES["store"], kms_key=KEY.replace("key/", "alias/")), InvalidKey, "alias"),
        (lambda: bucket_policy("writer", PLACES["store"], ["*"]), InvalidKey, "principal"),
        (lambda: bucket_policy("writer", PLACES["store"], [ROLE[:-1] + "*"]), InvalidKey, "principal"),
        (
            lambda: bucket_policy("writer", PLACES["store"], ["arn:aws:sts::123456789012:assumed-role/a/b"]), InvalidKey,
            "the role, not the session",
        ),
        (lambda: bucket_policy("collector", PLACES["store"], ["123456789012"]), InvalidKey, "role or a user"),
        (
            lambda: identity_policy(
                statements("writer", place("s3://b/x", metaflow=True, flows=[f"Flow{n}" for n in range(100)]))
            ),
            Refused, "6144",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_granted_is_refused(make, error, says):
    with pytest.raises(error) as caught:
        make()
    assert isinstance(caught.value, MfstoreError) and says in str(caught.value)


def test_the_rule_of_a_place_leaves_others_alone_and_expires_nothing():
    others = [{"ID": "mine", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 3}}]
    rules = lifecycle("team/a/", others)["Rules"]
    assert rules[:1] == others and len(rules) == 2
    assert lifecycle("team/a/", rules)["Rules"] == rules
    assert rules[1]["Filter"] == {"Prefix": "team/a/"}
    assert rules[1]["Expiration"] == {"ExpiredObjectDeleteMarker": True} and "Transitions" not in rules[1]
    assert rules[1]["AbortIncompleteMultipartUpload"] and rules[1]["NoncurrentVersionExpiration"]
    older = {"ID": "mine", "Status": "Enabled", "Prefix": "x/", "Expiration": {"Days": 3}}
    assert lifecycle("team/a/", [older])["Rules"] == rules


# ---- the command -------------------------------------------------------------------------------


def test_the_command_prints_a_document():
    done = mfstore("policy", "writer", "s3://bucket/team/a")
    assert json.loads(done.stdout) == identity_policy(statements("writer", PLACES["store"]))
    assert done.stderr == ""
    done = mfstore("policy", "writer", "--metaflow", "s3://b/mf", "--packed", "--flow", "Train")
    assert json.loads(done.stdout) == identity_policy(statements("writer", PLACES["flow"]))
    done = mfstore("policy", "collector", "s3://bucket/team/a", "--bucket-policy", "--principal", ROLE)
    assert json.loads(done.stdout) == bucket_policy("collector", PLACES["store"], [ROLE])
    done = mfstore("policy", "reader", "s3://bucket/team/a", "--key-policy", "--kms-key", KEY, "--principal", ROLE)
    assert json.loads(done.stdout) == key_policy("reader", KEY, [ROLE])
    done = mfstore("policy", "reader", "s3://bucket/team/a", "--lifecycle")
    assert json.loads(done.stdout) == lifecycle("team/a/") and "--merge" in done.stderr
    assert "arn:aws-cn:s3:::bucket" in mfstore("policy", "reader", "s3://bucket", "--region", "cn-north-1").stdout
    assert (
        "arn:aws-us-gov:s3:::bucket" in mfstore("policy", "reader", "s3://bucket", "--partition", "aws-us-gov").stdout
    )


@pytest.mark.parametrize("role", ROLES)
def test_the_command_explains(role):
    shown = mfstore("policy", role, "s3://bucket/team/a", "--explain").stdout
    told = json.loads(mfstore("policy", role, "s3://bucket/team/a", "--explain", "--json").stdout)
    for one in statements(role, PLACES["store"]):
        assert one.sid in shown and one.sid in [row["sid"] for row in told]
    assert f"\n  {role} " in mfstore("policy", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["writer"], "one place"),
        (["writer", "s3://b/x", "--metaflow", "s3://b/y"], "one place"),
        (["writer", "s3://b/x", "--flow", "Train"], "--metaflow"),
        (["writer", "s3://b/x", "--bucket-policy"], "--principal"),
        (["writer", "s3://b/x", "--principal", ROLE], "--bucket-policy"),
        (["writer", "s3://b/x", "--key-policy", "--principal", ROLE], "--kms-key"),
        (["writer", "s3://b/x", "--bucket-policy", "--principal", ROLE, "--kms-key", KEY], "--key-policy"),
        (["writer", "s3://b/x", "--merge"], "--lifecycle"),
        (["writer", "s3://b/x", "--lifecycle", "--explain"], "one of"),
        (["owner", "s3://b/x"], "owner"),
    ],
)
def test_wrong_usage(arguments, says):
    assert says in mfstore("policy", *arguments, code=2).stderr


@pytest.mark.parametrize("kind", ["stock", "packed"])
def test_a_collector_leaves_tasks_of_both_profiles_what_they_write(kind):
    """A root may have runs of both: what is denied everybody else is what no task needs. A signer signs."""
    document = bucket_policy("collector", PLACES[kind], [ROLE.replace("tasks", "collector")])
    everybody = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    for key in ("Train/1/start/1/0.data.json", "mf.store/packs/ab/x", "mf.store/latest/Train.start"):
        assert allows([document, everybody], Asked("s3:PutObject", f"arn:aws:s3:::b/mf/{key}"), ROLE)
    signature = Asked("s3:PutObject", "arn:aws:s3:::b/mf/mf.store/signatures/ab/x/y")
    assert allows([document, identity_policy(statements("signer", PLACES[kind]))], signature, ROLE)
    for key in ("mf.maintenance/gc", "mf.store/gc/state", "mf.store/refs/x", "mf.store/quarantine/x"):
        assert not allows([document, everybody], Asked("s3:PutObject", f"arn:aws:s3:::b/mf/{key}"), ROLE)


@pytest.mark.parametrize("where", PLACES)
def test_a_writer_signs_nothing_unless_he_is_a_signer_too(where):
    below = "mf.store/" if PLACES[where].kind != "store" else ""
    (signature,) = PLACES[where].objects(f"{below}signatures/ab/x/y")
    assert not allows([identity_policy(statements("writer", PLACES[where]))], Asked("s3:PutObject", signature))
    assert allows([identity_policy(statements("signer", PLACES[where]))], Asked("s3:PutObject", signature))


@pytest.mark.server
@pytest.mark.parametrize("rig", ["stock"], indirect=True)
def test_a_rule_that_takes_what_flows_stored_is_told_without_their_names(rig):
    rig.become(rig.document("collector"))
    prefix = f"{PREFIX}/Train/data/"
    rule = {"ID": "mine", "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": 3}}
    rig.server.boto.put_bucket_lifecycle_configuration(Bucket=rig.bucket, LifecycleConfiguration={"Rules": [rule]})
    for more, told in (((), True), (("--flow", "Score"), False), (("--flow", "Train"), True)):
        arguments = ["policy", "writer", "--metaflow", rig.url, *more, "--lifecycle", "--merge"]
        assert ("lifecycle rule mine removes" in mfstore(*arguments, env=rig.environment()).stderr) == told


@pytest.mark.server
def test_the_rules_of_a_bucket_are_kept_and_taken_by_a_service(rig):
    """Printed with those that are there, put, and printed again: the same."""
    rig.become(rig.document("collector"))
    boto = rig.server.boto
    mine = {"ID": "mine", "Status": "Enabled", "Filter": {"Prefix": PREFIX}, "Expiration": {"Days": 3}}
    boto.put_bucket_lifecycle_configuration(Bucket=rig.bucket, LifecycleConfiguration={"Rules": [mine]})
    arguments = ["policy", "writer", rig.url, "--lifecycle", "--merge"]
    first = mfstore(*arguments, env=rig.environment())
    assert "lifecycle rule mine removes objects 3 days after" in first.stderr
    rules = json.loads(first.stdout)
    assert rules["Rules"][0] == mine and len(rules["Rules"]) == 2
    boto.put_bucket_lifecycle_configuration(Bucket=rig.bucket, LifecycleConfiguration=rules)
    again = json.loads(mfstore(*arguments, env=rig.environment()).stdout)
    assert sorted(again["Rules"], key=str) == sorted(rules["Rules"], key=str)
    once = {**mine, "ID": "once", "Expiration": {"Date": datetime(2036, 1, 1, tzinfo=UTC)}}
    boto.put_bucket_lifecycle_configuration(Bucket=rig.bucket, LifecycleConfiguration={"Rules": [once]})
    dated = json.loads(mfstore(*arguments, env=rig.environment()).stdout)
    assert dated["Rules"][0]["Expiration"]["Date"].startswith("2036-01-01T00:00:00")
    boto.put_bucket_lifecycle_configuration(Bucket=rig.bucket, LifecycleConfiguration=dated)
    rig.become(rig.document("writer"))
    assert "s3:GetLifecycleConfiguration" in mfstore(*arguments, code=1, env=rig.environment()).stderr
