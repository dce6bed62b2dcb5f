"""The datastores of as many tasks as asked for, written as tasks do, or opened and read as their join does."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from metaflow.datastore import FlowDataStore
from metaflow.plugins import DATASTORES

PROCESSES = ("os.fork", "os.posix_spawn", "subprocess.Popen")
command, count = sys.argv[1], int(sys.argv[2])
storage = next(found for found in DATASTORES if found.TYPE == "s3")
flow = FlowDataStore("Many", storage_impl=storage, ds_root=os.environ["METAFLOW_DATASTORE_SYSROOT_S3"])


class Silent:
    """Metadata that nobody keeps."""

    def __getattr__(self, name):
        return lambda *arguments, **options: None


flow.metadata = Silent()


def write(number):
    task = flow.get_task_datastore("1", "work", str(number), attempt=0, mode="w")
    task.init_task()
    task.save_artifacts(iter([("value", number), ("shared", list(range(100)))]), len_hint=2)
    task.done()


if command == "write":
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(count)))
    print(json.dumps({"written": count}))
else:
    started = []
    sys.addaudithook(lambda event, given: started.append(event) if event in PROCESSES else None)
    paths = [f"1/work/{number}" for number in range(count)]
    tasks = flow.get_task_datastores(pathspecs=paths)
    print(json.dumps({"sum": sum(task["value"] for task in tasks), "processes": started}))
