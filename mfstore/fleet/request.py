"""What a fleet is asked to do: a value that goes to its machines as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from mfstore.errors import InvalidKey
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.report import Level

Action = Literal["gc", "verify", "du", "bench"]
SHARDS = 16
"""Parts of the work, where nothing else is said: each is a task of its own, which takes a scheduler half a minute to
begin."""
MOST_SHARDS = 256
"""A store is cut by the first two digits of its names."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to do, and where."""

    action: Action
    url: str
    """Of the store or the root."""
    is_root: bool
    """Whether it is a datastore root of Metaflow."""
    shards: int = SHARDS
    """Parts of the work, at most."""
    execute: bool = False
    """Of ``gc``: whether it is carried out."""
    policy: RunPolicy | None = None
    """Of ``gc``: what is kept."""
    metadata: str = "local"
    """Of ``gc``: where records of runs are read."""
    inventory: str | None = None
    """Of ``gc`` and ``du`` of a root: the URL of an S3 Inventory in place of a listing."""
    trust_known: bool = False
    yes_really: bool = False
    deletes_per_second: float | None = None
    wait: float = 0.0
    """Of ``gc``: as of ``collect_metaflow``."""
    level: Level = "headers"
    """Of ``verify``: how closely to look."""
    reached: Mapping[str, Any] = field(default_factory=dict)
    """How S3 is reached and what is written encrypted: arguments of ``mfstore.open`` and ``Root``."""

    measurement: str = ""
    """Of ``bench``: what each of the parts is to measure, as ``mfstore.bench.clients`` writes it."""

    def check(self) -> None:
        """InvalidKey for what no fleet can do."""
        if not 1 <= self.shards <= MOST_SHARDS:
            raise InvalidKey("so many parts are not made", found=self.shards, expected=f"1 to {MOST_SHARDS}")
        if self.action != "gc":
            return
        if not self.is_root or self.policy is None:
            raise InvalidKey("a fleet collects roots of Metaflow", hint="A store is collected by mfstore gc -s")
        self.policy.check()
        if "flow" not in self.policy.group_by:
            raise InvalidKey(
                "the runs of a group may be of several flows, and a fleet plans each flow alone",
                found=",".join(self.policy.group_by), hint="Group by flow as well, or collect with mfstore gc",
            )  # fmt: skip


def encode(request: Request) -> str:
    """As JSON."""
    return json.dumps(asdict(request))


def decode(text: str) -> Request:
    """What was encoded. InvalidKey when it is no request, or of another version."""
    try:
        document: dict[str, Any] = json.loads(text)
        policy = document.pop("policy", None)
        if policy is not None:
            policy = RunPolicy(**{name: _tuple(value) for name, value in policy.items()})
        unknown = document.keys() - {one.name for one in fields(Request)}
        if unknown:
            raise InvalidKey("a request of another version of mfstore", found=", ".join(sorted(unknown)))
        return Request(**document, policy=policy)
    except (ValueError, TypeError, AttributeError):
        raise InvalidKey(
            "not a request to a fleet", found=f"{text!r:.80}", hint="Begin it with mfstore fleet"
        ) from None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
