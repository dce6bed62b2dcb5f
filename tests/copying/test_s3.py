"""Between directories and buckets of Ceph's gateway, in few requests."""

import uuid
from collections import Counter

import numpy as np
import pytest

import mfstore
from mfstore.testing import FaultProxy
from tests.copying.stores import empty, filled
from tests.rigs.command_line import mfstore as command
from tests.servers.base import client_options

pytestmark = pytest.mark.server
SMALL = 100


@pytest.fixture
def places(radosgw, s3_env, unhedged):
    """Makes stores in a bucket of their own, behind a proxy that tells what is asked."""
    bucket = radosgw.create_bucket(f"copy-{uuid.uuid4().hex[:16]}")
    opened = []
    with FaultProxy(radosgw.url) as proxy:

        def make(name):
            store = mfstore.open(f"s3://{bucket}/{name}", **{**client_options(radosgw), "endpoint_url": proxy.url})
            opened.append(store)
            return store

        make.proxy = proxy
        yield make
        for store in opened:
            store.close()


def asked(proxy):
    """Requests by method and what they are of, since this was asked last."""
    found = Counter()
    for entry in proxy.requests():
        kind = next((one for one in ("recipes", "packs", "index", "refs") if f"/{one}/" in entry.path), "other")
        found[entry.method, kind] += 1
    proxy.clear()
    return found


def test_there_and_back(places, tmp_path):
    source, keys = filled()
    far, further = places("a"), places("b")
    source.copy_to(far)
    far.copy_to(further)
    with mfstore.open(tmp_path / "back") as back:
        further.copy_to(back)
        assert sorted(back.keys()) == sorted(source.keys()) and back.verify("full").clean
        assert {name: back.refs.log(name) for name in back.refs} == {n: source.refs.log(n) for n in source.refs}
        for name, key in keys.items():
            assert back.handle.recipe(key).about == source.handle.recipe(key).about
            if name != "bundle":
                assert back.get_bytes(key) == source.get_bytes(key)
        np.testing.assert_equal(back.load("models/bundle"), source.load("models/bundle"))


def test_small_artifacts_in_few_requests(places):
    """One request reads each recipe, and one writes it; what is there is found by listing."""
    source, far, further = empty(), places("a"), places("b")
    source.put_many([{"n": number, "text": "x" * 3000} for number in range(SMALL)])
    asked(places.proxy)
    source.copy_to(far)
    sent = asked(places.proxy)
    assert sent["PUT", "recipes"] == SMALL and sent["GET", "recipes"] == sent["HEAD", "recipes"] == 0
    assert sum(sent.values()) <= SMALL + 12, sent
    far.copy_to(further)
    sent = asked(places.proxy)
    assert (sent["PUT", "recipes"], sent["GET", "recipes"]) == (SMALL, SMALL)
    assert sum(sent.values()) <= 2 * SMALL + 20, sent


def test_a_mirror_asks_for_refs_alone(places):
    source, far = empty(), places("a")
    for number in range(20):
        source.put([number, "x" * 3000], ref=f"runs/{number}")
    source.copy_to(far, "runs/")
    asked(places.proxy)
    source.copy_to(far, "runs/")
    sent = asked(places.proxy)
    assert sent["GET", "refs"] == 20 and sum(sent.values()) <= 20 + 5, sent


def test_packs_in_few_requests(places):
    """What lies together is read together, and is stored together."""
    source, far, further = empty(), places("a"), places("b")
    keys = source.put_many([np.random.default_rng(n).random(60_000) for n in range(12)])
    asked(places.proxy)
    source.copy_to(far)
    sent = asked(places.proxy)
    assert sent["PUT", "packs"] <= 3 and sum(sent.values()) <= 12 + 15, sent
    far.copy_to(further, keys[:3])
    sent = asked(places.proxy)
    assert sent["GET", "packs"] <= 6 and sent["PUT", "packs"] == 1, sent
    np.testing.assert_array_equal(further.get(keys[2]), source.get(keys[2]))


def test_the_command_reaches_both(radosgw, s3_env, tmp_path, monkeypatch):
    bucket = radosgw.create_bucket(f"copy-{uuid.uuid4().hex[:16]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", radosgw.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", radosgw.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", radosgw.region)
    with mfstore.open(tmp_path / "a") as source:
        source.put([1, 2, 3], ref="a")
    url = f"s3://{bucket}/store"
    command("copy", tmp_path / "a", url, "--endpoint-url", radosgw.url)
    back = tmp_path / "b"
    command("copy", url, back, "--from-endpoint-url", radosgw.url)
    with mfstore.open(back) as store:
        assert store.get("a") == [1, 2, 3]
    assert "1 key" in command("copy", url, tmp_path / "c", "--endpoint-url", radosgw.url, "--dry-run").stdout
