"""What safe loading may make besides data: classes and functions that the caller vouches for, by their names."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from typing import Any

from mfstore.errors import InvalidKey, UnsafeObject, WrongArgument

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
MACHINERY = frozenset([
    "__builtin__", "_io", "_operator", "_pickle", "_posixsubprocess", "asyncio", "bdb", "builtins", "cProfile",
    "cloudpickle", "code", "codeop", "commands", "copyreg", "ctypes", "dill", "distutils", "doctest",
    "ensurepip", "functools", "imp", "importlib", "inspect", "io", "joblib", "linecache", "marshal",
    "multiprocessing", "nt", "ntpath", "operator", "os", "pdb", "pickle", "pip", "pkgutil", "platform", "posix",
    "posixpath", "profile", "pty", "pydoc", "runpy", "setuptools", "shelve", "shutil", "site", "smtplib",
    "socket", "ssl", "subprocess", "sys", "sysconfig", "tempfile", "test", "threading", "timeit", "trace",
    "types", "unittest", "urllib", "venv", "webbrowser", "zipimport",
])  # fmt: skip
"""Packages whose functions do whatever their arguments say: nobody can vouch for these, since the pickle chooses the
arguments."""


class Allow:
    """Classes and functions that may be called while something is loaded safely, besides those that make data.

    ``store.get(key, safe=mfstore.Allow("mypackage.Model", ...))``. List what is harmless whatever it is called with,
    and whatever state it is given: the pickle says both. Each is a name with its module, or the class or function
    itself; a class inside of another one is ``"mypackage.Outer.Inner"``. Names are compared as a whole: there are no
    patterns, and what a name leads to is listed by itself.

    Raises:
        InvalidKey: a name has no module, or is of the parts of Python that do what their arguments say (``os``,
            ``builtins``, ``functools``, …), which nobody can vouch for.
        WrongArgument: it is neither a name nor a class or a function. It is a TypeError.
    """

    __slots__ = ("names",)

    def __init__(self, *names: str | type | Any) -> None:
        self.names = frozenset(map(_checked, names))

    def __or__(self, other: Allow) -> Allow:
        return Allow(*self.names, *other.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Allow) and other.names == self.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"Allow({', '.join(map(repr, sorted(self.names)))})"

    def __reduce__(self) -> Any:
        return Allow, (*sorted(self.names),)

    def find(self, module: str, name: str) -> Any:
        """What a module has under a name that is on this list. Whatever the import raises; AttributeError; UnsafeObject
        for what the module itself has from a part of Python that does what its arguments say."""
        import_module(module)
        found: Any = sys.modules[module]
        *classes, last = name.split(".")
        for part in classes:
            found = getattr(found, part)
            if not isinstance(found, type):
                # os.path is an attribute of modules that have imported os, and so on.
                raise AttributeError(f"{module}.{name}: {part} is no class")
        found = getattr(found, last)
        home = getattr(found, "__module__", None)
        if isinstance(home, str) and home.partition(".")[0] in MACHINERY:
            error = UnsafeObject(f"{module}.{name} is of {home}, of which nobody can vouch for anything")
            error.names = (f"{module}.{name}",)
            raise error
        return found


def _checked(name: Any) -> str:
    if not isinstance(name, str):
        module, qualified = getattr(name, "__module__", None), getattr(name, "__qualname__", None)
        if not (isinstance(module, str) and isinstance(qualified, str) and callable(name)):
            raise WrongArgument(
                "a class or a function, or its name with its module, is put on the list", found=f"{name!r:.80}",
                hint="Such as mfstore.Allow('mypackage.Model')",
            )  # fmt: skip
        name = f"{module}.{qualified}"
    if not _NAME.fullmatch(name):
        raise InvalidKey(
            "not the name of a class or a function with its module", found=f"{name!r:.80}",
            hint="Such as 'mypackage.Model'; there are no patterns",
        )  # fmt: skip
    if name.partition(".")[0] in MACHINERY:
        raise InvalidKey(
            "nobody can vouch for it: it does what its arguments say, and the pickle chooses these", found=repr(name)
        )
    return str(name)


NOTHING_ELSE = Allow()
"""Data alone."""


def allowed(safe: bool | Allow | None) -> Allow | None:
    """What ``safe=`` stands for: the list, empty for True; None for False, which is to unpickle. WrongArgument for what
    is neither."""
    if safe is None or safe is False:
        return None
    if safe is True:
        return NOTHING_ELSE
    if isinstance(safe, Allow):
        return safe
    raise WrongArgument(
        "safe is True, False or an Allow", found=f"{safe!r:.80}", hint="mfstore.Allow('mypackage.Model')"
    )


def allowed_by(text: str, source: str) -> Allow | None:
    """What a setting says: 1 for data alone, 0 or nothing for anything, else names with commas between them.
    InvalidKey, naming ``source``, for names that are none."""
    words = text.strip()
    if words.lower() in ("0", "false", "no", "off", ""):
        return None
    if words.lower() in ("1", "true", "yes", "on"):
        return NOTHING_ELSE
    try:
        return Allow(*filter(None, (word.strip() for word in words.split(","))))
    except InvalidKey as error:
        raise InvalidKey(f"{source}: {error.message}", found=error.found, hint=error.hint) from None
