"""Metaflow's layout: every path it writes is known for what it is."""

import itertools
import json
import pickle

import pytest

from mfstore import errors
from mfstore.metaflow.roots import layout

KEY = "3a1c881ad91ed3f4d4db32db544078d9c66aa75e"

PATHS = {
    f"Flow/data/3a/{KEY}": ("blob", "Flow", "", "", "", None, KEY),
    f"Flow/data/3a/{KEY}_meta": ("blob_meta", "Flow", "", "", "", None, KEY),
    f"Flow/data/3a/r_{KEY}": ("blob", "Flow", "", "", "", None, f"r_{KEY}"),
    f"Flow/data/3b/{KEY}": ("other", "", "", "", "", None, ""),
    f"Flow/data/3a/{KEY}_met": ("other", "", "", "", "", None, ""),
    f"Flow/data/3a/tmp{KEY}": ("other", "", "", "", "", None, ""),
    "Flow/17/start/1/0.data.json": ("task", "Flow", "17", "start", "1", 0, "data.json"),
    "Flow/argo-flow-x1/_parameters/t-1/2.DONE.lock": ("task", "Flow", "argo-flow-x1", "_parameters", "t-1", 2, "DONE.lock"),
    "Flow/17/_parameters/0/_resume_done": ("task", "Flow", "17", "_parameters", "0", None, "_resume_done"),
    "Flow/17/start/1/0.task_stdout.log": ("task", "Flow", "17", "start", "1", 0, "task_stdout.log"),
    "Flow/17/_meta/_self.json": ("metadata", "Flow", "17", "", "", None, ""),
    "Flow/17/start/_meta/_self.json": ("metadata", "Flow", "17", "", "", None, ""),
    "Flow/17/start/1/_meta/0_artifact_x.json": ("metadata", "Flow", "17", "", "", None, ""),
    "Flow/_meta/_self.json": ("metadata", "Flow", "", "", "", None, ""),
    "Flow/latest_run": ("metadata", "Flow", "", "", "", None, ""),
    f"data/Flow/{KEY}": ("include", "Flow", "", "", "", None, KEY),
    "data/Flow/17/some/object": ("user", "Flow", "17", "", "", None, ""),
    "mf.cards/Flow/runs/17/steps/start/tasks/1/cards/x.html": ("card", "Flow", "17", "", "", None, ""),
    "conda/linux/x/y.conda": ("other", "", "", "", "", None, ""),
    "mf.store/recipes/ab/cd": ("other", "", "", "", "", None, ""),
    "mf.maintenance/gc": ("other", "", "", "", "", None, ""),
    "F/1/s/1/0.data.json": ("task", "F", "1", "s", "1", 0, "data.json"),
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_paths(path):
    assert tuple(layout.parse(path)) == PATHS[path]
    if PATHS[path][0] == "blob":
        assert layout.blob_path("Flow", PATHS[path][-1]) == path


def test_references():
    document = {
        "objects": {"x": KEY, "inc": "ab" * 20, "packed": "12" * 32, "inline": "m1.abc", "other inc": "ef" * 32},
        "info": {
            "x": {"type": "<class 'int'>", "encoding": "pickle-v4"},
            "inc": {"type": "<class 'metaflow.includefile.IncludedFile'>"},
            "packed": {"encoding": "mfstore-1/" + "cd" * 32, "serializer_info": {"source": "mfstore"}},
            "inline": {"encoding": "mfstore-1", "serializer_info": {"source": "mfstore"}},
            "other inc": {
                "type": "<class 'metaflow.includefile.IncludedFile'>",
                "encoding": "mfstore-1/" + "cd" * 32,
            },
        },
        "mfstore": {
            "former": {
                "packed": [
                    {"key": "0a" * 20, "info": {"encoding": "pickle-v4"}},
                    {"key": "m1.def", "info": {"encoding": "mfstore-1"}},
                ]
            }
        },
    }
    found = layout.references("data.json", json.dumps(document).encode())
    assert found[:3] == ({"x": KEY, "inc": "ab" * 20}, {"inc"}, {"cd" * 32})
    assert found.packed_included == {("other inc", "ef" * 32, "cd" * 32)} and found.left == {"0a" * 20}
    begin = layout.references("task_begin", json.dumps({"code_package_sha": KEY}).encode())
    assert begin.artifacts == {"<code package>": KEY}
    assert layout.references("task_begin", b'{"code_package_sha": null}').artifacts == {}
    assert layout.references("local_metadata", json.dumps(KEY).encode()).artifacts == {"<local metadata>": KEY}


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b"null", b'{"objects": 3}', b'{"objects": {"x": 1}}', b"\xff"]
)
def test_references_that_make_no_sense(data):
    with pytest.raises(errors.CorruptObject, match="data.json"):
        layout.references("data.json", data)


