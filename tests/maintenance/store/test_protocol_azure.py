"""The traces of the protocol's model, played on Azure's Blob service: its conditions on etags instead of those of a
double. The storage's clock cannot be moved, so what was written is as old as the tests' clock had it."""

import time

import pytest

from mfstore.backends.azure import AzureBackend
from mfstore.maintenance.store.collecting import ownership
from tests.rigs import protocol_model as model
from tests.rigs.replay import Replay

pytestmark = pytest.mark.server


class OnAzure(AzureBackend):
    """A place whose blobs age with the clock of this process: each write is looked at when it is done."""

    def __init__(self, url, **options):
        super().__init__(url, **options)
        self.born = {}

    def _aged(self, info):
        return info._replace(modified=self.born.setdefault((info.key, info.etag), time.time()))

    def head(self, key):
        return self._aged(super().head(key))

    def _objects(self, found):
        return map(self._aged, super()._objects(found))

    def put_all(self, objects, told=False):
        objects = list(objects)
        super().put_all(objects, told)
        for key, _ in objects:
            self.head(key)

    def put_if(self, key, data, etag):
        found = super().put_if(key, data, etag)
        self.head(key)
        return found

    def copy(self, source, target):
        super().copy(source, target)
        self.head(target)

    def move_unchanged(self, source, target, etag, *, replace=True):
        moved = super().move_unchanged(source, target, etag, replace=replace)
        if moved:
            self.head(target)
        return moved


@pytest.mark.parametrize("case", [model.NAMED, model.TWO], ids=lambda case: case.name)
def test_the_traces_of_the_model_lose_nothing(case, azurite, clock, monkeypatch):
    """What the rules of 0.1.0 lose where deletions take conditions."""
    monkeypatch.setattr(ownership, "QUIET_SECONDS", 70.0)
    # Signed beforehand: a key would be asked for another signature with each step of the clock.
    options = {"endpoint_url": azurite.endpoint, "sas_token": azurite.sas("rwdlac")}
    backend = OnAzure(f"az://{azurite.new_container()}/store", **options)
    assert backend.deletes_conditionally()
    replay = Replay(case, backend, clock, monkeypatch)
    replay.play(case.explore(model.RULES_0_1_0, model.S3).trace)
    assert replay.lost() == []
