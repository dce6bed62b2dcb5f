"""The page in a browser, where Chromium is installed: one start for all that is looked at."""

import json
import re
import shutil
import subprocess
from html import escape, unescape

import pytest

from mfstore.page.document import GROUPS
from mfstore.page.facts import Compared, Content, Entry, Facts, Part, Space, Value
from mfstore.page.render import page

EVIL = (
    "</script><script>parent.hacked = 1</script>",
    "<img src=x onerror=parent.hacked=2>",
    "\"'><svg/onload=parent.hacked=3>",
    "a\u202egnp.exe",
    "nul\x00 and \x1b[2J",
    "\u05e9\u05dc\u05d5\u05dd",
    "long/" + "x" * 3000,
)
STEPS = """
const pause = () => new Promise(done => setTimeout(done, 50));
const luminance = colour => {
  const [r, g, b] = colour.match(/[0-9.]+/g).map(part => part / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const behind = element => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
};
const look = frame => {
  const page = frame.contentDocument, root = page.documentElement;
  const seen = [...page.querySelectorAll("body *")].filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  return {
    wider: root.scrollWidth - root.clientWidth,
    contrast: Math.min(...seen.map(e => contrast(frame.contentWindow.getComputedStyle(e).color, behind(e)))),
    foreign: page.querySelectorAll("img,svg:not([role=img]),iframe,object,link").length,
    scripts: page.querySelectorAll("script").length,
    handlers: [...page.querySelectorAll("*")].filter(e => e.getAttributeNames().some(n => n.startsWith("on"))).length,
    text: page.body.innerText,
    rows: page.querySelectorAll("#panel .row").length,
    cells: page.querySelectorAll(".cell").length,
    lines: page.querySelectorAll("svg path.line").length,
    chosen: page.querySelectorAll("#panel .row[aria-selected=true]").length,
    selected: page.querySelector("[role=tab][aria-selected=true]").textContent,
  };
};
onload = async () => {
  const told = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, window_ = frame.contentWindow, seen = told[frame.name] = {};
    const at = async (name, hash) => { if (hash !== undefined) window_.location.hash = hash; await pause(); seen[name] = look(frame); };
    await at("first");
    for (const tab of ["bytes", "growth", "about"]) if (page.getElementById("tab-" + tab)) await at(tab, "#tab=" + tab);
    if (frame.name === "tasks") {
      seen.against = [];
      for (const v of ["0", "1", "2", "5"]) {
        window_.location.hash = `#ref=F/train&v=${v}`; await pause();
        seen.against.push(page.querySelectorAll(".detail h3")[1].textContent);
      }
    }
    if (frame.name === "order") {
      await at("list", "#tab=entries"); seen.orders = [];
      for (const head of page.querySelectorAll(".head button")) for (let time = 0; time < 2; time += 1) {
        head.click(); await pause();
        seen.orders.push([head.textContent, ...[...page.querySelectorAll(".row > :first-child")].map(cell => cell.textContent)].join(" "));
      }
      window_.location.hash = "#ref=run-9"; await pause();
      const before = window_.history.length;
      for (const key of ["End", "ArrowUp", "ArrowUp"]) {
        page.querySelector(".rows").dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})); await pause();
      }
      seen.steps = [window_.history.length - before, window_.location.hash !== "#ref=run-9"];
      await at("map", "#tab=bytes&by=ref"); await at("within", "#tab=bytes&by=ref&at=models");
    }
    if (frame.name.startsWith("evil")) {
      await at("zoomed", "#tab=bytes&by=ref&at=long");
      for (const [number, name] of EVIL.entries()) await at("ref" + number, "#ref=" + encodeURIComponent(name));
      await at("older", "#ref=bundle&v=1");
      await at("newest", "#ref=bundle");
      const search = page.querySelector("input[type=search]");
      search.value = "Weights numpy"; search.dispatchEvent(new Event("input")); await at("searched");
      search.value = ""; search.dispatchEvent(new Event("input"));
      page.querySelector(".head button").click(); page.querySelector(".head button").click(); await at("sorted");
      window_.location.hash = ""; await pause();
      const rows = page.querySelector(".rows");
      for (const key of ["End", "ArrowUp"]) { rows.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})); await pause(); }
      await at("keyed");
      seen.keyed.hash = window_.location.hash;
      await at("groups", "#tab=bytes&by=ref");
      const groups = page.querySelector(".rows");
      for (const key of ["ArrowDown", "Enter"]) {
        groups.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
        await at("groups" + key);
        seen["groups" + key].hash = window_.location.hash;
      }
    }
  }
  told.hacked = window.hacked || 0;
  document.body.textContent = "told " + JSON.stringify(told) + " end";
};
"""


