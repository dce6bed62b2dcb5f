"""The configuration file: TOML, read and checked. ``mfstore.settings`` says where it is, and imports this if there is
one."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from mfstore.errors import InvalidKey

PLACE = "place"
"""The table of tables: ``[place."s3://bucket/prefix"]``."""
CLOUDS = ("az", "abfss", "gs")
OF_S3 = (
    "region", "profile", "single_writer", "encryption", "kms_key", "bucket_key", "s3_engine", "s3_payload_signing",
)  # fmt: skip
"""Settings that no place in other ``CLOUDS`` has."""
OF_AZURE = "account"
WORDS = {int: "a whole number", bool: "true or false", str: "a text in quotes"}


def read(
    path: str, file: BinaryIO, everywhere: Mapping[str, Any], of_places: Mapping[str, Any], alone: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]:
    """What the open file says: at its top, and of places. It may say, by key and type, what holds ``everywhere``, in
    tables besides what is ``of_places``, and at the top what stands there ``alone``. InvalidKey, naming file and key,
    for what is not TOML, for keys that are none and for values of another type; whether a value is in range is seen
    where it is used."""
    try:
        document = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidKey(f"{path} is not TOML: {error}", hint="docs/cli.md shows one") from None
    places = document.pop(PLACE, {})
    knobs = _checked(path, "", document, {**everywhere, **alone}, of_places)
    found = {}
    for url, table in _table(path, PLACE, places).items():
        place = _named_place(path, url)
        if place in found:
            raise InvalidKey(f"{path}: {PLACE}.{url!r} is a place that another table names already", found=place)
        table = _table(path, f"{PLACE}.{url!r}", table)
        _check_service(path, url, table)
        found[place] = _checked(path, f"{PLACE}.{url!r}", table, {**everywhere, **of_places})
    return knobs, found


def place_of(url: str) -> str:
    """A place by one of its names: a directory by its whole path without links, a URL without a slash at its end."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme != "file":
        return url.rstrip("/")
    path = unquote(rest.removeprefix("localhost")) if separator else url
    # Resolved: a directory has as many paths as links lead there, and what is said of it holds by each.
    return os.path.realpath(os.path.expanduser(path)).rstrip("/")  # noqa: PTH111


def _named_place(path: str, url: str) -> str:
    """A place as a file names it: what is said of a place that is none would hold nowhere, without a word."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        if not Path(os.path.expanduser(url)).is_absolute():  # noqa: PTH111
            raise InvalidKey(
                f"{path}: {PLACE}.{url!r} is no place",
                hint="s3://bucket/prefix, az://container/prefix, gs://bucket/prefix, or a directory by its whole path",
            )
    elif scheme == "file" and not rest.removeprefix("localhost").startswith("/"):
        raise InvalidKey(f"{path}: {PLACE}.{url!r} is no place", hint="A file URL is file:///absolute/path")
    elif not scheme or scheme != scheme.lower() or not rest.strip("/"):
        raise InvalidKey(f"{path}: {PLACE}.{url!r} is no place", hint="A URL is s3://bucket/prefix")
    return place_of(url)


def _check_service(path: str, url: str, table: Mapping[str, Any]) -> None:
    """What a table says that is of another service than its place would not hold: nothing would be encrypted, and who
    wrote that would believe it."""
    scheme = url.partition("://")[0]
    for name in table:
        wanted = "S3" if name in OF_S3 else "Azure" if name == OF_AZURE and scheme == "gs" else None
        if wanted is not None and scheme in CLOUDS:
            raise InvalidKey(
                f"{path}: {name} in {PLACE}.{url!r} is no setting", hint=f"It is for places in {wanted}"
            )  # fmt: skip


def _checked(
    path: str, table: str, given: Mapping[str, Any], known: Mapping[str, Any], elsewhere: Collection[str] = ()
) -> Mapping[str, Any]:
    where = f" in {table}" if table else ""
    for name, value in given.items():
        if name not in known:
            close = get_close_matches(name, [*known, *elsewhere, PLACE], 1)
            hint = f"Did you mean {close[0]}?" if close else "docs/cli.md lists the keys"
            if name in elsewhere:
                hint = f"It belongs in a table [{PLACE}.…]"
            raise InvalidKey(f"{path}: {name}{where} is no setting", hint=hint)
        kinds = known[name] if isinstance(known[name], tuple) else (known[name],)
        if type(value) not in kinds:
            raise InvalidKey(
                f"{path}: {name}{where} is {' or '.join(WORDS[kind] for kind in kinds)}", found=repr(value)
            )
    return given


def _table(path: str, name: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise InvalidKey(f"{path}: {name} is a table", found=repr(given), hint='[place."s3://bucket/prefix"]')
    return given
