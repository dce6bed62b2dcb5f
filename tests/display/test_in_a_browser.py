"""Cards in a browser, where Chromium is installed."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from mfstore.display.cards import Card, Cell, Grid, age_cell, code_cell, key_cell
from mfstore.display.html import html_of
from tests.rigs.html import EVIL

MEASURE = """
const told = [...document.querySelectorAll(".mfstore-card")].map(card => ({
  wide: card.scrollWidth > card.clientWidth + 1,
  width: card.clientWidth,
  colour: getComputedStyle(card.querySelector("td")).color,
  dim: getComputedStyle(card.querySelector("th")).opacity,
  shade: getComputedStyle(card.querySelector("tbody tr")).backgroundColor,
  scripts: card.querySelectorAll("script,i,img").length,
}));
document.body.textContent = "told " + JSON.stringify(told) + " end";
"""
JUPYTER = ".jp th{text-align:right} .jp tbody tr:nth-child(odd){background:#f00} .jp table{table-layout:fixed}"
"""As strong as JupyterLab's own rules."""
KEY = "0123456789abcdef" * 4


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no Chromium")
def test_cards_fit_a_narrow_page_and_take_its_colours(tmp_path):
    rows = tuple(
        (code_cell(f"models/tree-{n}"), key_cell(KEY), age_cell(0.0), code_cell('auc 0.93, tags ["a"]'))
        for n in range(3)
    )
    card = Card(
        "artifact", KEY, (("size", "12.3 MB, stored in 1.2 MB"), ("note", Cell(EVIL, EVIL, "code"))),
        (Grid(("ref", "key", "set", "note"), rows),), ("1 key is named by nothing else: " + KEY,),
    )  # fmt: skip
    cards = [
        f'<div class="jp" style="width:{width}px;background:{back};color:{front}">{html_of(card)}</div>'
        for width, back, front in ((380, "#fff", "rgb(1, 1, 1)"), (900, "#111", "rgb(250, 250, 250)"))
    ]
    page = tmp_path / "page.html"
    page.write_text(f"<meta charset=utf-8><style>{JUPYTER}</style>{''.join(cards)}<script>{MEASURE}</script>")
    done = subprocess.run(
        [
            shutil.which("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    narrow, wide = json.loads(unescape(re.search(r"told (.*) end", done.stdout.decode())[1]))
    for told, front in ((narrow, "rgb(1, 1, 1)"), (wide, "rgb(250, 250, 250)")):
        assert (told["wide"], told["scripts"], told["shade"]) == (False, 0, "rgba(0, 0, 0, 0)")
        assert told["colour"] == front and float(told["dim"]) >= 0.7
    assert (narrow["width"], wide["width"]) == (380, 780)
