"""What a page tells of a store, against what the library says of it."""

import time
from collections import Counter

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.backends.s3.backend import S3Backend
from mfstore.format.recipes import recipe_path
from mfstore.format.refs import ref_path
from mfstore.page.contents import by_day
from mfstore.page.read_once import read_once
from mfstore.page.store_facts import Wanted, store_facts
from mfstore.settings import resolve
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

ALL = Wanted("", 10, True)


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    with mfstore.open(tmp_path / "store", fsync="none") as found:
        large = rng.random(60_000)
        for number in range(3):
            changed = large.copy()
            changed[number] = 7
            bundle = {"weights": changed, "same": large, "epoch": number}
            found.save(bundle, ref="models/churn", note={"auc": 0.9 + number / 100})
        found.put({"x": 1}, "plain")
        found.put(large)
        yield found


def test_refs_their_values_and_what_these_hold(store):
    facts = store_facts(store, "here", "Title", ALL)
    assert (facts.kind, facts.place, facts.title, facts.version) == ("store", "here", "Title", mfstore.__version__)
    churn, plain = facts.entries
    assert (churn.name, churn.total, plain.name, plain.total) == ("models/churn", 3, "plain", 1)
    log = store.refs.log("models/churn")
    assert [(value.key, value.time) for value in churn.values] == [(entry.key, entry.time) for entry in log]
    assert [value.note for value in churn.values] == ['{"auc": 0.92}', '{"auc": 0.91}', '{"auc": 0.9}']
    for value in churn.values:
        stat, content = store.stat(value.key), facts.contents[value.key]
        assert (content.size, content.stored, content.creator) == (stat.size, stat.stored, stat.creator)
        assert {part.name: part.type for part in content.parts} == stat.artifacts
    newest, before, first = ({part.name: part.mark for part in facts.contents[v.key].parts} for v in churn.values)
    assert newest["same"] == before["same"] == first["same"]
    assert newest["weights"] != before["weights"] and newest["epoch"] != before["epoch"]
    # Of 480 kB only the chunks around the two numbers that changed, and the literal.
    assert churn.values[2].fresh is None and 0 < churn.values[0].fresh < 300_000
    assert plain.values[0].fresh is None
    assert not facts.troubles
    assert facts.notes == ("1 key that no ref names: mfstore ls lists all keys, mfstore stat KEY tells what one is",)


def test_bytes_are_those_of_du(store):
    facts = store_facts(store, "here", "", ALL)
    assert [space.by for space in facts.spaces] == ["ref", "flow", "run", "artifact"]
    for space in facts.spaces:
        usage = store.usage(space.by)
        assert (space.own, space.shared, space.unheld) == (usage.own, usage.shared, usage.unheld)
        assert space.groups == tuple((usage.name_of(g), g.own, g.shared) for g in usage.groups)
    amounts = {name: number for name, number, _ in facts.amounts}
    assert amounts["bytes stored"] == store.usage("ref").total == sum(stored for _, stored, _ in facts.growth)
    assert (amounts["refs"], amounts["keys"]) == (2, 5)


def test_the_newest_values_are_compared_inside(store):
    (found,) = store_facts(store, "here", "", ALL).compared
    diff = store.diff("models/churn@1", "models/churn")
    assert (found.name, found.old, found.new, found.summary) == ("models/churn", "@1", "@0", diff.summary)
    assert [*found.lines] == diff.lines() and len(found.lines) == 3
    assert not store_facts(store, "here", "", Wanted("", 10, False)).compared


