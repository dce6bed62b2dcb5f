"""The whole job of each role: everything it does that is different for the storage."""

import asyncio
import json
from contextlib import closing

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mfstore import errors
from mfstore.backends.s3.backend import S3Backend
from mfstore.doctor.findings import document
from mfstore.doctor.place import sections
from mfstore.format.quarantine import PREFIX
from mfstore.holding import new_hold
from mfstore.maintenance import quarantine
from mfstore.maintenance.lifecycle import lifecycle_warnings
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.holds import hold_run, release_run
from mfstore.maintenance.metaflow.repair import repair_metaflow
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.undo import undo_root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.store import setting_aside
from mfstore.maintenance.store.undo import undo_store
from mfstore.maintenance.verification import VerifyOptions
from mfstore.maintenance.versions import read_versions
from mfstore.metaflow.roots.layout import MAINTENANCE_FOLDER
from mfstore.s3.transfers import uploads
from mfstore.testing import NetworkFault, actions
from tests.rigs.command_line import mfstore
from tests.rigs.metaflow_trees import three_runs, upload
from tests.rigs.small_trees import small_trees

BIG = 6 << 20
"""Bytes that go in two parts, when parts are as small as a service takes them."""


def noise(seed, size=500_000):
    return np.random.default_rng(seed).bytes(size)


# ---- stores -----------------------------------------------------------------------------------


def fill(rig):
    """What the owner of the bucket leaves for others: refs with a history, and keys that nothing names."""
    with rig.owner() as store:
        store.put(list(range(8)), "models/a")
        store.put(list(range(9)), "models/a")
        store.put_bytes(noise(2), ref="models/b")
        rig.loose = store.put_bytes(noise(3))
        store.sign(rig.loose, key=Ed25519PrivateKey.generate())
        store.put_bytes(noise(4), ref="models/gone")
        del store.refs["models/gone"]
        # A pack of which little is kept: it is rewritten.
        store.save({"x": noise(8, 900_000), "y": noise(9, 300_000)})
        store.put(noise(9, 300_000), "models/y")


