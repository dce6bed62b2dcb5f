"""What is found out about a service's conditions, and remembered; on a simulated S3."""

import uuid

import pytest

from mfstore.backends.s3.conditions import Conditions
from mfstore.errors import AccessDenied, Unsupported
from mfstore.s3.calls import NO_OPTIONS
from mfstore.s3.transfers.retry import RetryPolicy
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)
    return SimulatedS3()


@pytest.fixture
def conditions(world):
    endpoint = f"http://{uuid.uuid4().hex}"  # of which nothing is known

    def make():
        return Conditions(simulated_client(world).transfers, "CRC64NVME", NO_OPTIONS, endpoint, "b", "p/")

    return make


@pytest.mark.parametrize("kind", ["of_new", "of_match", "of_delete"])
def test_a_no_is_asked_for_once(world, conditions, kind):
    world._precondition = lambda call: None  # ignores what was asked of it, and overwrites
    messages = []
    for _ in range(3):
        with pytest.raises(Unsupported) as caught:
            getattr(conditions(), kind)()
        messages.append(str(caught.value))
        asked, world.count = world.count, 0
        assert bool(asked) == (len(messages) == 1)
    assert len(set(messages)) == 1 and "single_writer" in messages[0]
    assert not world.objects


def test_a_refusal_is_no_answer(world, conditions):
    put, world._PutObject = world._PutObject, lambda call: world._error(403, "AccessDenied")
    with pytest.raises(AccessDenied):
        conditions().of_new()
    world._PutObject = put
    assert conditions().of_new()("e") == "e"
