"""What the policies of Azure and Google Cloud say, judged as these clouds document it: of every key what S3's say, which
users of radosgw have proved."""

import json
import re
from itertools import product

import pytest

from mfstore.errors import InvalidKey, MfstoreError, Refused
from mfstore.maintenance.lifecycle import PARTS, endangered
from mfstore.policy import azure, google
from mfstore.policy.documents import identity_policy
from mfstore.policy.lifecycle import azure_lifecycle, google_lifecycle, in_words_of_s3, rules_of
from mfstore.policy.needs import ROLES, needs
from mfstore.policy.places import place
from mfstore.policy.statements import statements
from tests.rigs.cloud_policies import AzureCondition, Request, azure_allows, cel_holds, google_allows
from tests.rigs.command_line import mfstore
from tests.rigs.policies import Asked, allows

SCOPE = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/team"
MEMBER = "serviceAccount:tasks@project.iam.gserviceaccount.com"
KINDS = {
    "store": {}, "stock": {"metaflow": True}, "packed": {"metaflow": True, "packed": True},
    "flow": {"metaflow": True, "packed": True, "flows": ["Train", "Score"]},
    "stock flow": {"metaflow": True, "flows": ["Train"]},
}  # fmt: skip
NAMES = ("bucket/team/a", "bucket")
KEYS = (
    "mfstore.json", "packs/ab/x", "recipes/ab/x", "index/x", "refs/models/a", "gc/state", "gc/log/2026/x",
    "gc/condemned/1", "gc/holds/a.json", "quarantine/packs/x", "verify/progress", "signatures/ab/x/y", "latest/Train.start",
    ".mfstore-probe-1", "mfstore-bench-1/x", "anything", "Train/1/start/1/0.data.json", "Train/data/ab/x", "Trainer/1/x",
    "data/Train/x", "mf.cards/Train/x", "Score/2/x", "conda/x", "mf.maintenance/gc", "mf.maintenance/gc-log/x",
)  # fmt: skip
KEYS += tuple(f"mf.store/{key}" for key in KEYS[:15])
RIGHTS = ("read", "write", "delete")
EVERYTHING = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
S3_ACTIONS = {"read": "s3:GetObject", "write": "s3:PutObject", "delete": "s3:DeleteObject"}


def documents(role, kind, name):
    """Of S3, Azure and Google."""
    in_s3, in_azure, in_google = (place(f"{scheme}://{name}", **KINDS[kind]) for scheme in ("s3", "az", "gs"))
    of_azure = azure.role_definition(role, in_azure, SCOPE), azure.condition(role, in_azure)
    of_google = google.custom_roles(role, in_google), google.bindings(role, in_google, "project", [MEMBER])
    return in_s3.prefix, identity_policy(statements(role, in_s3)), of_azure, of_google


def asked():
    """Keys in the place, beside it, and in a bucket of another name."""
    for key, bucket in product(KEYS, ("bucket", "bucket2")):
        yield bucket, key, ""
    for beside in ("team/ab/", "team/", "tea", "other/team/a/"):
        yield "bucket", "refs/x", beside


@pytest.mark.parametrize(("role", "kind", "name"), [*product(ROLES, KINDS, NAMES)])
def test_each_cloud_allows_what_s3_does(role, kind, name):
    """But that in Google who may write may delete, since he may not replace otherwise."""
    prefix, s3, of_azure, of_google = documents(role, kind, name)
    for bucket, key, beside in asked():
        full = (beside or prefix) + key
        may = {
            right: allows([s3], Asked(S3_ACTIONS[right], f"arn:aws:s3:::{bucket}/{full}"))
            for right in RIGHTS
        }  # fmt: skip
        for right in RIGHTS:
            request = Request(right, bucket, full)
            assert azure_allows(*of_azure, request) == may[right], (right, bucket, full)
            if right != "delete" and bucket == "bucket":
                assert google_allows(*of_google, request) == may[right], (right, bucket, full)
        if bucket != "bucket":  # it has a policy of its own
            continue
        kept = not allows([s3, EVERYTHING], Asked("s3:DeleteObject", f"arn:aws:s3:::{bucket}/{full}"))
        kept = kept and role == "collector"
        writes = may["delete"] or (may["write"] and not kept)
        assert google_allows(*of_google, Request("delete", bucket, full)) == writes, (bucket, full)
        assert google_allows(*of_google, Request("replace", bucket, full)) == (may["write"] and not kept)
    for listed in (prefix, f"{prefix}refs/", f"{prefix}mfstore-bench-1/", "team/ab/", "team/a", "team/", "t", ""):
        context = (("s3:prefix", listed),) if listed else ()
        may_list = allows([s3], Asked("s3:ListBucket", "arn:aws:s3:::bucket", context))
        assert azure_allows(*of_azure, Request("list", "bucket", listed)) == may_list, listed
        assert google_allows(*of_google, Request("list", "bucket", listed)) == may_list, listed


