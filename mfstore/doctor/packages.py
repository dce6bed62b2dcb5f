"""The libraries of Python that mfstore needs, or uses where they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from mfstore.doctor.findings import Finding
from mfstore.records import NamedTuple

DEVELOPMENT = frozenset(("bench", "demo", "docs", "test"))
"""Extras that no program needs."""
METAFLOWS = ("metaflow", "ob-metaflow")
"""Both bring the package metaflow: of who has one, the other is not asked for."""
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


class Wanted(NamedTuple):
    """A distribution that mfstore names."""

    name: str
    versions: str
    """Those that will do, as ``>=1.36``; empty: any."""
    extras: tuple[str, ...]
    """What it is for; none: mfstore needs it."""


def wanted(requirements: Sequence[str]) -> list[Wanted]:
    """What the metadata of mfstore names, each once, without what only its development needs."""
    found: dict[str, Wanted] = {}
    for text in requirements:
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            continue
        name, versions, marker = match[1], match[2].strip(), match[3] or ""
        extras = tuple(_EXTRA.findall(marker))
        if extras and set(extras) <= DEVELOPMENT:
            continue
        before = found.get(name)
        if before is not None:
            extras = () if not before.extras or not extras else tuple(dict.fromkeys((*before.extras, *extras)))
            versions = before.versions or versions
        found[name] = Wanted(name, versions, extras)
    return list(found.values())


def packages() -> Iterator[Finding]:
    """What is installed of these, and whether its version will do."""
    try:
        requirements = requires("mfstore") or ()
    except PackageNotFoundError:
        return  # ``program.program`` says so
    for one in wanted(requirements):
        have = installed(one.name)
        if have is None and one.name in METAFLOWS and (one.name != METAFLOWS[0] or any(map(installed, METAFLOWS))):
            continue
        yield judged(one, have, have is None or _fits(have, one.versions))


def installed(name: str) -> str | None:
    """The version of a distribution; None where it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def judged(one: Wanted, have: str | None, fits: bool) -> Finding:
    """What to think of one: missing is only what mfstore needs, or what an extra needs of which the rest is there."""
    use = f", for {', '.join(one.extras)}" if one.extras else ""
    if have is None:
        if not one.extras:
            return Finding(one.name, "not installed", "broken", f"pip install '{one.name}{one.versions}'")
        return Finding(one.name, f"not installed{use}: pip install 'mfstore[{one.extras[0]}]'")
    if not fits:
        return Finding(
            one.name, f"{have}{use}, where {one.versions} is needed", "doubtful" if one.extras else "broken",
            f"pip install '{one.name}{one.versions}'",
        )  # fmt: skip
    return Finding(one.name, have + use)


def _fits(have: str, versions: str) -> bool:
    """Whether a version is one of ``versions``; also where nothing is installed that could tell."""
    if not versions or find_spec("packaging") is None:
        return True
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(versions).contains(have, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return True
