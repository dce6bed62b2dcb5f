"""mfstore.S3 answers as metaflow.S3 does, on real servers; and what it does besides."""

import gzip
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import uuid
from importlib.metadata import version
from pathlib import Path

import pytest

from mfstore.errors import AccessDenied, BackendError, Conflict, InvalidKey, MfstoreError, NotFound
from mfstore.s3.datatools import exceptions
from mfstore.s3.datatools.s3 import (
    S3,
    MetaflowS3AccessDenied,
    MetaflowS3Exception,
    MetaflowS3InvalidObject,
    MetaflowS3InvalidRange,
    MetaflowS3NotFound,
    MetaflowS3URLException,
    S3GetObject,
    S3PutObject,
)
from mfstore.s3.datatools.settings import settings
from tests import ROOT
from tests.rigs import s3_cases, s3_put_cases
from tests.rigs.s3_cases import environment_of, prepare
from tests.rigs.s3_compare import CASES
from tests.rigs.soak import soaking
from tests.servers import boto_client

# ---- beside metaflow.S3 ----


ANSWERS = Path(__file__).parent / "metaflow_answers.json"
"""Digests of what ``metaflow.S3`` of one release answers to these cases on radosgw. It starts a pool of processes for
each, which takes a minute of CPU, and its answers depend on nothing of ours."""


def asked_now():
    """Who answers, and to which cases."""
    cases = b"".join(Path(module.__file__).read_bytes() for module in (s3_cases, s3_put_cases))
    return {"metaflow": version("metaflow"), "cases": hashlib.sha256(cases).hexdigest()}


def answers_of(which, server):
    client = boto_client(server)
    bucket = f"{which}-{uuid.uuid4().hex[:12]}"
    prepare(client, bucket)
    client.close()
    environment = {
        **os.environ,
        **environment_of(server, METAFLOW_DATATOOLS_S3ROOT="s3://tools/da/ta", METAFLOW_S3_WORKER_COUNT="1"),
        # What metaflow.S3 retries, it would for an hour.
        "METAFLOW_S3_RETRY_COUNT": "0", "METAFLOW_S3_TRANSIENT_RETRY_COUNT": "0",
        "METAFLOW_MFSTORE": "0" if which == "stock" else "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.rigs.s3_compare", which, bucket]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=800)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def digests(answers):
    return {
        name: hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()
        for name, answer in answers.items()
    }


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.timeout(900)
def test_same_as_metaflow(radosgw):
    """Metaflow itself is asked when the digests are not those of ours, or of another release or other cases; and in
    soaks."""
    ours, known, now = answers_of("ours", radosgw), json.loads(ANSWERS.read_text()), asked_now()
    assert set(ours) == set(CASES)
    if known == now | {"digests": digests(ours)} and not soaking():
        return
    stock = answers_of("stock", radosgw)
    assert set(stock) == set(CASES)
    different = {name: (ours[name], stock[name]) for name in CASES if ours[name] != stock[name]}
    assert not different
    found = now | {"digests": digests(stock)}
    if known["metaflow"] == now["metaflow"] and known != found:
        new = ROOT / "build" / ANSWERS.name
        new.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        pytest.fail(f"what is known of Metaflow's answers is old: cp {new} {ANSWERS}")


