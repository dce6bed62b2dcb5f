"""Opening tasks on S3 by listing them: one request for what stock Metaflow asks in four to eighteen.

S3 lists what has been stored (strong consistency since 2020), so a listing knows as much as probing every name. What
``data.json`` holds is taken from this host's cache when its ETag is the listed one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from mfstore.metaflow.hooks.failures import blob_error
from mfstore.metaflow.hooks.runtime import runtime
from mfstore.metaflow.roots.attempts import Attempts, attempts_of
from mfstore.metaflow.stock.s3_objects import S3Objects

PAGE = 1000
"""Names in a page of a listing."""
Name = tuple[str, str, float]


def attempts_in(objects: S3Objects, tasks: Sequence[str]) -> dict[str, Attempts]:
    """The attempts of each of ``tasks`` (``flow/run/step/task``). Tasks of one step are listed together as long as that
    takes no more requests than one each."""
    steps: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        steps[task.rpartition("/")[0]].append(task)
    names: list[Name] = []
    single: list[str] = []
    for step, members in steps.items():
        most = len(members) * PAGE
        # Directory buckets list in no order, so that a listing cut short tells nothing.
        together = len(members) > 1 and not objects.unordered
        listed = list(islice(_names(objects, [step]), most)) if together else []
        names += listed
        if not together or len(listed) == most:
            # The step has far more tasks than are wanted: those the listing did not come to are listed one by one.
            end = listed[-1][0].rpartition("/")[0] + "/" if listed else ""
            single += [task for task in members if f"{task}/" >= end]
    if single:
        names += _names(objects, single)
    found = attempts_of(names)
    return {task: found[task] for task in tasks if task in found}


def attempts_below(objects: S3Objects, folders: Sequence[str]) -> dict[str, Attempts]:
    """The attempts of every task below each of ``folders``."""
    return attempts_of(_names(objects, folders))


def _names(objects: S3Objects, folders: Sequence[str]) -> Iterator[Name]:
    for _, entry, path in objects.list([f"{folder}/" for folder in folders]):
        yield path, (entry.etag or "").strip('"'), entry.modified or 0.0


def load_data(objects: S3Objects, root: str, wanted: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The parsed ``data.json`` at each path of ``wanted`` (path to ETag)."""
    cache = runtime().host
    found: dict[str, dict[str, Any]] = {}
    missing = []
    for path, etag in wanted.items():
        kept = cache.get(f"{root}/{path} {etag}") if etag else None
        if kept is None:
            missing.append(path)
        else:
            found[path] = parsed(path, kept)
    for path, read in objects.read(missing) if missing else ():
        if read is None:
            continue
        found[path] = parsed(path, read.data)
        remember(root, path, wanted[path], read.data)
    return found


def remember(root: str, path: str, etag: str | None, data: bytes) -> None:
    """Keep a ``data.json`` on this host, for who finds it listed with this ETag."""
    if etag:
        runtime().host.put(f"{root}/{path} {etag}", data)


def parsed(path: str, data: bytes) -> dict[str, Any]:
    """The ``data.json`` at ``path``. DataException when it is damaged."""
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise blob_error(f"{path} is damaged: it is not a JSON object", path)
    return document