def evil():
    note = json.dumps({"html": EVIL[0] + EVIL[1], "long": "z" * 5000, "nul": "\0"})
    entries = [Entry(name, (Value("@0", f"k{n}", 1e9, note),), 1) for n, name in enumerate(EVIL)]
    entries.append(Entry("broken", trouble=EVIL[0]))
    entries += [Entry(f"many/{n:04}", (Value("@0", "k0", 1e9 + n),), 1) for n in range(2000)]
    entries.append(Entry("bundle", (Value("@0", "new", 3e9, "", 10), Value("@1", "old", 1e9)), 12))
    contents = {
        f"k{n}": Content("artifact", n, n, 1e9, name, "", (Part("", name, 1, "x"),)) for n, name in enumerate(EVIL)
    }
    parts = [Part("weights", "numpy.ndarray", 800, "1"), Part("same", "builtins.int", 8, "2")]
    contents["old"] = Content("bundle", 808, 100, 1e9, "me@here", "", (*parts, Part("gone", "x.Y", None, "3")))
    contents["new"] = Content("bundle", 808, 100, 3e9, "me@here", "", (parts[0]._replace(mark="4"), parts[1], Part(EVIL[1], EVIL[0], 1, "5")))  # fmt: skip
    groups = [(name, 1000 * (n + 1), 7) for n, name in enumerate(EVIL)] + [(f"many/{n:04}", 9, 0) for n in range(2000)]
    spaces = tuple(Space(by, tuple(groups), 30_000, 500, 70) for by in ("ref", "run"))
    growth = (("2026-01-01", 500, 3), ("2026-01-09", 9, 1), ("2026-11-30", 70_000, 8))
    compared = (Compared("bundle", "@1", "@0", "1 changed " + EVIL[0], (("~", EVIL[1], EVIL[2], "2"),), 3),)
    return Facts(
        "store", "s3://" + "bucket/" * 30, EVIL[0], 2e9, "1", (("refs", 2008, False), ("bytes", 12345, True)),
        tuple(entries), contents, spaces, growth, compared, EVIL, EVIL,
    )  # fmt: skip


def tasks():
    ended = ((3, 7), (3, 11), (3, 9), (2, 6), (2, 10), (2, 8))  # in their order, the last first; three of a foreach
    values = tuple(Value(f"{run}/{task}", f"F/{run}/train/{task}", 1e9 + run) for run, task in ended)
    contents = {value.key: Content("task", 5, parts=(Part("x", "int", 5, value.key),)) for value in values}
    spaces = (Space("run", (("F/3", 7, 1), ("F/2", 5, 1)), 12, 1, 0),)
    return Facts("root", "root", "A root", 2e9, "1", (), (Entry("F/train", values, 6),), contents, spaces)


