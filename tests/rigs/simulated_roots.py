"""Datastore roots of stock Metaflow on a simulated S3, where requests are counted: runs with the files that Metaflow
writes of them there, as old as is asked for."""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import time
from collections import Counter
from datetime import datetime
from urllib.parse import quote_plus

from mfstore.backends.s3.backend import S3Backend
from mfstore.maintenance.metaflow import inventory
from mfstore.maintenance.metaflow import root as roots
from mfstore.maintenance.metaflow.root import Root
from mfstore.metaflow.roots.outcome import FALSE_KEYS, TRUE_KEYS
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

URL = "s3://b/mf"
STEPS = ("start", "train", "end")
LOGS = ("runtime", "task_stdout.log", "task_stderr.log", "runtime_stdout.log", "runtime_stderr.log")


SCHEMA = (
    "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); optional int64 size; "
    "optional int64 last_modified_date (TIMESTAMP_MILLIS); optional binary e_tag (UTF8); optional boolean is_latest; "
    "optional boolean is_delete_marker; }"
)
"""Of an inventory in Parquet, as S3 writes it down."""


def inventory_of(world, moment, form="CSV", *, files=2, bucket="b", versions=False, leave_out=()):
    """Write an S3 Inventory of a simulated bucket as it is, made at this moment; returns the key of its manifest. With
    ``versions``: as of a bucket that keeps them."""
    folder = time.strftime("inv/b/all/%Y-%m-%dT%H-%MZ/", time.gmtime(moment))
    keys = sorted(key for key in world.objects if not key.startswith("inv/") and key not in leave_out)
    rows = [
        (
            bucket, key, len(world.objects[key]), world._day(key), world.etag(key).strip('"'), True,
            False,
        )
        for key in keys
    ]  # fmt: skip
    if versions:
        rows += [(bucket, key, 7, "2020-01-01T00:00:00.000Z", "0" * 32, False, False) for key in keys[::3]]
        rows += [(bucket, f"{key}-gone", None, "2020-01-01T00:00:00.000Z", "", True, True) for key in keys[::5]]
    names = ("Bucket", "Key", "Size", "LastModifiedDate", "ETag", "IsLatest", "IsDeleteMarker")
    names = names if versions else names[:5]
    written = []
    for number in range(files):
        part = [row[: len(names)] for row in rows[number::files]]
        data = csv_of(part) if form == "CSV" else parquet_of(part, names)
        key = f"inv/b/all/data/{number}-{form}-{len(rows)}"
        world.objects[key] = data
        written.append({"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()})
    schema = ", ".join(names) if form == "CSV" else SCHEMA if versions else SCHEMA[: SCHEMA.index("optional boolean")]
    document = {
        "sourceBucket": bucket, "destinationBucket": "arn:aws:s3:::b", "version": "2016-11-30",
        "creationTimestamp": str(int(moment * 1000)), "fileFormat": form, "fileSchema": schema, "files": written,
    }  # fmt: skip
    world.objects[f"{folder}manifest.json"] = json.dumps(document).encode()
    return f"{folder}manifest.json"


def csv_of(rows):
    """A file of an inventory in CSV: keys are encoded as in URLs, all fields quoted."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(
        [quote_plus(value, safe="/") if number == 1 else str(value).lower() if isinstance(value, bool) else value
         for number, value in enumerate(row)] for row in rows
    )  # fmt: skip
    return gzip.compress(text.getvalue().encode())


def parquet_of(rows, names):
    """A file of an inventory in Parquet."""
    import pyarrow
    from pyarrow import parquet

    fields = {"Bucket": "bucket", "Key": "key", "Size": "size", "LastModifiedDate": "last_modified_date", "ETag": "e_tag",
              "IsLatest": "is_latest", "IsDeleteMarker": "is_delete_marker"}  # fmt: skip
    columns = dict(zip((fields[name] for name in names), zip(*rows, strict=True), strict=True))
    columns["last_modified_date"] = pyarrow.array(
        [datetime.fromisoformat(moment).replace(tzinfo=None) for moment in columns["last_modified_date"]],
        pyarrow.timestamp("ms"),
    )
    made = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), made)
    return made.getvalue()


class SimulatedRoot:
    """A root at ``URL``, while it is ``patched`` in."""

    def __init__(self):
        self.world = SimulatedS3(clock=time.time)

    def backend(self, url, reached=()):
        world = self.world

        class Simulated(S3Backend):
            def make_client(self, options):
                return simulated_client(world)

        return Simulated(url)

    @contextlib.contextmanager
    def opened(self, monkeypatch):
        """The root, as maintenance has it."""
        with monkeypatch.context() as patched:
            for module in (roots, inventory):
                patched.setattr(module, "remote_backend", self.backend)
            found = Root(URL)
            try:
                yield found
            finally:
                found.close()

    @contextlib.contextmanager
    def counted(self):
        """How often each operation was asked for within this."""
        before = len(self.world.log)
        found = Counter()
        yield found
        found.update(operation for operation, _ in self.world.log[before:])

    def put(self, key, data, age):
        self.world.objects[f"mf/{key}"] = data
        self.world.modified[f"mf/{key}"] = float(int(time.time() - age))

    def blob(self, flow, value, age=0.0):
        data = json.dumps(value).encode()
        key = hashlib.sha1(data).hexdigest()
        if f"mf/{flow}/data/{key[:2]}/{key}" not in self.world.objects:
            self.put(f"{flow}/data/{key[:2]}/{key}", gzip.compress(data, 1, mtime=0), age)
        return key

    def run(self, flow, run, age=0.0, *, steps=STEPS, well=True, ended=True, own=2, logs=LOGS):
        """A run, each task of which has ``own`` artifacts of its own and two that all runs of the flow share."""
        for number, step in enumerate(steps):
            place = f"{flow}/{run}/{step}/{number + 1}/0."
            keys = {f"own{n}": self.blob(flow, [run, step, n], age) for n in range(own)}
            keys |= {name: self.blob(flow, [flow, name], age) for name in ("name", "shared")}
            keys["_task_ok"] = keys["_success"] = min(TRUE_KEYS if well else FALSE_KEYS)
            self.put(f"{place}attempt.json", b'{"time": 1}', age)
            self.put(f"{place}task_begin", json.dumps({"code_package_sha": None, "run": run}).encode(), age)
            if not ended and step == steps[-1]:
                return
            infos = {name: {"size": 4, "type": "<class 'list'>", "encoding": "gzip+pickle-v4"} for name in keys}
            document = {"datastore": "s3", "version": "1.0", "attempt": 0, "objects": keys, "info": infos}
            self.put(f"{place}data.json", json.dumps(document).encode(), age)
            for name in (*logs, "DONE.lock"):
                self.put(f"{place}{name}", b"", age)

    def inventory(self, form="CSV", *, age=0.0, **more):
        """As ``inventory_of``, so many seconds ago."""
        return inventory_of(self.world, time.time() - age, form, **more)

    def forget(self):
        """What collections remember."""
        for key in [key for key in self.world.objects if key.startswith("mf/mf.maintenance/known/")]:
            del self.world.objects[key]

    def under(self, prefix):
        """Keys below the root that begin with this."""
        return sorted(key[3:] for key in self.world.objects if key.startswith(f"mf/{prefix}"))
