"""``data.json`` of a task's attempt: what artifacts it has. Read from this host's cache where its ETag is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mfstore.metaflow.errors import blob_error
from mfstore.metaflow.process_state import process_state
from mfstore.metaflow.stock.blob_storage import BlobStorage


def load_task_data(blobs: BlobStorage, root: str, etags: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What each ``data.json`` below ``root`` says, by its path. ``etags`` gives for each path the ETag it is listed
    with, which may be empty. Those that are not there are left out; DataException for a damaged one."""
    cache = process_state().host_cache
    found: dict[str, dict[str, Any]] = {}
    missing = []
    for path, etag in etags.items():
        cached = cache.get(f"{root}/{path} {etag}") if etag else None
        if cached is None:
            missing.append(path)
        else:
            found[path] = parsed_task_data(path, cached)
    for path, stored in blobs.read(missing) if missing else ():
        if stored is None:
            continue
        found[path] = parsed_task_data(path, stored.data)
        cache_task_data(root, path, etags[path], stored.data)
    return found


def cache_task_data(root: str, path: str, etag: str | None, data: bytes) -> None:
    """Keep the bytes of a ``data.json`` on this host, for who finds it listed with this ETag."""
    if etag:
        process_state().host_cache.put(f"{root}/{path} {etag}", data)


def parsed_task_data(path: str, data: bytes) -> dict[str, Any]:
    """What the ``data.json`` at ``path`` says. DataException when it is damaged."""
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise blob_error(f"{path} is damaged: it is not a JSON object", path)
    return document
