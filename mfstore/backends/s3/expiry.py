"""When a lifecycle rule will take an object, from what the service says with each answer. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from mfstore.backends.base import needs_refresh

EXPIRY = re.compile(r'expiry-date="([^"]+)"')


def near_its_end(headers: Mapping[str, str], expire_days: float | None) -> bool:
    """Whether an object that a save relies on has to be made young again: a lifecycle rule will take it
    (``x-amz-expiration``), or what is older than ``expire_days`` is taken, before what is saved now."""
    modified = _time(headers.get("last-modified"))
    if modified is None:
        return False
    said = EXPIRY.search(headers.get("x-amz-expiration", ""))
    expires = _time(said[1]) if said else None
    life = expires - modified if expires is not None else None
    if expire_days is not None:
        life = min(life or float("inf"), expire_days * 86400)
    # The service's clock against the service's clock.
    now = _time(headers.get("date"))
    return life is not None and needs_refresh((time.time() if now is None else now) - modified, life)


def _time(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, TypeError):
        return None