def write(rig):
    """Store, in one request and in parts, bundles, what differs from a base, notes, refs; and the index as a tree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uploads, "PART_BYTES", 5 << 20)
        patch.setattr(uploads, "LONGEST_SINGLE_PUT", 5 << 20)
        patch.setattr(uploads, "LONGEST_ELSEWHERE", 5 << 20)
        with rig.open() as store:
            store.put({"n": 1}, "models/small", note={"auc": 0.9})
            store.put({"n": 1}, "models/small", note={"auc": 0.8})
            big = noise(1, BIG)
            key = store.put_bytes(big, ref="models/big")
            store.put_bytes(big[:-7] + b"changed", base=key)
            bundle = store.save({"x": np.arange(1000), "y": "text"})
            assert store.load(bundle)["y"] == "text" and store.get_bytes(key) == big
            asyncio.run(store.aput(np.arange(100_000)))
            del store.refs["models/small"]
        rig.proxy.faults = [NetworkFault(action=actions.Status(400), method="PUT", query=rig.part)]
        try:
            with rig.open() as store, pytest.raises(errors.MfstoreError):
                store.put_bytes(noise(6, BIG))
        finally:
            rig.proxy.faults = []
    with small_trees(), rig.open() as store:
        for seed in range(9):
            store.put(np.random.default_rng(seed).random(50_000))


def read(rig):
    """Everything that reads."""
    with rig.open() as store:
        assert store["models/a"] == list(range(9)) and store.get_bytes("models/b") == noise(2)
        assert store.refs.list("models/") and store.refs.log("models/a") and store.find("models/")
        assert not store.exists("0" * 64) and store.stat("models/b").size == 500_000
        assert store.diff("models/a", "models/b")
        assert store.refs.holds() == {} and len([*store.keys()]) == store.stats().recipes


def sign(rig):
    """By a ref, and by the first digits of a key, which are looked for; what is absent is told to be so."""
    private = Ed25519PrivateKey.generate()
    with rig.open() as store:
        for name in ("models/a", store.resolve("models/a")[:10]):
            store.sign(name, key=private)
        with pytest.raises(errors.NotFound):
            store.sign("models/none", key=private)


def audit(rig):
    """Verify at each level, du, and the doctor."""
    with rig.open() as store:
        for level in ("list", "headers", "full"):
            assert store.verify(level).clean
    assert json.loads(mfstore("du", "-s", rig.url, "--by", "user", "--json", env=rig.environment()).stdout)
    assert {one["name"] for one in examined(rig)["bucket"] if one["state"] == "refused"} == NOT_ON_RADOSGW


NOT_ON_RADOSGW = {"encryption", "public access"}
"""What the doctor may not ask there: of the first there is no right, and for the second another is asked for."""


def examined(rig):
    """What the doctor finds of the place, by its sections."""
    return document([*sections(rig.url, rig.options())])["sections"]


def collect(rig):
    """Holds, two collections, taking one back, verifying, mending what is damaged, and emptying the quarantine."""
    policy = {"grace": 0, "keep_last": 1, "repack": 1.0}
    with rig.open() as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(setting_aside, "KNOWN_SECONDS", 0.0)
        read_versions(store.backend)
        assert lifecycle_warnings(store.backend) == []
        store.refs.hold("models/a", "because")
        store.refs.release("models/a")
        store.plan_gc(**policy).execute(yes_really=True)
        assert undo_store(store, [rig.loose]).keys == [rig.loose]
        store.refs.release(rig.loose)
        for _ in range(2):
            store.plan_gc(**policy).execute(yes_really=True)
        assert not store.exists(rig.loose) and store.verify("full").clean
        pack = next(info.key for info in store.backend.list("packs/"))
        store.backend.put(pack, [bytes(100)])
        store.backend.put("mfstore.json", [b"{"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setting_aside, "KNOWN_SECONDS", 0.0)
        of_user = rig.environment()
        mfstore("repair", "-s", rig.url, "--execute", "--drop-lost", "--json", env=of_user, code=(0, 3))
        with closing(rig.backend()) as backend:
            found = quarantine.list_quarantine(backend, PREFIX)
            recipe = next(one for one in found if one.path.startswith(f"{PREFIX}recipes/"))
            quarantine.restore_quarantined(backend, recipe.path, PREFIX)
            quarantine.empty_quarantine(backend, [one for one in found if one != recipe])


def bench(rig):
    """Objects and stores; and objects in a bucket that keeps versions, in which radosgw 16 has no stores."""
    arguments = ["-y", "--json", "--size", "4KiB", "--count", "4", "--endpoint-url", rig.proxy.url]
    mfstore("bench", rig.url, *arguments, env=rig.environment())
    rig.server.boto.put_bucket_versioning(Bucket=rig.bucket, VersioningConfiguration={"Status": "Enabled"})
    mfstore("bench", rig.url, *arguments, "--operation", "put,delete", env=rig.environment())
    listed = rig.server.boto.list_object_versions(Bucket=rig.bucket, Prefix=f"{rig.place.prefix}mfstore-bench-")
    assert "Versions" not in listed and "DeleteMarkers" not in listed


# ---- roots of Metaflow -------------------------------------------------------------------------


def fill_root(rig):
    """Runs of two flows, and a bundle that no run refers to."""
    tree = rig.home / "tree"
    three_runs(tree)
    with closing(S3Backend(rig.url, **rig.owners())) as backend:
        upload(tree, backend)
    with rig.owner("/mf.store") as store:
        store.put_bytes(noise(7))


def collect_root(rig):
    """Holds, collections of runs and of the packed profile's store, taking one back, verifying, and
    mending what is damaged."""
    policy = RunPolicy(last=1, grace=0.0)
    with opened_root(rig) as root:
        hold_run(root, "Flow/2", new_hold("because"))
        release_run(root, "Flow/2")
        collect_metaflow(root, policy, yes_really=True)
        assert undo_root(root, ["Flow/0"], 60.0)
        release_run(root, "Flow/0")
        for _ in range(2):
            collect_metaflow(root, policy, yes_really=True)
        names = {info.key.split("/")[1] for info in root.backend.list("Flow/") if info.key.endswith("DONE.lock")}
        assert names == {"2"} and [*root.backend.list("mf.store/recipes/")] == []
        verify_metaflow(root, VerifyOptions("full"))
        blob = next(info.key for info in root.backend.list("Flow/data/"))
        root.backend.put(blob, [b"damaged"])
        repair_metaflow(root, "full", False, None)
        folder = f"{MAINTENANCE_FOLDER}/{PREFIX}"
        found = quarantine.list_quarantine(root.backend, folder)
        assert found
        quarantine.restore_quarantined(root.backend, found[0].path, folder)
        repair_metaflow(root, "full", False, None)
        quarantine.empty_quarantine(root.backend, quarantine.list_quarantine(root.backend, folder))


def audit_root(rig):
    with opened_root(rig) as root:
        for level in ("list", "headers", "full"):
            assert verify_metaflow(root, VerifyOptions(level))[0].clean
    of_root = ["--metaflow", rig.url, "--by", "flow", "--json", "--endpoint-url", rig.proxy.url]
    assert json.loads(mfstore("du", *of_root, env=rig.environment()).stdout)
    assert {one["name"] for one in examined(rig)["bucket"] if one["state"] == "refused"} == NOT_ON_RADOSGW


def opened_root(rig):
    """The root as the user sees it."""
    return closing(Root(rig.url, **rig.options()))
