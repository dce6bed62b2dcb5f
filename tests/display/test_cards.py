"""Cards, as text and as HTML: everything is shown, and nothing in it does anything."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore.display.cards import Card, Cell, Grid, age_cell, code_cell, key_cell
from mfstore.display.html import html_of
from mfstore.display.shown import Shown
from mfstore.display.text import LINES, text_of
from mfstore.display.words import KEY_DIGITS, note_text
from tests.rigs.html import EVIL, Page, harmless

TEXT = st.text(max_size=12)
CELLS = st.one_of(
    TEXT,
    st.builds(Cell, TEXT, TEXT, st.sampled_from(["", "key", "code", "number", "good", "bad", "quiet", EVIL]), TEXT),
)


def grids(rows):
    return st.integers(1, 4).flatmap(
        lambda width: st.builds(
            Grid,
            st.tuples(*[TEXT] * width),
            st.lists(st.tuples(*[CELLS] * width), max_size=rows).map(tuple),
            st.sets(st.integers(0, 3)).map(tuple),
            st.integers(0, 3),
        )
    )


CARDS = st.builds(
    Card, TEXT, TEXT, st.lists(st.tuples(TEXT, CELLS), max_size=14).map(tuple), st.lists(grids(12), max_size=2).map(tuple),
    st.lists(TEXT, max_size=7).map(tuple),
)  # fmt: skip


class Of(Shown):
    def __init__(self, card):
        self.card = card

    def _card(self):
        return self.card


@given(CARDS)
@settings(max_examples=30)
def test_any_card_is_well_formed_and_short(card):
    harmless(Of(card))


def test_names_do_no_harm():
    cell = Cell(EVIL, EVIL, "code", EVIL)
    page, text = harmless(Of(Card(EVIL, EVIL, ((EVIL, cell),), (Grid((EVIL,), ((cell,), (EVIL,))),), (EVIL,))))
    assert page.text.count("<script>alert(1)</script>\"'&amp;\\x1b[2J\\u202e") == 8
    assert text.count("<script>") == 8


def test_nothing_comes_from_elsewhere():
    page = html_of(Card("store", "s3://bucket"))
    assert "url(" not in page and "@import" not in page and "http" not in page


def test_what_is_left_out_is_told():
    rows = tuple((str(number), "x") for number in range(30))
    card = Card("refs", facts=(("a", "1"),), grids=(Grid(("ref", "key"), rows, more=5),), notes=("All is well.",))
    lines = text_of(card).splitlines()
    assert lines[-2:] == ["  and 30 more", "  All is well."] and len(lines) == LINES
    assert lines[:5] == ["refs", "  a  1", "  ref  key", "  0    x", "  1    x"]
    page = Page(html_of(card))
    assert page.texts[-2:] == ["and 5 more", "All is well."] and page.texts.count("x") == 30


def test_columns_are_aligned():
    grid = Grid(("what", "size"), (("recipes", "12.0 MB"), ("refs", "1 B")), (1,))
    assert text_of(Card("store", grids=(grid,))).splitlines()[1:] == [
        "  what        size",
        "  recipes  12.0 MB",
        "  refs         1 B",
    ]


def test_a_key_is_shown_by_digits_that_name_it():
    key = "0123456789abcdef" * 4
    page = Page(html_of(Card("x", facts=(("key", key_cell(key)),))))
    assert key[:KEY_DIGITS] in page.texts and page.titles == [key]
    assert text_of(Card("x", facts=(("key", key_cell(key)),))) == f"x\n  key  {key}"
    assert text_of(Card("x", grids=(Grid(("",), ((key_cell(key),),)),))) == f"x\n  {key[:KEY_DIGITS]}"


def test_an_age_has_its_date():
    cell = age_cell(1_780_000_000.0, 1_780_000_060.0)
    assert cell.text == "60 seconds ago" and cell.title.startswith("2026-05-2") and cell.alone.startswith(cell.text)


def test_notes_are_told_in_a_line():
    assert note_text({"auc": 0.93, "tags": ["trial"], "by": "me"}) == 'auc 0.93, tags ["trial"], by me'
    assert len(note_text({"a": "x" * 500})) == 160
    assert code_cell("a\nb").text == "a\\nb"


def test_what_is_long_is_cut_in_a_notebook_too():
    long = "x" * 100_000
    card = Card(
        "view", long, (("type", code_cell(long)), ("size", Cell("1", long))), (Grid((long,), ((long,),), (), 0),)
    )
    assert len(html_of(card)) < 10_000
