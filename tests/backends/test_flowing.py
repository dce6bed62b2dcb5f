"""Progress within one large object in S3: its bytes count while they flow, and only once, however often they are sent."""

import uuid
from contextlib import contextmanager

import numpy as np
import pytest

import mfstore
from mfstore.progress import METER, Meter
from mfstore.testing import FaultProxy, NetworkFault
from mfstore.testing.actions import Action, Reset, ResetUpload
from tests.servers.base import client_options

MIB = 1 << 20
SIZE = 40 * MIB
STEP = 4 * MIB
ANSWERS = 4 << 10
"""Bytes of what is said to an upload's beginning and end, which flow too."""

pytestmark = pytest.mark.server


class Look(Action):
    """Looks how far the operation is whenever so many bytes more of a body have passed."""

    def __init__(self):
        self.meter, self.seen = None, []

    async def look(self):
        if self.meter is not None:
            self.seen.append(self.meter.state().moved)

    async def before(self, flow):
        for at in range(STEP, flow.request_body.length or 0, STEP):
            flow.request_body.at(at, None, self.look)

    async def after(self, flow):
        for at in range(STEP, flow.response_body.length or 0, STEP):
            flow.response_body.at(at, None, self.look)


class Watched(Meter):
    """Remembers what its sources said when all of it was there."""

    def __init__(self):
        super().__init__("test")
        self.flowed, self.carried = 0, 0

    def carry(self, count, encoded):
        self.carried += encoded
        super().carry(count, encoded)

    def settle(self):
        self.flowed += sum(source() for source in self._sources)
        super().settle()


@pytest.fixture
def proxy(radosgw, s3_env, unhedged):
    with FaultProxy(radosgw.url) as proxy:
        proxy.bucket = radosgw.create_bucket(f"flowing-{uuid.uuid4().hex[:16]}")
        proxy.options = {**client_options(radosgw), "endpoint_url": proxy.url}
        yield proxy


@pytest.fixture(params=["native", "aiobotocore"])
def store(request, proxy, monkeypatch):
    monkeypatch.setenv("MFSTORE_S3_ENGINE", request.param)
    with mfstore.open(f"s3://{proxy.bucket}/store", compress=False, threads=2, **proxy.options) as store:
        store.put(0)  # what there is to find out and to write once
        assert store.backend.client.engine.name == request.param
        yield store


@contextmanager
def looking(proxy, *faults):
    """The meter of what is done meanwhile, and what was seen of it."""
    look, meter = Look(), Watched()
    proxy.faults = [*faults, NetworkFault(action=look)]
    look.meter = meter
    before = METER.set(meter)
    try:
        yield meter, look.seen
        meter.finish()
    finally:
        METER.reset(before)
        look.meter = None


def test_a_large_object_moves_on_within_its_requests(store, proxy):
    array = np.random.default_rng(1).integers(0, 2**62, SIZE // 8)
    with looking(proxy) as (meter, sent):
        key = store.put(array)
    assert meter.state().moved == meter.state().of_bytes == store.stat(key).size
    # Three parts of up to 16 MiB, with looks in each. How many differ, and how far the first is, is a matter of buffers
    # and of how busy the machine is.
    assert len(set(sent)) >= 2 and sent[0] < SIZE
    assert SIZE < meter.carried <= meter.flowed <= meter.carried + ANSWERS
    with looking(proxy) as (meter, came):
        assert (store.get(key) == array).all()
    assert meter.state().moved == meter.state().of_bytes
    assert len(set(came)) >= 2 and came[0] < SIZE
    with looking(proxy) as (meter, came):
        store.view(key).load()
    assert meter.state().moved == meter.state().of_bytes and len(set(came)) >= 2


def test_what_is_sent_again_does_not_count_twice(store, proxy):
    array = np.random.default_rng(2).integers(0, 2**62, SIZE // 8)
    breaks = NetworkFault(action=ResetUpload(fraction=0.9), query="partNumber", nth=2)
    with looking(proxy, breaks) as (meter, sent):
        key = store.put(array)
    assert meter.carried <= meter.flowed <= meter.carried + ANSWERS
    assert len(set(sent)) >= 2 and sent == sorted(sent)  # also where it broke
    breaks = NetworkFault(action=Reset(fraction=0.5), method="GET", path="packs/", nth=1)
    with looking(proxy, breaks) as (meter, came):
        assert (store.get(key) == array).all()
    # What had come before it broke stays, and is not asked for again.
    assert came == sorted(came) and meter.state().moved == meter.state().of_bytes
