"""Which engine moves the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane
    from mfstore.s3.engines.interface import Engine


def choose(name: str, control: ControlPlane, max_bandwidth: float | None = None) -> Engine:
    """The engine called ``name``; "auto" is native. It moves at most ``max_bandwidth`` bytes per second. Unsupported
    for a configuration that it cannot serve."""
    if name == "aiobotocore":
        from mfstore.s3.engines.aiobotocore import AioEngine

        return AioEngine(control, max_bandwidth)
    from mfstore.s3.engines.native import NativeEngine

    return NativeEngine(control, control.transport(), max_bandwidth)
