"""What each role does at a place, with which keys: one need for each thing. Of no service: what AWS, Azure and Google
take is all made of these. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from mfstore.format import (
    audit,
    collection,
    description,
    fragments,
    holds,
    latest,
    progress,
    quarantine,
    refs,
    signatures,
)
from mfstore.metaflow.roots.layout import LOG_FOLDER, MAINTENANCE_FOLDER
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER
from mfstore.policy.places import Place

Role = Literal["writer", "reader", "signer", "collector", "auditor", "benchmark"]
ROLES: Mapping[Role, str] = {
    "writer": "tasks and programs that save, load and set refs",
    "reader": "who only loads",
    "signer": "who vouches for what others stored",
    "collector": "who runs gc, repair, migrate and verify, and sets holds",
    "auditor": "who runs verify, du and doctor, and changes nothing",
    "benchmark": "who runs bench",
}
"""Each role, and who has it."""

PROBES = ".mfstore-probe-*"
"""Of what conditions are tried on (mfstore/backends/s3/conditions.py)."""
SCRATCH = "mfstore-bench-*"
"""Of what a benchmark stores (mfstore/bench/targets.py)."""
CONTENT = ("packs/*", "recipes/*", f"{fragments.PREFIX}*")
COLLECTORS = ("gc/*", f"{quarantine.PREFIX}*", f"{progress.PATH.partition('/')[0]}/*")
"""Of a store: by what collections decide, what repair set aside, and what verification need not read again."""

Right = Literal[
    "list", "versions", "read", "write", "parts", "delete", "delete-versions", "settings", "versioning", "exposure",
    "locks", "uploads", "protect", "keep",
]  # fmt: skip
"""What is done with keys, or with the bucket. ``parts`` is what uploads in parts need besides ``write``.
``protect`` and ``keep`` are what must not be: to change a key in any way, and to remove it."""
DENIALS: frozenset[Right] = frozenset(("protect", "keep"))
OF_THE_BUCKET: frozenset[Right] = frozenset(("settings", "versioning", "exposure", "uploads"))
"""Rights that name no keys."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of which one thing may be done, where a service has no denials: these, and of them not those."""

    these: tuple[str, ...]
    but: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.these)


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a role does, or must not do, and the reason for it."""

    name: str
    rights: tuple[Right, ...]
    keys: tuple[str, ...]
    """Below the place: whole, or with ``*`` at the end for all that begin so. Nothing for rights of the bucket."""
    purpose: str
    """What it is for."""
    without: str
    """What becomes of it if it is left out."""

    @property
    def denies(self) -> bool:
        """Whether it is what must not be."""
        return self.rights[0] in DENIALS


def needs(role: Role, place: Place) -> list[Need]:
    """What a role does at a place, in the order in which documents have it."""
    return [*_of_role[role](place)]


def keys_of(found: Iterable[Need], *rights: Right) -> Keys:
    """The keys of which any of these rights is needed, without those that are denied: for documents that cannot deny,
    and say so by leaving out."""
    these: dict[str, None] = {}
    but: dict[str, None] = {}
    removes, changes = {"delete", "delete-versions"} & {*rights}, "write" in rights
    denials = ("protect", "keep") if removes else ("protect",) if changes else ()
    for need in found:
        if set(need.rights) & {*rights}:
            these.update(dict.fromkeys(need.keys))
        if need.rights[0] in denials:
            but.update(dict.fromkeys(need.keys))
    kept = _without_those_within(these)
    left_out = [key for key in _without_those_within(but) if any(_overlap(key, other) for other in kept)]
    # What a denial has whole is not allowed in the first place.
    kept = [key for key in kept if not any(_within(key, other) for other in left_out)]
    return Keys(tuple(kept), tuple(key for key in left_out if any(_overlap(key, other) for other in kept)))


def explanations(role: Role, place: Place, served: Collection[Right], service: str) -> list[tuple[str, str, str, str]]:
    """Where a service cannot deny: each need's name, whether it is allowed or left out, what it is for, and what
    becomes of it without. ``served``: of what rights there is something there."""
    found = []
    for need in needs(role, place):
        if need.denies:
            text = f"{need.without}; {service} cannot deny, so another role that allows it counts"
            found.append((need.name, "left out", need.purpose.replace(", whatever other policies allow", ""), text))
        elif any(right in served for right in need.rights):
            found.append((need.name, "allowed", need.purpose, need.without))
    return found


def _without_those_within(keys: Iterable[str]) -> list[str]:
    """Without those that others of them have in them."""
    found = [*keys]
    return [key for key in found if not any(other != key and _within(key, other) for other in found)]


def _within(key: str, other: str) -> bool:
    return other.endswith("*") and key.startswith(other[:-1])


def _overlap(one: str, two: str) -> bool:
    return one == two or _within(one, two) or _within(two, one)


def protection(place: Place) -> Need:
    """What nobody but a collector may change at a place."""
    return _protection(_protected(place))


def _protection(keys: tuple[str, ...]) -> Need:
    return Need(
        "ProtectCollector",
        ("protect",),
        keys,
        "keep what collections decide by out of reach, whatever other policies allow",
        "who may write there, or set ACLs, tags or locks, can have a collection let go of what is needed, or stop it",
    )


# ---- roles ----------------------------------------------------------------------------------

LIST = Need(
    "List",
    ("list",),
    ("*",),
    "list below this place, and be told of what is absent that it is",
    "what is absent is refused as well: no store can be opened or created",
)
READ = Need("Read", ("read",), ("*",), "read below this place", "every load is refused")
SETTINGS = Need(
    "ReadSettings",
    ("settings",),
    (),
    "see whether versions, Object Lock or lifecycle rules keep or take what is stored",
    "plans and the doctor say that they do not know, and warn of no rule that removes shared data",
)
UPLOADS = Need(
    "ListUploads",
    ("uploads",),
    (),
    "find uploads that were cut off; S3 has no narrower right than that of the whole bucket",
    "what was uploaded in part is not seen: it costs until a lifecycle rule takes it",
)


def _reader(_place: Place) -> Iterator[Need]:
    yield LIST
    yield READ


def _writer(place: Place) -> Iterator[Need]:
    yield LIST
    yield READ
    yield Need(
        "Write", ("write", "parts"), _written(place), "save, and end uploads that failed", "every save is refused"
    )
    if place.kind != "stock":
        yield Need(
            "RemoveProbes",
            ("delete",),
            (PROBES if place.kind == "store" else f"{STORE_FOLDER}/{PROBES}",),
            "remove the object on which it was tried whether the service keeps conditions",
            "each process that tries it leaves one small object, until a collection",
        )
    yield _protection(_denied_to_tasks(place))


def _signer(place: Place) -> Iterator[Need]:
    yield LIST
    yield READ
    below = "" if place.kind == "store" else f"{STORE_FOLDER}/"
    yield Need(
        "Sign",
        ("write",),
        (f"{below}{signatures.PREFIX}*",),
        "store signatures beside what they are of",
        "nothing can be signed",
    )


def _collector(place: Place) -> Iterator[Need]:
    yield LIST
    yield READ
    yield SETTINGS
    yield Need(
        "ReadLocks",
        ("locks",),
        ("*",),
        "see what Object Lock keeps from being deleted",
        "a plan in a bucket with Object Lock says that it does not know what is locked",
    )
    yield Need(
        "Collect",
        ("write", "parts"),
        _kept_up(place),
        "write what is condemned, the log, holds, what is repacked, repaired, set aside or put back",
        "a collection ends before it changes anything",
    )
    yield Need(
        "Delete",
        ("delete",),
        _deleted(place),
        "delete what a list has named for a grace period, holds that were released, what is quarantined",
        "a collection condemns, and deletes nothing",
    )
    yield Need(
        "KeepLog",
        ("keep",),
        _logs(place),
        "keep the log of collections, whatever other policies allow",
        "who collects can remove the record of it",
    )


def _auditor(_place: Place) -> Iterator[Need]:
    yield LIST
    yield READ
    yield SETTINGS
    yield Need(
        "ReadExposure",
        ("exposure",),
        (),
        "see how the bucket encrypts, and whether anybody else may read it",
        "the doctor says that it does not know, and warns of no bucket that is open to everybody",
    )
    yield UPLOADS


def _benchmark(_place: Place) -> Iterator[Need]:
    yield Need(
        "ListScratch",
        ("list", "versions"),
        (SCRATCH,),
        "list what the benchmark stored, also as versions, and be told of what is absent",
        "the benchmark ends at its first listing, and leaves what it stored",
    )
    yield UPLOADS
    yield Need(
        "UseScratch",
        ("read", "write", "parts", "delete", "delete-versions"),
        (SCRATCH,),
        "store, read and remove objects of its own, in a folder that it names anew each time",
        "the benchmark is refused its first object",
    )
    yield Need(
        "ReadVersioning",
        ("versioning",),
        (),
        "know whether what the benchmark deletes stays as versions, which it removes then",
        "in a bucket that keeps versions all that it stored stays, and costs",
    )


_of_role = {
    "reader": _reader, "writer": _writer, "signer": _signer, "collector": _collector, "auditor": _auditor,
    "benchmark": _benchmark,
}  # fmt: skip


# ---- what lies where ------------------------------------------------------------------------


def _written(place: Place) -> tuple[str, ...]:
    """What tasks write."""
    if place.kind == "store":
        return (description.PATH, *CONTENT, f"{refs.PREFIX}*", PROBES)
    if not place.flows:
        return ("*",)
    own = [f"{folder}{flow}/*" for flow in place.flows for folder in ("", "data/", "mf.cards/")]
    if place.kind == "stock":
        return tuple(own)
    steps = [f"{latest.PREFIX}{flow}.*" for flow in place.flows]
    return (*own, *(f"{STORE_FOLDER}/{name}" for name in (description.PATH, *CONTENT, PROBES, *steps)))


def _protected(place: Place) -> tuple[str, ...]:
    """What none but a collector may change. Of a root it is the same for both profiles: tasks of either may write
    there."""
    if place.kind == "store":
        return COLLECTORS
    # Refs of the store in a root keep bundles; its tasks set none.
    return (f"{MAINTENANCE_FOLDER}/*", *(f"{STORE_FOLDER}/{name}" for name in (*COLLECTORS, f"{refs.PREFIX}*")))


def _denied_to_tasks(place: Place) -> tuple[str, ...]:
    """That, and what else a task of this profile does not write, though it lies below what it may."""
    if place.kind == "stock":
        return (f"{MAINTENANCE_FOLDER}/*", f"{STORE_FOLDER}/*")
    # A policy that names flows allows no signatures anyway, and leaves it open to add a signer's.
    everywhere = place.kind == "packed" and not place.flows
    return (*_protected(place), *[f"{STORE_FOLDER}/{signatures.PREFIX}*"] * everywhere)


def _kept_up(place: Place) -> tuple[str, ...]:
    """What collections, repairs and holds write."""
    if place.kind == "store":
        return (description.PATH, *CONTENT, f"{refs.PREFIX}*", *COLLECTORS, PROBES)
    return ("*",)  # blobs are put back and migrated, and files repaired, anywhere


def _deleted(place: Place) -> tuple[str, ...]:
    """What collections and repairs delete."""
    if place.kind == "store":
        folders = (refs.PREFIX, collection.LISTS, holds.STORE_HOLDS, quarantine.PREFIX, signatures.PREFIX)
        return (*CONTENT, *(f"{folder}*" for folder in folders), PROBES)
    return ("*",)


def _logs(place: Place) -> tuple[str, ...]:
    if place.kind == "store":
        return (f"{audit.STORE_LOG}*",)
    return (f"{LOG_FOLDER}*", f"{STORE_FOLDER}/{audit.STORE_LOG}*")
