"""What garbage collection remembers below a Metaflow root: condemned runs, and that one collector is at work
(docs/format.md, "Maintenance of Metaflow roots").

Every task may write below its root, so nothing said there may let more go than the policy and the grace period do.
Since when a run has been condemned is therefore told by the storage: by the times of the lists that name it. Who writes
one can make a run wait longer. Who names runs in one before a collection does makes their grace period begin then; what
the policy keeps stays.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mfstore.errors import AccessDenied, Conflict, CorruptObject, MfstoreError, NotFound, Unsupported
from mfstore.host.elapsed import moment, since
from mfstore.maintenance.clock import written
from mfstore.metaflow.roots.layout import MAINTENANCE_FOLDER

if TYPE_CHECKING:
    from mfstore.backends.base import Backend, ObjectInfo

STATE_PATH = f"{MAINTENANCE_FOLDER}/gc"
LISTS = f"{MAINTENANCE_FOLDER}/condemned/"
"""Each execution writes a list of all the runs that its policy drops, named by the storage's time."""
WRITTEN_SECONDS = 60.0
"""A list whose own time is further from the one in its name was written by somebody else, or written over."""
LISTS_AT_ONCE = 100
STATE_VERSION = 1
LEASE_SECONDS = 300.0
"""So long after its last sign of life a collector counts as dead."""
RENEWED_EVERY = LEASE_SECONDS / 4
"""Seconds between two signs of life, whatever it is at: planning may take hours."""
LOOKED_EVERY = 5.0
"""Seconds between two looks at whether another collector has come to its end."""


@dataclass(frozen=True, slots=True)
class RootGcState:
    """The state object."""

    condemned: Mapping[str, float] = field(default_factory=dict)
    """When each run, as flow/run, was condemned, on the storage's clock. For people, and for mfstore 0.1.0: what counts
    are the lists."""
    removing: tuple[str, ...] = ()
    """Runs whose files are being removed: a migration leaves them alone."""
    owner: str = ""
    """Who collects now."""


def encode_state(state: RootGcState) -> bytes:
    """As it is stored. Never the same twice: where the bytes are the etag, a late request from before would end, or
    bring back, an ownership."""
    document = {
        "version": STATE_VERSION, "owner": state.owner, "condemned": dict(state.condemned),
        "removing": state.removing, "blobs": (), "nonce": os.urandom(8).hex(),
    }  # fmt: skip
    return json.dumps(document).encode()