@pytest.mark.parametrize(("role", "kind", "name"), [*product(ROLES, KINDS, NAMES[:1])])
def test_each_part_of_a_document_is_needed(role, kind, name):
    """Without a data action, a clause of the condition, a custom role or a binding something else holds."""
    prefix, _, (definition, condition), (roles, policy) = documents(role, kind, name)
    requests = [
        *(Request(right, "bucket", prefix + key) for right, key in product((*RIGHTS, "replace"), KEYS)),
        *(Request("list", "bucket", prefix + key) for key in ("", "refs/", "mfstore-bench-1/")),
        *(Request(right, "bucket") for right in ("settings", "versioning", "exposure")),
    ]
    beside = [Request(right, "bucket2", f"{prefix}refs/x") for right in (*RIGHTS, "list")]

    def in_azure(definition, condition):
        known = [one for one in (*requests, *beside) if one.right not in ("replace", "settings", "versioning")]
        return [azure_allows(definition, condition, one) for one in known]

    whole = in_azure(definition, condition)
    for name in ("Actions", "DataActions"):
        for action in definition[name]:
            less = {**definition, name: [one for one in definition[name] if one != action]}
            assert in_azure(less, condition) != whole, action
    clauses = condition.split("\nAND\n(")
    for number, clause in enumerate(clauses):
        left = "\nAND\n(".join(one for at, one in enumerate(clauses) if at != number)
        assert in_azure(definition, left if number else f"({left}") != whole, clause
    whole = [google_allows(roles, policy, one) for one in requests]
    for number in range(len(policy["bindings"])):
        less = {**policy, "bindings": [one for at, one in enumerate(policy["bindings"]) if at != number]}
        assert [google_allows(roles, less, one) for one in requests] != whole
    assert {one["role"].rpartition("/")[2] for one in policy["bindings"]} == {*roles}


@pytest.mark.parametrize(("role", "kind"), [*product(ROLES, KINDS)])
def test_documents_are_such_as_the_clouds_take(role, kind):
    _, _, (definition, condition), (roles, policy) = documents(role, kind, "bucket/team/a")
    assert set(definition) == {
        "Name", "IsCustom", "Description", "Actions", "NotActions", "DataActions", "NotDataActions", "AssignableScopes",
    }  # fmt: skip
    assert definition["IsCustom"] is True and definition["AssignableScopes"] == [SCOPE]
    assert len(definition["Name"]) <= 512 and len(definition["Description"]) <= 2048
    assert all(re.fullmatch(r"Microsoft\.Storage/storageAccounts(/\w+)+", one) for one in definition["DataActions"])
    # Each data action has a clause: one without would be allowed anywhere in what the role is assigned to.
    assert all(f"ActionMatches{{'{one}'}}" in condition for one in definition["DataActions"])
    assert len(condition) <= 8192
    for name, one in roles.items():
        assert re.fullmatch(r"[a-zA-Z0-9_.]{3,64}", name) and len(one["title"]) <= 100 and one["stage"] == "GA"
        assert all(re.fullmatch(r"storage\.(objects|buckets)\.\w+", found) for found in one["includedPermissions"])
    assert policy["version"] == 3
    for binding in policy["bindings"]:
        assert binding["members"] == [MEMBER]
        assert set(binding.get("condition", ())) in (set(), {"title", "description", "expression"})


