"""What runs refer to, by what becomes of them."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mfstore.errors import AccessDenied, BackendError, MfstoreError
from mfstore.maintenance.metaflow.collecting.marks import (
    DUE,
    FORMER_DUE,
    FORMER_KEPT,
    FORMER_LATER,
    KEPT,
    LATER,
    BlobMarks,
)
from mfstore.maintenance.metaflow.includes import read_descriptions
from mfstore.maintenance.metaflow.references import read_references
from mfstore.maintenance.report import untold
from mfstore.metaflow.roots import layout
from mfstore.metaflow.roots.layout import References
from mfstore.metaflow.roots.packed_keys import PackedArtifact

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.collecting.policy import Run
    from mfstore.maintenance.metaflow.holdings import Holdings
    from mfstore.maintenance.metaflow.listed_blobs import BlobName
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import PhaseCallback


@dataclass(slots=True)
class SharedNeeds:
    """What a group of runs refers to, besides blobs, and which blobs among these describe that."""

    included: set[BlobName] = field(default_factory=set)
    """Blobs that describe IncludeFiles."""
    packed_included: set[tuple[str, PackedArtifact]] = field(default_factory=set)
    """IncludeFiles of the packed profile, with their flow."""
    bundles: set[str] = field(default_factory=set)

    def add(self, flow: str, found: References) -> None:
        """Count what one file refers to."""
        if not (found.included or found.bundles or found.packed_included):
            return
        self.packed_included.update((flow, artifact) for artifact in found.packed_included)
        self.included.update((flow, found.artifacts[name]) for name in found.included if name in found.artifacts)
        self.bundles.update(found.bundles)


@dataclass(slots=True)
class NeedsByFate:
    """What the runs refer to that stay, those that go now, and all others."""

    marks: BlobMarks = field(default_factory=BlobMarks)
    """The blobs."""
    kept: SharedNeeds = field(default_factory=SharedNeeds)
    due: SharedNeeds = field(default_factory=SharedNeeds)
    later: SharedNeeds = field(default_factory=SharedNeeds)
    codes: set[BlobName] = field(default_factory=set)
    """Code packages that runs refer to which go now."""
    migrated: dict[BlobName, float] = field(default_factory=dict)
    """Blobs that migrated artifacts were before, and when the last of these was migrated: no record names them."""
    unknown: int = 0
    """Files of dropped runs that cannot be read."""
    unread: dict[str, str] = field(default_factory=dict)
    """Flows with runs to go now of which the storage did not hand out a file, and why: another time it may."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Flows with runs that stay of which a file cannot be read, and which. What these runs refer to is not known."""


def read_needs(
    root: Root, holdings: Holdings, kept: Container[Run], due: Container[Run], deployed: Container[Run],
    tell: PhaseCallback,
) -> NeedsByFate:  # fmt: skip
    """Sort what every run refers to. Of ``deployed`` runs what the next run needs is kept in any case. AccessDenied
    when no file may be read at all."""
    needs = NeedsByFate()
    recorded: dict[str, set[_Attempt]] = {}
    denied: AccessDenied | None = None
    some = False
    for name, attempt, kind, found in read_references(root, holdings, tell):
        run = name[:2]
        if not isinstance(found, References):
            denied = found if isinstance(found, AccessDenied) else denied
            why = f"{'/'.join(name)}/{attempt}.{kind} cannot be read: {found.message}"
            if run in kept:
                needs.unreadable.setdefault(name[0], why)
                continue
            if run in due and isinstance(found, BackendError):
                needs.unread.setdefault(name[0], why)
            needs.unknown += 1
            continue
        some = True
        flow = name[0]
        if run in kept:
            group, mark, former = needs.kept, KEPT, FORMER_KEPT
        elif run in due:
            group, mark, former = needs.due, DUE, FORMER_DUE
            if layout.CODE in found.artifacts:
                needs.codes.add((flow, found.artifacts[layout.CODE]))
        else:
            group, mark, former = needs.later, LATER, FORMER_LATER
        needs.marks.mark(flow, found.artifacts.values(), mark)
        group.add(flow, found)
        if run in deployed:
            needs.marks.mark(flow, found.of_deployment.artifacts.values(), KEPT)
            needs.kept.add(flow, found.of_deployment)
        if found.left and flow not in recorded:
            recorded[flow] = _recorded(holdings, flow)
        if found.left and not found.recorded and (*name, attempt) not in recorded[flow]:
            needs.marks.mark(flow, found.left, former)
            continue
        for key in found.left:
            moment = holdings.tasks[name].files[attempt, kind].modified
            needs.migrated[flow, key] = max(moment, needs.migrated.get((flow, key), moment))
    if denied is not None and not some:
        denied.hint = "Nothing was changed: what runs refer to must be known"
        raise denied
    return needs


