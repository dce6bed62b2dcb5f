"""The options of ``mfstore gc`` that say what is kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from mfstore.cli.command import SectionOption
from mfstore.cli.options import DURATION
from mfstore.maintenance.metaflow.collecting.policy import GROUPS, RunPolicy
from mfstore.maintenance.periods import NOUNS
from mfstore.maintenance.store.collecting.retention import Retention

KEPT = "What is kept"
OF_METAFLOW = "Of roots of Metaflow (--metaflow)"
OF_STORES = "Of stores"
HISTORY = "What was done, and taking it back"


class _Share(click.ParamType):  # type: ignore[type-arg]
    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        number = str(value).strip()
        try:
            found = float(number.removesuffix("%")) / 100
        except ValueError:
            found = -1.0
        if not number.endswith("%") or not 0 <= found <= 1:
            self.fail(f"{value!r} is no share. Write 30%", param, ctx)
        return found


@dataclass(frozen=True, slots=True)
class Keeping:
    """What the options say is to be kept."""

    keep_last: int | None
    keep_last_successful: int | None
    keep_hourly: int | None
    keep_daily: int | None
    keep_weekly: int | None
    keep_monthly: int | None
    keep_yearly: int | None
    keep_age: float | None
    max_drop: float | None
    pinned: tuple[str, ...]
    tags: tuple[str, ...]
    flows: tuple[str, ...]
    group_by: str | None
    deployed: bool
    ttl: bool
    running: float
    series: tuple[str, ...]

    def run_policy(self, pinned: tuple[str, ...], grace: float) -> RunPolicy:
        """As it is for runs; ``pinned``: what else is. Wrong usage for what only stores have."""
        if self.series:
            raise click.UsageError("--series is for stores; of --metaflow the runs of a flow are a series")
        grouping = {} if self.group_by is None else {"group_by": tuple(filter(None, self.group_by.split(",")))}
        policy = RunPolicy(
            last=self.keep_last, age=self.keep_age, tags=self.tags, pinned=(*self.pinned, *pinned), flows=self.flows,
            grace=grace, running=self.running, last_successful=self.keep_last_successful, hourly=self.keep_hourly,
            daily=self.keep_daily, weekly=self.keep_weekly, monthly=self.keep_monthly, yearly=self.keep_yearly,
            deployed=self.deployed, ttl=self.ttl, max_drop=self.max_drop, **grouping,
        )  # fmt: skip
        policy.check()
        return policy

    def retention(self) -> Retention:
        """As it is for values of refs. Wrong usage for what only runs have."""
        only = {
            "--tag": self.tags, "--flow": self.flows, "--keep-last-successful": self.keep_last_successful,
            "--group-by": self.group_by, "--no-keep-deployed": not self.deployed, "--no-ttl": not self.ttl,
        }  # fmt: skip
        given = [name for name, value in only.items() if value]
        if given:
            raise click.UsageError(f"{', '.join(given)}: only for --metaflow")
        return Retention(
            self.keep_last, self.keep_age, self.pinned, self.series, self.keep_hourly, self.keep_daily,
            self.keep_weekly, self.keep_monthly, self.keep_yearly,
        )  # fmt: skip


def _option(section: str, *names: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=SectionOption, section=section, **more)


def grace_option(text: str) -> Callable[[Any], Any]:
    """--grace, with this help; as the others below."""
    return click.option("--grace", type=DURATION, default="24h", show_default=True, metavar="TIME", help=text)


def pace_option(text: str) -> Callable[[Any], Any]:
    """--max-deletes-per-second, given as ``deletes_per_second``."""
    return click.option(
        "--max-deletes-per-second", "deletes_per_second", type=click.FloatRange(min=0), metavar="N", help=text
    )


def metadata_option(text: str) -> Callable[[Any], Any]:
    """--metadata."""
    return _option(OF_METAFLOW, "--metadata", metavar="SOURCE", help=text)


def inventory_option(text: str) -> Callable[[Any], Any]:
    """--inventory."""
    return _option(OF_METAFLOW, "--inventory", metavar="URL", help=text)


def trust_option(text: str) -> Callable[[Any], Any]:
    """--trust-known."""
    return _option(OF_METAFLOW, "--trust-known", is_flag=True, help=text)


def wait_option(text: str) -> Callable[[Any], Any]:
    """--wait."""
    return _option(OF_METAFLOW, "--wait", type=DURATION, default="10m", show_default=True, metavar="TIME", help=text)


_COUNT = click.IntRange(min=1)
_OPTIONS = (
    click.option(
        "--max-drop", type=_Share(), metavar="SHARE",
        help="Refuse to condemn more than this share of the keys, or runs, at once (30%).",
    ),
    _option(
        KEPT, "--keep-last", type=_COUNT, metavar="N",
        help="The newest N values of each ref. Runs: the newest of each flow and branch, down to the N-th that did not "
        "fail.",
    ),
    *(
        _option(
            KEPT, f"--keep-{kind}", type=_COUNT, metavar="N",
            help="The last value, or run that did not fail, of each of the latest N hours (UTC) that have one."
            if kind == "hourly"
            else f"The same of {noun}s.",
        )
        for kind, noun in NOUNS.items()
    ),
    _option(
        KEPT, "--keep-age", type=DURATION, metavar="TIME",
        help="Values that were current, unnamed keys that were stored, and runs that began within this time (90d).",
    ),
    _option(
        KEPT, "--pin", "pinned", multiple=True, metavar="PATTERN",
        help="These refs with all their history, or these runs (Flow/run).",
    ),
    _option(
        OF_STORES, "--series", multiple=True, metavar="PATTERN",
        help="Refs that belong together, as runs/*: those that none of the above keeps are removed.",
    ),
    _option(
        OF_METAFLOW, "--keep-last-successful", type=_COUNT, metavar="N",
        help="The newest N runs that did not fail, of each flow and branch, and none between them.",
    ),
    _option(OF_METAFLOW, "--tag", "tags", multiple=True, metavar="PATTERN", help="Keep runs with such a tag."),
    _option(
        OF_METAFLOW, "--flow", "flows", multiple=True, metavar="PATTERN", help="Only runs of such flows may go."
    ),
    _option(
        OF_METAFLOW, "--group-by", metavar="NAMES",
        help=f"Of what runs the above is counted: some of {', '.join(GROUPS)}.  [default: flow,branch]",
    ),
    _option(
        OF_METAFLOW, "--keep-deployed/--no-keep-deployed", "deployed", default=True,
        help="Keep the last run of each deployment that did not fail.  [default: keep-deployed]",
    ),
    _option(
        OF_METAFLOW, "--ttl/--no-ttl", default=True,
        help="Runs go once the time that their tag ttl:30d says is over, whatever else keeps them but a pin, a tag or "
        "a hold.  [default: ttl]",
    ),
    _option(
        OF_METAFLOW, "--running", type=DURATION, default="7d", show_default=True, metavar="TIME",
        help="An attempt without a heartbeat that did not end is taken to be running for as long as its step takes, "
        "for an hour at least, and never longer than this.",
    ),
)  # fmt: skip


def keeping_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what is kept: the command is given them as ``keeping``."""

    @functools.wraps(command)
    def with_keeping(**given: Any) -> None:
        names = Keeping.__dataclass_fields__
        command(keeping=Keeping(**{name: given.pop(name) for name in names}), **given)

    for option in reversed(_OPTIONS):
        with_keeping = option(with_keeping)
    return with_keeping
