"""Histories: what a ref gets, what is a conflict, and what goes along."""

import json

import pytest

from mfstore import errors
from mfstore.copying.refs import plan_ref
from mfstore.format.digests import Key
from mfstore.format.refs import RefEntry
from mfstore.testing import FaultyBackend
from tests.copying.stores import empty
from tests.rigs.command_line import mfstore
from tests.rigs.damage import wrapped

ENTRIES = [RefEntry(Key(f"{n:064x}"), float(n)) for n in range(9)]


@pytest.mark.parametrize(
    ("source", "there", "outcome", "added"),
    [
        ((0, 1, 2), (), "new", (0, 1, 2)),
        ((0, 1, 2), (0, 1, 2), "same", ()),
        ((0, 1, 2), (0, 1), "updated", (2,)),
        ((0, 1, 2), (1,), "updated", (2,)),  # a collection has shortened it there
        ((1, 2), (0, 1), "updated", (2,)),  # and here
        ((0, 1), (0, 1, 2), None, None),
        ((0, 1, 3), (0, 1, 2), None, None),
        ((5,), (6,), None, None),
    ],
)
def test_what_becomes_of_a_history(source, there, outcome, added):
    here, before = [ENTRIES[n] for n in source], [ENTRIES[n] for n in there]
    plan = plan_ref("a", here, before, "raise", 99.0)
    assert (plan and plan.outcome) == outcome
    if plan is not None:
        assert list(plan.added) == [ENTRIES[n] for n in added]
        return
    assert plan_ref("a", here, before, "skip", 99.0).added == ()
    over = plan_ref("a", here, before, "overwrite", 99.0)
    assert (over.outcome, list(over.before), over.added[-1].key) == ("overwritten", before, here[-1].key)
    known = [entry for entry in here if entry not in before]
    assert list(over.added) == (known if here[-1] in known else [*known, here[-1]._replace(time=99.0)])


@pytest.fixture
def both():
    source, target = empty(), empty()
    source.put([1], ref="a")
    source.put([2], ref="b")
    source.copy_to(target)
    return source, target


def test_a_conflict_is_said_by_name_and_nothing_is_written(both):
    source, target = both
    source.put([3], ref="a", note={"n": 3})
    mine = target.put([4], ref="a")
    source.put([5], ref="b")
    before = list(target.backend.list(""))
    for dry_run in (True, False):
        with pytest.raises(errors.Conflict, match="'a'"):
            source.copy_to(target, dry_run=dry_run)
    assert list(target.backend.list("")) == before
    done = source.copy_to(target, "*", on_conflict="skip")
    assert done.kept == ("a",) and target.refs["a"] == mine and target.get("b") == [5]
    assert not target.exists(source.refs["a"])
    source.copy_to(target, on_conflict="overwrite")
    assert [target.get(entry.key) for entry in target.refs.log("a")] == [[3], [4], [1]]
    assert target.refs.log("a")[0].note == {"n": 3}
    with pytest.raises(errors.Conflict):  # it has more than the source knows
        target.put([6], ref="a")
        source.copy_to(target)


def test_a_ref_that_is_set_while_it_is_copied(both):
    """Before it is written the ref is looked at again: what is a conflict by then is one."""
    source, target = both
    source.put([3], ref="a")

    class Setting(FaultyBackend):
        def get_tagged(self, key):
            if key == "refs/a" and not happened:
                happened.append(target.put([7], ref="a"))
            return super().get_tagged(key)

    for on_conflict, present in (("raise", [7]), ("overwrite", [3])):
        happened = []
        other = wrapped(Setting(target.backend))
        if on_conflict == "raise":
            with pytest.raises(errors.Conflict, match="'a'"):
                source.copy_to(other)
            target.refs.set("a", source.refs.log("a")[1].key)  # as it was, as a new value
        else:
            assert source.copy_to(other, on_conflict=on_conflict).refs[0].outcome == "overwritten"
        assert happened and (target.get("a") == present or on_conflict == "raise")
    assert [7] in [target.get(entry.key) for entry in target.refs.log("a")]


