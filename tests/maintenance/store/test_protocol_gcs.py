"""The traces of the protocol's model, played on Google Cloud Storage: its conditions on generations instead of those of
a double. The storage's clock cannot be moved, so what was written is as old as the tests' clock had it."""

import bisect
import time

import pytest

from mfstore.backends.gcs import GcsBackend
from mfstore.maintenance.store.collecting import ownership
from tests.rigs import protocol_model as model
from tests.rigs.replay import Replay

pytestmark = pytest.mark.server


class OnGcs(GcsBackend):
    """A place whose objects age with the clock of this process. A generation is the microsecond at which it was made."""

    def __init__(self, url, **options):
        super().__init__(url, **options)
        self.moments = [(0.0, 0.0)]

    def _noted(self):
        now = time.clock_gettime(time.CLOCK_REALTIME)
        self.moments.append((now, time.time() - now))

    def _aged(self, info):
        made = int(info.etag) / 1e6
        ahead = self.moments[bisect.bisect(self.moments, (made, float("inf"))) - 1][1]
        return info._replace(modified=made + ahead)

    def head(self, key):
        return self._aged(super().head(key))

    def _objects(self, found):
        return map(self._aged, super()._objects(found))

    def put_all(self, objects, told=False):
        self._noted()
        super().put_all(objects, told)

    def put_if(self, key, data, etag):
        self._noted()
        return super().put_if(key, data, etag)

    def copy(self, source, target):
        self._noted()
        super().copy(source, target)

    def move_unchanged(self, source, target, etag, *, replace=True):
        self._noted()
        return super().move_unchanged(source, target, etag, replace=replace)


@pytest.mark.parametrize("case", [model.NAMED, model.TWO], ids=lambda case: case.name)
def test_the_traces_of_the_model_lose_nothing(case, gcs_server, clock, monkeypatch):
    """What the rules of 0.1.0 lose where deletions take conditions."""
    monkeypatch.setattr(ownership, "QUIET_SECONDS", 70.0)
    backend = OnGcs(f"gs://{gcs_server.new_bucket()}/store", endpoint_url=gcs_server.url, anonymous=True)
    replay = Replay(case, backend, clock, monkeypatch)
    replay.play(case.explore(model.RULES_0_1_0, model.S3).trace)
    assert replay.lost() == []
