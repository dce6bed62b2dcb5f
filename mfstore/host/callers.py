"""Warnings that point at the line which called mfstore."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from mfstore.errors import MfstoreWarning

_PACKAGE = str(Path(__file__).parent.parent) + os.sep


def warn_caller(message: str) -> None:
    """Warn the program that called mfstore, at its own line. Python shows it once for each line."""
    warnings.warn(message, MfstoreWarning, _level())


def _level() -> int:
    """How many frames up, from the one that calls this, the first is that is not mfstore's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
