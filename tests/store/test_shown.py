"""What a store, its refs and what it answers look like at a prompt and in a notebook."""

import pickle

import pytest

import mfstore
from mfstore import overview
from mfstore.backends.memory import MemoryBackend
from mfstore.display.words import KEY_DIGITS
from mfstore.settings import resolve
from mfstore.store import Store
from tests.rigs.html import Page, harmless
from tests.store.test_many import Rounds

MARKUP = "<script>alert(1)</script>"


@pytest.fixture
def store():
    with mfstore.open("memory://") as opened:
        yield opened


class Prompt:
    """What IPython hands to ``_repr_pretty_``."""

    def text(self, text):
        self.told = text


def pretty(value):
    prompt = Prompt()
    value._repr_pretty_(prompt, False)
    assert len(prompt.told.splitlines()) <= 10
    return prompt.told


def test_a_store(store):
    assert "no store yet" in Page(store._repr_html_()).text and "no store yet" in pretty(store)
    keys = [store.put({"n": n}, ref=f"models/{n}") for n in range(12)]
    page = Page(store._repr_html_())
    assert "store with 12 refs" in page.texts and "and 4 more" in page.texts
    assert keys[-1] in page.titles and keys[-1][:KEY_DIGITS] in page.texts
    assert "12 refs" in pretty(store)
    assert repr(store) == f"mfstore.open({store.backend.url!r})"


def test_refs(store):
    assert "0 refs of" in Page(store.refs._repr_html_()).texts
    for number in range(25):
        store.put(number, ref=f"r{number:02}", note={"auc": number} if number == 3 else None)
    store.put(0, ref=MARKUP)
    page = Page(store.refs._repr_html_())
    assert "26 refs of" in page.texts and "and 6 more" in page.texts and "auc 3" in page.texts
    assert [text for text in page.texts if text.startswith(("r", "<"))][:3] == ["ref", MARKUP, "r00"]
    assert pretty(store.refs).splitlines()[-1] == "  and 19 more"


def test_only_what_is_displayed_asks(store, monkeypatch):
    """A debugger calls ``repr`` of all that it sees; the storage may be far away."""
    store.put(1, ref="a")
    monkeypatch.setattr(MemoryBackend, "list", lambda *_: pytest.fail("repr asked"))
    assert repr(store.refs) == f"<Refs of {store.backend.url}>" and repr(store)


def test_what_is_displayed_takes_two_rounds_of_requests(monkeypatch):
    """However many refs there are: of more than a page not even their number is known."""
    monkeypatch.setattr(overview, "PAGE", 50)
    far = Store("far", Rounds(), resolve(), create=True, algorithm="blake3")
    key = far.put(1)
    for number in range(60):
        far.refs[f"r{number:02}"] = key
    for shown in (far, far.refs):
        far.backend.rounds.clear()
        assert "50 refs or more" in Page(shown._repr_html_()).text
        assert far.backend.rounds == ["list", "get_many"]


def test_what_the_storage_refuses_is_shown(store, monkeypatch):
    """A notebook that shows a store must not end with a traceback instead."""
    store.put(1, ref="a")

    def refuse(*_):
        raise mfstore.errors.AccessDenied("listing is not allowed")

    monkeypatch.setattr(MemoryBackend, "list", refuse)
    for shown in (store, store.refs):
        assert "listing is not allowed" in Page(shown._repr_html_()).text
        assert "listing is not allowed" in pretty(shown)


def test_a_damaged_ref_is_shown_beside_the_others(store):
    store.put(1, ref="a")
    store.put(2, ref="b")
    store.backend.put("refs/a", [b"x" * 100])
    page = Page(store.refs._repr_html_())
    assert "ref is not the JSON it should be" in page.text and "b" in page.texts


def test_a_history(store):
    keys = [store.put({"n": n}, ref=MARKUP, note={"auc": n / 8} if n else None) for n in range(3)][::-1]
    log = store.refs.log(MARKUP)
    page, text = harmless(log)
    assert "3 values of" in page.text and [title for title in page.titles if title in keys] == keys
    assert "auc 0.25" in page.texts and f"{MARKUP}@2" in page.titles and "@2" in text
    assert log == [*log] and pickle.loads(pickle.dumps(log)) == log and pickle.loads(pickle.dumps(log)).name == MARKUP
    assert repr(log[0]).startswith(f"<RefEntry {keys[0]} set ") and "auc 0.25" in repr(log[0])


