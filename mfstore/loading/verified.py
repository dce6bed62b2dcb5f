"""What this process knows to be whole, so that it need not be read or asked for again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from mfstore.errors import MfstoreError
from mfstore.format.packs import pack_path

if TYPE_CHECKING:
    from mfstore.backends.base import Backend

REMOTE_SECONDS = 900
"""How long a remote backend is not asked again about a pack: a file's identity costs a microsecond, an object's a
request."""


class VerifiedRanges:
    """What this process wrote to packs or found whole in them, as long as the files stay as they were.

    The range of a chunk starts at its ``place_of``.

    A range is trusted to hold one thing: ``tag`` is the chunk's id, or for a mapped run the digest of its ids.
    """

    LIMIT = 1 << 20

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._remote = backend.capabilities.remote
        self._vouched: dict[str, tuple[int, int]] = {}
        self._damaged: dict[str, Any] = {}
        """Packs, and keys of recipes, in which damage was met, each with its identity then."""
        self._warned: set[bool] = set()
        """Of what was told: what is damaged (False), what is gone (True)."""
        self._packs: dict[str, tuple[Any, dict[int, tuple[int, bytes]]]] = {}
        self._count = 0

    def add(self, pack: str, ranges: Iterable[tuple[int, int, bytes]]) -> None:
        """Remember ranges ``(start, length, tag)`` of one pack."""
        try:
            identity = self._identity(pack)
        except MfstoreError:
            return
        known = self._packs.get(pack)
        if known is None or known[0] != identity:
            if self._count > self.LIMIT:
                self._packs.clear()
                self._count = 0
            known = self._packs[pack] = (identity, {})
        for start, length, tag in ranges:
            known[1][start] = length, tag
            self._count += 1

    def has(self, pack: str, start: int, length: int, tag: bytes) -> bool:
        """Whether that range was found to hold that and its file has not changed."""
        return self.has_now()(pack, start, length, tag)

    def has_now(self) -> Callable[[str, int, int, bytes], bool]:
        """``has`` for many ranges at one time: each file is looked at once, not once per chunk."""
        known: dict[str, Mapping[int, tuple[int, bytes]]] = {}

        def has(pack: str, start: int, length: int, tag: bytes) -> bool:
            if pack not in known:
                known[pack] = self._unchanged(pack)
            return known[pack].get(start) == (length, tag)

        return has

    def _unchanged(self, pack: str) -> Mapping[int, tuple[int, bytes]]:
        """What was found in that pack, if its file is the same still."""
        identity, ranges = self._packs.get(pack, (None, None))
        try:
            return ranges if ranges and self._identity(pack) == identity else {}
        except MfstoreError:
            return {}

    def forget(self, pack: str) -> None:
        """Something in that pack was found damaged."""
        self._packs.pop(pack, None)
        self._vouched.pop(pack, None)
        self.note_damage(pack, pack_path(pack))

    def note_damage(self, name: str, path: str) -> None:
        """Something in that pack or recipe, which is stored there, was found damaged: until it is stored again, nothing
        of it is used without being compared with its digest."""
        try:
            self._damaged[name] = None if self._remote else self._backend.identity(path)
        except MfstoreError:
            self._damaged[name] = None

    @property
    def met_damage(self) -> bool:
        """Whether any damage was met."""
        return bool(self._damaged)

    def is_damaged(self, name: str, path: str) -> bool:
        """Whether damage was met in that pack or recipe, and it is the same still."""
        if name not in self._damaged:
            return False
        known = self._damaged[name]
        if known is not None:
            try:
                if self._backend.identity(path) != known:
                    self._damaged.pop(name, None)
                    return False
            except MfstoreError:
                return True
        return True

    def warn_healed(self, path: str, gone: bool) -> None:
        """Damage was met and another copy has the bytes. Told once: what reads see is right, and somebody has to know
        before the other copy is gone. What is ``gone`` is told apart: it is no damage where garbage collection moved
        its chunks while the reader held a recipe from before."""
        if gone not in self._warned:
            self._warned.add(gone)
            url = self._backend.url
            if gone:
                what = (
                    f"{path} in {url} is gone: another copy was read. If garbage collection has repacked it since this "
                    f"reader began, all is well. To be sure, run: mfstore verify -s {url}"
                )
            else:
                what = f"{path} in {url} is damaged: another copy was read. Run: mfstore repair -s {url} --execute"
            warnings.warn(what, RuntimeWarning, stacklevel=2)

    def clear(self) -> None:
        """Objects may have been removed."""
        self._vouched.clear()
        self._packs.clear()
        self._count = 0

    def written(self, pack: str, size: int) -> None:
        """This process stored that pack."""
        self._damaged.pop(pack, None)
        self._vouched[pack] = self._turn(), size

    def seen(self, pack: str, size: int) -> None:
        """The backend vouches for that pack, of so many bytes: it was asked for something else just now."""
        if pack not in self._damaged:
            self._vouched[pack] = self._turn(), size

    def vouched(self, needed: Mapping[str, int], asked: Container[str] = ()) -> set[str]:
        """Which packs the backend says are whole and at least so long. Asked once per pack, and after a while again;
        not of those that were ``asked`` for just now: what it has said of them was ``seen``."""
        turn = self._turn()
        # What was found damaged is not asked about but read, until it is stored again.
        unknown = [
            pack
            for pack in needed
            if pack not in self._damaged and pack not in asked and self._vouched.get(pack, (turn - 1, 0))[0] != turn
        ]
        if unknown:
            sizes = self._backend.vouch([pack_path(pack) for pack in unknown])
            if len(self._vouched) > self.LIMIT:
                self._vouched.clear()
            for pack in unknown:
                self._vouched.pop(pack, None)
                if pack_path(pack) in sizes:
                    self._vouched[pack] = turn, sizes[pack_path(pack)]
        return {pack for pack, size in needed.items() if pack in self._vouched and size <= self._vouched[pack][1]}

    def _identity(self, pack: str) -> Any:
        return self._turn() if self._remote else self._backend.identity(pack_path(pack))

    def _turn(self) -> int:
        return int(monotonic() // REMOTE_SECONDS)