def order():
    rows = (("run-10", 5, 3e9, 0.9), ("run-9", 40, 2e9, 0.1), ("run-11", 300, 1e9, 12.5))
    entries = [Entry(name, (Value("@0", name, at, json.dumps({"auc": auc})),), 1) for name, _, at, auc in rows]
    contents = {name: Content("artifact", size, size, at) for name, size, at, _ in rows}
    groups = (("models", 70, 0), ("models/a", 20, 0), ("x", 5, 0))
    groups += tuple((f"none/{n}", 0, 0) for n in range(GROUPS - 3)) + tuple((f"models/{n}", 4, 0) for n in range(3))
    spaces = (Space("ref", groups, 107, 0, 0),)
    return Facts("store", "here", "Order", 2e9, "1", (), tuple(entries), contents, spaces)


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no Chromium")
def test_pages_are_safe_readable_and_do_what_they_should(tmp_path):
    pages = {
        "evil-wide": (1200, evil()), "evil-narrow": (420, evil()), "tasks": (900, tasks()),
        "order": (1200, order()), "empty": (900, Facts("store", "here", "Nothing", 2e9, "1", (("refs", 0, False),))),
    }  # fmt: skip
    frames = "".join(
        f'<iframe name="{name}" width={width} height=900 srcdoc="{escape(page(facts))}"></iframe>'
        for name, (width, facts) in pages.items()
    )
    whole = tmp_path / "pages.html"
    names = json.dumps(EVIL).replace("</", "<\\/")
    whole.write_text(f"<meta charset=utf-8>{frames}<script>const EVIL = {names};{STEPS}</script>")
    done = subprocess.run(
        [
            shutil.which("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=60000", "--dump-dom", whole.as_uri(),
        ],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    told = json.loads(unescape(re.search(r"told (.*) end", done.stdout.decode(), re.DOTALL)[1]))
    assert told.pop("hacked") == 0
    orders, steps = told["order"].pop("orders"), told["order"].pop("steps")
    against = told["tasks"].pop("against")
    assert against == ["3/7, against 2/6", "3/11, against 2/10", "3/9, against 2/8", "2/8"]
    for name, seen in told.items():
        for step, found in seen.items():
            where = f"{name}, {step}"
            assert found["wider"] <= 0, f"{where}: something is wider than the page"
            assert found["contrast"] >= 4.5, where
            assert (found["foreign"], found["scripts"], found["handlers"]) == (0, 2, 0), where
            assert not re.search("[\x00\x1b\u202e]", found["text"]), where
            assert not re.search("undefined|NaN|\\[object|null", found["text"]), where
            assert found["rows"] < 100, f"{where}: rows that nobody sees are made"

    for name in ("evil-wide", "evil-narrow"):
        seen = told[name]
        assert "Not all could be read" in seen["first"]["text"] and "Refs (2,009)" in seen["first"]["text"]
        assert seen["first"]["rows"] > 10 and "a\\u202egnp.exe" in seen["ref3"]["text"]
        assert seen["bytes"]["cells"] > 5 and seen["zoomed"]["cells"] == 1 and seen["growth"]["lines"] == 1
        assert EVIL[0] in seen["ref0"]["text"] and "nul\\x00" in seen["ref4"]["text"]
        newest, older = seen["newest"]["text"], seen["older"]["text"]
        assert "12 versions" in newest and "10 older not here" in newest
        assert "@0, against @1" in newest and "1 added, 1 removed, 1 changed, 1 same" in newest
        assert "Inside, @1 to @0" in newest and "and 3 more" in newest
        assert "3 artifacts" in older and "against" not in older and "Inside" not in older
        assert (seen["newest"]["chosen"], seen["newest"]["selected"]) == (1, "Refs (2,009)")
        assert "1 of 2,009" in seen["searched"]["text"] and seen["searched"]["rows"] == 1
        assert seen["sorted"]["rows"] > 10
        assert seen["keyed"]["hash"].startswith("#ref=") and seen["keyed"]["chosen"] == 1
        picked, opened = seen["groupsArrowDown"], seen["groupsEnter"]
        assert (picked["selected"], picked["chosen"]) == ("Bytes", 1)
        assert opened["selected"] == "Refs (2,009)" and "&ref=" in opened["hash"] and opened["chosen"] == 1
    assert orders == [
        "ref run-11 run-10 run-9", "ref run-9 run-10 run-11",
        "set run-10 run-9 run-11", "set run-11 run-9 run-10",
        "bytes run-11 run-9 run-10", "bytes run-10 run-9 run-11",
        "versions run-10 run-9 run-11", "versions run-10 run-9 run-11",
        "what run-10 run-9 run-11", "what run-10 run-9 run-11",
        "note run-9 run-10 run-11", "note run-11 run-10 run-9",
    ]  # fmt: skip
    assert steps == [0, True], "keys go on in the list, and back leads out of it"
    assert "models\n102 B" in told["order"]["map"]["text"]
    assert (
        "models itself\n70 B" in told["order"]["within"]["text"] and "3 others\n12 B" in told["order"]["within"]["text"]
    )
    assert "There are no refs." in told["empty"]["first"]["text"] and told["empty"]["first"]["rows"] == 0
    assert "F/3" in told["tasks"]["first"]["text"] and told["tasks"]["first"]["selected"] == "Runs"
