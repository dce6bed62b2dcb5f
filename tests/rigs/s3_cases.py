"""Calls that metaflow.S3 and mfstore.S3 must answer alike: listing, asking and getting."""

import contextlib
import os
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


def environment_of(server, **more):
    return {
        "AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": server.url, "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "METAFLOW_HOME": os.devnull, "AWS_EC2_METADATA_DISABLED": "true", "USER": "somebody", **more,
    }  # fmt: skip
