"""What the command line logs of the library, and how."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from mfstore.display.words import printable
from mfstore.errors import MfstoreWarning
from mfstore.progress import HIDDEN

LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
"""By how often -v was given."""
FORMATS = ("text", "json")


class _Json(logging.Formatter):
    """A document a line. Its fields: ``time`` (UTC), ``level``, ``logger``, ``message``, and with an exception
    ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """The document of one record."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        document = {
            "time": moment, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        if record.exc_info and record.exc_info[1] is not None:
            document["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        return json.dumps(document)


class _Text(logging.Formatter):
    """``mfstore: warning: …``, without what could move a terminal's cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        where = "" if record.name == "py.warnings" else f"{record.name.removeprefix('mfstore.')}: "
        level = f"{record.levelname.lower()}: " if record.levelno != logging.INFO else ""
        return printable(f"mfstore: {level}{where}{record.getMessage().strip()}")


@contextmanager
def _own_warnings_as_they_are() -> Iterator[None]:
    """Without the line of the program that they are of: here it is the command line's."""
    before = warnings.formatwarning

    def told(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:  # fmt: skip
        if issubclass(category, MfstoreWarning):
            return str(message)
        return before(message, category, filename, lineno, line)

    warnings.formatwarning = told
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def logging_as(verbose: int, quiet: bool, form: str) -> Iterator[None]:
    """Log what the library logs, and Python's warnings, on standard error: warnings; with ``verbose`` 1 what is tried
    again, and what was done, with 2 what was found out besides; with ``quiet`` errors alone, and no progress."""
    level = logging.ERROR if quiet else LEVELS[min(verbose, 2)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    loggers = [logging.getLogger(name) for name in ("mfstore", "py.warnings")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    hidden = HIDDEN.set(quiet)
    logging.captureWarnings(True)
    for logger in loggers:
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(level)
    try:
        with _own_warnings_as_they_are():
            yield
    finally:
        logging.captureWarnings(False)
        HIDDEN.reset(hidden)
        for logger, handlers, was, propagated in before:
            logger.handlers[:], logger.propagate = handlers, propagated
            logger.setLevel(was)
