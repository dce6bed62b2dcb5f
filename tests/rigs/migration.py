"""What the tests of migration share: a root of stock Metaflow, migrated in this process, and everything in it
loaded."""

import json
import os
import pickle
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import boto3
from metaflow.datastore.flow_datastore import FlowDataStore

from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.gc import collect_metaflow
from mfstore.maintenance.metaflow.migrate import migrate_metaflow, plan_migration
from mfstore.maintenance.metaflow.migrating.changes import MigrationOptions
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.verification import VerifyOptions
from mfstore.metaflow.extension import LocalStorage
from tests.rigs.metaflow_trees import task

DAY = 86400.0
LARGE = [f"row {number}" for number in range(400)]
KEEP = RunPolicy(age=1e6 * DAY, grace=0.0)
"""Drops no run."""


def build(root, flow="Flow", run="1", age=2 * DAY):
    """A run of three tasks: what the first made, the others inherit; one was tried twice. With local metadata."""
    shared = {"rows": LARGE, "tiny": 7, "none": None}
    made = partial(task_as_stock, root, flow, run, age=age)
    made("start", 1, shared)
    made("work", 2, {**shared, "failed": LARGE[:50]})
    made("work", 2, {**shared, "own": LARGE[::2]}, attempt=1)
    made("end", 3, {**shared, "text": "x" * 5000})
    record(root)


def task_as_stock(root, flow, run, step, number, artifacts, **options):
    """A task, with all that Metaflow says of its artifacts."""
    infos = {
        name: {
            "size": len(pickle.dumps(value, protocol=4)), "type": str(type(value)), "encoding": "pickle-v4",
            "serializer_info": {"source": "metaflow"},
        }
        for name, value in artifacts.items()
    }  # fmt: skip
    return task(root, flow, run, step, number, artifacts, infos=infos, **options)


def record(root):
    """Local metadata of every artifact, as Metaflow registers it."""
    for path, document in documents(root).items():
        name, number = path.rsplit("/", 1)
        for artifact, key in document["objects"].items():
            place = Path(root, name, "_meta", f"{number.partition('.')[0]}_artifact_{artifact}.json")
            place.parent.mkdir(exist_ok=True)
            kind = document["info"][artifact]["encoding"]
            place.write_text(json.dumps({"name": artifact, "sha": key, "content_type": kind, "tags": ["kept"]}))


def documents(root):
    """Every data.json, by path."""
    return {
        str(path.relative_to(root)): json.loads(path.read_text())
        for path in sorted(Path(root).glob("*/*/*/*/*.data.json"))
    }


def forms(root):
    """What every data.json says of its artifacts, without what they were before."""
    return {path: {**found, "mfstore": None} for path, found in documents(root).items()}


def records(root):
    """Local metadata of the artifacts."""
    return {
        str(path.relative_to(root)): json.loads(path.read_text())
        for path in sorted(Path(root).rglob("_meta/*_artifact_*.json"))
    }


def load_all(root):
    """Every artifact of every attempt, as the runtime finds it and, if it has records, as the client does."""
    found = {}
    for path, document in documents(root).items():
        flow, run, step, number, name = path.split("/")
        attempt = int(name.partition(".")[0])
        found[path] = dict(_open(root, flow, run, step, number, attempt, document).load_artifacts(document["objects"]))
        for artifact in document["objects"]:
            place = Path(root, flow, run, step, number, "_meta", f"{attempt}_artifact_{artifact}.json")
            if place.exists():
                told = json.loads(place.read_text())
                info = {"size": 0, "type": None, "encoding": told["content_type"]}
                known = {"objects": {artifact: told["sha"]}, "info": {artifact: info}}
                # The client does not say which attempt.
                task = _open(root, flow, run, step, number, None, known)
                found[f"{path} {artifact}"] = dict(task.load_artifacts([artifact]))[artifact]
    return found


def _open(root, flow, run, step, task, attempt, document):
    store = FlowDataStore(flow, storage_impl=LocalStorage, ds_root=str(root))
    return store.get_task_datastore(run, step, task, attempt=attempt, data_metadata=document)


def migrate(root, to, execute=True, take_over=False, backend=None, **wanted):
    """The plan, and with ``execute`` the result."""
    with closing(Root(str(root))) as place:
        if backend is not None:
            inner = place.backend
            place.backend = backend(inner)
            place.backend.root = inner.root
        options = MigrationOptions(to, **wanted)
        return migrate_metaflow(place, options, take_over=take_over) if execute else plan_migration(place, options)


def collect(root, policy=KEEP, **options):
    """One collection."""
    with closing(Root(str(root))) as place:
        return collect_metaflow(place, policy, **options)


def whole(root):
    """The findings of a full check."""
    with closing(Root(str(root))) as place:
        return verify_metaflow(place, VerifyOptions("full"))[0].findings


def age(root, seconds):
    """Everything was written so long ago."""
    for path in Path(root).rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - seconds,) * 2)


def files_in_s3(rig, root):
    """The objects below a rig's root, by path."""
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    place = {name: rig.place[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")}
    client = boto3.client(
        "s3", endpoint_url=rig.place["METAFLOW_S3_ENDPOINT_URL"], aws_access_key_id=place["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=place["AWS_SECRET_ACCESS_KEY"], region_name=place["AWS_DEFAULT_REGION"],
    )  # fmt: skip
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
    return {
        key.removeprefix(f"{prefix}/"): client.get_object(Bucket=bucket, Key=key)["Body"].read()
        for key in keys
        if key.endswith(".data.json")
    }
