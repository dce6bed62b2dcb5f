"""HTML as a browser would take it: which elements there are, and what is read."""

from html.parser import HTMLParser

VOID = {"br", "meta", "img", "input", "link"}


class Page(HTMLParser):
    """Parsed markup. AssertionError when an element is not closed where it was opened."""

    def __init__(self, markup):
        super().__init__()
        self.elements, self.titles, self.texts, self._open = set(), [], [], []
        self.feed(markup)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.elements.add(tag)
        # Nothing else could be an address or a program.
        assert {name for name, _ in attributes} <= {"class", "title", "scope"}
        self.titles += [value for name, value in attributes if name == "title"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self):
        return "\n".join(self.texts)


ELEMENTS = {"div", "style", "table", "thead", "tbody", "tr", "th", "td", "code", "span", "b"}
"""All that a card is made of."""
EVIL = "<script>alert(1)</script>\"'&amp;\x1b[2J\u202e"
"""A name that would be a program, or steer what shows it."""


def harmless(shown):
    """The page and the text of a value, neither of which does anything but to show it."""
    page = Page(shown._repr_html_())
    assert page.elements <= ELEMENTS
    text = repr(shown)
    for told in (page.text, *page.titles, text):
        assert "\x1b" not in told and "\u202e" not in told
    assert len(text.splitlines()) <= 10
    return page, text
