"""Which engine serves a configuration."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mfstore.errors import Unsupported

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane
    from mfstore.s3.engines.interface import Engine

log = logging.getLogger("mfstore.s3")


def choose(name: str, control: ControlPlane) -> Engine:
    """The engine called ``name``. "auto" is native, or aiobotocore with a warning that says what native cannot do.
    Unsupported when "native" cannot serve the configuration."""
    if name != "aiobotocore":
        reason = control.unsupported()
        if reason is None:
            from mfstore.s3.engines.native import NativeEngine

            return NativeEngine(control, control.transport())
        if name == "native":
            raise Unsupported(
                f"the native engine cannot serve this configuration: {reason}", hint='Use engine="aiobotocore"'
            )
        log.warning("using the aiobotocore engine, which is slower, because of %s", reason)
    from mfstore.s3.engines.aiobotocore import AioEngine

    return AioEngine(control)
