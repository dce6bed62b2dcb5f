"""Objects of a store in S3 that a lifecycle rule would take are made young again as they are, and what cannot be a ref
is not fetched; on a simulated S3."""

import pytest

from mfstore.backends.s3.backend import S3Backend
from mfstore.errors import Conflict, CorruptObject
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs.simulated_s3 import SimulatedChannel, SimulatedS3, simulated_client

SAID = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key", "StorageClass": "STANDARD_IA", "ContentType": "x/y"}
METADATA = {"mfstore-bytes": "4"}


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)
    world = SimulatedS3({"p/packs/a": b"data"})
    world.said["p/packs/a"], world.metadata["p/packs/a"] = SAID, METADATA
    return world


@pytest.fixture
def backend(world):
    class Simulated(S3Backend):
        def make_client(self, options):
            return simulated_client(world)

    backend = Simulated("s3://b/p")
    backend.aging.add("packs/a")
    return backend


@pytest.mark.parametrize("copies", [True, False], ids=["copied", "stored again"])
def test_what_is_made_young_again_stays_as_it_is(world, backend, copies):
    if not copies:
        world._CopyObject = lambda call: world._error(501, "NotImplemented")
    backend.refresh(["packs/a", "packs/b"])
    assert world.objects == {"p/packs/a": b"data"}
    assert world.said["p/packs/a"] == SAID and world.metadata["p/packs/a"] == METADATA
    assert world.log[1:] == [("CopyObject", "p/packs/a")] + ([] if copies else [
        ("GetObject", "p/packs/a"), ("PutObject", "p/packs/a"),
    ])  # fmt: skip
    assert not backend.aging


def test_what_is_gone_is_a_conflict(world, backend):
    world.objects.clear()
    with pytest.raises(Conflict):
        backend.refresh(["packs/a"])


def test_what_cannot_be_a_ref_is_not_fetched(world, backend, monkeypatch):
    world.objects = {"p/refs/name": bytes(2 << 20), "p/recipes/ab": bytes(2 << 20)}
    monkeypatch.setattr(SimulatedChannel, "resume", lambda *_: pytest.fail("it was fetched"))
    for read in (backend.get, backend.get_tagged, backend.read_again):
        with pytest.raises(CorruptObject, match="larger than any record") as caught:
            read("refs/name")
        assert caught.value.key == "refs/name"
    monkeypatch.undo()
    assert len(backend.get("recipes/ab")) == 2 << 20