def test_hashes_in_a_pickle():
    url = f"s3://bucket/mf/data/Flow/{KEY}"
    assert list(layout.hashes_in(pickle.dumps({"type": "uploader-v2", "url": url}, protocol=4))) == [KEY]


def test_metadata():
    document = (
        b'{"ts_epoch": 5000, "tags": ["a"], "system_tags": ["b"], "flow_id": "F", "run_number": 3, "user_name": "u"}'
    )
    assert layout.run_document(document) == ("F", "3", 5.0, {"a"}, {"b"}, "u")
    assert layout.run_document(b'{"ts_epoch": 5000}')[2:] == (5.0, frozenset(), frozenset(), "")
    assert layout.origin_run(b'{"value": "17"}') == "17"
    assert layout.origin_run(b'{"value": "None"}') is None
    for call in (layout.run_document, layout.origin_run):
        for data in (b"", b"[]", b"{}", b"\xff", b'{"ts_epoch": "x"}', b'{"ts_epoch": 1%s}' % (b"0" * 400)):
            with pytest.raises(errors.CorruptObject):
                call(data)


def test_what_most_files_refer_to_is_told_as_of_all():
    """Whether a ``data.json`` is looked at as a whole, or artifact by artifact, it says the same."""
    key, other = "ab" * 20, "cd" * 20
    stock = {"name": "y", "type": "<class 'list'>", "encoding": "gzip+pickle-v4"}
    infos = [
        stock, {**stock, "type": "<class 'metaflow.includefile.IncludedFile'>"}, {**stock, "encoding": "mfstore-1/bundle"},
        {**stock, "encoding": "mfstore-9"}, None, [], "x", {}, {"type": None, "encoding": 3}, {"type": ["IncludedFile"]},
    ]  # fmt: skip
    documents = [{"objects": {"x": key, "y": other}, "info": {"x": stock, "y": info}} for info in infos]
    documents += [
        {"objects": {"x": key}}, {"objects": {"x": key}, "info": None}, {"objects": {"x": key}, "info": [1]},
        {"objects": {"x": 1}, "info": {}}, {"objects": [key], "info": {}}, {"info": {}}, {"objects": {}, "info": {}},
        {"objects": {"ö": key}, "info": {"ö": stock}}, [], {"objects": None, "info": {}},
        {"objects": {"x": key}, "info": {"x": stock}, "mfstore": {"former": {"x": [{"key": other, "info": stock}]}}},
        {"objects": {"x": key}, "info": {"x": stock}, "mfstore": None},
    ]  # fmt: skip
    seen = set()
    for document in documents:
        text = json.dumps(document)
        escaped = "".join(rf"\u{ord(letter):04x}" if letter == "m" else letter for letter in text)
        for data in (text.encode(), json.dumps(document, ensure_ascii=False).encode(), escaped.encode(), text.encode("utf-16"),
                     text.encode("utf-16-le"), b" " + text.encode() + b"\n", b"\xef\xbb\xbf" + text.encode()):  # fmt: skip
            try:
                expected = layout._of_data(document)
            except (ValueError, KeyError, TypeError, AttributeError):
                expected = None
            try:
                found = layout.references("data.json", data)
            except errors.CorruptObject:
                found = None
            assert found == expected, data
            seen.add(found is None)
    assert seen == {True, False}
    for data in (b"", b"{", b'{"objects": {}}x', b'{"a": \xff}', b'{"objects": {}, "info": {}} {}'):
        with pytest.raises(errors.CorruptObject):
            layout.references("data.json", data)


def test_folders_hold_what_paths_say():
    parts = "Flow", "data", "", "start", "ab", "_p", "1", "mf.x"
    folders = ["/".join(some) for number in range(1, 5) for some in itertools.product(parts, repeat=number)]
    for folder in folders:
        for name in ("0.data.json", "_resume_done", "x", "ab" * 20):
            path = layout.parse(f"{folder}/{name}")
            task = layout.task_of(folder) if name in layout.TASK_FILES else None
            assert (path[1:5] if path.kind == "task" else None) == task
            blobs = layout.blobs_of(folder)
            is_blob = blobs is not None and name == "ab" * 20 and blobs[1] == "ab"
            assert (path.kind == "blob") == is_blob and (not is_blob or path.flow == blobs[0])
