"""What goes into a page, and how it stands in HTML."""

import json
import re
from base64 import b64encode
from hashlib import sha256

from mfstore.page import document as documents
from mfstore.page.document import document
from mfstore.page.facts import Compared, Content, Entry, Facts, Part, Space, Value
from mfstore.page.render import asset, page

EVIL = "</script><!--<script>]]>&amp;\"'\x00\x1b\u202e\u2028\ud800"


def facts(refs=3, versions=4, parts=5, note="", name="ref", **more):
    entries, contents = [], {}
    for ref in range(refs):
        values = []
        for version in range(versions):
            key = f"{ref * 1000 + version:064x}"
            held = tuple(Part(f"part{n}", "builtins.int", n, bytes([n, version % 2])) for n in range(parts))
            contents[key] = Content("bundle", 10, 20, 1.6, "me@here", "", held)
            values.append(Value(f"@{version}", key, 2000.4 - version + ref, note, 7))
        entries.append(Entry(f"{name}{ref}", tuple(values), versions))
    return Facts("store", "place", "title", 3000.0, "1", (("refs", refs, False),), tuple(entries), contents, **more)


def test_columns_say_it_all_and_each_text_once():
    found = json.loads(document(facts(note='{"a": 1}')))
    assert found["entries"] == {"name": ["ref0", "ref1", "ref2"], "n": [4] * 3, "total": [4] * 3, "trouble": [0] * 3}
    values, contents, parts, text = (found[name] for name in ("values", "contents", "parts", "text"))
    assert {len(column) for column in values.values()} == {12} and "label" not in values
    assert {len(column) for column in contents.values()} == {12}
    assert {len(column) for column in parts.values()} == {60}
    assert text[0] == "" and len(text) == len(set(text)) == 10
    assert [contents["key"][number] for number in values["content"]][5] == f"{1001:064x}"
    assert text[values["note"][0]] == '{"a": 1}' and values["time"][:2] == [2000, 1999]
    # Equal content has equal marks: the fifth part of versions 0 and 2, not of 1.
    marks = [parts["mark"][4 + 5 * version] for version in range(3)]
    assert marks[0] == marks[2] != marks[1]


def test_the_same_key_is_there_once():
    one = facts(refs=2, versions=1)
    shared = one.entries[0].values[0].key
    twice = [entry._replace(values=(entry.values[0]._replace(key=shared),)) for entry in one.entries]
    found = json.loads(document(Facts("store", "", "", 0.0, "", (), tuple(twice), one.contents)))
    assert found["values"]["content"] == [0, 0] and found["contents"]["key"] == [shared]


def test_numbers_that_somebody_made_up_are_as_much_as_a_browser_counts():
    made_up = int("9" * 4300)
    made = facts(refs=1, versions=1)
    key = made.entries[0].values[0].key
    made.contents[key] = Content("task", 2 * made_up, parts=(Part("x", "int", made_up, "m"),))
    found = json.loads(document(made))
    assert found["contents"]["size"] == found["parts"]["size"] == [documents.LARGEST]


def test_nothing_ends_the_element_or_begins_a_comment():
    told = facts(note=EVIL, name=EVIL, troubles=(EVIL,), notes=(EVIL,), compared=(Compared(f"{EVIL}0", "", "", EVIL),))
    encoded = document(told)
    assert not re.search("[<>&\x00\u2028\ud800]", encoded)
    found = json.loads(encoded)
    assert found["entries"]["name"][0] == f"{EVIL}0" and found["troubles"] == [EVIL]


def test_the_page_runs_and_loads_its_two_files_alone():
    html = page(facts(note=EVIL, name=EVIL))
    html.encode()
    assert html.count("<script") == html.count("</script>") == 2 and html.count("<style>") == 1
    policy = re.search('Content-Security-Policy" content="([^"]*)"', html)[1]
    for kind, pattern in (("script", "<script>(.*?)</script>"), ("style", "<style>(.*?)</style>")):
        text = re.search(pattern, html, re.DOTALL)[1]
        assert f"{kind}-src 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}';" in policy
        assert text == asset(f"page.{'js' if kind == 'script' else 'css'}")
    assert policy.startswith("default-src 'none'; ")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", html)


def test_titles_are_shown_as_text():
    told = Facts("store", EVIL, EVIL, 0.0, "1", ((EVIL, 1, False),))
    html = page(told)
    assert "&lt;/script&gt;&lt;!--" in html and "\x00" not in html and "\u202e" not in html
    assert html.count("</script>") == 2


def test_long_texts_are_cut_and_say_so():
    told = facts(refs=1, versions=1, note="n" * 10_000_000, name="x" * 5000)
    encoded = document(told)
    assert len(encoded) < 20_000 and "(10,000,000 letters in all)" in encoded and "(5,001 letters in all)" in encoded


def test_what_is_too_much_is_left_out_the_oldest_first():
    told = facts(refs=40, versions=20, parts=30)
    whole = len(document(told))
    sizes = []
    for budget, values, parts, refs in ((whole, 20, 30, 40), (whole // 2, 5, 30, 40), (20_000, 1, 20, 40),
                                        (6000, 1, 5, 32)):  # fmt: skip
        encoded = document(told, budget)
        found = json.loads(encoded)
        sizes.append(len(encoded))
        assert len(encoded) <= budget
        assert (max(found["entries"]["n"]), max(found["contents"]["n"]), len(found["entries"]["n"])) == (
            values,
            parts,
            refs,
        )
        assert max(found["contents"]["total"]) == 30 and max(found["entries"]["total"]) == 20
        assert bool(found["notes"]) is (budget < whole)
    assert found["entries"]["name"] == [f"ref{number}" for number in range(8, 40)], "those set last"
    assert "8 of 40 refs" in found["notes"][0]


def test_many_groups_are_told_together(monkeypatch):
    monkeypatch.setattr(documents, "GROUPS", 2)
    groups = (("a", 9, 1), ("b", 8, 0), ("m/c", 7, 9), ("m/d", 6, 0), ("(no ref)", 5, 0), ("d", 4, 1), ("n/x", 3, 0))
    (found,) = json.loads(document(facts(spaces=(Space("ref", groups, 42, 9, 0),))))["spaces"]
    assert (found["name"], found["owns"]) == (["a", "b"], [9, 8])
    assert found["rest"] == [["m", 2, 13], ["", 2, 9], ["", 1, 3]], (
        "by what their names begin with, and of many the rest"
    )
