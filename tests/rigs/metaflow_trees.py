"""Small datastore roots in the layout of stock Metaflow, written by hand."""

import gzip
import hashlib
import json
import os
import pickle
import time
from contextlib import closing, contextmanager
from pathlib import Path

from mfstore.maintenance.clock import DAY
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.verification import VerifyOptions
from mfstore.s3.bulk.items import PutItem
from mfstore.s3.datatools.uploading import attributes


def blob(root, flow, value, raw=False, meta=True):
    """Store a blob as Metaflow does; returns its key."""
    data = value if isinstance(value, bytes) else pickle.dumps(value, protocol=4)
    key = hashlib.sha1(data).hexdigest()
    path = Path(root, flow, "data", key[:2], key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if raw else gzip.compress(data, 3))
    if meta:
        Path(f"{path}_meta").write_text(json.dumps({"cas_raw": raw, "cas_version": 1}))
    return key


def task(root, flow, run, step, number, artifacts, *, attempt=0, done=True, code=None, age=0.0, infos=None):
    """Write a task's files; ``artifacts`` are values by name. ``age``: seconds ago."""
    place = Path(root, flow, run, step, str(number))
    place.mkdir(parents=True, exist_ok=True)
    files = {"attempt.json": {"time": time.time() - age}, "task_begin": {"code_package_sha": code}}
    keys = {name: blob(root, flow, value) for name, value in artifacts.items()}
    if done:
        kinds = {name: {"type": "<class 'int'>", "encoding": "pickle-v4"} for name in keys}
        files["data.json"] = {"objects": keys, "info": {**kinds, **(infos or {})}}
        files["DONE.lock"] = ""
    for name, content in files.items():
        path = place / f"{attempt}.{name}"
        path.write_text(json.dumps(content))
        os.utime(path, (time.time() - age,) * 2)
    return keys


def run_meta(root, flow, run, tags=(), age=0.0):
    """Write a run's local metadata."""
    path = Path(root, flow, run, "_meta", "_self.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"run_number": run, "flow_id": flow, "tags": list(tags), "system_tags": ["user:me"]}
    path.write_text(json.dumps({**document, "ts_epoch": int((time.time() - age) * 1000)}))
    os.utime(path, (time.time() - age,) * 2)


def files(root):
    """Size of every file that is Metaflow's, by path."""
    return {
        str(path.relative_to(root)): path.stat().st_size
        for path in Path(root).rglob("*")
        if path.is_file() and not path.relative_to(root).parts[0].startswith((".", "mf.maintenance"))
    }


def blobs_of(root, flow):
    """The keys in a flow's content-addressed store."""
    return {path.name for path in Path(root, flow, "data").rglob("*") if path.is_file() and "_meta" not in path.name}


def upload(tree, backend):
    """The same root in S3, as Metaflow stores it there."""

    def items():
        for name in files(tree):
            path = tree / name
            if name.endswith("_meta") or "/_meta/" in name:
                continue
            meta = Path(f"{path}_meta")
            document = json.loads(meta.read_text()) if meta.exists() else None
            yield PutItem(backend._name(name), [path.read_bytes()], attributes(document))

    backend.client.put_many(items())


def three_runs(root):
    """Three runs of one flow, a day apart, and one of another."""
    for number in range(3):
        age = (30 - number) * DAY
        run_meta(root, "Flow", str(number), age=age)
        task(root, "Flow", str(number), "start", 1, {"own": number}, age=age)
    task(root, "Other", "0", "start", 1, {"own": "other"}, age=60 * DAY)


@contextmanager
def opened(root):
    """A root, by its place."""
    with closing(Root(str(root))) as place:
        yield place


def whole(root):
    """What verification finds in it."""
    with opened(root) as place:
        return verify_metaflow(place, VerifyOptions("full"))[0]
