"""The way of a call: how many files of mfstore, and how many calls of Python functions, one operation passes.

``python -m tests.rigs.walk`` prints the table of docs/architecture.md; ``-v`` lists the files. It needs radosgw.
"""

import gc
import os
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import mfstore

PACKAGE = Path(mfstore.__file__).parent
RECORDS = str(PACKAGE / "records.py")
"""Whose methods the standard library's would be, which nobody reads on the way either."""
SIZE = 4096


def passed(work):
    """``work()``, and how often it called into each file of mfstore, in whatever thread."""
    files = Counter()

    def count(frame, event, argument):
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(PACKAGE)) and path != RECORDS:
            files[os.path.relpath(path, PACKAGE)] += 1

    gc.collect()
    gc.disable()  # it would close what others have left open, which is no part of the way
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        gc.enable()
    return files


def store_walks(url, **options):
    """A put and a get of 4 KiB by a handle that has done both before."""
    with mfstore.open(url, **options) as store:
        for _ in range(5):
            store.get(store.put(os.urandom(SIZE)))
        keys = []
        data = os.urandom(SIZE)
        return {"put": passed(lambda: keys.append(store.put(data))), "get": passed(lambda: store.get(keys[0]))}


def bulk_walk(client):
    """``get_many`` of one object of 4 KiB by a client that has done it before."""
    client.put_many({"walk": os.urandom(SIZE)})
    list(client.get_many(["walk"]))
    return passed(lambda: list(client.get_many(["walk"])))


def main():
    from mfstore.s3 import BulkClient
    from tests.servers import Radosgw, client_options

    walks = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, files in store_walks(f"{directory}/store").items():
            walks[f"`store.{name}` in a directory"] = files
    with Radosgw() as server:
        server.create_bucket("walk")
        named = client_options(server)
        for name, files in store_walks("s3://walk/store", **named).items():
            walks[f"`store.{name}` in S3"] = files
        with BulkClient("walk", **named) as client:
            walks["`BulkClient.get_many`"] = bulk_walk(client)
    print("| 4 KiB, on a warm handle | files | calls |\n|---|--:|--:|")
    for name, files in walks.items():
        print(f"| {name} | {len(files)} | {sum(files.values())} |")
        if "-v" in sys.argv:
            for path, count in files.most_common():
                print(f"    {count} {path}")


if __name__ == "__main__":
    os.environ["BOTO_DISABLE_CRT"] = "true"
    main()
