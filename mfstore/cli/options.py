"""The options that commands share, and where a command works: a store, or a datastore root of Metaflow."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from typing import Any

import click

from mfstore.durations import UNITS

COMPLETED = 1000
"""Refs that a shell is offered: one page of a listing."""


class _Duration(click.ParamType):  # type: ignore[type-arg]
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value))
        if found is None or (found[2] and found[2] not in UNITS):
            self.fail(f"{value!r} is no duration. Write 30d, 24h, 90min or 5s", param, ctx)
        # Nothing is nothing in any unit. Whoever means 90 days and gets 90 seconds loses what he wanted to keep.
        if not found[2] and float(found[1]):
            self.fail(f"{value!r} of what? Write {found[1]}d, {found[1]}h, {found[1]}min or {found[1]}s", param, ctx)
        return float(found[1]) * UNITS[found[2] or "s"]


DURATION = _Duration()


def complete_ref(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The refs that a shell offers for a name that begins so; none where the store cannot be asked."""
    from mfstore.errors import MfstoreError
    from mfstore.opening import open_store

    url = context.params.get("url") or os.environ.get("MFSTORE_STORE")
    with suppress(MfstoreError, OSError):
        if url:
            with open_store(url, create=False) as store:
                return store.refs.list(begun)[:COMPLETED]
    return []


class _Note(click.ParamType):  # type: ignore[type-arg]
    name = "FIELD=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, given, text = str(value).partition("=")
        if not name or not given:
            self.fail(f"{value!r} is no note. Write FIELD=VALUE, such as auc=0.93 or team=risk", param, ctx)
        try:
            return name, json.loads(text)
        except ValueError:
            return name, text  # a word needs no quotes


NOTE = _Note()

store_option = click.option(
    "-s", "--store", "url", envvar="MFSTORE_STORE", show_envvar=True, required=True, metavar="URL",
    help="Path or URL of the store.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
where_option = click.option(
    "-s", "--store", "url", envvar="MFSTORE_STORE", metavar="URL", help="Path or URL of the store. [env: MFSTORE_STORE]"
)
metaflow_option = click.option(
    "--metaflow",
    metavar="ROOT",
    help="Instead of a store, a datastore root of stock Metaflow: the directory or s3:// prefix the flows lie in.",
)


def one_place(url: str | None, metaflow: str | None) -> str:
    """What a command works on: the store's URL, or the root with ``--metaflow``. Wrong usage when both are given as
    options; a store that the environment names gives way."""
    if metaflow is None:
        return given(url)
    if click.get_current_context().get_parameter_source("url") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("-s / --store and --metaflow name two places: give one of them")
    return metaflow


def given(url: str | None) -> str:
    """The store's URL, or wrong usage."""
    if url is None:
        raise click.UsageError("Missing option '-s' / '--store' (env var: 'MFSTORE_STORE'), or '--metaflow'.")
    return url