CROSSED = """
import metaflow.plugins.datatools.s3 as stock, mfstore, sys
root = sys.argv[1]
assert stock.S3 is stock.s3.S3 is mfstore.S3
with mfstore.S3(s3root=root) as ours, stock.StockS3(s3root=root) as theirs:
    meta = {"ä": [1, None], "b": {"c": "d"}}
    theirs.put_many([stock.S3PutObject("a/1", "1", content_type="x/1", metadata=meta), ("a/2", b"2")])
    ours.put_many([stock.S3PutObject("b/1", "1", content_type="x/1", metadata=meta), ("b/2", b"2")])
    for one in ("a", "b"):
        for s3 in (ours, theirs):
            for found in (s3.get_many([one + "/1", one + "/2"]), s3.info_many([one + "/1", one + "/2"])):
                assert [item.metadata for item in found] == [meta, None], found
                assert found[0].content_type == "x/1" and [item.size for item in found] == [1, 1]
        assert [item.text for item in ours.get_recursive([one])] == [item.text for item in theirs.get_recursive([one])]
    import pickle
    from mfstore.s3.datatools.objects import RangeInfo, S3Object
    found = ours.get(stock.S3GetObject("a/1", 0, 1))
    assert found.text == "1" and found.range_info == (1, 0, 1)
    for one in (found, ours.info("a/1"), pickle.loads(pickle.dumps(ours.info("a/1"))), *ours.list_paths(["a"])):
        assert isinstance(one, stock.S3Object) and isinstance(one, S3Object) and one.url.startswith(root + "/a/"), one
        assert str(one) == repr(one) and "1 bytes" in str(one)
    for part in (found.range_info, pickle.loads(pickle.dumps(found.range_info)), found.range_info._replace(total_size=1)):
        assert isinstance(part, stock.RangeInfo) and isinstance(part, RangeInfo) and part == (1, 0, 1), part
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    listed = ours._s3_client.client.list_objects_v2(Bucket=bucket, Prefix=prefix + "/a/")  # as other extensions do
    assert listed["KeyCount"] == 2
    assert ours._s3_client is ours._s3_client and pickle.loads(pickle.dumps(ours)).get("a/1").text == "1"
    assert ours._url("/a/1") == theirs._url("/a/1") == root + "/a/1"
    # Requests are what a client makes of them that was changed or replaced first, as by a proxy's extension.
    seen = []
    with mfstore.S3(s3root=root, region_name="us-east-1", endpoint_url="http://127.0.0.1:1") as changed:
        client = changed._s3_client
        assert client.client.meta.endpoint_url == "http://127.0.0.1:1"
        client._s3_client = theirs._s3_client.client
        client.client.meta.events.register("before-sign.s3", lambda request, **given: seen.append(request.url))
        assert changed.get("a/1").text == "1" and seen, seen
    with mfstore.S3(s3root=root, endpoint_url="http://127.0.0.1:1") as replaced:
        replaced._s3_client = theirs._s3_client
        assert replaced.get("a/1").text == "1"
    for broken, kind in ((lambda: ours.get("no"), stock.MetaflowS3NotFound), (lambda: ours.get("s3://x/y"), stock.MetaflowS3URLException)):
        try:
            broken()
        except kind as error:
            assert isinstance(error, mfstore.errors.MfstoreError) and error.headline == kind.headline, error
    from metaflow.exception import MetaflowException
    try:
        ours.open("no").read()
    except MetaflowException as error:
        again = pickle.loads(pickle.dumps(error))
        assert isinstance(again, stock.MetaflowS3NotFound) and str(again) == str(error) and again.status == 404
    from dataclasses import replace
    from mfstore.s3.datatools import clients, settings
    configured = settings.settings()._replace(provider=True)
    provided = clients.make_client(settings.ClientSettings(configured))
    assert [outcome.size for outcome in provided.head_many([root + "/a/1"])] == [1]
    print("fine")
"""


@pytest.mark.parametrize("s3_server", ["radosgw"], indirect=True)
def test_each_reads_what_the_other_wrote(root, python):
    assert python(CROSSED, root) == "fine\n"


# ---- without Metaflow ----

ALONE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "metaflow":
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
import mfstore
assert "mfstore.s3" not in sys.modules and "botocore" not in sys.modules
class Thing:
    def __init__(self, **fields):
        self.__dict__.update(fields)
with mfstore.S3(run=Thing(id="7", parent=Thing(id="Flow"))) as s3:
    url = s3.put("k", "v", metadata={"a": 1})
    assert url == sys.argv[1] + "/Flow/7/k", url
    assert s3.get("k").metadata == {"a": 1}
    try:
        s3.get("none")
    except mfstore.errors.NotFound as error:
        assert type(error).__name__ == "MetaflowS3NotFound", type(error)
