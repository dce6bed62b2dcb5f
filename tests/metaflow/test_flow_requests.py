"""What a flow costs in S3 requests, by the log of a proxy in front of radosgw."""

import shutil
from collections import Counter

import pytest

from mfstore.testing import FaultProxy
from tests.rigs.flows import MFSTORE, OFF, PACKED, finish_all
from tests.rigs.installs import stock
from tests.rigs.soak import in_soaks

pytestmark = [pytest.mark.flow, pytest.mark.timeout(1200)]

SPLITS = 200


@pytest.fixture
def proxy(radosgw):
    """Make a proxy in front of radosgw."""
    proxies = []

    def make(**options):
        proxies.append(FaultProxy(radosgw.url, **options).start())
        return proxies[-1]

    yield make
    for made in proxies:
        made.close()


def requests(log):
    return Counter(exchange.method for exchange in log)


def turns(log):
    """How many requests there were that nobody sent before an earlier one of them had been answered: what latency is
    multiplied by. Requests at the same time count as one."""
    count, end = 0, 0.0
    for exchange in sorted(log, key=lambda one: one.finished):
        if exchange.started >= end:
            count, end = count + 1, exchange.finished
    return count


def costs(s3_rig, proxy, sides, latency=0.0):
    """The logs of the trivial flow on each side."""
    proxies = [proxy(latency=latency) for _ in sides]
    running = [
        s3_rig(made.url).start("trivial.py", "run", side=side, METAFLOW_S3_WORKER_COUNT="64")
        for made, side in zip(proxies, sides, strict=True)
    ]
    finish_all(running)
    return [made.log for made in proxies]


def test_the_trivial_flow(s3_rig, proxy):
    """Three tasks, with 20 ms on the way to the server: 137 requests of stock Metaflow, nearly all in turn."""
    theirs, ours = costs(s3_rig, proxy, (OFF, MFSTORE), latency=0.02)
    assert 130 <= len(theirs) <= 140, requests(theirs)
    assert len(ours) <= 50, requests(ours)
    assert 4 * turns(ours) <= turns(theirs), (turns(ours), turns(theirs))


@in_soaks
def test_switched_off_nothing_of_ours_is_left_behind(s3_rig, proxy):
    """Request by request it is the same as without the package. That nothing is imported then: test_extension.py."""
    logs = costs(s3_rig, proxy, (OFF, stock()))
    off, without = (sorted((one.method, one.status) for one in log) for log in logs)
    assert off == without


def test_the_trivial_flow_in_the_packed_profile(s3_rig, proxy):
    (packed,) = costs(s3_rig, proxy, (PACKED,))
    assert len(packed) <= 50, requests(packed)


def test_siblings_on_one_host_fetch_what_they_share_once(s3_rig, proxy, tmp_path):
    """3 MB that two tasks of a foreach read, and the task that joins them."""
    made = proxy()
    cache = tmp_path / "cache"
    s3_rig(made.url).run("siblings.py", side=PACKED, METAFLOW_MFSTORE_CACHE=str(cache))
    packs = [one for one in made.log if one.method == "GET" and "/packs/" in one.path]
    assert 3_000_000 <= sum(one.response_bytes for one in packs) < 4_000_000, packs
    assert [path for path in (cache / "contents" / "packs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("side", [MFSTORE, PACKED], ids=["default", "packed"])
def test_a_join_of_hundreds(s3_rig, proxy, side):
    """Opening the inputs and loading one artifact of each: 18 requests of stock Metaflow for the opening of one."""
    made = proxy()
    rig = s3_rig(made.url)
    assert rig.python("many_inputs.py", "write", SPLITS, side=side) == {"written": SPLITS}
    made.clear()
    shutil.rmtree(rig.temporary)  # a join elsewhere, where nothing of the tasks is in the host's cache
    rig.temporary.mkdir()
    found = rig.python("many_inputs.py", "read", SPLITS, side=side)
    assert found == {"sum": sum(range(SPLITS)), "processes": []}
    assert len(made.log) <= 2.1 * SPLITS, requests(made.log)
