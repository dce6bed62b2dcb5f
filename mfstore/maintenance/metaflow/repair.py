"""Repair a datastore root of stock Metaflow: metadata written anew where the content proves itself, the rest set aside.

A damaged blob under its key is taken for stored by every task with the same content. Once it is in quarantine, the next
such task stores it again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mfstore.errors import MfstoreError, NotFound, Unsupported
from mfstore.format.collection import seal_etag
from mfstore.maintenance.metaflow.blob_reads import StoredBlob, read_again, read_blobs
from mfstore.maintenance.metaflow.findings import KEY_DIGITS, judge
from mfstore.maintenance.metaflow.report import MetaflowRepair
from mfstore.maintenance.metaflow.verify import RootPass, verify_metaflow
from mfstore.maintenance.quarantine import quarantine
from mfstore.maintenance.report import RepairAction
from mfstore.maintenance.verification import VerifyOptions
from mfstore.metaflow.roots import layout
from mfstore.metaflow.stock.blob_storage import METADATA_SUFFIX
from mfstore.metaflow.stock.encoding import digest_of, raw_digest_of

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.listed_blobs import BlobName
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import Level, PhaseCallback

QUARANTINE = f"{layout.MAINTENANCE_FOLDER}/quarantine/"
SET_ASIDE = ("empty", "damaged", "wrong-hash")
DESCRIBED_ANEW = ("meta-less", "wrong-metadata")


def repair_metaflow(root: Root, level: Level, dry_run: bool, tell: PhaseCallback | None) -> MetaflowRepair:
    """Verify a root at this level and mend what can be. Nothing is deleted; may be stopped at any time and run again.

    Args:
        root: The datastore root.
        level: How closely to look for damage first: "list", "headers" or "full".
        dry_run: Only tell what would be done.
        tell: As of ``verify_metaflow``.

    Raises:
        InvalidKey: the level is unknown.
        AccessDenied: something may not be read (nothing was changed then) or not be written.
        BackendError: the storage failed. If it was at reading what was to be verified, nothing was changed.
    """
    before, found = verify_metaflow(root, VerifyOptions(level), tell)
    for error in found.refused.errors.values():
        if not isinstance(error, Unsupported):
            error.hint = "Nothing was changed: repair needs to read everything"
            raise error
    problems = found.blobs.problems
    # What a lower level suspects is read before anything is done about it.
    found.blobs.read([name for name, (kind, _) in problems.items() if kind != "missing"])
    # Of a folder without a run nobody knows whose it is: other stores keep objects under such names too.
    flows = {flow for flow, _ in found.holdings.runs}
    plan = [
        (name, kind)
        for name, (kind, _) in sorted(problems.items())
        if kind in SET_ASIDE + DESCRIBED_ANEW and name[0] in flows
    ]
    found.includes.read([name for name, (kind, _) in found.includes.problems.items() if kind != "missing"])
    includes = [name for name, (kind, _) in sorted(found.includes.problems.items()) if kind in SET_ASIDE]
    actions = (
        *(_action(name, kind) for name, kind in plan),
        *(RepairAction("quarantine", layout.include_path(*name), f"move it to {QUARANTINE}") for name in includes),
    )
    if dry_run or not actions:
        return MetaflowRepair(root.url, before, actions, None)
    for name, kind in plan:
        if kind in SET_ASIDE:
            _set_aside(found, name)
        else:
            _describe(found, name)
    for name in includes:
        found.includes.read([name])
        if found.includes.problems.get(name, ("", ""))[0] in SET_ASIDE:  # not stored again meanwhile
            etag = seal_etag(found.holdings.includes[name].etag)
            quarantine(root.backend, layout.include_path(*name), etag, folder=QUARANTINE)
    after, _ = verify_metaflow(root, VerifyOptions("headers" if level == "list" else level), tell)
    return MetaflowRepair(root.url, before, actions, after)


def _action(name: BlobName, kind: str) -> RepairAction:
    path = layout.blob_path(*name)
    if kind in SET_ASIDE:
        return RepairAction("quarantine", path, f"move it to {QUARANTINE}")
    return RepairAction("describe", path, "write its metadata anew: its content is what its key says")


def _again(found: RootPass, name: BlobName) -> StoredBlob | None:
    """The blob as it is now; None when it is gone."""
    arrived: list[StoredBlob | MfstoreError] = []
    read_blobs(found.root, [name], found.holdings.metas, lambda _, blob: arrived.append(blob), found.holdings.blobs)
    (blob,) = arrived
    if isinstance(blob, NotFound):
        return None
    if isinstance(blob, MfstoreError):
        raise blob
    return blob


def _set_aside(found: RootPass, name: BlobName) -> None:
    blob, root = _again(found, name), found.root
    if blob is None:
        return
    problem = judge(read_again(root, blob), not root.remote)
    if problem is None or problem[0] not in SET_ASIDE:
        return  # stored again meanwhile
    path, holdings = layout.blob_path(*name), found.holdings
    quarantine(root.backend, path, seal_etag(holdings.blobs[name].etag), folder=QUARANTINE)
    if name in holdings.metas:
        # The next task writes both anew. Until then metadata alone does no harm.
        etag = holdings.metas[name].etag
        quarantine(root.backend, path + METADATA_SUFFIX, seal_etag(etag), folder=QUARANTINE)


def _describe(found: RootPass, name: BlobName) -> None:
    blob, root = _again(found, name), found.root
    if blob is None:
        return
    raw = len(blob.key) != KEY_DIGITS or raw_digest_of(blob.data)[0] == blob.key
    if not raw:
        digest_of(blob.data)
    document = {"cas_raw": raw, "cas_version": 1}
    path = layout.blob_path(*name)
    if root.remote:
        from mfstore.s3.datatools.uploading import attributes

        root.backend.put_described(path, blob.data[:], attributes(document))
    else:
        root.backend.put(path + METADATA_SUFFIX, [json.dumps(document).encode()])