def test_many_flows_are_several_bindings():
    """Of which none has more operators than Google takes."""
    flows = [f"Flow{number}" for number in range(12)]
    where = place("gs://bucket/mf", metaflow=True, packed=True, flows=flows)
    policy = google.bindings("writer", where, "project", [MEMBER])
    roles = google.custom_roles("writer", where)
    assert 5 < len(policy["bindings"]) < 20
    for flow in flows:
        for key in (f"{flow}/1/x", f"data/{flow}/x", f"mf.store/latest/{flow}.start", "mf.store/packs/x"):
            assert google_allows(roles, policy, Request("replace", "bucket", f"mf/{key}"))
    assert not google_allows(roles, policy, Request("write", "bucket", "mf/Other/1/x"))
    assert not google_allows(roles, policy, Request("write", "bucket", "mf/mf.store/gc/state"))


def test_names_with_wildcards_and_quotes_are_taken_literally():
    where = place('az://bucket/a*b?c"d')
    for role in ("reader", "writer"):
        document = azure.role_definition(role, where, SCOPE), azure.condition(role, where)
        right = "read" if role == "reader" else "write"
        assert azure_allows(*document, Request(right, "bucket", 'a*b?c"d/refs/x'))
        assert not azure_allows(*document, Request(right, "bucket", 'axb?c"d/refs/x'))
        assert not azure_allows(*document, Request(right, "bucket", 'a*bxc"d/refs/x'))
    where = place('gs://bucket/a"b\\c')
    document = google.custom_roles("writer", where), google.bindings("writer", where, "project", [MEMBER])
    assert google_allows(*document, Request("write", "bucket", 'a"b\\c/refs/x'))
    assert not google_allows(*document, Request("write", "bucket", "a/refs/x"))


def test_the_judges_see_what_is_wrong():
    """So that a document of another form fails, and not only one that allows too much."""
    attribute = "@Resource[Microsoft.Storage/storageAccounts/blobServices/containers:name]"
    for text in (f"{attribute} StringEquals 'a' AND {attribute} StringEquals 'a' OR {attribute} StringEquals 'b'",):
        with pytest.raises(AssertionError, match="parentheses"):
            AzureCondition(text).holds("x", Request("read", "a", "b"))
    with pytest.raises(AssertionError):
        AzureCondition(f"{attribute} StringEquals 'it's'")
    with pytest.raises(AssertionError):
        cel_holds('resource.name.matches("a")', Request("read", "a", "b"))
    with pytest.raises(AssertionError, match="operators"):
        cel_holds(" || ".join(['resource.name == "a"'] * 14), Request("read", "a", "b"))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: place("az://A/x"), InvalidKey, "one container"),
        (lambda: place("az://a--b/x"), InvalidKey, "one container"),
        (lambda: place("gs://*/x"), InvalidKey, "one bucket"),
        (lambda: place("abfss://@account.dfs.core.windows.net/x"), InvalidKey, "one container"),
        (lambda: azure.condition("reader", place("az://bucket/it's")), InvalidKey, "another prefix"),
        (lambda: azure.role_definition("reader", place("az://bucket"), "team"), InvalidKey, "az group show"),
        (lambda: google.bindings("reader", place("gs://bucket"), "project", ["allUsers"]), InvalidKey, "serviceAccount"),
        (lambda: google.bindings("reader", place("gs://bucket"), "p/roles", [MEMBER]), InvalidKey, "project"),
        (
            lambda: azure.condition(
                "writer", place("az://bucket/x", metaflow=True, flows=[f"Flow{n}" for n in range(199)])
            ),
            Refused, "8192",
        ),
        (
            lambda: google.bindings(
                "writer", place("gs://bucket/x", metaflow=True, flows=[f"Flow{n}" for n in range(99)]), "project", [MEMBER]
            ),
            Refused, "20 bindings",
        ),
        (lambda: rules_of(place("az://bucket"), {"rule": []}), InvalidKey, "management-policy show"),
        (lambda: rules_of(place("gs://bucket"), [1]), InvalidKey, "gcloud storage buckets describe"),
    ],
)  # fmt: skip
def test_what_cannot_be_granted_is_refused(make, error, says):
    with pytest.raises(error) as caught:
        make()
    assert isinstance(caught.value, MfstoreError) and says in str(caught.value)


def test_an_account_is_named_by_a_url_of_abfss():
    where = place("abfss://cont@account.dfs.core.windows.net/team/a")
    assert (where.name, where.account, where.prefix) == ("cont", "account", "team/a/")


