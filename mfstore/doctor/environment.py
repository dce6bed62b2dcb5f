"""Settings from the environment, and the directories that this process writes to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping

from mfstore import settings
from mfstore.display.amounts import size
from mfstore.doctor.findings import Finding, failure
from mfstore.errors import MfstoreError

LITTLE = 1 << 30
"""Bytes below which a directory for temporary files is told to be small: a bundle of Metaflow may take more."""
OTHERS = frozenset(("MFSTORE_STORE", "MFSTORE_FLEET_REQUEST", "MFSTORE_CONFIG"))
"""What is no setting of ``mfstore.settings``."""
KNOWN = OTHERS | settings.VARIABLES.keys()


def variables(environment: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Each ``MFSTORE_…`` that is set; those that nothing reads are misspelt, most likely."""
    environment = os.environ if environment is None else environment
    for name in sorted(environment):
        if name.startswith("MFSTORE_"):
            if name in KNOWN:
                yield Finding(name, _bare(environment[name]))
            else:
                yield Finding(name, "is no setting of mfstore", "doubtful", "docs/store.md lists them")
    checks: tuple[Callable[[], object], ...] = (
        settings.resolve, settings.resolve_s3, settings.payload_signing, settings.resolve_encryption,
    )  # fmt: skip
    for check in checks:
        try:
            check()
        except MfstoreError as error:
            yield Finding("settings", str(error), "broken", "Set it to something else, or unset it")


def configuration() -> Iterator[Finding]:
    """The configuration file, what it says, and what of that an environment variable says otherwise."""
    try:
        found = settings.configuration()
    except MfstoreError as error:
        yield failure("configuration", error)
        return
    if found.path is None:
        yield Finding(
            "configuration", "none: MFSTORE_CONFIG is empty" if os.environ.get("MFSTORE_CONFIG") == "" else "no file"
        )
        return
    yield Finding("configuration", found.path)
    for name, value in found.knobs.items():
        variable = f"MFSTORE_{name.upper()}"
        over = f", but {variable} counts before it" if variable in os.environ else ""
        yield Finding(f"  {name}", f"{_bare(str(value))}{over}")
    for place, table in found.places.items():
        said = ", ".join(f"{name} {_bare(str(value))}" for name, value in table.items())
        yield Finding(f"  {place}", said or "nothing")
        for check in (settings.resolve, settings.resolve_encryption):
            try:
                check(place=place)
            except MfstoreError as error:
                yield Finding(f"  {place}", str(error), "broken", "Change it there")


def _bare(text: str) -> str:
    """A URL without a password."""
    from mfstore.s3.aws.errors import without_passwords

    return without_passwords(text)


def temporary() -> Iterator[Finding]:
    """The directory for temporary files."""
    from mfstore.host.file_systems import file_system, on_network  # needs the core

    try:
        place = tempfile.gettempdir()
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"mfstore doctor")
            file.flush()
    except OSError as error:
        yield Finding("TMPDIR", f"nothing can be written: {error}", "broken", "Set TMPDIR to a directory with room")
        return
    free = shutil.disk_usage(place).free
    where = f"{place}, {file_system(place) or 'of an unknown type'}, {size(free)} free"
    if on_network(place):
        yield Finding("TMPDIR", where, "doubtful", "It lies on a network file system: a local disk is quicker")
    elif free < LITTLE:
        yield Finding("TMPDIR", where, "doubtful", "Set TMPDIR to a directory with more room")
    else:
        yield Finding("TMPDIR", where)


def cache() -> Iterator[Finding]:
    """Where this host keeps what it has read in S3."""
    from mfstore.host.cache import open_cache
    from mfstore.host.file_systems import on_network  # both need the core

    setting = settings.cache_directory()
    try:
        found = open_cache(setting, settings.resolve().cache_size if setting else 0)
    except MfstoreError as error:
        yield Finding("cache", str(error), "broken")
        return
    if found is None:
        if setting:
            hint = "It has to be a directory of your own, or one that can be made"
            yield Finding("cache", f"{setting} cannot be used: what is in S3 is read there each time", "doubtful", hint)
        else:
            without = "none, as MFSTORE_CACHE says" if setting == "" else "none: no directory is this user's alone"
            yield Finding("cache", without)
        return
    where = str(found.root)
    if found.ranges.limit:
        where += f", {size(found.ranges.usage().size)} of {size(found.ranges.limit)}"
    if not os.access(found.root, os.W_OK):
        yield Finding("cache", f"{where}: nothing can be kept there any more", "doubtful", f"chmod 700 {found.root}")
    elif setting and on_network(str(found.root)):
        hint = "Nothing is mapped from there: a local disk is quicker"
        yield Finding("cache", f"{where}, on a network file system", "doubtful", hint)
    else:
        yield Finding("cache", where)
