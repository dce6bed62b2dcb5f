"""Calls that metaflow.S3 and mfstore.S3 must answer alike: putting, and what else there is."""

import io
import os
import tempfile

from tests.rigs.s3_cases import case, describe

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