def decode_state(data: bytes) -> RootGcState:
    """The state in stored bytes. CorruptObject when they are none, Unsupported for another version."""
    try:
        document: Any = json.loads(data)
        if document["version"] != STATE_VERSION:
            raise Unsupported("written by another version of mfstore", key=STATE_PATH, found=document["version"])
        return RootGcState(
            {str(run): float(time) for run, time in document["condemned"].items()},
            tuple(map(str, document["removing"])),
            str(document["owner"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise CorruptObject(
            "the state of garbage collection is damaged", key=STATE_PATH,
            hint="Remove the object to begin anew: condemned runs then wait for the grace period again",
        ) from None  # fmt: skip


def encode_names(names: Iterable[str]) -> bytes:
    """A list of condemned runs, as it is stored."""
    return json.dumps({"version": STATE_VERSION, "runs": sorted(names)}).encode()


def decode_names(data: bytes) -> frozenset[str]:
    """The runs in a list; none when it is damaged, or of another version: then they wait anew."""
    try:
        document: Any = json.loads(data)
        return frozenset(map(str, document["runs"])) if document["version"] == STATE_VERSION else frozenset()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return frozenset()


def list_path(moment: float, number: int = 0) -> str:
    """Where the list of an execution at this time, in seconds since the epoch, is: of several at the same one, that of
    this number."""
    return f"{LISTS}{int(moment * 1e6) + number:016x}"


def _time_in(path: str) -> float:
    try:
        return int(path.removeprefix(LISTS), 16) / 1e6
    except ValueError:
        return 0.0


class StateFile:
    """The state object, and the right to change it; and the lists of condemned runs."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._etag: str | None = None
        self._last: RootGcState | None = None
        self._new = False
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._renewals: threading.Thread | None = None
        self.now = 0.0
        """The storage's clock when the state was last written."""
        self.waited = False
        """Whether ``begin`` had to wait for another collector: what was listed before may have changed."""

    def load(self) -> RootGcState:
        """The state as it is; an empty one when there is none."""
        try:
            data, self._etag = self._backend.get_tagged(STATE_PATH)
        except NotFound:
            self._etag = None
            return RootGcState()
        try:
            return decode_state(data)
        except CorruptObject as error:
            raise error.where(backend=self._backend.url) from None

    def begin(self, take_over: bool, wait: float = 0.0) -> RootGcState:
        """Load the state and become its owner, until ``end``. Conflict while another collector is at work, after
        ``wait`` seconds: one that died counts as dead by then, or later."""
        began = moment()
        state = self.load()
        self._new = self._etag is None
        while state.owner and not take_over:
            age = self._age()
            if age >= LEASE_SECONDS:
                break
            left = wait - since(began)
            if left <= 0:
                raise Conflict(
                    "another collector is at work", key=STATE_PATH, backend=self._backend.url, found=state.owner,
                    hint=f"Its last sign of life is {max(age, 0):.0f} s old. If it died, wait until that is "
                    f"{LEASE_SECONDS:.0f} s (--wait), or --take-over",
                )  # fmt: skip
            self.waited = True
            time.sleep(max(0.01, min(LOOKED_EVERY, left, LEASE_SECONDS - age)))
            state = self.load()
        state = replace(state, owner=f"{socket.gethostname()}:{os.getpid()}")
        self.save(state)
        self._renewals = threading.Thread(target=self._renew, name="mfstore gc lease", daemon=True)
        self._renewals.start()
        return state

    def _renew(self) -> None:
        """Show now and then that this collector is alive. What hinders it ends the collection at its next step, if
        that meets it too."""
        while not self._over.wait(RENEWED_EVERY):
            with suppress(MfstoreError), self._changing:
                if self._last is not None and not self._over.is_set():
                    self._put(self._last)

    def condemned(self) -> frozenset[str]:
        """The runs that are condemned, as the last list says that was written in time. A collector that was stopped
        right before it wrote one may write it after others collected: that list tells nothing of what these did."""
        return next((names for _, names in self._told() if names is not None), frozenset())

    def condemned_since(self) -> dict[str, float]:
        """Since when each run has been condemned without a break, by the storage's own clock: the time of the oldest
        list that names it and that no list since leaves it out. One that was not written in time leaves out all."""
        since: dict[str, float] = {}
        unbroken: frozenset[str] | None = None
        for info, names in self._told():
            unbroken = (names or frozenset()) if unbroken is None else unbroken & (names or frozenset())
            if not unbroken:
                break
            since.update(dict.fromkeys(unbroken, info.modified))
        return since

    def _told(self) -> Iterator[tuple[ObjectInfo, frozenset[str] | None]]:
        """The lists, the newest first, with the runs that each names; None: it was not written when its name says."""
        for info in self._lists():
            if abs(_time_in(info.key) - info.modified) > WRITTEN_SECONDS:
                yield info, None
                continue
            with suppress(NotFound):
                yield info, decode_names(self._backend.get(info.key))

    def condemn(self, names: Iterable[str], grace: float) -> None:
        """Write down all the runs that are dropped now. Lists that tell nothing any more are deleted: those before the
        last one from before the grace period."""
        lists = self._lists()
        self._write_list(encode_names(names), lists)
        old = [info.key for info in lists if info.modified + grace <= self.now][1:]
        if old:
            with suppress(AccessDenied):  # they do no harm
                self._backend.delete_many(old)

    def _write_list(self, data: bytes, lists: Iterable[ObjectInfo]) -> None:
        """Never over another: in S3 an execution may have the time, in seconds, of the one before, which pardoned. Nor
        in the place of one that was deleted, which may lie before those of ``lists``."""
        paths = [list_path(self.now, number) for number in range(LISTS_AT_ONCE)]
        taken = {info.key for info in lists}
        first = max((number for number, path in enumerate(paths, 1) if path in taken), default=0)
        for path in paths[first:]:
            with suppress(Conflict):
                self._backend.put_if(path, data, None)
                return
        raise Conflict(
            f"{LISTS_AT_ONCE} lists of condemned runs are of the same second", key=list_path(self.now),
            backend=self._backend.url, hint="Try again",
        )  # fmt: skip

    def _lists(self) -> list[ObjectInfo]:
        """The lists, the newest first."""
        return sorted(self._backend.list(LISTS), key=lambda info: (info.modified, info.key), reverse=True)

    def _age(self) -> float:
        """How long ago the state was written, on the storage's own clock: another object tells what it is now. That one
        stays: others who wait may be about to look at it."""
        probe = f"{STATE_PATH}-clock"
        self._backend.put(probe, [b""])
        return written(self._backend, probe) - written(self._backend, STATE_PATH)

    def end(self) -> None:
        """Let others collect. What cannot be told now, time will: a dead owner's right ends after ``LEASE_SECONDS``.

        Where there was no state before and nothing is to be remembered, none is left."""
        self._over.set()
        if self._renewals is not None:
            self._renewals.join()
        if self._last is not None:
            with suppress(MfstoreError):
                self.save(replace(self._last, owner=""))
                if self._new and self._etag is not None and self._last == RootGcState():
                    self._backend.delete_unchanged({STATE_PATH: self._etag})

    def save(self, state: RootGcState) -> None:
        """Write the state. Conflict when somebody else did since it was read."""
        with self._changing:
            self._put(state)
            self._last = state
            self.now = written(self._backend, STATE_PATH)

    def _put(self, state: RootGcState) -> None:
        data = encode_state(state)
        try:
            self._etag = self._backend.put_if(STATE_PATH, data, self._etag)
        except Conflict as error:
            # Perhaps with ourselves: a request that was carried out and not answered is sent again.
            try:
                found, etag = self._backend.get_tagged(STATE_PATH)
            except NotFound:
                found, etag = b"", ""
            if found != data:
                raise error.where(hint="Another collector took over; nothing more is removed") from None
            self._etag = etag
