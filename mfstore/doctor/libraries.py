"""The C libraries that the core is linked with."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import mfstore
from mfstore.doctor.findings import Finding, State

LINKED = ("codec", "memory", "transfer")
"""Extensions that tell what they are linked with; together all there is."""


def libraries() -> Iterator[Finding]:
    """Each library's version, and the file that it was loaded from."""
    package = Path(mfstore.__file__).parent.resolve()
    for extension in LINKED:
        try:
            told: Callable[[], dict[str, tuple[str, str, str]]] = import_module(f"mfstore._core.{extension}").libraries
        except ImportError:
            continue  # ``program.core`` says so
        for name, (version, headers, file) in told().items():
            state, hint = compared(version, headers)
            built = "" if version == headers else f" (built with {headers})"
            yield Finding(name, f"{version}{built}, {place(file, package)}", state, hint)
    yield Finding("Python's own TLS", ssl.OPENSSL_VERSION)


def place(file: str, package: Path) -> str:
    """Where code in ``file`` comes from: linked into an extension of mfstore, beside it in the wheel, or the system."""
    if not file:
        return "from a file that the loader does not tell"
    path = Path(file).resolve()
    if path.is_relative_to(package):
        return "within mfstore" if path.suffix == ".so" and path.parent.name == "_core" else f"in the wheel, {file}"
    if path.parent == package.with_name("mfstore.libs"):
        return f"in the wheel, {file}"
    return file


def compared(version: str, headers: str) -> tuple[State, str]:
    """What to think of a library that runs, by the version of the headers that were built with."""
    if _numbers(version) < _numbers(headers):
        return "doubtful", "It is older than what mfstore was built with. Build mfstore here, or install its wheel"
    return "fine", ""


def _numbers(version: str) -> tuple[int, ...]:
    found = []
    for part in version.split("-")[0].split("."):
        digits = "".join(letter for letter in part if letter.isdigit())
        found.append(int(digits or 0))
    return tuple(found)
