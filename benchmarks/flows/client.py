"""A run of many tasks with one artifact each: written by one process, as tasks write, or read by Metaflow's Client."""

import json
import os
import random
import sys
import types

import datastore_clock
from metaflow import Step, namespace
from metaflow.datastore import FlowDataStore
from metaflow.metadata_provider import MetaDatum
from metaflow.metaflow_environment import MetaflowEnvironment
from metaflow.plugins import DATASTORES, METADATA_PROVIDERS

SIZE = 8192
command, count = sys.argv[1], int(sys.argv[2])


def write():
    storages = {found.TYPE: found for found in DATASTORES}
    kind = os.environ["METAFLOW_DEFAULT_DATASTORE"]
    local = os.path.join(os.environ["METAFLOW_DATASTORE_SYSROOT_LOCAL"], ".metaflow")
    os.makedirs(local, exist_ok=True)
    storages["local"].datastore_root = local
    provider = next(found for found in METADATA_PROVIDERS if found.TYPE == "local")
    environment = MetaflowEnvironment(None)
    metadata = provider(environment, types.SimpleNamespace(name="Reads"), None, None)
    root = local if kind == "local" else os.environ["METAFLOW_DATASTORE_SYSROOT_S3"]
    flow = FlowDataStore("Reads", environment, metadata, storage_impl=storages[kind], ds_root=root)
    run = metadata.new_run_id()
    made = random.Random(0)
    for _ in range(count):
        task_id = metadata.new_task_id(run, "work")
        task = flow.get_task_datastore(run, "work", task_id, attempt=0, mode="w")
        task.init_task()
        metadata.register_metadata(run, "work", task_id, [MetaDatum("attempt", "0", "attempt", ["attempt_id:0"])])
        artifacts = {"value": made.randbytes(SIZE), "_task_ok": True, "_success": True}
        task.save_artifacts(iter(artifacts.items()), len(artifacts))
        task.done()
    return {"run": run}


def read(run):
    datastore_clock.install()
    namespace(None)
    values = [task.data.value for task in Step(f"Reads/{run}/work")]
    return {"count": len(values), "bytes": sum(map(len, values))}


print(json.dumps(write() if command == "write" else read(sys.argv[3])))
