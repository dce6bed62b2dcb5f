"""The options that commands share, and where a command works: a store, or a datastore root of Metaflow."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import click

from mfstore.cli.command import SectionOption
from mfstore.durations import UNITS
from mfstore.settings import ENCRYPTIONS, default_store

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

    with suppress(MfstoreError, OSError):
        url = context.params.get("url") or default_store()
        if url:
            with open_store(url, create=False, **connection_of(context.params).options_for(url)) as store:
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

execute_option = click.option("--execute", is_flag=True, help="Do it. Without this nothing is changed.")
"""Every command that deletes or rewrites has it, and without it shows what it would do."""


def _required(context: click.Context, _parameter: click.Parameter, url: str | None) -> str | None:
    """A default that comes to nothing is no value, which not every version of click sees."""
    if not url and not context.resilient_parsing:
        raise click.UsageError("Missing option '-s' / '--store' (env var: 'MFSTORE_STORE').", context)
    return url


store_option = click.option(
    "-s", "--store", "url", default=default_store, callback=_required, metavar="URL",
    help="Path or URL of the store. [env: MFSTORE_STORE; file: store]",
)  # fmt: skip
cache_option = click.option(
    "--cache", metavar="DIR",
    help="Keep what is read in a cloud in this directory, and do not read it there again. [env: MFSTORE_CACHE]",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
where_option = click.option(
    "-s", "--store", "url", default=default_store, metavar="URL",
    help="Path or URL of the store. [env: MFSTORE_STORE; file: store]",
)  # fmt: skip
metaflow_option = click.option(
    "--metaflow",
    metavar="ROOT",
    help="Instead of a store, a datastore root of stock Metaflow: the directory or prefix (s3://, …) the flows lie in.",
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
    if not url:
        raise click.UsageError("Missing option '-s' / '--store' (env var: 'MFSTORE_STORE'), or '--metaflow'.")
    return url


REMOTE = "Of places in S3, Azure and Google Cloud"


class Connection(NamedTuple):
    """How a place in S3, Azure or Google Cloud is reached, and how what is written there is encrypted, as far as
    options say it."""

    endpoint_url: str | None = None
    region: str | None = None
    aws_profile: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    account: str | None = None

    def options_for(self, url: str) -> dict[str, Any]:
        """What was given, as arguments of ``mfstore.open``, ``BulkClient`` and ``Root`` for a place. Wrong usage for an
        option that the place has nothing of: a directory, or another service than the one that it is about."""
        named = _named(url)
        given = {name: value for name, value in self._asdict().items() if value is not None}
        if wrong := [name for name in given if name not in named]:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in wrong)
            where = " or ".join(dict.fromkeys(word for name in wrong for word in _OF[name]))
            raise click.UsageError(f"{options}: only for places in {where}, and this is {url}")
        return {named[name]: value for name, value in given.items()}

    def named(self) -> set[str]:
        """The names of what was given."""
        return {name for name, value in self._asdict().items() if value is not None}

    def part_for(self, url: str) -> Connection:
        """What of it a place has a use for, of several that a command opens."""
        named = _named(url)
        return Connection(**{name: value for name, value in self._asdict().items() if name in named})


_OF = {
    "endpoint_url": ("S3", "Azure", "Google Cloud"), "region": ("S3",), "aws_profile": ("S3",), "encryption": ("S3",),
    "kms_key": ("S3",), "account": ("Azure",),
}  # fmt: skip
"""Which services an option is about."""
_OF_S3 = {
    "endpoint_url": "endpoint_url", "region": "region_name", "aws_profile": "profile_name",
    "encryption": "encryption", "kms_key": "kms_key",
}  # fmt: skip
_OF_AZURE = {"endpoint_url": "endpoint_url", "account": "account_name"}
_ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "": {}, "file": {}, "memory": {}, "s3": _OF_S3, "az": _OF_AZURE, "abfss": _OF_AZURE,
    "gs": {"endpoint_url": "endpoint_url"},
}  # fmt: skip
"""By scheme (none: a path): the options that there are, and the arguments that they are."""


def _named(url: str) -> Mapping[str, str]:
    """The options that a place has, and the arguments that they are."""
    scheme, separator, _ = url.partition("://")
    # A scheme that is not among them is of a package that offers it.
    return _ARGUMENTS.get(scheme if separator else "", _OF_S3)


def one_service(url: str, other: str) -> bool:
    """Whether the same options, with the same meanings, are of both places."""
    return _named(url) is _named(other)


def connection_options(*, writes: bool = False, profile: bool = True) -> Callable[[Callable[..., Any]], Any]:
    """The options that say how a place in S3, Azure or Google Cloud is reached: every command that opens a place has
    them, and is given them as ``connection``. ``writes``: also how what it writes is encrypted. ``profile``: whether
    --profile is the one of AWS, and not something of the command's own; --aws-profile always is.
    """
    named = ("--profile", "--aws-profile") if profile else ("--aws-profile",)
    options = [
        _remote("--endpoint-url", metavar="URL", help="Where the service is; else found as its own tools find it."),
        _remote("--region", metavar="NAME", help="S3: the region; likewise."),
        _remote(*named, "aws_profile", metavar="NAME", help="S3: a profile of AWS's configuration; likewise."),
        _remote("--account", metavar="NAME", help="Azure: the storage account. [env: AZURE_STORAGE_ACCOUNT]"),
    ]
    if writes:
        options += [
            _remote(
                "--encryption", type=click.Choice(ENCRYPTIONS),
                help="S3: how what is written is encrypted; else as the bucket says.",
            ),
            _remote("--kms-key", metavar="ID", help="S3: the key of KMS it is encrypted with; alone it means aws:kms."),
        ]  # fmt: skip

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_connection(*args: Any, **given: Any) -> Any:
            connection = connection_of(given)
            named = {name: value for name, value in given.items() if name not in Connection._fields}
            return command(*args, connection=connection, **named)

        for option in reversed(options):
            with_connection = option(with_connection)
        return with_connection

    return decorated


def connection_of(given: dict[str, Any]) -> Connection:
    """What the parameters of a command say of it."""
    return Connection(**{name: given[name] for name in Connection._fields if name in given})


def _remote(*names: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=SectionOption, section=REMOTE, **more)
