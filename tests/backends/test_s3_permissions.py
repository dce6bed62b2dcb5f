"""What a store does for users who may do less than everything. radosgw decides, by the bucket's policy."""

import json
import uuid
from types import SimpleNamespace

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends.s3 import conditions
from mfstore.format.fragments import MERGED
from mfstore.format.latest import latest_path
from mfstore.format.tree import node_name
from tests.backends.test_s3 import options
from tests.rigs.small_trees import small_trees
from tests.servers.base import boto_client

READ = ("s3:GetObject", "s3:ListBucket")
# An object belongs to who stored it: without these rules also the bucket's owner may not read another user's.
WRITE = (*READ, "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
GRACE = 600
FOLDERS = ("mfstore.json", "packs/*", "recipes/*", "index/*", "refs/*", "latest/*", ".mfstore-probe-*")
"""What a writer stores, as docs/gc.md says."""


@pytest.fixture(scope="module")
def users(radosgw):
    """A user for each set of rights."""
    rights = {"reader": READ, "writer": WRITE, "keeper": ("s3:*",), "getter": ("s3:GetObject",), "stranger": ()}
    rights["task"] = rights["unprobing"] = ()  # what they may is in a policy of folders
    return {name: (actions, radosgw.create_user(name)) for name, actions in rights.items()}


@pytest.fixture
def place(radosgw, users):
    """A bucket with a store in it, and ``place.open(name)``: the store as this user sees it."""
    bucket = radosgw.create_bucket(f"rights-{uuid.uuid4().hex[:16]}")
    boto = boto_client(radosgw)
    statements = [
        {
            "Effect": "Allow",
            "Principal": {"AWS": [f"arn:aws:iam:::user/{name}"]},
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        }
        for name, (actions, _) in users.items()
        if actions
    ]
    for name, folders in (("task", FOLDERS), ("unprobing", [folder for folder in FOLDERS if "probe" not in folder])):
        statements += [
            {
                "Effect": "Allow", "Principal": {"AWS": [f"arn:aws:iam:::user/{name}"]}, "Action": actions,
                "Resource": resources,
            }
            for actions, resources in (
                (["s3:ListBucket"], [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]),
                ([*WRITE], [f"arn:aws:s3:::{bucket}/team/{folder}" for folder in folders]),
                (["s3:GetObject"], [f"arn:aws:s3:::{bucket}/team/gc/*"]),
            )
        ]  # fmt: skip
    boto.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))
    stores = []

    def open_as(name=None):
        keys = users[name][1] if name else (radosgw.access_key, radosgw.secret_key)
        found = options(radosgw, aws_access_key_id=keys[0], aws_secret_access_key=keys[1])
        stores.append(mfstore.open(f"s3://{bucket}/team", **found))
        return stores[-1]

    def snapshot():
        pages = boto.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {found["Key"]: found["ETag"] for page in pages for found in page.get("Contents", ())}

    yield SimpleNamespace(open=open_as, snapshot=snapshot, bucket=bucket)
    for store in stores:
        store.close()
    boto.close()


@pytest.fixture
def filled(place):
    """The place with a value that a ref keeps and one that nothing does."""
    with place.open() as store:
        place.kept, place.loose = store.put(list(range(5))), store.put(b"loose" * 1000)
        store.refs["kept"] = place.kept
    return place


def test_who_may_read_loads_verifies_and_plans(filled):
    before = filled.snapshot()
    store = filled.open("reader")
    assert store.get(store.refs["kept"]) == list(range(5))
    report = store.verify("full")
    assert report.clean and not report.remembered
    plan = store.plan_gc(grace=0)
    assert plan.decision.kept and plan.decision.condemns.amount.recipes == 1
    assert any("clock" in warning for warning in plan.warnings)
    assert filled.snapshot() == before


@pytest.mark.parametrize(
    "act",
    [
        lambda store, filled: store.put("something new"),
        lambda store, filled: store.save({"x": 1}),
        lambda store, filled: store.put_bytes(b"new" * 100_000),
        lambda store, filled: store.refs.__setitem__("kept", filled.loose),
        lambda store, filled: store.refs.__delitem__("kept"),
        lambda store, filled: store.plan_gc(grace=0).execute(yes_really=True),
    ],
    ids=["put", "save", "put_bytes", "set a ref", "delete a ref", "collect"],
)
def test_who_may_only_read_changes_nothing(filled, act):
    before = filled.snapshot()
    with pytest.raises(errors.AccessDenied) as caught:
        act(filled.open("reader"), filled)
    assert caught.value.status == 403 and caught.value.request_id
    assert caught.value.operation == "PutObject" and [action for action, _ in caught.value.rights] == ["s3:PutObject"]
    assert f"PutObject needs s3:PutObject on arn:aws:s3:::{filled.bucket}/team/" in str(caught.value)
    assert filled.snapshot() == before