# ---- lifecycle ---------------------------------------------------------------------------------


def test_the_rule_of_a_place_in_azure():
    where = place("az://cont/team/a_b")
    others = [{"enabled": True, "name": "mine", "type": "Lifecycle", "definition": {"actions": {}}}]
    rules = azure_lifecycle(where, others)["rules"]
    assert rules[:1] == others and azure_lifecycle(where, rules)["rules"] == rules
    ours = rules[1]["definition"]
    assert ours["filters"] == {"blobTypes": ["blockBlob"], "prefixMatch": ["cont/team/a_b/"]}
    assert ours["actions"] == {"version": {"delete": {"daysAfterCreationGreaterThan": 7}}}
    assert re.fullmatch(r"[A-Za-z0-9-]{1,256}", rules[1]["name"])
    assert endangered(in_words_of_s3(where, rules), where.prefix) == []


def test_the_rules_of_a_place_in_google():
    where = place("gs://bucket/team/a")
    others = [{"action": {"type": "Delete"}, "condition": {"age": 3, "matchesPrefix": ["tmp/"]}}]
    rules = google_lifecycle(where, others)["rule"]
    assert rules[:1] == others and google_lifecycle(where, rules)["rule"] == rules
    assert [rule["action"]["type"] for rule in rules[1:]] == ["Delete", "AbortIncompleteMultipartUpload"]
    assert all(rule["condition"]["matchesPrefix"] == ["team/a/"] for rule in rules[1:])
    assert "age" not in rules[1]["condition"]  # of what is current nothing expires
    assert "matchesPrefix" not in google_lifecycle(place("gs://bucket"))["rule"][0]["condition"]
    assert endangered(in_words_of_s3(where, rules), where.prefix) == []


def base(**actions):
    return {"baseBlob": actions}


AZURE_RULES = [
    ({"prefixMatch": ["cont/team/"]}, base(delete={"daysAfterModificationGreaterThan": 30}), "30 days"),
    ({"prefixMatch": ["con"]}, base(delete={"daysAfterCreationGreaterThan": 9}), "9 days"),
    ({}, base(delete={"daysAfterLastAccessTimeGreaterThan": 5}), "5 days"),
    ({"prefixMatch": ["cont/team/packs"]}, base(tierToArchive={"daysAfterModificationGreaterThan": 1}), "GLACIER"),
    ({"prefixMatch": ["other/team/"]}, base(delete={"daysAfterModificationGreaterThan": 30}), None),
    ({"prefixMatch": ["cont/else/"]}, base(delete={"daysAfterModificationGreaterThan": 30}), None),
    ({"blobTypes": ["appendBlob"]}, base(delete={"daysAfterModificationGreaterThan": 30}), None),
    ({"blobIndexMatch": [{"name": "a", "op": "==", "value": "b"}]}, base(delete={"daysAfterCreationGreaterThan": 1}), None),
    ({}, {"version": {"delete": {"daysAfterCreationGreaterThan": 1}}}, None),
    ({}, base(tierToCool={"daysAfterModificationGreaterThan": 1}), None),
]  # fmt: skip


@pytest.mark.parametrize(("filters", "actions", "says"), AZURE_RULES)
def test_rules_of_azure_that_endanger_are_told(filters, actions, says):
    rule = {
        "enabled": True,
        "name": "sweep",
        "type": "Lifecycle",
        "definition": {"filters": filters, "actions": actions},
    }
    where = place("az://cont/team")
    found = endangered(in_words_of_s3(where, [rule]), where.prefix, PARTS)
    assert [says in danger.text and "sweep" in danger.text for danger in found] == ([True] if says else [])
    assert endangered(in_words_of_s3(where, [{**rule, "enabled": False}]), where.prefix) == []


