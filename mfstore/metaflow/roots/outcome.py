"""Whether a task ended well, by its ``data.json`` alone: the keys of True and False are known, no artifact is read."""

from __future__ import annotations

import hashlib
import json
import pickle
from typing import TYPE_CHECKING, Any

from mfstore.errors import CorruptObject
from mfstore.metaflow.roots.packed_keys import inline_key

if TYPE_CHECKING:
    from typing_extensions import Buffer

END_STEP = "end"
"""The last step of a flow, unless that has another name (``@step(end=True)``) or is the only one."""
TRANSITION = "_transition"
"""The artifact that tells which steps come next; None of a last one. One that failed has None, too."""
SUCCESS = "_success"
"""The artifact that Metaflow's client takes for whether a task, and with its last one a run, was successful."""
PROTOCOLS = range(2, 6)
"""Of pickle: Metaflow has written 2 and 4, the packed profile writes what it is told."""


def _keys(value: bool | None) -> frozenset[str]:
    pickles = [pickle.dumps(value, protocol) for protocol in PROTOCOLS]
    stock = [hashlib.sha1(pickled, usedforsecurity=False).hexdigest() for pickled in pickles]
    return frozenset((*stock, *map(inline_key, pickles)))


TRUE_KEYS = _keys(True)
"""Of both profiles."""
FALSE_KEYS = _keys(False)
NONE_KEYS = _keys(None)


def ended_well(data: Buffer) -> bool | None:
    """What ``data.json`` of a task says of its success; None where that cannot be told without reading an artifact.
    CorruptObject when it is not what Metaflow writes."""
    key = _key(data, SUCCESS)
    return True if key in TRUE_KEYS else False if key in FALSE_KEYS else None


def leads_nowhere(data: Buffer) -> bool:
    """Whether ``data.json`` of a task says that no step comes after it: it is of the last step of its flow, or failed.
    CorruptObject when it is not what Metaflow writes."""
    return _key(data, TRANSITION) in NONE_KEYS


def _key(data: Buffer, name: str) -> object:
    try:
        document: Any = json.loads(bytes(data))
        key = document["objects"].get(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorruptObject("data.json is not what Metaflow writes") from None
    return key if isinstance(key, str) else None
