"""``--metrics-file`` of long commands: how the last run went, for Prometheus, through node_exporter's textfile
collector."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from mfstore.cli.exits import DONE, FAILED, INTERRUPTED, name_of
from mfstore.display.prometheus import Family, gauge, labelled, text_of
from mfstore.errors import BackendError
from mfstore.metrics import writable_target, write_families

Callback = TypeVar("Callback", bound=Callable[..., Any])
_KEY = "mfstore.measured"
LAST_SUCCESS = "mfstore_command_last_success_timestamp_seconds"
_WORST = 1 << 16
"""Bytes of an earlier file that are looked through."""


def metrics_option(callback: Callback) -> Callback:
    """--metrics-file. The command says what it did with ``measured``."""

    @click.option(
        "--metrics-file", "metrics_file", type=click.Path(dir_okay=False, path_type=Path), metavar="PATH",
        help="Write how this run went into PATH, for Prometheus (node_exporter reads *.prom of a directory).",
    )  # fmt: skip
    @wraps(callback)
    def run(*args: Any, metrics_file: Path | None, **more: Any) -> Any:
        if metrics_file is None:
            return callback(*args, **more)
        if not metrics_file.absolute().parent.is_dir():
            raise click.UsageError(f"--metrics-file: there is no directory {metrics_file.absolute().parent}")
        try:
            writable_target(metrics_file)
        except OSError as error:
            raise click.UsageError(f"--metrics-file: {error}") from None
        began, code = time.time(), FAILED
        context = click.get_current_context()
        context.meta[_KEY] = []
        labels = {"command": name_of(context), "place": str(more.get("metaflow") or more.get("url") or "")}
        try:
            found = callback(*args, **more)
            code = DONE
        except BaseException as error:
            code = _code_of(error)
            if code != DONE:
                with suppress(OSError):  # what went wrong first is told
                    _write(metrics_file, labels, began, code, context.meta[_KEY])
                raise
            found = None
        try:
            _write(metrics_file, labels, began, code, context.meta[_KEY])
        except OSError as error:
            raise BackendError(f"done, but --metrics-file cannot be written: {error}") from error
        return found

    return run  # type: ignore[return-value]


def measured(
    *, objects: Mapping[str, int] | None = None, sizes: Mapping[str, int] | None = None,
    times: Mapping[str, float | None] | None = None,
) -> None:  # fmt: skip
    """Say what the command did or found: numbers of things, bytes, and times in seconds since the epoch, each by a word
    for what it is of. Nothing where nobody asked for it."""
    noted: list[Family] | None = click.get_current_context().meta.get(_KEY)
    if noted is not None:
        noted += _families(objects or {}, sizes or {}, times or {})


def _families(objects: Mapping[str, int], sizes: Mapping[str, int], times: Mapping[str, float | None]) -> list[Family]:
    found = []
    for name, told, values in (
        ("mfstore_command_objects", "Things that the last run found or dealt with.", objects),
        ("mfstore_command_bytes", "Bytes that the last run found or dealt with.", sizes),
        ("mfstore_command_timestamp_seconds", "Times that the last run found.", times),
    ):
        samples = [({"what": what}, float(value)) for what, value in values.items() if value is not None]
        if samples:
            found.append(Family(name, "gauge", told, samples))
    return found


def _code_of(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else DONE if error.code is None else FAILED
    if isinstance(error, click.ClickException):
        return error.exit_code
    return INTERRUPTED if isinstance(error, click.exceptions.Abort | KeyboardInterrupt) else FAILED


def _write(path: Path, labels: Mapping[str, str], began: float, code: int, noted: list[Family]) -> None:
    now = time.time()
    families = [
        gauge("mfstore_command_exit_code", "Exit code of the last run: 0 all is well, 3 damage.", code),
        gauge("mfstore_command_last_run_timestamp_seconds", "When the last run ended.", now),
        gauge("mfstore_command_duration_seconds", "How long the last run took.", now - began),
        *noted,
    ]  # fmt: skip
    success = now if code == DONE else last_success(path, labels)
    if success is not None:
        families.append(gauge(LAST_SUCCESS, "When a run last ended with exit code 0.", success))
    write_families(path, labelled(families, labels))


def last_success(path: Path, labels: Mapping[str, str]) -> float | None:
    """What an earlier run of the same command and place wrote down; None where none was successful."""
    try:
        with open(path, "rb") as file:
            text = file.read(_WORST).decode("utf-8", "replace")
    except OSError:
        return None
    (sample,) = labelled([gauge(LAST_SUCCESS, "", 0)], labels)
    begins = text_of([sample]).splitlines()[-1].removesuffix("0")
    found = next((line.removeprefix(begins) for line in text.splitlines() if line.startswith(begins)), None)
    try:
        return float(found) if found else None
    except ValueError:
        return None