assert "metaflow" not in sys.modules
print("fine")
"""


def test_without_metaflow(root, python):
    assert python(ALONE, root, env={"METAFLOW_DATATOOLS_S3ROOT": root}) == "fine\n"


def test_settings(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("METAFLOW_")]:
        monkeypatch.delenv(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "metaflow"]:
        monkeypatch.delitem(sys.modules, name)
    home, here = tmp_path / "home", tmp_path / "work" / "deep"
    home.mkdir()
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("METAFLOW_HOME", str(home))
    found = settings()
    assert (found.root, found.temporary, found.attempts, found.workers, found.provider) == (None, ".", 21, None, False)
    (home / "config.json").write_text(
        json.dumps({
            "METAFLOW_DATASTORE_SYSROOT_S3": "s3://b/mf", "METAFLOW_S3_RETRY_COUNT": "3", "METAFLOW_S3_ENDPOINT_URL": "http://e",
            "METAFLOW_DATATOOLS_CLIENT_PARAMS": {"region_name": "r"}, "METAFLOW_TEMPDIR": "/home",
        })
    )  # fmt: skip
    nearby = tmp_path / "work" / ".metaflow"
    nearby.mkdir()
    (nearby / "config.json").write_text('{"METAFLOW_TEMPDIR": "/nearby"}')
    monkeypatch.setenv("METAFLOW_S3_TRANSIENT_RETRY_COUNT", "1")
    monkeypatch.setenv("METAFLOW_S3_WORKER_COUNT", "8")
    found = settings()
    assert (found.root, found.temporary, found.attempts, found.workers) == ("s3://b/mf/data", "/nearby", 4, 8)
    assert found.client_params == {"region_name": "r", "endpoint_url": "http://e"}
    monkeypatch.setenv("METAFLOW_DATATOOLS_CLIENT_PARAMS", '{"endpoint_url": "http://own"}')
    monkeypatch.setenv("METAFLOW_DATATOOLS_S3ROOT", "s3://c/d")
    monkeypatch.setenv("METAFLOW_DEFAULT_AWS_CLIENT_PROVIDER", "other")
    monkeypatch.setenv("METAFLOW_S3_VERIFY_CERTIFICATE", "/ca.pem")
    found = settings()
    assert (found.root, found.client_params, found.provider) == (
        "s3://c/d",
        {"endpoint_url": "http://own", "verify": "/ca.pem"},
        True,
    )
    assert S3.get_root_from_config(print) == "s3://c/d"
    monkeypatch.setenv("METAFLOW_S3_RETRY_COUNT", "many")
    with pytest.raises(InvalidKey, match="METAFLOW_S3_RETRY_COUNT") as caught:
        S3()
    assert isinstance(caught.value, MetaflowS3Exception)
    monkeypatch.setenv("METAFLOW_PROFILE", "nobody")
    with pytest.raises(InvalidKey, match="nobody"):
        settings()


# ---- errors ----


def test_bad_credentials_fail_at_once(root, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOTTHERENOTTHERE")
    with S3(s3root=root) as s3:
        for call in (
            lambda: s3.get("a"), lambda: s3.get_many(["a"], return_missing=True), lambda: s3.put_many([("a", b"")]),
            lambda: s3.put_many([("a", b"")], overwrite=False), lambda: s3.put("a", b"", overwrite=False),
            lambda: s3.list_paths(), lambda: s3.info_many(["a"], return_missing=True), lambda: s3.delete("a"),
        ):  # fmt: skip
            with pytest.raises(MetaflowS3AccessDenied) as caught:
                call()
            assert isinstance(caught.value, AccessDenied)
            assert (caught.value.status, caught.value.attempts) == (403, 1)


def test_no_credentials(root, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with S3(s3root=root) as s3, pytest.raises(MetaflowS3AccessDenied, match="no AWS credentials"):
        s3.get_many(["a", "b"])


def test_lost_work_is_an_error(root):
    """Where metaflow.S3 reports success without having stored anything."""
    with S3() as s3, pytest.raises(MetaflowS3NotFound, match="bucket"):
        s3.put_many([("s3://no-such-bucket-here/x", b"")])
    with S3(s3root=root, inject_failure_rate=100, attempts=3) as s3:
        for overwrite in (True, False):
            with pytest.raises(MetaflowS3Exception, match="failed") as caught:
                s3.put_many([("a", b"a"), ("b", b"b")], overwrite=overwrite)
            assert isinstance(caught.value, BackendError)
            assert caught.value.attempts == 3


def test_range_errors_at_once(s3):
    s3.put("a", b"abc")
    for wrong in ((3, 1), (-1, 2), (-1, None), (0, 0)):
        with pytest.raises(MetaflowS3InvalidRange):
            s3.get_many([S3GetObject("a", *wrong)])


def test_what_names_no_object(root, bucket):
    with S3(s3root=f"s3://{bucket}") as s3:
        for call in (s3.get, s3.info, lambda: s3.put("", b""), lambda: s3.put_many([(None, b"")])):
            with pytest.raises(MetaflowS3Exception):
                call()
        with pytest.raises(MetaflowS3Exception, match="1024"):
            s3.get("k" * 1025)


def test_errors_pickle():
    error = exceptions.converted(NotFound("gone", key="k", status=404))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again).__name__, again.key, again.status, str(again)) == ("MetaflowS3NotFound", "k", 404, str(error))
    both = exceptions.converted(Conflict("changed"))
    again = pickle.loads(pickle.dumps(both))
    assert isinstance(again, Conflict)
    assert isinstance(again, MetaflowS3Exception)


def test_wrong_objects(s3, root):
    for wrong in (object(), None, 7, io.StringIO("text"), ["list"]):
        with pytest.raises(MetaflowS3InvalidObject):
            s3.put("a", wrong)
    with pytest.raises(TypeError, match="unknown_argument"):
        S3(unknown_argument=1)
    assert s3.list_recursive() == []


# ---- files ----


def test_temporary_files(root, tmp_path):
    s3 = S3(tmproot=str(tmp_path), s3root=root)
    s3.put("deep/table.csv.gz", b"x")
    directory = s3._tmpdir
    assert os.path.dirname(directory) == str(tmp_path)
    assert os.path.basename(directory).startswith("metaflow.s3.")
    found = [
        *s3.get_many(["deep/table.csv.gz"] * 3),
        s3.get("deep/table.csv.gz"),
        *s3.get_many([S3GetObject("deep/table.csv.gz", 0, 1)]),
    ]
    assert len({item.path for item in found}) == 5
    assert all(item.path.endswith("table.csv.gz") and os.path.isabs(item.path) for item in found)
    s3.close()
    assert not os.path.exists(directory)
    assert os.listdir(tmp_path) == []
    again = s3.get("deep/table.csv.gz")
    assert again.blob == b"x"
    s3.close()
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        _ = again.blob


def test_long_names(s3):
    key = "d/" + "n" * 250 + ".parquet"
    s3.put(key, b"x")
    assert s3.get(key).path.endswith("nnn.parquet")
    assert s3.get_all()[0].blob == b"x"


def test_in_memory(root, tmp_path):
    with S3(tmproot=str(tmp_path), s3root=root) as s3:
        s3.put_many([(str(number), os.urandom(number * 700_000)) for number in range(5)])
        found = s3.get_many(["4", "nope", "0", "4"], return_missing=True, in_memory=True)
        files = s3.get_many(["4", "nope", "0", "4"], return_missing=True)
        assert [item.blob for item in found] == [item.blob for item in files]
        assert [item.downloaded for item in found] == [True, False, True, True]
        fields = ("size", "key", "url", "range_info", "content_type", "last_modified", "exists")
        assert all(getattr(a, name) == getattr(b, name) for a, b in zip(found, files, strict=True) for name in fields)
        s3.close()
        assert os.listdir(tmp_path) == []
        assert len(s3.get_all(in_memory=True)) == len(s3.get_recursive([None], in_memory=True)) == 5
        assert os.listdir(tmp_path) == []
        path = s3.get("3", in_memory=True).path
        assert os.path.getsize(path) == 2_100_000
    assert os.listdir(tmp_path) == []


def test_empty_object_exists(s3):
    s3.put("empty", b"")
    assert "0 bytes, in S3" in str(s3.info("empty"))
    assert "does not exist" in str(s3.info("none", return_missing=True))


def test_file_objects(s3, tmp_path):
    data = os.urandom(3_000_000)
    (tmp_path / "x.gz").write_bytes(gzip.compress(data, 1))
    with gzip.open(tmp_path / "x.gz", "rb") as file:
        s3.put("gzip", file, metadata={"z": 1})
        assert file.closed
    with gzip.open(tmp_path / "x.gz", "rb") as file:
        s3.put("gzip", file, overwrite=False)
    assert s3.info("gzip").metadata == {"z": 1}
    (tmp_path / "plain").write_bytes(data)
    with open(tmp_path / "plain", "rb") as first, open(tmp_path / "plain", "rb") as second:
        second.seek(1_000_000)
        assert s3.put_many([("whole", first), ("rest", second), ("view", memoryview(data)[5:])])
        assert not first.closed
    assert s3.get("gzip").blob == s3.get("whole").blob == data
    assert s3.get("rest").blob == data[1_000_000:]
    assert s3.get("view").blob == data[5:]
    with pytest.raises(MfstoreError):
        s3.put_files([("directory", str(tmp_path))])


def test_many_pages(root, bucket):
    """Two of the first path, one of the second, which is there earlier; more to delete than a request takes."""
    keys = [f"a/{number:04}" for number in range(1020)] + [f"b/{number:04}" for number in range(20)]
    with S3(s3root=root) as s3:
        s3.put_many([(key, b"") for key in keys])
        for found in (s3.list_paths(["a", "b"]), s3.list_recursive(["a", "b"])):
            assert [item.url for item in found] == [f"{root}/{key}" for key in keys]
        assert len(s3.delete_recursive([None])) == len(keys)
        assert s3.list_recursive() == []


def test_overwrite_false_has_one_winner(root):
    """Of writers at the same time one wins, and only that one says so."""
    results = []

    def write(number):
        with S3(s3root=root) as s3:
            results.extend(
                (key, number) for key, _ in s3.put_many([(str(key), str(number)) for key in range(20)], overwrite=False)
            )

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with S3(s3root=root) as s3:
        stored = {item.key: int(item.text) for item in s3.get_all(return_info=True)}
    assert dict(results) == stored
    assert len(results) == 20


# ---- beyond ----


def test_delete(s3, root):
    s3.put_many([(key, b"") for key in ("a", "a/1", "a/2/3", "ab", "c")])
    assert s3.delete("c") == f"{root}/c"
    assert s3.delete("c") == f"{root}/c"
    assert s3.delete_many([]) == []
    would = s3.delete_recursive(["a", "a/2"], dry_run=True)
    assert [item.key for item in would] == ["1", "2/3", "3"]
    assert len(s3.list_recursive()) == 4
    assert [item.url for item in s3.delete_recursive(["a", "a/2"])] == [item.url for item in would]
    assert [item.key for item in s3.list_recursive()] == ["a", "ab"]
    assert s3.delete_many(["a", "none"]) == [("a", f"{root}/a"), ("none", f"{root}/none")]
    assert [item.key for item in s3.list_recursive()] == ["ab"]
    bucket = root.split("/")[2]
    with S3(s3root=f"s3://{bucket}") as whole, S3() as full:
        for call in (lambda: whole.delete_recursive([None]), lambda: full.delete_recursive([f"s3://{bucket}/"])):
            with pytest.raises(MetaflowS3URLException, match="everything"):
                call()


def test_copy(s3, root):
    s3.put("a", b"a", content_type="x/y", metadata={"m": 1})
    assert s3.copy_many({"a": "b/ü c"}) == [("b/ü c", f"{root}/b/ü c")]
    found = s3.get("b/ü c")
    assert (found.blob, found.content_type, found.metadata) == (b"a", "x/y", {"m": 1})
    assert s3.copy_many([(f"{root}/a", f"{root}x/2")]) == [(f"{root}x/2", f"{root}x/2")]
    with pytest.raises(MetaflowS3NotFound):
        s3.copy_many([("none", "c")])


def test_encryption(ministack, monkeypatch, tmp_path):
    for name, value in environment_of(ministack, METAFLOW_S3_SERVER_SIDE_ENCRYPTION="AES256").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    bucket = ministack.create_bucket(f"test-{uuid.uuid4().hex[:20]}")
    if "metaflow.metaflow_config" in sys.modules:
        monkeypatch.delitem(sys.modules, "metaflow.metaflow_config")
    with S3(s3root=f"s3://{bucket}") as s3:
        s3.put_many([("default", b"")])
        assert s3.info("default").encryption == "AES256"
    with S3(s3root=f"s3://{bucket}", encryption=None) as s3:
        s3.put_many([("none", b""), S3PutObject("own", b"", encryption="AES256")])
        assert [item.encryption for item in s3.info_many(["none", "own"])] == [None, "AES256"]
        s3.put_many([S3PutObject("older", b"", encryption={"cas_raw": True})])
        assert (s3.info("older").encryption, s3.info("older").metadata) == (None, {"cas_raw": True})
    with S3(s3root=f"s3://{bucket}", encryption=None, kms_key="alias/some") as s3:
        s3.put("key", b"")
        with s3.open("stream", "wb") as file:
            file.write(b"x")
        assert [item.encryption for item in s3.info_many(["key", "stream"])] == ["aws:kms"] * 2


def test_the_names_that_programs_import():
    from mfstore.s3 import exceptions, helper

    assert all(issubclass(getattr(exceptions, name), MfstoreError) for name in exceptions.__all__)
    assert len(exceptions.__all__) == 7
    assert helper.S3 is S3
    assert {"S3GetObject", "S3PutObject", "S3Object", "RangeInfo"} < set(helper.__all__)


def test_progress_of_both_ways(root, tmp_path):
    told = []
    with S3(tmproot=str(tmp_path), s3root=root, progress=told.append) as s3:
        s3.put_many([("a", b"1"), ("b", b"2")])
        s3.put_many([("b", b"3"), ("c", b"4")], overwrite=False)
        assert sum(told) == 3
        s3.put("d", b"5")
        assert [len(got.blob) for got in s3.get_many(["a", "b", "c", "d"])] == [1, 1, 1, 1]
        assert [got.blob for got in s3.get_many(["a"], in_memory=True)] == [b"1"]
        assert sum(told) == 9
        with pickle.loads(pickle.dumps(s3)) as copy:
            copy.get("a")
    assert sum(told) == 9
