"""What was found, and how bad it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from mfstore.errors import MfstoreError
from mfstore.records import NamedTuple

State = Literal["fine", "doubtful", "broken", "refused", "absent"]


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    text: str
    state: State = "fine"
    """``doubtful``: it works, and may not be what was meant; ``broken``: what needs it fails. Neither good nor bad by
    itself: ``refused``, whoever asks may not do or know it; ``absent``, the service does not have it."""
    hint: str = ""
    """What to do, where it is not fine."""
    fix: str = ""
    """A command, or JSON, that does it, to be copied; empty where there is none that can be written down."""
    facts: Mapping[str, Any] = {}
    """For programs: what the text says, by stable names."""


def failure(name: str, error: MfstoreError) -> Finding:
    """What fails by this error, with what it says to do."""
    return Finding(name, bare(error), "broken", error.hint or "")


def bare(error: MfstoreError) -> str:
    """An error without its hint, which has a line of its own."""
    return str(error).removesuffix(f". {error.hint}") if error.hint else str(error)


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
            function = getattr(examine, "func", examine)  # of a partial
            what = getattr(function, "__name__", "").strip("_").replace("_", " ")
            found.append(Finding(what, f"could not be looked at: {type(error).__name__}: {error}", "broken"))
    return Section(title, tuple(found))


def of_state(sections: Sequence[Section], state: State) -> list[Finding]:
    """All that were found to be so."""
    return [finding for section in sections for finding in section.findings if finding.state == state]


def _told(one: Finding) -> dict[str, Any]:
    told: dict[str, Any] = {"name": one.name, "text": one.text, "state": one.state}
    facts = {"facts": dict(one.facts)} if one.facts else {}
    return {**told, "hint": one.hint or None, "fix": one.fix or None, **facts}


def document(sections: Sequence[Section]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "broken": len(of_state(sections, "broken")),
        "doubtful": len(of_state(sections, "doubtful")),
        "sections": {section.title: [_told(one) for one in section.findings] for section in sections},
    }
