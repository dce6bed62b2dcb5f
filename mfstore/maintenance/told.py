"""What people are told of the maintenance of stores and of roots of Metaflow alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mfstore.display.amounts import count, date
from mfstore.display.cards import Card, Cell, Grid, code_cell
from mfstore.display.words import short_keys

if TYPE_CHECKING:
    from mfstore.maintenance.report import RepairAction

SHOWN = 20
"""Findings, actions and keys that are listed; ``--json`` and the report itself have all, in full."""
NAMES_SHOWN = 3
"""Of what a finding touches."""


class AnyFinding(Protocol):
    """A finding in a store, or in a root."""

    @property
    def kind(self) -> str:
        """A stable word."""

    @property
    def object(self) -> str:
        """Where it is, or should be."""

    @property
    def detail(self) -> str:
        """A sentence for people."""

    @property
    def harm(self) -> str:
        """``none`` when it is only strange."""


class Verified(Protocol):
    """A report about a store, or about a root."""

    @property
    def url(self) -> str:
        """Where it is."""

    @property
    def complete(self) -> bool:
        """False when the time allowed ended before everything chosen was read."""

    @property
    def remembered(self) -> bool:
        """False when what was read could not be noted there."""

    @property
    def clean(self) -> bool:
        """Whether there is no damage."""

    @property
    def damage(self) -> Sequence[object]:
        """The findings that something must be done about."""


class Repaired(Protocol):
    """What repair did to either, or would do."""

    @property
    def url(self) -> str:
        """Where it is."""

    @property
    def before(self) -> Verified:
        """What was found first."""

    @property
    def actions(self) -> Sequence[RepairAction]:
        """In the order of doing."""

    @property
    def after(self) -> Verified | None:
        """It verified again; None where nothing was done."""


def since(oldest: float | None, what: str) -> str:
    """From when on everything was read; nothing where something never was."""
    return "" if oldest is None else f"; every {what} was read since {date(oldest)}"


def touched(names: Sequence[str]) -> str:
    """The first of what a finding touches."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return short_keys(", ".join(names[:NAMES_SHOWN])) + more


def findings_grid(findings: Sequence[tuple[AnyFinding, Sequence[str]]]) -> Grid:
    """Findings, each with what it touches, as a table."""
    touching = any(names for _, names in findings[:SHOWN])
    rows: tuple[tuple[Cell | str, ...], ...] = tuple(
        (
            Cell(finding.kind, look="quiet" if finding.harm == "none" else "bad"),
            code_cell(short_keys(finding.object), finding.object),
            short_keys(finding.detail),
            *([code_cell(touched(names))] if touching else []),
        )
        for finding, names in findings[:SHOWN]
    )
    columns = ("what", "object", "why", *(["touches"] if touching else []))
    return Grid(columns, rows, more=len(findings) - len(rows))


def actions_grid(actions: Sequence[RepairAction], did: str) -> Grid:
    """What was done, or would be, as a table."""
    rows = tuple(
        (action.kind, code_cell(short_keys(action.object), action.object), short_keys(action.detail))
        for action in actions[:SHOWN]
    )
    return Grid((did, "object", "what"), rows, more=len(actions) - len(rows))


def did_nothing(clean: bool) -> str:
    """Why nothing was done."""
    return "nothing to repair" if clean else "nothing that repair can do"


def afterwards(report: Verified, lost: bool) -> str:
    """What is left once it was repaired; ``lost``: something is gone for good."""
    if not report.clean:
        return f"{count(len(report.damage), 'finding')} left"
    return "what is left is whole" if lost else "all is well"


def verified_card(
    report: Verified, found: str, stored: str, looked_at: str, touching: Sequence[tuple[AnyFinding, Sequence[str]]],
    go_on: str, notes: Sequence[str] = (),
) -> Card:  # fmt: skip
    """What verification found. ``touching``: the findings, each with what it touches; ``go_on``: the option that goes
    on where the time allowed ended; ``notes`` come before those that are of both kinds."""
    facts = (
        ("found", Cell(found, look="good" if report.clean else "bad")),
        ("stored", stored),
        ("looked at", looked_at),
    )
    told = [*notes]
    if not report.complete:
        told.append(f"The time allowed ended before everything was read: {go_on} goes on from there.")
    if not report.remembered:
        told.append("No right or no room to write there: what was read is not remembered.")
    return Card("verified", report.url, facts, (findings_grid(touching),) if touching else (), tuple(told))


def repaired_card(report: Repaired, found: str, stored: str, lost: bool, notes: Sequence[str] = ()) -> Card:
    """What was found, done and left; ``lost``: something is gone for good."""
    facts: list[tuple[str, Cell | str]] = [("found", found), ("stored", stored)]
    grids: tuple[Grid, ...] = ()
    if report.actions:
        grids = (actions_grid(report.actions, "did" if report.after is not None else "would do"),)
    else:
        facts.append(("done", did_nothing(report.before.clean)))
    if report.after is not None:
        look = "good" if report.after.clean else "bad"
        facts.append(("afterwards", Cell(afterwards(report.after, lost), look=look)))
    title = "repaired" if report.after is not None else "repair of"
    return Card(title, report.url, tuple(facts), grids, tuple(notes))