def test_holds_go_along(both):
    source, target = both
    key = source.put([8])
    source.refs.hold("a", "a release", lasting=1e6)
    source.refs.hold(key, "a paper")
    assert source.copy_to(target, dry_run=True).holds == 2 and not target.refs.holds()
    assert source.copy_to(target).holds == 2
    assert target.refs.holds() == source.refs.holds()
    assert source.copy_to(target).holds == 0
    target.refs.hold("a", "for ever")
    source.copy_to(target)
    assert target.refs.holds()["a"].why == "for ever"


def test_signatures_go_along(both, tmp_path):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    source, target = both
    private = ed25519.Ed25519PrivateKey.generate()
    source.sign("a", key=private)
    other = source.put([9])
    source.sign(other, key=private)
    assert source.copy_to(target, "a", signatures=False).signatures == 0
    assert not list(target.backend.list("signatures/"))
    assert source.copy_to(target, "a").signatures == 1
    assert source.copy_to(target).signatures == 1
    assert source.copy_to(target).signatures == 0
    report = target.verify_signatures([private.public_key()])
    assert report.signed == 2


def test_a_damaged_signature_stays_behind(both):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    source, target = both
    for name in ("a", "b"):
        source.sign(name, key=ed25519.Ed25519PrivateKey.generate())
    damaged, whole = (info.key for info in source.backend.list("signatures/"))
    source.backend.put(damaged, [b"{"])
    assert source.copy_to(target).signatures == 1
    assert [info.key for info in target.backend.list("signatures/")] == [whole]


def test_only_what_is_signed_is_copied_from_a_store_that_demands_it(both):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from mfstore.trust import public_keys

    source, target = both
    private = ed25519.Ed25519PrivateKey.generate()
    source.put([3], ref="a")
    trusting = type(source)(source.url, source.backend, source.knobs, trusted=public_keys([private.public_key()]))
    with pytest.raises(errors.NotSigned):
        trusting.copy_to(target)
    source.sign("a", key=private)
    trusting.copy_to(target)
    assert target.get("a") == [3]


def test_the_command(tmp_path):
    import mfstore as m

    source, target = tmp_path / "a", tmp_path / "b"
    with m.open(source) as store:
        store.put([1], ref="models/x")
        store.put([2], ref="models/x", note={"n": 1})
        store.put([3], ref="runs/1")
    assert "2 keys would be copied" in mfstore("copy", source, target, "models/", "--dry-run").stdout
    assert not target.exists()
    done = mfstore("copy", source, target, "models/").stdout
    assert "models/x" in done and "2 keys copied" in done
    told = json.loads(mfstore("copy", source, target, "--json").stdout)
    assert (told["keys"], told["refs"][0]["outcome"], told["refs"][1]["outcome"]) == (1, "same", "new")
    assert "no key is missing" in mfstore("copy", source, target).stdout
    with m.open(source) as store, m.open(target) as other:
        store.put([4], ref="runs/1")
        other.put([5], ref="runs/1")
        assert "'runs/1'" in mfstore("copy", source, target, code=1).stderr
        assert "left so" in mfstore("copy", source, target, "--on-conflict", "skip", code=3).stderr
        mfstore("copy", source, target, "--force")
        assert other.get("runs/1") == [4]
    assert "one store" in mfstore("copy", source, source, code=1).stderr
    assert "only for places in S3" in mfstore("copy", source, target, "--region", "x", code=2).stderr
    for options, place in (
        (["--from-region", "x"], source), (["--encryption", "AES256"], target), (["--kms-key", "k"], target),
    ):  # fmt: skip
        other = "s3://bucket/x"
        one = (source, other) if place is source else (other, target)
        told = mfstore("copy", *one, *options, code=2).stderr
        assert f"{options[0]}: only for places in S3, and this is {place}" in " ".join(told.split())
    mfstore("copy", source, target, "--force", "--on-conflict", "skip", code=2)
    mfstore("copy", tmp_path / "none", target, code=1)
