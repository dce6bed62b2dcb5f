"""Repair a datastore root of stock Metaflow: metadata written anew where the content proves itself, the rest set aside.

A damaged blob under its key is taken for stored by every task with the same content. Once it is in quarantine, the next
such task stores it again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mfstore.errors import MfstoreError, NotFound, Unsupported
from mfstore.format.collection import seal_etag
from mfstore.maintenance.metaflow.report import MetaflowRepair
from mfstore.maintenance.metaflow.root import Read
from mfstore.maintenance.metaflow.verify import Blob, MetaflowVerifier, judge, verify_metaflow
from mfstore.maintenance.quarantine import quarantine
from mfstore.maintenance.report import RepairAction
from mfstore.maintenance.verification import VerifyOptions
from mfstore.metaflow.roots import layout
from mfstore.metaflow.stock.blob_storage import METADATA_SUFFIX
from mfstore.metaflow.stock.encoding import decode, fits_key

if TYPE_CHECKING:
    from mfstore.maintenance.metaflow.root import Root
    from mfstore.maintenance.report import Level, PhaseCallback

FOLDER = f"{layout.MAINTENANCE_FOLDER}/quarantine/"
SET_ASIDE = ("empty", "damaged", "wrong-hash")
DESCRIBED_ANEW = ("meta-less", "wrong-metadata")


def repair_metaflow(
    root: Root, level: Level = "full", dry_run: bool = False, tell: PhaseCallback | None = None
) -> MetaflowRepair:
    """Verify a root and mend what can be. Nothing is deleted; may be stopped at any time and run again."""
    before, verifier = verify_metaflow(root, VerifyOptions(level), tell)
    for error in verifier.refused.values():
        if not isinstance(error, Unsupported):
            error.hint = "Nothing was changed: repair needs to read everything"
            raise error
    # What a lower level suspects is read before anything is done about it.
    verifier.check([blob for blob, (kind, _) in verifier.blobs.items() if kind != "missing"])
    plan = [(blob, kind) for blob, (kind, _) in sorted(verifier.blobs.items()) if kind in SET_ASIDE + DESCRIBED_ANEW]
    actions = tuple(
        RepairAction("quarantine", layout.blob_path(*blob), f"move it to {FOLDER}")
        if kind in SET_ASIDE
        else RepairAction(
            "describe", layout.blob_path(*blob), "write its metadata anew: its content is what its key says"
        )
        for blob, kind in plan
    )
    if dry_run or not actions:
        return MetaflowRepair(root.url, before, actions, None)
    for blob, kind in plan:
        if kind in SET_ASIDE:
            _set_aside(root, verifier, blob)
        else:
            _describe(root, verifier, blob)
    after, _ = verify_metaflow(root, VerifyOptions("headers" if level == "list" else level), tell)
    return MetaflowRepair(root.url, before, actions, after)


def _again(root: Root, verifier: MetaflowVerifier, blob: Blob) -> Read | None:
    """The blob as it is now; None when it is gone."""
    found: list[Read | MfstoreError] = []
    root.read_blobs([blob], verifier.holdings.metas, lambda _, read: found.append(read))
    (read,) = found
    if isinstance(read, NotFound):
        return None
    if isinstance(read, MfstoreError):
        raise read
    return read


def _set_aside(root: Root, verifier: MetaflowVerifier, blob: Blob) -> None:
    read = _again(root, verifier, blob)
    if read is None:
        return
    problem = judge(read, not root.remote, root.alone)
    if problem is None or problem[0] not in SET_ASIDE:
        return  # stored again meanwhile
    path = layout.blob_path(*blob)
    holdings = verifier.holdings
    quarantine(root.backend, path, seal_etag(holdings.blobs[blob].etag), folder=FOLDER)
    if blob in holdings.metas:
        # The next task writes both anew. Until then metadata alone does no harm.
        quarantine(root.backend, path + METADATA_SUFFIX, seal_etag(holdings.metas[blob].etag), folder=FOLDER)


def _describe(root: Root, verifier: MetaflowVerifier, blob: Blob) -> None:
    read = _again(root, verifier, blob)
    if read is None:
        return
    raw = fits_key(read.key, read.data)
    if not raw:
        decode(read.data, root.alone)
    document = {"cas_raw": raw, "cas_version": 1}
    path = layout.blob_path(*blob)
    if root.remote:
        from mfstore.s3.datatools.uploading import attributes

        root.backend.put_described(path, read.data, attributes(document))
    else:
        root.backend.put(path + METADATA_SUFFIX, [json.dumps(document).encode()])