@pytest.mark.parametrize("user", ["writer", "task", "unprobing"])
def test_who_may_not_delete_lets_the_index_grow_as_a_tree(filled, user, monkeypatch):
    """Nodes are replaced on conditions, fragments by what says that they are merged; by who may put the object on which
    conditions are tried. Others leave their fragments, which are read all the same."""
    grows = user != "unprobing"
    monkeypatch.setattr(conditions, "_known", {})  # as in another process
    with small_trees():
        for seed in range(10):
            filled.open(user).put(np.random.default_rng(seed).random(50_000))
        index = {info.key: info.size for info in filled.open("keeper").handle.backend.list("index/")}
        nodes = [key for key in index if node_name(key) is not None]
        merged = [key for key, size in index.items() if size == len(MERGED)]
        unmerged = index.keys() - set(nodes) - set(merged)
        assert (len(nodes) > 1, bool(merged), len(unmerged) <= 2) == (grows, grows, grows)
        assert filled.open(user).handle.description.tree == grows
        again = filled.open(user)
        again.put({"again": np.random.default_rng(5).random(50_000)})
        assert again.session.duplicate >= 400_000


def test_who_may_not_delete_writes(filled):
    store = filled.open("writer")
    key = store.put({"new": b"x" * 3_000_000})
    store.refs["new"] = key
    assert filled.open("writer").get(filled.open("writer").refs["new"]) == {"new": b"x" * 3_000_000}


def test_a_policy_of_folders_is_enough_to_write(filled):
    with filled.open("keeper") as keeper:
        keeper.plan_gc(grace=GRACE).execute()  # condemned lists are to be read
    before = filled.snapshot()
    store = filled.open("task")
    data = b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(100_000))
    store.refs["new"] = store.put_bytes(data)
    store.refs["new"] = key = store.put_bytes(data.replace(b"7 squared", b"seven squared"), base="new")
    assert store.stat(key).bases
    store.backend.put(latest_path("Flow", "start"), [key.encode()])
    assert filled.open("reader").get_bytes(key) == store.get_bytes(key)
    with pytest.raises(errors.AccessDenied):
        store.plan_gc(grace=0).execute()
    folders = {name.removeprefix("team/").split("/")[0] for name in filled.snapshot().keys() - before.keys()}
    assert {name for name in folders if not name.startswith(".mfstore-probe-")} == {
        folder.split("/")[0] for folder in FOLDERS[1:-1]
    }


def test_who_may_not_delete_collects_nothing(filled):
    """Condemning is writing, and may be. The refused deletion leaves everything; a collector with the right goes on."""
    store = filled.open("writer")
    # To remove a ref is to write it.
    del store.refs["kept"]
    assert "kept" not in filled.open("reader").refs
    store.refs["kept"] = filled.kept
    with pytest.raises(errors.AccessDenied, match="DeleteObjects needs s3:DeleteObject on arn:aws:s3:::"):
        for _ in range(2):
            store.plan_gc(grace=0).execute(yes_really=True)
    reader = filled.open("reader")
    assert reader.get(reader.refs["kept"]) == list(range(5)) and reader.get(filled.loose) == b"loose" * 1000
    freed = [filled.open("keeper").plan_gc(grace=0).execute(yes_really=True).deleted.recipes for _ in range(2)]
    assert sum(freed) == 1
    assert reader.get(filled.kept) == list(range(5)) and not reader.exists(filled.loose)


@pytest.mark.parametrize("name", ["getter", "stranger"])
def test_a_refusal_is_never_absence(filled, name):
    """Without the right to list, S3 answers 403 also where nothing is."""
    for act in (
        lambda: filled.open(name).get("0" * 64),
        lambda: filled.open(name).exists("0" * 64),
        lambda: filled.open(name).exists_many(["0" * 64]),
        lambda: filled.open(name).refs["nothing"],
    ):
        with pytest.raises(errors.AccessDenied) as caught:
            act()
        # The store's description is what is asked for first.
        right = f"s3:GetObject on arn:aws:s3:::{filled.bucket}/team/"
        assert right in str(caught.value) and f"s3:ListBucket on arn:aws:s3:::{filled.bucket}" in caught.value.hint


def test_a_stranger_sees_nothing(filled):
    with pytest.raises(errors.AccessDenied):
        filled.open("stranger").get(filled.kept)
    with pytest.raises(errors.AccessDenied):
        filled.open("stranger").verify()
    with pytest.raises(errors.AccessDenied, match="s3:ListBucket"):
        list(filled.open("stranger").backend.list(""))
    with pytest.raises(errors.AccessDenied):
        filled.open("stranger").plan_gc(grace=GRACE)


def test_who_may_get_and_not_list(filled):
    """Enough for who knows the key."""
    assert filled.open("getter").get(filled.kept) == list(range(5))