_Attempt = tuple[str, str, str, str, int]


def _recorded(holdings: Holdings, flow: str) -> set[_Attempt]:
    """The attempts of a flow with records of their artifacts in local metadata, which a migration brings up to date."""
    metadata = holdings.metadata.of_flows([flow])
    records = ((path, layout.ARTIFACT_RECORD.fullmatch(info.key)) for path, info in metadata)
    return {
        (path.flow, path.run, record["step"], record["task"], int(record["attempt"]))
        for path, record in records
        if record is not None
    }


@dataclass(frozen=True, slots=True)
class NamedIncludes:
    """The IncludeFiles that some runs name."""

    names: set[BlobName]
    """By flow and hash."""
    known: set[str]
    """The flows of which all are known."""
    unread: dict[str, str]
    """Flows of which the storage did not hand out what tells them, and why: another time it may."""


def read_includes(root: Root, holdings: Holdings, needs: SharedNeeds) -> NamedIncludes:
    """The IncludeFiles that these runs name, in flows that have any."""
    names: set[BlobName] = set()
    flows = holdings.includes.flows
    known = set(flows)

    unread: dict[str, str] = {}

    def told(flow: str, key: str, content: bytes | MfstoreError) -> None:
        if isinstance(content, MfstoreError):
            known.discard(flow)
            if isinstance(content, BackendError):
                unread[flow] = f"which IncludeFiles it names cannot be read: {content.message}"
        else:
            names.update((flow, found) for found in layout.hashes_in(content))

    blobs = [name for name in needs.included if name[0] in flows]
    packed = [(flow, artifact) for flow, artifact in needs.packed_included if flow in flows]
    read_descriptions(root, blobs, packed, holdings.metas.some(blobs), holdings.blobs.some(blobs), told)
    return NamedIncludes(names, known, unread)


def read_new_needs(root: Root, files: Holdings) -> tuple[set[BlobName], SharedNeeds] | MfstoreError:
    """What files of tasks refer to that are newer than a plan: blobs, and else. The error of the first one that cannot
    be read."""
    blobs: set[BlobName] = set()
    needs = SharedNeeds()
    for name, _, _, found in read_references(root, files, untold):
        if not isinstance(found, References):
            return found
        needs.add(name[0], found)
        blobs.update((name[0], key) for key in found.artifacts.values())
    return blobs, needs


def read_new_includes(root: Root, needs: SharedNeeds) -> set[BlobName] | None:
    """The IncludeFiles that tasks name which are newer than any listing of blobs. None when that cannot be read."""
    names: set[BlobName] = set()
    unread: list[str] = []

    def told(flow: str, key: str, content: bytes | MfstoreError) -> None:
        if isinstance(content, MfstoreError):
            unread.append(key)
        else:
            names.update((flow, found) for found in layout.hashes_in(content))

    # In a directory each blob has a file that describes it; where one has none, that is as if it could not be read.
    described = () if root.remote else needs.included
    read_descriptions(root, needs.included, needs.packed_included, described, {}, told)
    return None if unread else names
