"""Control planes made of keyword arguments."""

from __future__ import annotations

from typing import Any

from mfstore.host.cache import HostCache
from mfstore.s3.aws.configuration_cache import CachedControlPlane
from mfstore.s3.aws.control import BotocoreControlPlane
from mfstore.s3.aws.settings import ConnectionSettings
from mfstore.s3.calls import Call, Reply


def control_plane(session: Any = None, **arguments: Any) -> BotocoreControlPlane:
    return BotocoreControlPlane(ConnectionSettings.given(session=session, **arguments))


def cached_control_plane(host: HostCache, **arguments: Any) -> CachedControlPlane:
    return CachedControlPlane(ConnectionSettings.given(**arguments), host)


def nobody(call: Call) -> Reply:
    """Asks no service: what is signed here takes no session."""
    raise AssertionError(call)
