"""What is logged, where somebody listens."""

from __future__ import annotations

import sys

INFO, DEBUG = 20, 10
"""As of ``logging``."""


def log(level: int, room: str, message: str, *values: object) -> None:
    """Log as ``mfstore.<room>``. Nobody listens in a process that has not imported ``logging``, and none imports it for
    this."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger(f"mfstore.{room}").log(level, message, *values)