def test_an_artifact(store):
    key = store.put({"n": 1}, note={MARKUP: MARKUP})
    page, text = harmless(store.stat(key))
    assert key in page.texts and "dict" in page.texts and f"{MARKUP} {MARKUP}" in page.texts
    assert (text.splitlines()[0] == f"artifact {key}" and "ago" in text) or "just now" in text


def test_a_bundle(store):
    run = store.save({MARKUP: 1, **{f"a{number:02}": "x" * number for number in range(30)}})
    page, text = harmless(store.stat(run))
    assert MARKUP in page.texts and "and 11 more" in page.texts and text.splitlines()[-1].startswith("  and ")


def test_statistics(store):
    store.put(b"x" * 100_000)
    store.get(store.put(b"x" * 100_000, ref="a"))
    page, text = harmless(store.stats())
    assert "recipes" in page.texts and "2 artifacts, 200.0 kB, of which 100.0 kB were there already" in text
    page, text = harmless(store.session)
    assert "loaded here  100.0 kB" in text
    assert "Nothing was saved or loaded." in harmless(mfstore.open("memory://").session)[1]


def test_a_deletion(store):
    kept = store.put(1, ref="kept")
    gone = [store.put({"n": n}, ref=MARKUP) for n in range(8)]
    store.put(1, ref=MARKUP)
    page, text = harmless(store.delete(MARKUP))
    assert set(page.titles) <= set(gone) and "and 3 more" in page.texts and kept not in page.text
    assert f"{MARKUP} is removed, with its history of 9 values." in page.texts
    assert text.startswith(f"deleted {MARKUP}") and "keys are named by nothing else" in text
    assert "1 key is named by nothing else" in harmless(store.delete("kept"))[1]


def test_a_collection(store):
    for number in range(3):
        store.put({"n": number}, ref="kept")
    store.put(b"x" * 100_000)
    page, text = harmless(store.plan_gc(grace=0.0, keep_last=1))
    rows = dict(zip(page.texts, page.texts[1:], strict=False))
    assert (rows["keep"], rows["condemn"], rows["in all"]) == ("1", "3", "4")
    assert "2 old values of 1 ref forgotten; 0 refs removed altogether" in page.texts
    assert text.splitlines()[-1] == "  execute() does this."
    page, text = harmless(store.plan_gc(grace=0.0, keep_last=1).execute(yes_really=True))
    assert "condemned 3 keys and 1 pack" in page.text and "changed 1 ref" in text
    assert "There is nothing to do." in repr(store.plan_gc(keep_last=1))


def test_a_verification(store):
    store.put(1, ref=MARKUP)
    page, text = harmless(store.verify("list"))
    assert "no damage found" in page.texts and "no damage found" in text
    (ref,) = [info.key for info in store.backend.list("refs/")]
    store.backend.put(ref, [b"x" * 200])
    report = store.verify("list")
    page, text = harmless(report)
    assert "damaged" in page.texts and "mfstore repair shows" in text
    assert pickle.loads(pickle.dumps(report)) == report


def test_a_repair(store):
    key = store.put(b"x" * 300_000, ref="a")
    (pack,) = [info.key for info in store.backend.list("packs/")]
    store.backend.delete(pack)
    page, text = harmless(store.repair(dry_run=True))
    assert "repair of" in page.texts and "1 finding" in text
    page, text = harmless(store.repair())
    assert "lost data: 1 key" in text and key[:16] in text


def test_what_was_found(store):
    key = store.put(1, ref=MARKUP, note={"auc": 0.1 + 0.2})
    (found,) = store.find(MARKUP)
    told = repr(found)
    assert told.startswith(f"<Found {MARKUP}, {key[:KEY_DIGITS]}, set ") and told.endswith(": auc 0.3>")
