"""What decides about one run of a Metaflow root, and what its id and its tags tell. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mfstore.durations import TTL, seconds
from mfstore.errors import InvalidKey
from mfstore.maintenance.metaflow.collecting.records import RunState, Source

COUNTED: tuple[RunState, ...] = ("successful", "unknown")
"""The states of runs that count towards how many a policy keeps."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What decides about one run."""

    flow: str
    run: str
    began: float
    """Seconds since the epoch."""
    touched: float
    """When its youngest file was written."""
    running: bool
    tags: frozenset[str] | None = None
    """Those of users and those of the system. None when nothing tells them."""
    held: str = ""
    """Why it stays whatever the policy says; nothing: it need not."""
    heartbeat: float | None = None
    """The last sign of life that Metaflow's metadata tells; None: it tells none."""
    tasks: int = 0
    files: int = 0
    size: int = 0
    """Bytes of its own files: what tasks wrote besides blobs, local metadata and cards."""
    cards: int = 0
    """How many of these are cards."""
    cards_size: int = 0
    ended: float | None = None
    """None: it has not, or nothing tells when."""
    state: RunState = "unknown"
    user: str = ""
    """Who began it; empty: nothing tells."""
    branch: str = ""
    """That of ``@project``: ``prod``, ``test.new``, ``user.ann``; empty: of none, or nothing tells."""
    deployment: str = ""
    """Which deployment of its origin it ran; empty: nothing tells one from another."""
    expires: float | None = None
    """Until when it is meant to stay, by its tag ``ttl:30d``. None: it does not say."""
    unclear: str = ""
    """The tag that says so and cannot be understood."""
    recorded: Source = "files"
    """Which source of metadata knows it; ``files``: none."""

    @property
    def name(self) -> str:
        """As Metaflow writes it."""
        return f"{self.flow}/{self.run}"

    @property
    def origin(self) -> str:
        """What started it: ``argo``, ``sfn`` and the like; empty: somebody at a terminal."""
        return origin(self.run)

    @property
    def counts(self) -> bool:
        """Whether it is one of the runs that a policy counts: it is over, and has not failed as far as is known."""
        return not self.running and self.state in COUNTED

    def expired(self, now: float) -> bool:
        """Whether the time that it was meant to stay is over."""
        return self.expires is not None and self.expires <= now


def origin(run: str) -> str:
    """What started a run, by its id: ``argo`` and ``sfn`` and the like, or nothing for one from a terminal."""
    prefix, dash, _ = run.partition("-")
    return prefix if dash and not prefix.isdigit() else ""


def deployment(run: str, tags: Collection[str]) -> str:
    """Which deployment started a run: the template that an id of Argo Workflows names, or the production token that its
    tags tell. Nothing where neither tells."""
    if origin(run) == "argo":
        template, dash, _ = run.removeprefix("argo-").rpartition("-")
        return template if dash else ""
    return _value("production", tags)


def branch(flow: str, run: str, tags: Collection[str] | None) -> str:
    """The branch of ``@project``, by tags. Where these are not known, by the template that an id of Argo Workflows
    names, which is ``project.branch.flow`` in small letters."""
    if tags is not None:
        return _value("project_branch", tags)
    _, dot, rest = deployment(run, ()).partition(".")
    name, found, last = rest.rpartition(".")
    return name if dot and found and last == flow.replace("_", "").lower() else ""


def user(tags: Collection[str]) -> str:
    """Who began a run, by its tags."""
    return _value("user", tags)


def expiry(tags: Collection[str], began: float) -> tuple[float | None, str]:
    """Until when a run is meant to stay, and a tag about that which cannot be understood. The latest time of several
    tags; none at all if one of them is not understood."""
    times = []
    for tag in sorted(tags):
        if tag.startswith(f"{TTL}:"):
            try:
                times.append(began + seconds(tag.removeprefix(f"{TTL}:")))
            except InvalidKey:
                return None, tag
    return max(times, default=None), ""


def _value(name: str, tags: Collection[str]) -> str:
    """What follows ``name:`` in a tag."""
    return min((tag.partition(":")[2] for tag in tags if tag.startswith(f"{name}:")), default="")
