"""The same calls to metaflow.S3 and mfstore.S3, and what came of them, for tests/test_s3_helper.py.

``python -m tests.s3_cases stock|ours BUCKET`` prints {case: result} as JSON. Fresh processes, because Metaflow reads its
configuration when it is imported. Results are made comparable: bucket and temporary names, times and texts of errors go.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time

OBJECTS = {
    "in/0.txt": b"zero",
    "in/b/1.txt": b"one",
    "in/b/c/2.txt": b"two two",
    "in/empty": b"",
    "in/été/naïve ☃ x": b"snow",
    "in/a b+c&d=e%20.csv.gz": b"odd",
    "in/x#y": b"fragment",
    "in/dir/": b"",
    "in/dir/3": b"three",
    "in/long": bytes(range(256)) * 400,
    "inside/4": b"not under in",
}
CASES = {}


def case(function):
    CASES[function.__name__.strip("_").replace("_", " ")] = function
    return function


def prepare(client, bucket):
    client.create_bucket(Bucket=bucket)
    for key, data in OBJECTS.items():
        more = {"ContentType": "text/plain", "Metadata": {"metaflow-user-attributes": '{"k": ["v", 1]}'}}
        client.put_object(Bucket=bucket, Key=key, Body=data, **(more if key == "in/0.txt" else {}))


class World:
    """One implementation and its bucket."""

    def __init__(self, module, bucket):
        self.m = module
        self.bucket = bucket
        self.root = f"s3://{bucket}/in"
        self.tmp = tempfile.mkdtemp()
        self.opened = contextlib.ExitStack()

    def at(self, prefix):
        """A client with a root."""
        return self.open(s3root=f"s3://{self.bucket}/{prefix}")

    def full(self):
        """A client without."""
        return self.open()

    def open(self, **how):
        """A client for ``with``, closed only when its results have been described."""
        s3 = self.m.S3(tmproot=self.tmp, **how)
        self.opened.callback(s3.close)
        return contextlib.nullcontext(s3)

    def range(self, key, offset, length):
        return self.m.S3GetObject(key, offset, length)

    def item(self, *args, **kwargs):
        return self.m.S3PutObject(*args, **kwargs)

    def back(self, key):
        """What is in S3 under a key, for both to tell alike."""
        import boto3

        found = boto3.client("s3").get_object(Bucket=self.bucket, Key=key)
        return [found["Body"].read(), found["ContentType"], found["Metadata"].get("metaflow-user-attributes")]


# ---- listing ----


@case
def list_paths(w):
    with w.at("in") as s3:
        return s3.list_paths()


@case
def list_paths_of_keys(w):
    with w.at("in") as s3:
        return s3.list_paths(["b", "dir/", "b", "nothing", "été", "0.txt"])


@case
def list_paths_full_urls(w):
    with w.full() as s3:
        return s3.list_paths([w.root, f"s3://{w.bucket}/", f"s3://{w.bucket}/in/b/"])


@case
def list_recursive(w):
    with w.at("in") as s3:
        return s3.list_recursive()


@case
def list_recursive_of_keys(w):
    with w.at("in") as s3:
        return s3.list_recursive(["dir", "b/c", "b", "nothing"])


@case
def list_recursive_full_urls(w):
    with w.full() as s3:
        return s3.list_recursive([f"s3://{w.bucket}/in", f"s3://{w.bucket}/"])


@case
def list_bucket_as_root(w):
    with w.open(s3root=f"s3://{w.bucket}") as s3:
        return [s3.list_paths(), s3.list_paths(["in"]), s3.list_recursive(), s3.get("inside/4")]


@case
def list_bucket_url(w):
    with w.full() as s3:
        return s3.list_paths([f"s3://{w.bucket}"])


@case
def list_nothing(w):
    with w.at("in") as s3:
        return [s3.list_paths([]), s3.list_recursive([])]


@case
def list_without_root(w):
    with w.full() as s3:
        return s3.list_paths()


@case
def list_missing_bucket(w):
    with w.full() as s3:
        return s3.list_paths(["s3://no-such-bucket-here/x"])


# ---- information ----


@case
def info(w):
    with w.at("in") as s3:
        return [s3.info(key) for key in ("0.txt", "empty", "long", "été/naïve ☃ x", "x#y", "/0.txt")]


@case
def info_full_url(w):
    with w.full() as s3:
        return s3.info(f"{w.root}/0.txt")


@case
def info_missing(w):
    with w.at("in") as s3:
        return s3.info("nope")


@case
def info_return_missing(w):
    with w.at("in") as s3:
        return s3.info("nope", return_missing=True)


@case
def info_missing_bucket(w):
    with w.full() as s3:
        return s3.info("s3://no-such-bucket-here/x")


@case
def info_many(w):
    with w.at("in") as s3:
        return s3.info_many(["long", "0.txt", "empty", "0.txt", "x#y"])


@case
def info_many_missing(w):
    with w.at("in") as s3:
        return s3.info_many(["0.txt", "nope"])


@case
def info_many_return_missing(w):
    with w.at("in") as s3:
        return s3.info_many(["nope", "0.txt", "nope"], return_missing=True)


@case
def info_many_empty(w):
    with w.at("in") as s3:
        return s3.info_many([])


# ---- getting ----


@case
def get(w):
    with w.at("in") as s3:
        return [
            s3.get(key) for key in ("0.txt", "empty", "long", "été/naïve ☃ x", "a b+c&d=e%20.csv.gz", "x#y", "dir/")
        ]


@case
def get_root_itself(w):
    with w.open(s3root=f"{w.root}/0.txt") as s3:
        return s3.get()


@case
def get_without_info(w):
    with w.at("in") as s3:
        return s3.get("0.txt", return_info=False)


@case
def get_full_url(w):
    with w.full() as s3:
        return s3.get(f"{w.root}/b/1.txt")


@case
def get_slashes(w):
    with w.full() as s3:
        return s3.get(f"s3://{w.bucket}//in/b/1.txt")


@case
def get_missing(w):
    with w.at("in") as s3:
        return s3.get("nope")


@case
def get_return_missing(w):
    with w.at("in") as s3:
        return [s3.get("nope", return_missing=True), s3.get("nope", return_missing=True, return_info=False)]


@case
def get_missing_bucket(w):
    with w.full() as s3:
        return s3.get("s3://no-such-bucket-here/x")


@case
def get_ranges(w):
    ranges = [(0, 4), (5, 7), (None, 3), (10, None), (0, -5), (7, -5), (0, 10**9), (102399, 5), (0, -(10**9))]
    with w.at("in") as s3:
        return [s3.get(w.range("long", *which)) for which in ranges]


@case
def get_range_none(w):
    with w.at("in") as s3:
        return s3.get(w.range("0.txt", None, None))


@case
def get_range_after_end(w):
    with w.at("in") as s3:
        return s3.get(w.range("0.txt", 4, 1))


@case
def get_range_of_empty(w):
    with w.at("in") as s3:
        return s3.get(w.range("empty", 0, 1))


@case
def get_range_missing(w):
    with w.at("in") as s3:
        return s3.get(w.range("nope", 0, 1))


@case
def get_url_with_root(w):
    with w.at("in") as s3:
        return s3.get(f"{w.root}/0.txt")


@case
def get_key_without_root(w):
    with w.full() as s3:
        return s3.get("0.txt")


@case
def get_none_without_root(w):
    with w.full() as s3:
        return s3.get()


@case
def get_other_scheme(w):
    with w.full() as s3:
        return s3.get("gs://bucket/key")


@case
def get_bucket_without_root(w):
    with w.full() as s3:
        return s3.get(f"s3://{w.bucket}")


@case
def get_many(w):
    keys = ["long", "0.txt", "empty", "été/naïve ☃ x", "0.txt", "a b+c&d=e%20.csv.gz", "x#y"]
    with w.at("in") as s3:
        return s3.get_many(keys)


@case
def get_many_without_info(w):
    with w.at("in") as s3:
        return s3.get_many(["long", "0.txt"], return_info=False)


@case
def get_many_ranges(w):
    ranges = [("long", 0, 4), ("long", 7, -5), ("long", 10, None), ("0.txt", None, None), ("long", 102000, 10**6)]
    with w.at("in") as s3:
        return s3.get_many([w.range(*which) for which in ranges])


@case
def get_many_missing(w):
    with w.at("in") as s3:
        return s3.get_many(["0.txt", "nope"])


@case
def get_many_return_missing(w):
    with w.at("in") as s3:
        return s3.get_many(["nope", "0.txt", "nope", "nein"], return_missing=True)


@case
def get_many_return_missing_without_info(w):
    with w.at("in") as s3:
        return s3.get_many(["nope", "0.txt"], return_missing=True, return_info=False)


@case
def get_many_full_urls(w):
    with w.full() as s3:
        return s3.get_many([f"{w.root}/0.txt", f"s3://{w.bucket}/inside/4"])


@case
def get_many_bad_url(w):
    with w.full() as s3:
        return s3.get_many([f"{w.root}/0.txt", "relative"])


@case
def get_many_empty(w):
    with w.at("in") as s3:
        return [s3.get_many([]), s3.get_many(iter(())), s3.get_recursive([])]


@case
def get_recursive(w):
    with w.at("in") as s3:
        return s3.get_recursive(["b", "dir", "nothing"])


@case
def get_recursive_with_info(w):
    with w.at("in") as s3:
        return s3.get_recursive(["b", "dir"], return_info=True)


@case
def get_recursive_duplicates(w):
    with w.full() as s3:
        return s3.get_recursive([f"{w.root}/b", f"{w.root}/b/c"])


@case
def get_recursive_nothing(w):
    with w.at("in") as s3:
        return s3.get_recursive(["nothing"])


@case
def get_all(w):
    with w.at("in/b") as s3:
        return s3.get_all()


@case
def get_all_with_info(w):
    with w.at("in/b") as s3:
        return s3.get_all(return_info=True)


@case
def get_all_without_root(w):
    with w.full() as s3:
        return s3.get_all()


# ---- putting ----


@case
def put(w):
    with w.at("out") as s3:
        urls = [
            s3.put("text", "häßlich ☃"), s3.put("bytes", b"\0\xff"), s3.put("empty", ""), s3.put("/slash", b"x"),
            s3.put("ü/ñ ☃#?"[:-1], b"u"), s3.put("meta", b"m", metadata={"ü": [1, {"x": None}]}, content_type="a/b"),
        ]  # fmt: skip
    return [urls, [w.back(f"out/{key}") for key in ("text", "bytes", "empty", "slash", "ü/ñ ☃#", "meta")]]


@case
def put_full_url(w):
    with w.full() as s3:
        return [s3.put(f"s3://{w.bucket}/out/full", b"full"), w.back("out/full")]


@case
def put_files_objects(w):
    with tempfile.TemporaryFile() as file, w.at("out") as s3:
        file.write(b"0123456789")
        memory = io.BytesIO(b"abcdef")
        memory.seek(3)
        urls = [s3.put("file", file), s3.put("memory", memory)]
        return [urls, file.closed, memory.closed, w.back("out/file"), w.back("out/memory")]


@case
def put_long_file(w):
    with tempfile.TemporaryFile() as file, w.at("out") as s3:
        file.write(b"0123456789" * 300_000)
        return [s3.put("longfile", file), w.back("out/longfile")[0] == b"0123456789" * 300_000]


@case
def put_no_overwrite(w):
    with w.at("out") as s3:
        urls = [s3.put("once", b"first", overwrite=False), s3.put("once", b"second", overwrite=False)]
        again = w.back("out/once")
        return [urls, again, s3.put("once", b"third"), w.back("out/once")]


@case
def put_object(w):
    with w.at("out") as s3:
        return s3.put("bad", object())


@case
def put_none(w):
    with w.at("out") as s3:
        return s3.put("bad", None)


@case
def put_text_file(w):
    with w.at("out") as s3:
        return s3.put("bad", io.StringIO("text"))


@case
def put_write_only_file(w):
    with tempfile.TemporaryDirectory() as there, open(os.path.join(there, "f"), "wb") as file, w.at("out") as s3:
        return s3.put("bad", file)


@case
def put_bad_metadata(w):
    with w.at("out") as s3:
        return s3.put("bad", b"", metadata={"x": object()})


@case
def put_url_with_root(w):
    with w.at("out") as s3:
        return s3.put(f"s3://{w.bucket}/x", b"")


@case
def put_missing_bucket(w):
    with w.full() as s3:
        return s3.put("s3://no-such-bucket-here/x", b"")


@case
def put_many(w):
    memory = io.BytesIO(b"abcdef")
    memory.seek(3)
    objects = [
        ("m/1", "ünï"), ("m/2", b"two"), w.item("m/3", "three", content_type="x/y", metadata={"a": "ü"}),
        w.item("m/4", b""), ("m/5", memory), ["m/6", b"list"], ("m/7", b"7" * 2_000_000),
    ]  # fmt: skip
    with w.at("out") as s3:
        pairs = s3.put_many(objects)
    return [pairs, memory.closed, [w.back(f"out/m/{number}") for number in range(1, 8)]]


@case
def put_many_generator(w):
    with w.full() as s3:
        return s3.put_many((f"s3://{w.bucket}/out/g/{number}", b"g") for number in range(3))


@case
def put_many_no_overwrite(w):
    with w.at("out") as s3:
        s3.put("n/1", b"old")
        pairs = s3.put_many([("n/0", b"new"), ("n/1", b"new"), ("n/2", b"new")], overwrite=False)
        return [pairs, [w.back(f"out/n/{number}") for number in range(3)]]


@case
def put_many_all_there(w):
    with w.at("in") as s3:
        return s3.put_many([("0.txt", b"new"), ("empty", b"new")], overwrite=False)


@case
def put_many_empty(w):
    with w.at("out") as s3:
        return [s3.put_many([]), s3.put_files([])]


@case
def put_many_bad_object_stores_nothing(w):
    with w.at("out") as s3:
        try:
            s3.put_many([("bad/1", b"good"), ("bad/2", 7)])
        except Exception as error:
            return [describe(error), s3.info("bad/1", return_missing=True).exists]


@case
def put_many_bad_key(w):
    with w.at("out") as s3:
        return s3.put_many([("bad/1", b"good"), ("s3://bucket/bad", b"")])


@case
def put_files(w):
    with w.at("out") as s3:
        first, second = os.path.join(w.tmp, "first"), os.path.join(w.tmp, "second")
        for path, data in ((first, b"1"), (second, b"")):
            with open(path, "wb") as file:
                file.write(data)
        pairs = s3.put_files([("f/1", first), w.item("f/2", path=second, content_type="t/f", metadata={"f": 1})])
        return [pairs, w.back("out/f/1"), w.back("out/f/2"), s3.put_files([("f/1", second)], overwrite=False)]


@case
def put_files_missing(w):
    with w.at("out") as s3:
        return s3.put_files([("f/1", "/no/such/file")])


# ---- the rest ----


@case
def constructor(w):
    with w.m.S3(s3root=f"{w.root}/", tmproot=w.tmp, bucket="b", prefix="p") as s3:
        there = os.path.isdir(s3._tmpdir), os.path.basename(s3._tmpdir)[:12], os.path.dirname(s3._tmpdir) == w.tmp
        state = [s3._s3root, s3._bucket, s3._prefix, s3._run, s3._encryption, s3._tmproot == w.tmp, s3.TYPE, there]
    return [state, s3._tmpdir, w.m.S3.get_root_from_config(None)]


@case
def bad_root(w):
    return w.m.S3(s3root="bucket/prefix")


@case
def run_object(w):
    class Thing:
        pass

    run, run.parent = Thing(), Thing()
    run.id, run.parent.id = "17", "AFlow"
    with w.open(run=run) as one, w.open(run=run, bucket=w.bucket, prefix="/p/q") as two:
        url = two.put("x", b"run")
        return [one._s3root, two._s3root, url, w.back("p/q/AFlow/17/x"), two.get("x")]


@case
def run_flow_outside(w):
    from metaflow import FlowSpec

    class AFlow(FlowSpec):
        pass

    return w.m.S3(run=AFlow.__new__(AFlow), tmproot=w.tmp)


@case
def closed_files(w):
    s3 = w.m.S3(s3root=w.root, tmproot=w.tmp)
    found = s3.get_many(["0.txt", "b/1.txt"])
    before = [os.path.exists(item.path) for item in found]
    s3.close()
    s3.close()
    return [before, [os.path.exists(item.path) for item in found], found[0].size]


@case
def moved_files(w):
    with w.at("in") as s3:
        found = s3.get_many(["0.txt", "b/1.txt"])
        for item in found:
            os.rename(item.path, item.path + ".moved")
        return [os.path.basename(item.path) != "" for item in found]


def describe(value):
    """A result for JSON."""
    if isinstance(value, Exception):
        from metaflow.plugins.datatools.s3 import s3

        names = [name for name in dir(s3) if name.startswith("MetaflowS3") and isinstance(value, getattr(s3, name))]
        return {"raises": names or [type(value).__name__]}
    if isinstance(value, bytes):
        return value.decode("latin-1") if len(value) < 200 else f"{len(value)} bytes"
    if type(value).__name__ == "S3Object":
        fields = (
            "url", "key", "prefix", "exists", "downloaded", "size", "has_info", "metadata", "content_type",
            "encryption", "range_info", "blob", "text",
        )  # fmt: skip
        found = {name: describe(getattr(value, name)) for name in fields}
        moment = value.last_modified
        return {
            **found,
            "recent": None if moment is None else abs(time.time() - moment) < 3600,
            "local": bool(value.path),
        }
    if isinstance(value, dict):
        return {key: describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    return value


def main(which, bucket):
    if which == "stock":
        import metaflow.plugins.datatools.s3 as module
    else:
        import metaflow  # noqa: F401

        import mfstore.s3.helper as module
    world, results = World(module, bucket), {}
    for name, function in CASES.items():
        try:
            result = function(world)
        except Exception as error:
            result = error
        results[name] = describe(result)
        world.opened.close()
    shutil.rmtree(world.tmp)
    print(json.dumps(results).replace(bucket, "BUCKET"))


if __name__ == "__main__":
    main(*sys.argv[1:])
