"""What an argument is: many things, as a call that takes many wants, or one; an object, or the file it is a path of."""

from __future__ import annotations

import io
import os
from typing import Any

from mfstore.errors import WrongArgument
from mfstore.host.callers import warn_caller

ONE_PROTOCOLS = ("__array__", "__array_interface__", "__dataframe__", "__arrow_c_stream__", "__arrow_c_array__")
"""What arrays, tensors, tables and their columns say of themselves, whichever library they are of."""


def is_one_thing(value: object) -> bool:
    """Whether somebody who gives this for many things means one: a text, bytes, a path, a file, an array, a table."""
    if isinstance(value, (str, bytes, bytearray, memoryview, os.PathLike, io.IOBase)):
        return True
    kind = type(value)
    return any(hasattr(kind, name) for name in ONE_PROTOCOLS) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def refuse_one_thing(objs: object) -> None:
    """WrongArgument when one thing is given where many are stored, whose elements would each be stored alone."""
    if is_one_thing(objs) or not (hasattr(type(objs), "__iter__") or hasattr(type(objs), "__getitem__")):
        raise WrongArgument(
            "put_many takes many objects, and this is one", found=type(objs).__name__,
            hint="Store it with put(obj), or give a list: put_many([obj])",
        )  # fmt: skip


def refuse_no_mapping(artifacts: object) -> None:
    """WrongArgument for what is not a mapping from names to artifacts; a table is none, whose columns would be."""
    if is_one_thing(artifacts) or not (hasattr(artifacts, "keys") and hasattr(artifacts, "__getitem__")):
        raise WrongArgument(
            "save takes a dict of artifacts by name", found=type(artifacts).__name__,
            hint="Store one object with put(obj), or name it: save({'name': obj})",
        )  # fmt: skip


def refuse_one_key(keys: object) -> None:
    """WrongArgument for one key or name where many are wanted: its digits would be taken for names."""
    if isinstance(keys, str):
        raise WrongArgument("many keys are wanted, and this is one", found=repr(keys), hint=f"Give a list: [{keys!r}]")


def warn_of_path(obj: Any) -> None:
    """Warn when a path is stored as an object, and there is a file that may have been meant."""
    if os.path.isfile(obj):  # noqa: PTH113
        warn_caller(f"put stores the path {os.fspath(obj)!r} itself: put_file stores what is in the file")
