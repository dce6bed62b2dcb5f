"""What an access token says of whose it is, and of how long it counts: its claims, never the token. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from mfstore.display.amounts import duration

WHO = ("upn", "unique_name", "preferred_username", "email", "app_displayname", "appid", "azp", "oid", "sub")
"""Claims that name somebody, the best for people first."""


def claims(token: str) -> Mapping[str, Any]:
    """The claims of a token that is a JWT; nothing of any other. Its signature is the service's to check."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return found if isinstance(found, dict) else {}


def whose(said: Mapping[str, Any]) -> str:
    """Whose a token is, in words."""
    who = next((str(said[name]) for name in WHO if said.get(name)), "somebody that the token does not name")
    identity = str(said.get("xms_mirid") or "").rpartition("/")[2]
    kind = f"managed identity {identity}" if identity else "application" if said.get("idtyp") == "app" else ""
    more = [kind]
    if said.get("oid") not in (None, who):
        more.append(f"object {said['oid']}")
    if said.get("tid"):
        more.append(f"tenant {said['tid']}")
    told = ", ".join(filter(None, more))
    return f"{who} ({told})" if told else who


def until(end: float | None, now: float) -> str:
    """How long it counts, in words."""
    if end is None or end == float("inf"):
        return ""
    return f", for {duration(end - now)} more" if end > now else ", which has ended"
