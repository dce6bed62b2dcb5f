"""What may be given for a key: which of several meanings is meant, what is told where nothing is, and how many requests
it takes."""

import datetime
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mfstore
from mfstore import deleting, errors
from mfstore.backends.base import Capabilities
from mfstore.backends.memory import MemoryBackend
from mfstore.format.digests import Key
from mfstore.format.refs import RefEntry, encode_ref
from mfstore.names import Past, end_of, parse, parse_past, value_of
from tests.rigs.damage import wrapped
from tests.rigs.gc import Clock

NOW = 1_800_000_000.0
DIGITS = "0123456789abcdef" * 4


class Asked(MemoryBackend):
    """Used as a remote store, and counts what it is asked for: rounds of requests by kind, and objects."""

    capabilities = Capabilities(remote=True)

    def __init__(self, url="memory://"):
        super().__init__(url)
        self.rounds, self.objects = Counter(), Counter()

    def _count(self, kind, keys):
        kinds = {key.partition("/")[0] for key in keys}
        self.rounds.update(f"{kind} {name}" for name in kinds)
        self.objects.update(key.partition("/")[0] for key in keys)

    def get(self, key):
        self._count("get", [key])
        return super().get(key)

    def get_many(self, keys):
        keys = list(keys)
        self._count("get", keys)
        for key in keys:
            try:
                yield key, super().get(key)
            except errors.MfstoreError as error:
                yield key, error

    def list(self, prefix):
        self._count("list", [prefix])
        return super().list(prefix)

    def exists_many(self, keys):
        self._count("head", keys)
        return super().exists_many(keys)

    def since(self):
        """What was asked since this was asked last, without the store's description."""
        found = {kind: count for kind, count in self.rounds.items() if not kind.endswith("mfstore.json")}
        self.rounds.clear()
        return found


@pytest.fixture
def memory():
    with mfstore.open("memory://") as store:
        yield store


def told(call, error=errors.NotFound):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


# ---- parsing ------------------------------------------------------------------------


def test_what_a_text_may_mean():
    key = parse(DIGITS, NOW)
    assert key.key == DIGITS and not key.ref and key.begins is None
    assert parse(DIGITS[:8], NOW).begins == DIGITS[:8] and parse(DIGITS[:63], NOW).begins == DIGITS[:63]
    assert parse(DIGITS[:7], NOW).begins is None and parse(DIGITS[:12].upper(), NOW).begins is None
    assert parse("a@b", NOW).past is None
    for text, past in {
        "m@0": Past("m", 0, None),
        "m@12": Past("m", 12, None),
        "a@b@1": Past("a@b", 1, None),
        "m@2h": Past("m", None, NOW - 7200),
        "m@1.5min": Past("m", None, NOW - 90),
        "m@3w": Past("m", None, NOW - 3 * 7 * 86400),
    }.items():
        found = parse(text, NOW)
        assert found.past == past and found.ref and found.key is None and found.begins is None
    for text in ("@1", "m@", "m@1x", "m@-1", "m/@1", "m@2026-11", "m@2026-13-01", "m@9999-12-31", "m@2026-11-30x"):
        assert parse_past(text, NOW) is None


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2026-11-30Z", None),
        ("2026-11-30T14Z", "2026-11-30T15:00:00+00:00"),
        ("2026-11-30T14:00Z", "2026-11-30T14:01:00+00:00"),
        ("2026-11-30 14:00:59+01:00", "2026-11-30T14:01:00+01:00"),
        ("2026-11-30T14:00:59.25-0130", "2026-11-30T14:00:59.26-01:30"),
        ("2026-11-30", "2026-12-01T00:00:00"),
        ("2026-12-31T23:59", "2027-01-01T00:00:00"),
    ],
)
def test_a_time_is_the_end_of_what_is_told(text, end):
    assert end_of(text) == (None if end is None else datetime.datetime.fromisoformat(end).timestamp())


@given(st.text(max_size=30) | st.from_regex(r"[a-f0-9@:TZ. +-]{1,40}", fullmatch=True))
@example("m@0001-01-01")
@example("m@" + "9" * 400)
@example("m@" + "9" * 400 + "w")
def test_any_text_is_a_name_or_refused(text):
    try:
        name = parse(text, NOW)
    except errors.InvalidKey:
        return
    assert name.text == text and (name.key is not None) == (not name.ref)


