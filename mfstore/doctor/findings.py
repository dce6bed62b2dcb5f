"""What was found, and how bad it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from mfstore.records import NamedTuple

State = Literal["fine", "doubtful", "broken"]


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    text: str
    state: State = "fine"
    """``doubtful``: it works, and may not be what was meant; ``broken``: what needs it fails."""
    hint: str = ""
    """What to do, where it is not fine."""


class Section(NamedTuple):
    """What belongs together."""

    title: str
    findings: tuple[Finding, ...]


def examined(title: str, *examinations: Callable[[], Iterable[Finding]]) -> Section:
    """What ``examinations`` find. One that fails is a finding as well: the others go on."""
    found: list[Finding] = []
    for examine in examinations:
        try:
            found.extend(examine())
        except Exception as error:
            what = getattr(examine, "__name__", "").replace("_", " ")
            found.append(Finding(what, f"could not be looked at: {type(error).__name__}: {error}", "broken"))
    return Section(title, tuple(found))


def of_state(sections: Sequence[Section], state: State) -> list[Finding]:
    """All that were found to be so."""
    return [finding for section in sections for finding in section.findings if finding.state == state]


def document(sections: Sequence[Section]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "broken": len(of_state(sections, "broken")),
        "doubtful": len(of_state(sections, "doubtful")),
        "sections": {
            section.title: [
                {"name": one.name, "text": one.text, "state": one.state, "hint": one.hint or None}
                for one in section.findings
            ]
            for section in sections
        },
    }