def test_of_trees_files_are_compared(store, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
        store.put_tree(folder, "data")
    facts = store_facts(store, "here", "", Wanted("data", 10, True))
    (entry,), (found,) = facts.entries, facts.compared
    assert [part.type for value in entry.values for part in facts.contents[value.key].parts] == ["tree", "tree"]
    assert found.summary == "1 added, 1 part the same" and [line[:2] for line in found.lines] == [("+", "b")]


class Payload:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_nothing_that_is_stored_runs(store):
    store.put([1, Payload()], "evil")
    store.put([2, Payload()], "evil")
    facts = store_facts(store, "here", "", ALL)
    assert {found.name for found in facts.compared} == {"evil", "models/churn"}


def test_less_of_it(store):
    facts = store_facts(store, "here", "", Wanted("models/", 2, False))
    (churn,) = facts.entries
    assert (len(churn.values), churn.total) == (2, 3)
    assert churn.values[1].fresh is not None, "the value that is left out was looked at"
    assert len(facts.notes) == 2 and "1 older value left out" in facts.notes[0] and "models/" in facts.notes[1]


def test_what_cannot_be_read_is_told_and_the_rest_is_shown(store, tmp_path):
    root = tmp_path / "store"
    store.put("whole", "whole")
    key = store.put("broken", "broken")
    (root / recipe_path(key)).chmod(0o644)
    (root / recipe_path(key)).write_bytes(b"MFSR")
    (root / ref_path("plain")).write_bytes(b'{"version": 1')
    gone = store.put("gone", "gone")
    (root / recipe_path(gone)).unlink()
    facts = store_facts(store, "the place", "", ALL)
    by_name = {entry.name: entry for entry in facts.entries}
    assert [*by_name] == ["broken", "gone", "models/churn", "plain", "whole"]
    assert "JSON" in by_name["plain"].trouble and not by_name["plain"].values
    assert facts.contents[key].trouble and facts.contents[gone].trouble and not facts.contents[key].parts
    assert not facts.contents[by_name["whole"].values[0].key].trouble
    told = "\n".join(facts.troubles)
    assert f"key {key}" in told and f"key {gone}" in told and "ref plain" in told and "DAMAGED" in told
    assert str(tmp_path) not in told and "the place" in told
    assert len(facts.spaces) == 4, "what is whole is added up"


def test_no_refs_and_no_store(tmp_path):
    with pytest.raises(errors.NotFound):
        store_facts(mfstore.open(tmp_path / "none"), "", "", ALL)
    with mfstore.open(tmp_path / "empty", fsync="none") as store:
        store.put(1)
        facts = store_facts(store, "", "", ALL)
    assert facts.entries == () and facts.contents == {}
    amounts = {name: number for name, number, _ in facts.amounts}
    assert amounts["held by no ref"] == amounts["bytes stored"] > 0


def test_as_few_requests_as_there_are_things_to_read():
    """One for each ref and each recipe however many ways their bytes are put together, and one for each page."""
    world = SimulatedS3(clock=time.time)

    class Simulated(S3Backend):
        def make_client(self, options):
            return simulated_client(world)

    with mfstore.Store("s3://b/store", Simulated("s3://b/store"), resolve(), create=True) as store:
        for number in range(30):
            store.put([number] * 100, f"models/{number}")
            store.put([number] * 101, f"models/{number}")
        store.handle.require_read()
        before = len(world.log)
        facts = store_facts(store, "", "", Wanted("", 10, False))
    assert len(facts.entries) == 30 and len(facts.spaces) == 4
    asked = Counter(operation for operation, _ in world.log[before:])
    assert asked["GetObject"] == 30 + 60
    # Five kinds are listed once, and for each of four ways recipes and packs by their first digit, and the rest.
    assert sum(asked.values()) - asked["GetObject"] <= 5 + 4 * (2 * 16 + 3)


def test_an_object_is_asked_for_once(tmp_path):
    with mfstore.open(tmp_path / "store", fsync="none") as store:
        paths = [recipe_path(store.put(number)) for number in range(3)]
        asked = []
        inner = store.backend

        class Counting:
            url = inner.url

            def get_many(self, keys):
                asked.extend(keys)
                return inner.get_many(keys)

        once = read_once(Counting())
        wanted = [paths[0], "recipes/no", paths[1], paths[0]]
        first = dict(once.get_many(wanted))
        assert isinstance(first["recipes/no"], errors.NotFound) and first[paths[0]] == inner.get(paths[0])
        assert [key for key, _ in once.get_many(wanted)] == wanted
        assert asked == [paths[0], "recipes/no", paths[1], "recipes/no"]
        assert once.url == inner.url


def test_days():
    day = 86400.0
    found = by_day([(5, 3 * day + 1), (7, 3.5 * day), (1, 0.0), (2, 1e300)])
    assert found == (("1970-01-01", 1, 1), ("1970-01-04", 12, 2), ("9999-12-31", 2, 1))


def test_what_is_refused_is_told_and_never_absent(store, monkeypatch):
    refused = store.put("secret", "secret")
    inner = store.backend.get_many

    def get_many(keys):
        for key, data in inner(keys):
            denied = key in (recipe_path(refused), ref_path("plain"))
            yield key, errors.AccessDenied("no right to read it", key=key) if denied else data

    monkeypatch.setattr(store.backend, "get_many", get_many)
    facts = store_facts(store, "here", "", ALL)
    by_name = {entry.name: entry for entry in facts.entries}
    assert "no right" in by_name["plain"].trouble and "no right" in facts.contents[refused].trouble
    assert by_name["models/churn"].values and not facts.spaces, "what it holds is not known, so no sum is told"
    assert any("bytes by ref are not known" in told for told in facts.troubles)