@given(
    st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=6),
    st.integers(0, 8), st.floats(-1, 101, allow_nan=False),
)  # fmt: skip
def test_which_value_is_meant(times, back, before):
    entries = [RefEntry(Key(f"{number:064x}"), when) for number, when in enumerate(times)]
    assert value_of(Past("r", back, None), entries) == (entries[::-1][back] if back < len(entries) else None)
    earlier = [entry for entry in entries if entry.time < before]
    assert value_of(Past("r", None, before), entries) == (earlier[-1] if earlier else None)


# ---- meaning ------------------------------------------------------------------------


def test_every_method_takes_a_name(memory, tmp_path):
    old, new = memory.put_bytes(b"old", ref="files/a"), memory.put_bytes(b"new", ref="files/a")
    for name, data in (("files/a", b"new"), ("files/a@1", b"old"), (new[:8], b"new"), (old, b"old")):
        assert memory.get(name) == memory[name] == memory.get_bytes(name) == b"".join(memory.iter_bytes(name)) == data
        memory.get_file(name, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == data
        assert memory.resolve(name) == memory.stat(name).key == (new if data == b"new" else old)
        assert memory.exists(name) and name in memory
    run = memory.save({"x": 1, "y": 2}, base="files/a@1", ref="run")
    assert memory.load("run") == memory.load(run[:10], ["x", "y"]) == {"x": 1, "y": 2}
    memory.refs["other"] = "files/a@1"
    assert memory.refs["other"] == old
    memory.refs.set_if("other", new[:9], "files/a@1")
    assert memory.refs["other"] == new
    names = ["files/a", "run", old, new[:8], "files/a@1"]
    assert [name for name, _ in memory.get_many(iter(names))] == names
    assert memory.exists_many(iter([*names, "none", "0" * 64, "abcdef01", "files/a@9"])) == 5 * [True] + 4 * [False]


def test_what_comes_first_is_meant(memory):
    one, two, three = memory.put_many([1, 2, 3])
    memory.refs["m"] = one
    memory.refs["m"] = two
    assert memory.get("m@1") == 1
    memory.backend.put("refs/m%401", [encode_ref([RefEntry(three, NOW)])])  # by a program that had no such names
    assert memory.get("m@1") == 3
    assert memory.refs.list() == ["m", "m@1"]
    memory.refs["m@1"] = two  # one that is there may be set
    assert memory.get("m@1") == 2
    memory.refs[one[:8]] = two
    assert memory.get(one[:8]) == 2 and memory.get(one[:9]) == 1
    memory.backend.put(f"refs/{one}", [encode_ref([RefEntry(three, NOW)])])
    assert memory.get(one) == 1
    for wrong in ("m@2", "m@2h", "m@2026-11-30", "0" * 64):
        assert "cannot be called" in told(lambda wrong=wrong: memory.put(4, ref=wrong), errors.InvalidKey)
        told(lambda wrong=wrong: memory.refs.set_if(wrong, one, None), errors.InvalidKey)
    assert memory.put(4, ref="m@here") == memory.resolve("m@here")


def test_values_of_the_past(memory, monkeypatch):
    clock = Clock(monkeypatch)
    keys = memory.put_many([0, 1, 2])
    for key in keys:
        memory.refs["m"] = key
        clock.advance(3600)
    assert [memory.get(f"m@{ago}") for ago in ("0s", "90min", "1.5h", "2.5h")] == [2, 1, 1, 0]
    assert "had no value at that time. Its first one is of" in told(lambda: memory.get("m@1d"))
    first = datetime.datetime.fromtimestamp(memory.refs.log("m")[-1].time)
    for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M"):
        assert memory.get(f"m@{first:{form}}") == 0  # as a listing shows it
    assert memory.get("m@2100-01-01") == 2


def test_a_clock_that_went_back_does_not_hide_a_value(memory):
    """The order is that of the list."""
    one, two = memory.put_many([1, 2])
    memory.backend.put("refs/m", [encode_ref([RefEntry(one, 2000.0), RefEntry(two, 1000.0)])])
    assert memory.get("m@1970-01-05") == memory.get("m") == 2


# ---- what is told -------------------------------------------------------------------


def test_what_is_not_there_says_what_was_looked_for(memory):
    assert told(lambda: memory.get("models/churn")).startswith("no store there yet (in memory://")
    assert told(lambda: memory.get("0" * 64)).startswith("no store there yet")
    assert not memory.exists("models/churn") and memory.exists_many(["0" * 64]) == [False]
    for name in ("models/churn", "models/slow", "other/slow"):
        memory.put(1, ref=name)
    for text, hint in {
        "churn": "There is models/churn",
        "slow": "There is models/slow, other/slow",
        "models/chrun": "There is models/churn",
        "Models/SLWO": "There is models/slow",
        "models/churn@then": "After @ goes a number",
        "models/churn@2026-13-01": "After @ goes a number",
        "ABCDEF0123": "A key is shortened to 8",
        "abcdef": "A key is shortened to 8",
    }.items():
        message = told(lambda text=text: memory.get(text))
        assert message.startswith(f"no ref '{text}' (in ") and hint in message
    assert told(lambda: memory.get("abcdef0123")).startswith("no ref 'abcdef0123', and no key begins so (in")
    assert told(lambda: memory.get("chrun@1")).startswith("no ref 'chrun@1', and none 'chrun' (in")
    assert "has no value @1. It has one value" in told(lambda: memory.get("models/churn@1"))
    assert "store.resolve gives former values" in told(lambda: memory.refs["models/churn@0"])
    assert "takes many" in told(lambda: memory.get(["models/churn"]), errors.InvalidKey)
    assert "words joined by '/'" in told(lambda: memory.get("/x"), errors.InvalidKey)


def test_an_ambiguous_key_is_refused_with_what_it_may_be(memory):
    memory.put(1)
    keys = [f"abcdef01{number:056x}" for number in range(7)]
    for key in keys:
        memory.backend.put(f"recipes/ab/{key}", [b""])
    message = told(lambda: memory.get("abcdef01"), errors.InvalidKey)
    assert message.startswith("7 keys begin with 'abcdef01'") and message.endswith(f"{keys[4]} and 2 more")
    told(lambda: memory.exists("abcdef01"), errors.InvalidKey)
    assert memory.resolve(keys[3]) == keys[3]
    found = dict(memory.get_many(["abcdef01", "abcdef0100"], on_error="return"))
    assert all(isinstance(error, errors.InvalidKey) and "7 keys begin" in str(error) for error in found.values())
    memory.backend.delete_many([f"recipes/ab/{key}" for key in keys[1:]])
    assert memory.resolve("abcdef01") == keys[0]


def test_a_refusal_is_not_absence(memory):
    """Where listing is not allowed, S3 says of what is not there that it is refused."""

    class Refusing(MemoryBackend):
        def get(self, key):
            try:
                return super().get(key)
            except errors.NotFound:
                raise errors.AccessDenied("refused", key=key) from None

    memory.put("old", ref="m")
    memory.put("new", ref="m")
    refusing = wrapped(Refusing(memory.backend.url))
    assert refusing.get("m@1") == "old" and refusing.get("m") == "new"
    for name in ("other", "other@1"):
        told(lambda name=name: refusing.exists(name), errors.AccessDenied)

    class Unlisted(MemoryBackend):
        def list(self, prefix):
            raise errors.AccessDenied("refused", key=prefix)

    found = dict(wrapped(Unlisted(memory.backend.url)).get_many(["m", "other", "abcdef01"], on_error="return"))
    assert found.pop("m") == "new"
    assert [type(error) for error in found.values()] == [errors.AccessDenied] * 2


def test_a_damaged_ref_is_not_taken_for_something_else(memory):
    key = memory.put(1, ref="m")
    memory.put(2, ref="m")
    for path in ("refs/m%401", f"refs/{key[:8]}"):
        memory.backend.put(path, [b"no ref"])
    for name in ("m@1", key[:8]):
        told(lambda name=name: memory.get(name), errors.CorruptObject)
    assert [type(value) for _, value in memory.get_many(["m", "m@1"], on_error="return")] == [int, errors.CorruptObject]
    memory.backend.delete("refs/m%401")
    memory.backend.put("refs/m", [b"no ref"])
    told(lambda: memory.get("m@1"), errors.CorruptObject)


def test_a_short_word_is_no_part_of_a_key(memory):
    """As base: the first version under a name has none before it."""
    for ref in ("cafe", "2026"):
        assert memory.put(1, ref, base=ref) == memory.resolve(ref)


# ---- what it costs ------------------------------------------------------------------


def test_requests():
    store = wrapped(Asked())
    keys = store.put_many(range(200))
    for number, key in enumerate(keys):
        store.refs[f"runs/{number}"] = key
        store.refs[f"runs/{number}"] = keys[0]
    asked = store.backend
    ref, listed, recipe = {"get refs": 1}, {"list recipes": 1}, {"get recipes": 1}
    for name, rounds in {keys[3]: recipe, "runs/3": ref | recipe, "runs/3@1": ref | recipe}.items():
        asked.since()
        store.get(name)
        assert asked.since() == rounds
    short = keys[3][:12]
    store.stat(short)
    assert asked.since() == ref | listed | recipe
    names = [*(f"runs/{number}" for number in range(200)), *(f"runs/{number}@1" for number in range(200))]
    assert len(dict(store.get_many(names))) == 400
    assert asked.since() == ref | recipe
    assert len(dict(store.get_many([key[:16] for key in keys]))) == 200
    assert asked.since() == ref | {"list recipes": 200} | recipe  # told together to a backend that can do that
    assert all(store.exists_many([*names, *keys]))
    assert asked.since() == ref | {"head recipes": 1}
    asked.objects.clear()
    assert len(dict(store.refs.items())) == len(list(store.refs.values())) == 200
    assert asked.since() == {"list refs": 3, "get refs": 2}  # list() asks how long it will be
    assert asked.objects["refs"] == 403
    told(lambda: store.get("runs/x"))
    assert asked.since() == ref | {"list refs": 1}
    assert not store.exists("runs/x")
    assert asked.since() == ref


def test_a_generator_of_keys_is_asked_for_one_after_the_other():
    """And one of names as far as they are looked up together."""
    taken, asked = 0, []

    class Lazy(Asked):
        def get_many(self, keys):
            for key in keys:
                if key.startswith("recipes/"):
                    asked.append(taken)
                yield from super().get_many([key])

    def given(keys):
        nonlocal taken
        for key in keys:
            taken += 1
            yield key

    store = wrapped(Lazy())
    keys = store.put_many(range(5))
    store.refs["m"] = keys[0]
    for names, when in ((keys, [1, 2, 3, 4, 5]), (["".join(key) for key in keys], [1, 2, 3, 4, 5]),
                        ([*keys[:2], "m", *keys[3:]], [1, 2, 5, 5, 5])):  # fmt: skip
        taken = 0
        asked.clear()
        assert len(list(store.get_many(given(names)))) == 5
        assert asked == when


def test_names_among_keys_keep_their_place():
    store = wrapped(Asked())
    keys = store.put_many(range(10))
    for number, key in enumerate(keys):
        store.refs[f"r/{number}"] = key
    mixed = [keys[0], "r/1", keys[2], "none", "r/3", "../x", keys[4][:20]]
    found = list(store.get_many(iter(mixed), on_error="return"))
    assert [name for name, _ in found] == mixed
    assert [value for _, value in found if isinstance(value, int)] == [0, 1, 2, 3, 4]
    assert [type(value) for _, value in found if not isinstance(value, int)] == [errors.NotFound, errors.InvalidKey]


# ---- the store as a mapping ---------------------------------------------------------


def test_a_store_is_a_mapping_from_refs(memory):
    assert memory and len(memory) == 0 and list(memory) == []
    memory["b"], memory["a/c"] = {"x": 1}, 2
    assert list(memory) == memory._ipython_key_completions_() == ["a/c", "b"] and len(memory) == 2
    assert memory["b"] == {"x": 1} and "b" in memory and "c" not in memory and 5 not in memory
    del memory["b"]
    assert list(memory) == ["a/c"] and memory
    with pytest.raises(KeyError):
        memory["b"]
    with pytest.raises(KeyError):
        del memory["b"]


def test_listing_refs(memory):
    key = memory.put(1)
    for name in ("models/a", "models/b.c", "models/ü", "runs/1/model", "runs/2/model", "odd[1]"):
        memory.refs[name] = key
    refs = memory.refs
    assert (
        refs.list() == sorted(refs) == ["models/a", "models/b.c", "models/ü", "odd[1]", "runs/1/model", "runs/2/model"]
    )
    assert refs.list("models/") == ["models/a", "models/b.c", "models/ü"]
    assert refs.list("models/b.") == ["models/b.c"] and refs.list("models/ü") == ["models/ü"]
    assert refs.list("runs/*/model") == refs.list("*model") == ["runs/1/model", "runs/2/model"]
    assert refs.list("models/[ab]*") == ["models/a", "models/b.c"] and refs.list("odd[[]1]") == ["odd[1]"]
    assert refs.list("models/?") == ["models/a", "models/ü"] and refs.list("none") == []
    assert list(refs.items()) == [(name, key) for name in refs.list()]
    assert ("models/a", key) in refs.items() and key in refs.values()
    assert refs.log("models/a") == refs.history("models/a")


def test_refs_pickle_as_their_store_does(memory):
    memory.put(1, "a")
    refs = pickle.loads(pickle.dumps(memory.refs))
    refs["b"] = "a"
    assert memory.refs.list() == refs.list() == ["a", "b"]


def test_bulk_reads_of_refs_pass_over_what_is_removed(memory):
    store = wrapped(Asked(memory.backend.url))
    key = store.put(1)
    for name in "abc":
        store.refs[name] = key
    del store.refs["b"]  # an object stays in its place
    store.backend.put("refs/d", [encode_ref([], RefEntry(key, NOW))])  # not confirmed
    assert list(store.refs.items()) == [("a", key), ("c", key)] and store.refs.list() == ["a", "c", "d"]
    assert dict(store.refs) == {**store.refs} == {"a": key, "c": key} and store.refs == dict(store.refs)
    with pytest.raises(errors.NotFound):
        store.refs["d"]

    class Late(MemoryBackend):
        def list(self, prefix):
            yield from [*super().list(prefix), super().head("refs/a")._replace(key="refs/gone")]

    assert [name for name, _ in wrapped(Late(store.backend.url)).refs.items()] == ["a", "c"]
    store.backend.put("refs/c", [b"no ref"])
    assert list(store.refs.keys()) == ["a", "c"]  # which what is asked of it tells
    with pytest.raises(errors.CorruptObject, match="refs/c"):
        list(store.refs.items())


# ---- traps --------------------------------------------------------------------------


def test_one_slip_removes_no_history(memory):
    memory.put(1, ref="a")
    for call in (memory.refs.clear, memory.refs.popitem):
        assert "del store.refs[name]" in told(call, errors.Refused)
    assert list(memory.refs) == ["a"]
    assert memory.refs.pop("a") and not memory.refs and memory


def test_a_ref_takes_no_object(memory):
    for obj in ({"x": 1}, np.ones(3), None, 5):
        message = told(lambda obj=obj: memory.refs.__setitem__("a", obj), errors.WrongArgument)
        assert "store.put(obj, ref='a')" in message
    assert not memory.refs


def test_put_many_takes_many(memory):
    keys = memory.put_many({"x": 1, "y": [2]})
    assert {name: memory.get(key) for name, key in keys.items()} == {"x": 1, "y": [2]} and list(keys) == ["x", "y"]
    assert memory.put_many({}) == {} and memory.put_many([]) == []
    assert memory.put_many({"x": 1}.values()) == memory.put_many(n for n in (1,)) == memory.put_many({1}) == [keys["x"]]


def single_things():
    import io
    from pathlib import Path

    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from scipy import sparse

    frame = {"a": [1, 2]}
    yield from ("abc", b"abc", bytearray(b"abc"), memoryview(b"abc"), Path("abc"), io.BytesIO(b"a\nb"), 5, None)
    yield from (np.ones(3), np.float64(1), pd.DataFrame(frame), pd.Series([1, 2]), pd.Index([1, 2]))
    yield from (pl.DataFrame(frame), pl.Series([1, 2]), pa.table(frame), pa.array([1, 2]), sparse.eye(3, format="csr"))


def test_a_single_thing_is_not_stored_in_pieces(memory):
    for thing in single_things():
        with pytest.raises(TypeError, match="put_many takes many objects, and this is one"):
            memory.put_many(thing)
        with pytest.raises(errors.WrongArgument, match="save takes a dict of artifacts by name"):
            memory.save(thing)
    assert not list(memory.keys())


def test_a_path_of_a_file_is_warned_of(memory, tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"weights")
    with pytest.warns(errors.MfstoreWarning, match="put_file stores what is in the file") as told:
        assert memory.get(memory.put(file)) == file
    assert told[0].filename == __file__
    for obj in (tmp_path, tmp_path / "none", str(file), [file]):  # warnings are errors here
        assert memory.get(memory.put(obj)) == obj


def test_load_gives_one_artifact_for_a_name_and_a_dict_for_several(memory):
    run = memory.save({"model": [1], "auc": 0.5})
    assert memory.load(run, "model") == [1] and memory.load(run, ["model"]) == {"model": [1]}
    assert memory.load(run, "auc", writable=False) == 0.5
    assert "It has auc, model" in told(lambda: memory.load(run, "modle"))
    assert f"Use get('{run[:9]}')" not in told(lambda: memory.load(run[:9], "x"))
    one = memory.put(1, ref="one")
    for name in ("one", one):
        assert f"Use get('{name}')" in told(lambda name=name: memory.load(name), errors.Unsupported)


def test_nothing_is_stored_when_the_ref_cannot_be_set(memory, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for put in (memory.put, memory.put_bytes, lambda _, *a, **o: memory.save({}, *a, **o),
                lambda _, *a, **o: memory.put_file(tmp_path / "file", *a, **o)):  # fmt: skip
        for ref in ([1], 5):
            told(lambda put=put, ref=ref: put(b"x", ref), errors.WrongArgument)
        for ref in ("/x", "0" * 64, "m@1"):
            told(lambda put=put, ref=ref: put(b"x", ref=ref), errors.InvalidKey)
        told(lambda put=put: put(b"x", ref="m", note={"x": {1}}), errors.InvalidNote)
        assert not memory.handle.description and not memory.refs
    for put, name in ((memory.put, "a"), (memory.put_bytes, "b"), (lambda _, *a, **o: memory.save({}, *a, **o), "c"),
                      (lambda _, *a, **o: memory.put_file(tmp_path / "file", *a, **o), "d")):  # fmt: skip
        key = put(b"x", name, note={"by": name})
        (entry,) = memory.refs.log(name)
        assert (entry.key, entry.note) == (key, {"by": name}) and memory.stat(name).note == {"by": name}


def test_what_is_stored_is_told_when_its_ref_cannot_be_set(memory, monkeypatch):
    def refused(*_, **__):
        raise errors.AccessDenied("no")

    monkeypatch.setattr(type(memory.refs), "set", refused)
    with pytest.raises(errors.AccessDenied) as caught:
        memory.put("computed for hours", "m")
    (note,) = caught.value.__notes__
    assert memory.get(note.split("'")[3]) == "computed for hours"


# ---- deleting -----------------------------------------------------------------------


def test_deleting_a_ref(memory):
    one, two = memory.put(1, ref="m"), memory.put(2, ref="m")
    memory.refs["other"] = one
    gone = memory.delete("m")
    assert (gone.refs, gone.values, gone.keys, gone.condemned, gone.collected) == (("m",), 2, (two,), 0, False)
    assert gone.size == memory.stat(two).stored and memory.refs.list() == ["other"]
    assert str(gone).startswith(f"m is removed, with its history of 2 values.\n1 key is named by nothing else: {two}.")
    assert str(gone).endswith("None has run here yet.")
    memory.refs["again"] = one
    assert str(memory.delete("again")).endswith("named by other refs too: no bytes go.")
    assert memory.get(one) == 1 and memory.get(two) == 2
    memory.refs["gone"] = two
    memory.backend.delete(f"recipes/{two[:2]}/{two}")
    gone = memory.delete("gone")
    assert not gone.keys and "gone already" in str(gone)


def test_what_is_set_while_a_ref_is_deleted_is_told_too(memory, monkeypatch):
    one, two = memory.put(1, ref="m"), memory.put(2)
    remove = deleting.remove_ref

    def set_first(backend, path, etag):
        monkeypatch.setattr(deleting, "remove_ref", remove)
        memory.refs["m"] = two
        remove(backend, path, etag)

    monkeypatch.setattr(deleting, "remove_ref", set_first)
    gone = memory.delete("m")
    assert (gone.values, gone.keys) == (2, (one, two)) and "m" not in memory.refs

    far = wrapped(Asked())
    far.put(1, ref="m")

    def delete_first(backend, path, etag):
        del far.refs["m"]
        remove(backend, path, etag)

    monkeypatch.setattr(deleting, "remove_ref", delete_first)
    assert "no ref 'm'" in told(lambda: far.delete("m"))


def test_deleting_a_key(memory):
    one, two = memory.put(1, ref="m"), memory.put(2, ref="m")
    for name in (one, one[:8], two):
        assert "refs name it, or did: m (key" in told(lambda name=name: memory.delete(name), errors.Refused)
    for number in range(6):
        memory.refs[f"r{number}"] = one
    assert "m, r0, r1, r2, r3 and 2 more" in told(lambda: memory.delete(one), errors.Refused)
    assert "in the history of 'm'" in told(lambda: memory.delete("m@1"), errors.Refused)
    for name in ("none", "0" * 64, "abcdef01", "none@1"):
        told(lambda name=name: memory.delete(name))
    assert len(memory.refs) == 7
    three = memory.put(3)
    memory.backend.put("refs/begun", [encode_ref([], RefEntry(three, NOW))])  # somebody is about to name it
    assert "begun" in told(lambda: memory.delete(three), errors.Refused)
    memory.backend.delete("refs/begun")
    gone = memory.delete(three[:10])
    assert (
        gone.keys == (three,) and gone.refs == () and str(gone).startswith(f"1 key is named by nothing else: {three}")
    )
    assert memory.get(three) == 3


def test_what_is_deleted_says_what_collections_did(memory, monkeypatch):
    clock = Clock(monkeypatch)
    keys = [memory.put(value, ref="m") for value in ("one", "two")]
    memory.put(0, ref="kept")
    memory.put("garbage")
    clock.advance(100)
    memory.plan_gc(grace=0).execute()
    gone = memory.delete("m")
    assert gone.collected and gone.condemned == 0 and "None has run" not in str(gone)
    assert "2 keys are named by nothing else. The next collections" in str(gone)
    clock.advance(100)
    memory.plan_gc(grace=0).execute()
    gone = memory.delete(keys[0])
    assert gone.condemned == 1 and "A collection has condemned it, and a next one" in str(gone)
    clock.advance(100)
    memory.plan_gc(grace=0).execute()
    told(lambda: memory.delete(keys[0]))


def test_nothing_is_deleted_where_nobody_can_tell_what_is_named(memory, tmp_path):
    key = memory.put(1, ref="m")
    other = memory.put(2)
    memory.backend.put("refs/x", [b"no ref"])
    for name in ("m", other):
        assert "nobody can tell" in told(lambda name=name: memory.delete(name), errors.CorruptObject)
    assert "del store.refs['x']" in told(lambda: memory.delete("x"), errors.CorruptObject)
    assert memory.refs["m"] == key
    del memory.refs["x"]
    assert memory.delete("m").keys == (key,)
    told(lambda: mfstore.open("memory://").delete("m"))
    with mfstore.open(tmp_path / "mf.store") as store:
        key = store.put(1, ref="m")
        for name in ("m", key):
            assert "--metaflow" in told(lambda name=name: store.delete(name), errors.Refused)


def test_what_is_no_text_or_no_truth_value(memory):
    key = memory.put([1])
    for listed in (memory.refs.list, lambda name: list(memory.find(name))):
        with pytest.raises(errors.WrongArgument, match="found 5"):
            listed(5)
    assert memory.get(key, verify=2, writable=1, map="no") == [1]
