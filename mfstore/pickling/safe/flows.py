"""Rules of Metaflow: what it keeps of a foreach among the artifacts of each task."""

from __future__ import annotations

from typing import Any

from mfstore.pickling.safe.plain import are
from mfstore.pickling.safe.rules import NO_STATE, Given, Rule, check, value_of, whole


def _frame(given: Given) -> Any:
    name = "metaflow.tuple_util.ForeachFrame"
    check(given.new and given.state is NO_STATE and not given.keywords and len(given.args) <= 8, name, "its parts")
    check(are((str, int, type(None)), given.args), name, "its parts")
    kind: Any = value_of("metaflow.tuple_util", "ForeachFrame")()
    return kind.__new__(kind, *given.args)


# Metaflow says that the class is of the program that runs.
RULES: dict[str, Rule] = dict.fromkeys(("metaflow.tuple_util.ForeachFrame", "__main__.ForeachFrame"), whole(_frame))
"""By name, with the module."""
