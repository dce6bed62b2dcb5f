"""What is whole and cannot become an object in this process, told with what is missing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mfstore.errors import MfstoreError, NotLoadable

if TYPE_CHECKING:
    from mfstore.format.about import About
    from mfstore.format.recipes import Artifact, Recipe

_NOT_THERE = re.compile(r"Can't get (?:local )?(?:attribute|object) '(?P<name>[^']+)' on <module '(?P<module>[^']+)'")
"""How CPython's unpickler and mfstore's say that a module has no such class."""


def unloadable(error: Exception, recipe: Recipe, artifact: Artifact) -> Exception:
    """What to raise, from ``error``, for what unpickling an artifact has raised: NotLoadable. Itself, where it tells of
    something else: damage, or memory that there is not."""
    if artifact.name:
        error.add_note(f"in artifact {artifact.name!r}")
    if isinstance(error, MemoryError):
        return error
    if isinstance(error, MfstoreError):
        return error.where(key=artifact.name or None)
    about = recipe.described
    kind = about.types[recipe.artifacts.index(artifact)]
    label = f"artifact {artifact.name!r}" if artifact.name else "what is stored"
    missing = missing_in(error)
    found = NotLoadable(
        f"{label}, a {kind}, cannot be loaded here: {type(error).__name__}: {error}",
        hint=_hint(missing, about, artifact.name),
    )
    found.artifact, found.type, found.missing = artifact.name or None, kind, missing
    found.__cause__ = error
    return found


def missing_in(error: BaseException) -> str | None:
    """The module, class or function that was not found, as a dotted name; None where the error tells of none."""
    if isinstance(error, ModuleNotFoundError):
        return error.name
    if not isinstance(error, (AttributeError, ImportError)):
        return None
    said = _NOT_THERE.match(str(error))
    if said is not None:
        # The main module of a program that was started with -m is shown as where it was found.
        module = "__main__" if said["module"].endswith(".__main__") else said["module"]
        return f"{module}.{said['name']}"
    if isinstance(error, ImportError):
        return error.name
    owner = getattr(error.obj, "__name__", None) if type(error.obj).__name__ == "module" else None
    return f"{owner}.{error.name}" if owner and error.name else None


def _hint(missing: str | None, about: About, name: str) -> str:
    out = f"get_bytes(key{f', name={name!r}' if name else ''}) gives its bytes, a pickle"
    if missing is None:
        return f"Something inside it raised that. {out}"
    top = missing.partition(".")[0]
    if top in ("__main__", "__mp_main__"):
        return (
            f"The program that stored it defined {missing.partition('.')[2]} itself: define it here as well, or store "
            f"it again with its class in a module, or with pickler='cloudpickle'. {out}"
        )
    version = about.made.libraries.get(top) if about.made is not None else None
    if version:
        return f"Install {top}, of which it was {version} when this was stored. {out}"
    return f"Install {top}, or put the directory that has it on the path (sys.path). {out}"
