"""The report's page in a browser: wide and narrow, light and dark, where Chromium is installed."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from html import escape, unescape

import pytest

from mfstore.bench.html import page
from mfstore.bench.results import Results
from mfstore.bench.verdict import Verdict
from tests.bench.test_report import CEILINGS, cell

MEASURE = """
const told = [...document.querySelectorAll("iframe")].map(frame => {
  const page = frame.contentDocument, colour = (element, name) => getComputedStyle(element)[name];
  return {
    width: page.documentElement.clientWidth, needed: page.documentElement.scrollWidth,
    texts: [...page.querySelectorAll("svg text")].map(text => [colour(text, "fill"),
      text.getBoundingClientRect().height]),
    lines: [...page.querySelectorAll("svg path")].map(path => colour(path, "stroke")),
    ink: colour(page.body, "color"), paper: colour(page.body, "backgroundColor"),
  };
});
document.body.textContent = "told " + JSON.stringify(told) + " end";
"""


def luminance(colour):
    """Of WCAG 2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no Chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_is_readable(tmp_path, dark):
    url = "s3://a-bucket-with-a-long-name/" + "and-a-prefix-that-nobody-would-break/" * 3
    cells = [
        cell(operation, size=size, concurrency=at, verdict=Verdict("latency", "because " + "x" * 90, "do " + url))
        for operation in ("put", "get")
        for size in (4096, 1 << 20)
        for at in (1, 16)
    ]
    run = {
        "url": url,
        "kind": "s3",
        "version": "1",
        "python": "3",
        "cpus": 4,
        "system": "x",
        "started": "now",
        "seed": 0,
    }
    plan = {
        "requests_fewest": {},
        "requests_most": {},
        "bytes_sent": 1,
        "bytes_received": 1,
        "bytes_stored": 1,
        "cost": None,
    }
    html = page(Results(run, plan, asdict(CEILINGS), cells).to_dict())
    frames = "".join(f'<iframe width={width} height=900 srcdoc="{escape(html)}"></iframe>' for width in (420, 1200))
    whole = tmp_path / "page.html"
    whole.write_text(f"<meta charset=utf-8>{frames}<script>onload = () => {{{MEASURE}}}</script>")
    scheme = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run(
        [
            shutil.which("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'browser'}", *scheme, "--dump-dom", whole.as_uri(),
        ],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    narrow, wide = json.loads(unescape(re.search(r"told (.*) end", done.stdout.decode())[1]))
    assert narrow["width"] <= 420 < wide["width"]
    for told in (narrow, wide):
        assert told["needed"] <= told["width"], "something is wider than the page"
        assert (luminance(told["paper"]) < 0.05) is dark and contrast(told["ink"], told["paper"]) > 7
        assert len(told["texts"]) > 30
        assert min(contrast(colour, told["paper"]) for colour, _ in told["texts"]) > 7
        assert min(height for _, height in told["texts"]) >= 8
        lines = {colour for colour in told["lines"] if colour != "none"}
        seen = [colour for colour in lines if contrast(colour, told["paper"]) >= 3]
        assert len(seen) >= 5, "lines of the plots, the axes, and more"