GOOGLE_RULES = [
    ("Delete", {"age": 30, "matchesPrefix": ["x/", "team/packs/"]}, "30 days"),
    ("Delete", {"age": 0}, "0 days"),
    ("Delete", {"createdBefore": "2026-01-01"}, "2026-01-01"),
    ("Delete", {"age": 3, "isLive": True}, "3 days"),
    ("Delete", {"age": 3, "isLive": False}, None),
    ("Delete", {"numNewerVersions": 2}, None),
    ("Delete", {"daysSinceNoncurrentTime": 2}, None),
    ("Delete", {"daysSinceCustomTime": 2}, None),
    ("Delete", {"age": 3, "matchesPrefix": ["else/"]}, None),
    ("SetStorageClass", {"age": 3}, None),
    ("AbortIncompleteMultipartUpload", {"age": 1}, None),
]


@pytest.mark.parametrize(("action", "condition", "says"), GOOGLE_RULES)
def test_rules_of_google_that_endanger_are_told(action, condition, says):
    where = place("gs://bucket/team")
    rules = in_words_of_s3(where, [{"action": {"type": action}, "condition": condition}])
    found = endangered(rules, where.prefix, PARTS)
    assert [says in danger.text for danger in found] == ([True] if says else [])


# ---- the command -------------------------------------------------------------------------------


def test_the_command_prints_what_each_cloud_takes(tmp_path):
    where = place("az://cont/team")
    done = mfstore("policy", "writer", "az://cont/team", "--scope", SCOPE)
    assert json.loads(done.stdout) == azure.role_definition("writer", where, SCOPE)
    assert mfstore("policy", "writer", "az://cont/team", "--binding").stdout.strip() == azure.condition("writer", where)
    assert "Azure cannot deny" in " ".join(
        mfstore("policy", "writer", "az://cont/team", "--explain", "--json").stdout.split()
    )
    where = place("gs://bucket/mf", metaflow=True, packed=True, flows=["Train"])
    root = ("--metaflow", "gs://bucket/mf", "--packed", "--flow", "Train")
    assert json.loads(mfstore("policy", "writer", *root).stdout) == google.custom_roles("writer", where)
    done = mfstore("policy", "writer", *root, "--binding", "--project", "project", "--principal", MEMBER)
    assert json.loads(done.stdout) == google.bindings("writer", where, "project", [MEMBER])
    assert "replaces" in done.stderr
    for role in ROLES:
        told = json.loads(mfstore("policy", role, "gs://bucket", "--explain", "--json").stdout)
        assert [one["sid"] for one in told] == [
            need.name for need in needs(role, place("gs://bucket")) if need.name not in ("ReadLocks", "ListUploads")
        ]
    rules = tmp_path / "rules.json"
    rule = {"action": {"type": "Delete"}, "condition": {"age": 9, "matchesPrefix": ["mf/Train/data/"]}}
    rules.write_text(json.dumps({"lifecycle": {"rule": [rule]}}))
    done = mfstore("policy", "writer", *root, "--lifecycle", "--present", str(rules))
    assert json.loads(done.stdout) == google_lifecycle(where, [rule])
    assert "lifecycle rule number 1 removes objects 9 days after" in done.stderr
    done = mfstore("policy", "writer", "az://cont/team", "--lifecycle")
    assert json.loads(done.stdout) == azure_lifecycle(place("az://cont/team")) and "--present" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["az://cont/x"], "az group show"),
        (["az://cont/x", "--bucket-policy", "--principal", "x"], "Azure has no policies of buckets"),
        (["az://cont/x", "--kms-key", "x"], "--kms-key is for places in S3"),
        (["gs://bucket/x", "--key-policy"], "Google Cloud has no policies of keys"),
        (["gs://bucket/x", "--radosgw"], "--radosgw"),
        (["gs://bucket/x", "--partition", "aws-cn"], "parts of AWS"),
        (["gs://bucket/x", "--scope", "x"], "--project"),
        (["gs://bucket/x", "--binding"], "--principal"),
        (["az://cont/x", "--binding", "--scope", SCOPE], "not with --binding"),
        (["az://cont/x", "--scope", SCOPE, "--principal", "x"], "--assignee"),
        (["s3://bucket/x", "--binding"], "--bucket-policy"),
        (["gs://bucket/x", "--lifecycle", "--merge"], "--present FILE"),
        (["gs://bucket/x", "--present", "-"], "--lifecycle"),
        (["az://cont/x", "--binding", "--explain"], "one of"),
    ],
)
def test_wrong_usage(arguments, says):
    assert says in mfstore("policy", "writer", *arguments, code=2).stderr
