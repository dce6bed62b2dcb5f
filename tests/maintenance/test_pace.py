"""Deletions are paced by a token bucket: no more in a second than was said, whatever their sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfstore import errors
from mfstore.backends.memory import MemoryBackend
from mfstore.maintenance import pace
from mfstore.maintenance.pace import DeletionPace, pace_of
from mfstore.maintenance.store import gc
from tests.rigs.gc import RemoteMemory, noise, store_on


class Clock:
    """Time that passes while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@given(
    st.floats(0.5, 5000), st.lists(st.tuples(st.integers(1, 3000), st.floats(0, 3)), max_size=30)
)  # fmt: skip
def test_no_more_in_a_second_than_was_said(rate, works):
    clock = Clock()
    bucket = DeletionPace(rate, clock, clock.sleep)
    done = 0
    for objects, seconds in works:
        while objects:
            some = bucket.at_once(objects)
            bucket.wait(some)
            done += some
            objects -= some
            assert done <= max(1, rate) + rate * clock.now + 1e-6 * done
        clock.now += seconds


def test_what_one_request_deletes_is_waited_for_a_second_at_most():
    clock = Clock()
    bucket = DeletionPace(50, clock, clock.sleep)
    assert bucket.at_once(1000) == 50
    for _ in range(5):
        before = clock.now
        bucket.wait(50)
        assert clock.now - before <= 1.0
    assert clock.now == pytest.approx(4.0)


def test_few_deletions_are_not_waited_for():
    bucket = DeletionPace(1000, Clock(), lambda seconds: pytest.fail("waited"))
    for _ in range(10):
        bucket.wait(100)
    unlimited = DeletionPace(None, Clock(), lambda seconds: pytest.fail("waited"))
    unlimited.wait(10**9)
    assert unlimited.at_once(1000) == 1000


def test_the_pace_is_s3s_by_default_and_none_on_a_disk():
    assert pace_of(None, True) == pace.REMOTE_DELETIONS and pace_of(None, False) is None
    assert pace_of(0, True) is None and pace_of(7, False) == 7
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(errors.InvalidKey):
            DeletionPace(wrong)


@pytest.mark.parametrize("kind", [MemoryBackend, RemoteMemory])
def test_a_store_is_collected_as_fast_as_may_be(kind, monkeypatch):
    store = store_on(kind())
    store.refs["kept"] = store.put(noise(0))
    store.put_many([f"garbage {number}" for number in range(25)])
    clock, sent = Clock(), []
    monkeypatch.setattr(gc, "DeletionPace", lambda rate: DeletionPace(rate, clock, clock.sleep))
    delete = kind.delete_unchanged

    def counted(self, objects):
        sent.append((clock.now, len(objects)))
        return delete(self, objects)

    monkeypatch.setattr(kind, "delete_unchanged", counted)
    store.plan_gc(grace=0).execute(yes_really=True)
    done = store.plan_gc(grace=0).execute(yes_really=True, deletes_per_second=10)
    assert done.deleted.recipes == 25
    assert sent == [(0.0, 10), (1.0, 10), (1.5, 5)]
