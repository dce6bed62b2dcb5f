"""The page itself: one file of HTML with what it shows, what shows it, and nothing from elsewhere. Without I/O but for
the two files of this room that are put into it.

Names and notes come from whoever may write to a store. They stand in the page as JSON without any letter of markup, and
the program makes texts of them, never HTML. Should both fail, the policy lets nothing run but this one program, by its
digest, and lets nothing be asked for from anywhere.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files

from mfstore.display.amounts import exact_date, size
from mfstore.display.words import one_line, shortened
from mfstore.page.document import document
from mfstore.page.facts import Facts

LONGEST_TITLE = 200


def page(facts: Facts) -> str:
    """The whole file."""
    script, style = asset("page.js"), asset("page.css")
    title = _text(facts.title)
    amounts = "".join(
        f"<li>{_text(name)}: {size(number) if is_bytes else f'{number:,}'}</li>"
        for name, number, is_bytes in facts.amounts
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy(script, style)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="mfstore {_text(facts.version)}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p class="soft">{_text(facts.place)}, as of {_text(exact_date(facts.made))}</p></header>
<noscript><p>This page lists, sorts and searches by a program that it holds, and your browser runs none.</p>
<ul>{amounts}</ul></noscript>
<main id="page"></main>
<script type="application/json" id="data">{document(facts)}</script>
<script>{script}</script>
</body>
</html>
"""


def policy(script: str, style: str) -> str:
    """What a browser may run and load: these two."""
    return (
        f"default-src 'none'; script-src '{digest(script)}'; style-src '{digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    """As a Content-Security-Policy names what stands in an element."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


@cache
def asset(name: str) -> str:
    """A file of this room."""
    return files("mfstore.page").joinpath(name).read_text(encoding="utf-8")


def _text(text: str) -> str:
    return escape(one_line(shortened(text, LONGEST_TITLE)), quote=True)
