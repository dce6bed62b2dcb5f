"""A run of many artifacts: written by one process, as tasks write, or read by Metaflow's Client.

``python client.py write TASKS ARTIFACTS``, of each task; ``read RUN tasks``, one artifact of each; ``read RUN
artifacts``, all of the one task; ``look`` asks the Client for all that ``read`` asks it for, but for what the artifacts
are: what that takes is Metaflow's own."""

import json
import os
import random
import sys
import time
import types

import datastore_clock
from metaflow import Step, namespace
from metaflow.datastore import FlowDataStore
from metaflow.metadata_provider import MetaDatum
from metaflow.metaflow_environment import MetaflowEnvironment
from metaflow.plugins import DATASTORES, METADATA_PROVIDERS

SIZE = 8192


def write(tasks, artifacts):
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
    for _ in range(int(tasks)):
        task_id = metadata.new_task_id(run, "work")
        task = flow.get_task_datastore(run, "work", task_id, attempt=0, mode="w")
        task.init_task()
        metadata.register_metadata(run, "work", task_id, [MetaDatum("attempt", "0", "attempt", ["attempt_id:0"])])
        values = {f"value{number:03}": made.randbytes(SIZE) for number in range(int(artifacts))}
        saved = {**values, "_task_ok": True, "_success": True}
        task.save_artifacts(iter(saved.items()), len(saved))
        task.done()
    return {"run": run}


def read(run, through):
    datastore_clock.install()
    sizes, first = [], 0.0
    for value in (found() for found in asked(run, through)):
        first = first or time.perf_counter() - begin
        sizes.append(len(value))
    return {"count": len(sizes), "bytes": sum(sizes), "first": first}


def look(run, through):
    return {"count": len([*asked(run, through)])}


def asked(run, through):
    """What gives each value, once the Client has found it."""
    step = Step(f"Reads/{run}/work")
    if through == "tasks":
        for task in step:
            data = task.data
            yield lambda data=data: data.value000
    else:
        for artifact in step.task:
            if artifact.id.startswith("value"):
                yield lambda artifact=artifact: artifact.data


namespace(None)
begin, used = time.perf_counter(), time.process_time()
found = {"write": write, "read": read, "look": look}[sys.argv[1]](*sys.argv[2:])
print(json.dumps({**found, "wall": time.perf_counter() - begin, "cpu": time.process_time() - used}))
