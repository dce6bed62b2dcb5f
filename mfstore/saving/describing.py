"""What a save writes into the description of a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from mfstore.format.about import Made, begin_about
from mfstore.provenance import PYTHON, user, version_of


def made_here(modules: Iterable[str], by: str | None = None) -> Made:
    """The record of something that is stored by this process, still without a time. ``modules``: of the classes and
    functions inside, as ``dump`` gives them; ``by``: who, if it is not the user of this process."""
    import mfstore

    libraries = {}
    for top in sorted({module.partition(":")[0].partition(".")[0] for module in modules}):
        version = version_of(top)
        if version is not None:
            libraries[top] = version
    return Made(by or user(), PYTHON, mfstore.__version__, libraries, 0.0)


def begin_description(
    record: bool, types: str | tuple[str, ...], modules: tuple[str, ...], note: bytes | None, by: str | None
) -> bytes:  # fmt: skip
    """The description of what this process stores up to its end, as ``begin_about`` gives it. ``types``: of one
    artifact, or of all; ``record``: whether more is said than types and note."""
    made = made_here(modules, by) if record else None
    return begin_about((types,) if isinstance(types, str) else types, note, made)


remembered_description = lru_cache(256)(begin_description)
"""As ``begin_description``. Of many small objects most are of few types: to make one takes 8 us, which is as long as a
``put_many`` takes for a small dict."""
