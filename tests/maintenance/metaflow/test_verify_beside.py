"""Verify and repair of what lies beside the flows of a Metaflow root: IncludeFiles and cards."""

import gzip
import hashlib
import json
from contextlib import closing
from pathlib import Path

import pytest

from mfstore import errors
from mfstore.maintenance.metaflow import blob_reads
from mfstore.maintenance.metaflow.packed_store import open_packed_store
from mfstore.maintenance.metaflow.repair import repair_metaflow
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.verification import verify_options
from mfstore.metaflow.roots import layout
from mfstore.testing import Fault, FaultyBackend
from tests.rigs.metaflow_trees import task

CONTENT = b"included " * 500
KEY = hashlib.sha1(CONTENT).hexdigest()
INCLUDED = {"type": "<class 'metaflow.includefile.IncludedFile'>", "encoding": "pickle-v4"}
CARD = "mf.cards/Flow/runs/1/steps/start/tasks/1/cards/default-0a1b.html"
CARD_DATA = "mf.cards/Flow/runs/1/steps/start/tasks/1/runtime/default-0a1b.data.json"


def descriptor(place, key=KEY):
    url = f"{place}/Flow/{key}"
    return {"note": "Internal representation of IncludeFile", "type": "uploader-v2", "sub-type": "uploaded",
            "url": url, "is_text": True, "encoding": None, "size": len(CONTENT)}  # fmt: skip


def write(root, path, data):
    place = Path(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


@pytest.fixture(params=["stock", "packed", "stock, read in blocks"])
def tree(tmp_path, request, monkeypatch):
    """A root with a run that has an IncludeFile and a card; one that another file server has; one that is nobody's."""
    root = tmp_path / "mf"
    here, elsewhere = f"local://{root}/data", "s3://elsewhere/data"
    values = {"file": descriptor(here), "other": descriptor(elsewhere, "ab" * 20)}
    infos = dict.fromkeys(values, INCLUDED)
    if "blocks" in request.param:
        monkeypatch.setattr(blob_reads, "LONG_BYTES", 0)
        monkeypatch.setattr(blob_reads, "BLOCK_BYTES", 20)
    if request.param == "packed":
        with closing(Root(str(root))) as place, open_packed_store(place, create=True) as store:
            bundle = store.save(values)
        infos = {name: {**INCLUDED, "encoding": f"mfstore-1/{bundle}"} for name in values}
    task(root, "Flow", "1", "_parameters", 0, values, infos=infos)
    task(root, "Flow", "1", "start", 1, {"x": 1})
    write(root, f"data/Flow/{KEY}", gzip.compress(CONTENT, 3))
    write(root, CARD, b"<html>card</html>")
    write(root, CARD_DATA, b'{"a": 1}')
    return root


def look(root, level="full", **options):
    with closing(Root(str(root))) as place:
        options = {"sample": None, "older_than": None, "budget": None, **options}
        return verify_metaflow(place, verify_options(level, **options))[0]


def mend(root):
    with closing(Root(str(root))) as place:
        return repair_metaflow(place, "full", False, None)


@pytest.mark.parametrize("level", ["list", "headers", "full"])
def test_whole_ones_are_clean(tree, level):
    assert look(tree, level).findings == ()


DAMAGE = {
    "gone": (None, ("headers", "full"), "missing"),
    "empty": (b"", ("list", "headers", "full"), "empty"),
    "cut": (gzip.compress(CONTENT, 3)[:-5], ("full",), "damaged"),
    "garbage": (b"garbage", ("full",), "damaged"),
    "another": (gzip.compress(b"another", 3), ("full",), "wrong-hash"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_include_files_are_found_damaged_and_set_aside(tree, how):
    data, levels, kind = DAMAGE[how]
    path = tree / "data" / "Flow" / KEY
    path.unlink() if data is None else path.write_bytes(data)
    for level in ("list", "headers", "full"):
        report = look(tree, level)
        assert [finding.kind for finding in report.findings] == ([kind] if level in levels else [])
        if level in levels and level != "list":
            assert report.findings[0].artifacts == ("Flow/1/_parameters/0/file",) and not report.clean
            assert report.findings[0].object == f"data/Flow/{KEY}" and report.runs_touched == ("Flow/1",)
    if data is not None:
        assert not look(tree, older_than=3600).clean  # it is told again
    done = mend(tree)
    assert [action.kind for action in done.actions] == ([] if data is None else ["quarantine"])
    # The next run with the same file would take the damaged one for stored.
    assert not path.exists() and [found.kind for found in (done.after or done.before).findings] == ["missing"]
    write(tree, f"data/Flow/{KEY}", gzip.compress(CONTENT, 3))
    assert look(tree).clean


def test_one_that_nobody_names(tree):
    write(tree, "data/Flow/" + "cd" * 20, b"x")
    (finding,) = look(tree).findings
    assert (finding.kind, finding.harm, finding.artifacts) == ("damaged", "later", ())


@pytest.mark.parametrize(
    ("path", "data", "levels", "kind"),
    [
        (CARD, b"", ("list", "headers", "full"), "empty"),
        (CARD_DATA, b"", ("list", "headers", "full"), "empty"),
        (CARD, b"\xff\xfe", ("full",), "damaged"),
        (CARD_DATA, b'{"a": ', ("full",), "damaged"),
    ],
)
def test_cards_are_found_damaged(tree, path, data, levels, kind):
    write(tree, path, data)
    for level in ("list", "headers", "full"):
        report = look(tree, level)
        assert [finding.kind for finding in report.findings] == ([kind] if level in levels else [])
    assert report.findings[0].artifacts == ("Flow/1/start/1/<card>",) and not look(tree, older_than=3600).clean


def test_refusals_are_not_called_damage(tree):
    with closing(Root(str(tree))) as place:
        inner = place.backend
        place.backend = counting = FaultyBackend(inner)
        counting.root = inner.root
        verify_metaflow(place, verify_options("full", None, None, None))
        for n in range(1, counting.calls + 1):
            place.backend = FaultyBackend(inner, Fault(at=n, error=lambda: errors.AccessDenied("no")))
            place.backend.root = inner.root
            try:
                report, _ = verify_metaflow(place, verify_options("full", None, None, None))
            except errors.AccessDenied:
                continue
            assert {finding.kind for finding in report.findings} <= {"unreadable"}


def test_urls_of_include_files_in_pickles():
    import pickle

    told = [*layout.includes_in(pickle.dumps(descriptor("s3://bucket/mf/data"), protocol=4))]
    assert told == [("s3", "bucket/mf/data", "Flow", KEY)]
    assert not [*layout.includes_in(pickle.dumps({"url": "s3://bucket/any/file.txt"}))]
    assert not [*layout.includes_in(json.dumps({"url": f"s3://b/Flow/{KEY}0"}).encode())]
