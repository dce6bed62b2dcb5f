"""What the filesystem does beyond fsspec's own tests, on radosgw."""

import asyncio
import errno
import gc
import json
import os
import pickle
import threading
import urllib.request

import fsspec
import pytest
from fsspec.callbacks import Callback
from fsspec.json import FilesystemJSONEncoder

from mfstore.errors import (
    AccessDenied,
    InvalidKey,
    MfstoreError,
    MfstoreWarning,
    NotFound,
    PathNotFound,
    Unsupported,
    WrongArgument,
)
from mfstore.s3.filesystem import S3FileSystem
from mfstore.s3.filesystem.errors import FileReplaced
from mfstore.testing import FaultProxy
from tests.s3.filesystem.conftest import arguments


@pytest.fixture
def counted(radosgw, place):
    """Behind a proxy that sees each request."""
    with FaultProxy(radosgw.url) as proxy:
        files = S3FileSystem(**{**arguments(radosgw), "endpoint_url": proxy.url}, skip_instance_cache=True)
        files.exists(place)
        proxy.clear()
        yield files, proxy
        files.client.close()


class TestPaths:
    @pytest.mark.parametrize("path", ["s3://b/k/x", "s3a://b/k/x", "mfs3://b/k/x", "b/k/x", "/b/k/x/"])
    def test_of_all_protocols(self, path):
        assert S3FileSystem._strip_protocol(path) == "b/k/x"

    def test_a_bucket_is_no_file(self, files):
        with pytest.raises(InvalidKey):
            files.cat_file("bucket")

    def test_access_points(self, files):
        assert files.split("arn:aws:s3:eu-west-1:1:accesspoint/name/a/b")[:2] == (
            "arn:aws:s3:eu-west-1:1:accesspoint/name", "a/b",
        )  # fmt: skip


class TestArguments:
    def test_parameters_of_all_operations_are_prepared_once(self, radosgw, place, monkeypatch):
        payer = S3FileSystem(**arguments(radosgw), s3_additional_kwargs={"RequestPayer": "requester"})
        payer.pipe(f"{place}/a", b"x")
        assert payer.cat(f"{place}/a") == b"x"
        preparer, prepared = type(payer.client.transfers.control.process().preparer), []
        route = preparer.route
        monkeypatch.setattr(preparer, "route", lambda self, *call: prepared.append(call) or route(self, *call))
        assert payer.cat(f"{place}/a") == b"x" and not prepared
        assert payer.cat(f"{place}/a", RequestPayer="requester") == b"x" and prepared

    def test_what_is_given_twice_is_refused(self):
        with pytest.raises(WrongArgument, match="aws_access_key_id is given twice"):
            S3FileSystem(key="a", secret="b", client_kwargs={"aws_access_key_id": "c"})

    def test_what_has_no_meaning_is_refused_by_name(self):
        with pytest.raises(WrongArgument, match=r"max_concurrency .* concurrency="):
            S3FileSystem(max_concurrency=4)
        with pytest.raises(TypeError, match="no_such"):
            S3FileSystem(no_such=1)

    def test_what_holds_anyway_is_taken(self):
        S3FileSystem(cache_regions=True, fixed_upload_size=True, use_ssl=True, anon=True, config_kwargs={})

    def test_names_of_s3fs(self):
        made = S3FileSystem(
            username="k", password="s", token="t", requester_pays=True, client_kwargs={"region_name": "eu-west-1"}
        )
        connection = made.client.options.connection
        assert connection.client_options == {
            "aws_access_key_id": "k", "aws_secret_access_key": "s", "aws_session_token": "t",
        }  # fmt: skip
        assert (connection.region, connection.request_payer) == ("eu-west-1", "requester")


class TestTravelling:
    def test_pickles_without_secrets(self, radosgw):
        made = S3FileSystem(
            key="AKIDEXAMPLE1", secret="very-secret", endpoint_url="http://me:hidden-one@h:1", default_block_size=7,
            client_kwargs={"region_name": "x", "aws_session_token": "hidden-two"},
        )  # fmt: skip
        sent = pickle.dumps(made)
        for secret in (b"very-secret", b"hidden-one", b"hidden-two"):
            assert secret not in sent
        arrived = pickle.loads(sent)
        assert arrived.default_block_size == 7
        assert "aws_secret_access_key" in arrived.client.options.connection.withheld

    def test_pickles_work_where_the_keys_are_found(self, radosgw, files, place, s3_env, monkeypatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", radosgw.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", radosgw.secret_key)
        files.pipe(f"{place}/a", b"there")
        assert pickle.loads(pickle.dumps(files)).cat(f"{place}/a") == b"there"
        file = pickle.loads(pickle.dumps(files.open(f"{place}/a")))
        assert file.read() == b"there"

    def test_json_has_secrets_only_as_fsspec_says(self, files, radosgw):
        assert S3FileSystem.from_json(files.to_json()) is files
        assert radosgw.secret_key not in json.dumps(files.to_dict(include_password=False), cls=FilesystemJSONEncoder)

    def test_works_after_a_fork(self, files, place):
        files.pipe(f"{place}/a", b"before")
        child = os.fork()
        if child == 0:
            os._exit(0 if files.cat(f"{place}/a") == b"before" else 1)
        assert os.waitpid(child, 0)[1] == 0


class TestReading:
    @pytest.fixture
    def numbers(self):
        return bytes(range(256)) * 16

    @pytest.fixture
    def file(self, files, place, numbers):
        files.pipe(f"{place}/numbers", numbers)
        return f"{place}/numbers"

    @pytest.mark.parametrize(
        "start, end",
        [(None, None), (3, 10), (-5, None), (10, None), (None, -10), (-20, -10), (5, 5), (9000, 9001), (4000, 9000)],
    )
    def test_slices(self, files, file, numbers, start, end):
        assert files.cat_file(file, start, end) == numbers[start:end]

    def test_many_in_few_requests(self, counted, files, place, numbers):
        counted, proxy = counted
        files.pipe({f"{place}/a": numbers, f"{place}/b": numbers})
        paths = [f"{place}/a", f"{place}/a", f"{place}/b", f"{place}/none", f"{place}/b"]
        found = counted.cat_ranges(paths, [0, 100, -3, 0, 9000], [10, 200, None, 1, 9001])
        assert found[:3] == [numbers[:10], numbers[100:200], numbers[-3:]]
        assert isinstance(found[3], FileNotFoundError) and found[4] == b""
        assert len(proxy.requests("GET")) == 4
        with pytest.raises(FileNotFoundError):
            counted.cat_ranges(paths, 0, 1, on_error="raise")

    def test_errors_of_cat(self, files, place, file):
        found = files.cat([file, f"{place}/none"], on_error="return")
        assert isinstance(found[f"{place}/none"], FileNotFoundError) and isinstance(found[f"{place}/none"], NotFound)
        assert list(files.cat([file, f"{place}/none"], on_error="omit")) == [file]
        with pytest.raises(FileNotFoundError):
            files.cat([file, f"{place}/none"])

    def test_an_open_file_asks_for_little(self, counted, files, place):
        counted, proxy = counted
        data = os.urandom(1 << 20)
        files.pipe(f"{place}/f", data)
        with counted.open(f"{place}/f") as file:
            assert (file.seek(-8, 2), file.read()) == (len(data) - 8, data[-8:])
            assert (file.seek(1000), file.read(24)) == (1000, data[1000:1024])
            assert (file.seek(2000), file.read(24)) == (2000, data[2000:2024])  # what was read with it
        assert len(proxy.requests("HEAD")) == 1 and len(proxy.requests("GET")) == 2
        assert sum(len(line) for line in counted.open(f"{place}/f")) == len(data)
        assert len(proxy.requests("GET")) <= 2 + 6  # twice as much each time

    @pytest.mark.parametrize("cache", ["adaptive", "readahead", "bytes", "blockcache", "none", "all", "background"])
    def test_caches(self, files, file, numbers, cache):
        with files.open(file, cache_type=cache, block_size=1000) as opened:
            assert opened.read(10) == numbers[:10]
            opened.seek(2000)
            assert opened.read(1500) == numbers[2000:3500]
            assert opened.read() == numbers[3500:]
            threads = getattr(opened.cache, "_thread_executor", None)
        if threads is not None:
            threads.shutdown()  # fsspec before 2026.9 leaves it

    def test_a_replaced_file_is_an_error(self, files, file, numbers):
        opened = files.open(file, cache_type="none")
        assert opened.read(4) == numbers[:4]
        files.pipe(file, bytes(len(numbers)))
        with pytest.raises(OSError, match="replaced"):
            opened.read(4)

    def test_a_directory_is_no_file(self, files, place, file):
        with pytest.raises(IsADirectoryError):
            files.open(place)


class TestWriting:
    def test_is_there_when_it_is_closed(self, files, place):
        with files.open(f"{place}/a", "wb") as file:
            file.write(b"some")
            assert not files.exists(f"{place}/a")
            assert file.tell() == 4
        assert files.cat(f"{place}/a") == b"some"

    @pytest.mark.parametrize("mode, data", [("wb", b"half"), ("w", "half")])
    @pytest.mark.parametrize("compression", [None, "gzip"])
    def test_an_exception_leaves_what_was(self, files, place, mode, data, compression):
        files.pipe(f"{place}/a", b"old")
        with pytest.raises(RuntimeError), files.open(f"{place}/a", mode, compression=compression) as file:
            file.write(data)
            raise RuntimeError
        assert files.cat(f"{place}/a") == b"old"

    def test_a_forgotten_file_is_told_of(self, files, place):
        with pytest.warns(MfstoreWarning, match="not closed"):
            files.open(f"{place}/a", "wb").write(b"data")
        assert not files.exists(f"{place}/a")

    def test_text_and_compression(self, files, place):
        with files.open(f"{place}/a.gz", "w", compression="infer", newline="") as file:
            file.write("grüße\n")
        assert files.cat(f"{place}/a.gz")[:2] == b"\x1f\x8b"
        assert files.open(f"{place}/a.gz", "r", compression="infer").read() == "grüße\n"

    def test_large_files_go_in_parts(self, counted, place):
        counted, proxy = counted
        block = os.urandom(1 << 20)
        with counted.open(f"{place}/large", "wb") as file:
            for _ in range(18):
                file.write(block)
        assert len(proxy.requests("PUT")) == 2
        assert counted.info(f"{place}/large")["size"] == 18 << 20
        assert counted.cat_file(f"{place}/large", -(1 << 20)) == block

    def test_writing_on(self, files, place):
        files.pipe(f"{place}/log", b"one")
        with files.open(f"{place}/log", "ab") as file:
            assert file.tell() == 3
            file.write(b", two")
        assert files.cat(f"{place}/log") == b"one, two"
        with files.open(f"{place}/new", "a") as text:
            text.write("x")
        assert files.cat(f"{place}/new") == b"x"

    def test_writing_on_keeps_what_is_large_at_the_service(self, counted, files, place):
        counted, proxy = counted
        data = os.urandom(6 << 20)
        files.pipe(f"{place}/log", data)
        with counted.open(f"{place}/log", "ab") as file:
            file.write(b"end")
        assert not proxy.requests("GET", f"/{place}/log")
        assert files.cat(f"{place}/log") == data + b"end"

    def test_new_files_alone(self, files, place):
        files.pipe(f"{place}/a", b"1", mode="create")
        with pytest.raises(FileExistsError):
            files.pipe(f"{place}/a", b"2", mode="create")
        with pytest.raises(FileExistsError):
            files.open(f"{place}/a", "xb")
        assert files.cat(f"{place}/a") == b"1"

    def test_transactions(self, counted, place, monkeypatch):
        counted, proxy = counted
        put, together = counted.client.put_many, []

        def noted(items, **how):
            items = list(items)
            together.append(len(items))
            return put(items, **how)

        monkeypatch.setattr(counted.client, "put_many", noted)
        with counted.transaction:
            for name in "abcn":
                with counted.open(f"{place}/{name}", "xb" if name == "n" else "wb") as file:
                    file.write(name.encode())
            assert not proxy.requests("PUT")
        assert together == [3, 1]  # one that is to be new goes alone
        assert counted.cat(place, recursive=True) == {f"{place}/{name}": name.encode() for name in "abcn"}
        with pytest.raises(RuntimeError), counted.transaction:
            with counted.open(f"{place}/d", "wb") as file:
                file.write(b"d")
            raise RuntimeError
        assert not counted.exists(f"{place}/d")

    def test_a_transaction_that_fails_is_over(self, files, place, shared_bucket):
        with pytest.raises(FileNotFoundError), files.transaction:
            for path in (f"{place}/a", f"no-{shared_bucket}/b"):
                with files.open(path, "wb") as file:
                    file.write(b"1")
        assert not files._intrans
        files.pipe(f"{place}/c", b"at once")
        assert files.cat(f"{place}/c") == b"at once"

    def test_headers_and_metadata(self, files, place, radosgw):
        path = f"{place}/a"
        files.pipe(path, b"x", ContentType="text/x", Metadata={"who": "me"})
        files.setxattr(path, who="you", when="now")
        assert files.metadata(path) == {"who": "you", "when": "now"}
        assert files.getxattr(path, "when") == "now"
        assert files.info(path, refresh=True)["ContentType"] == "text/x"


class TestListings:
    def test_are_remembered_until_something_is_written(self, counted, place):
        counted, proxy = counted
        counted.pipe({f"{place}/d/a": b"1", f"{place}/d/b": b"22"})
        assert counted.ls(f"{place}/d") == [f"{place}/d/a", f"{place}/d/b"]
        proxy.clear()
        counted.pipe({})  # changes nothing
        assert [info["size"] for info in counted.ls(f"{place}/d", detail=True)] == [1, 2]
        assert counted.info(f"{place}/d/b")["size"] == 2 and counted.isdir(f"{place}/d")
        assert not proxy.requests()
        counted.pipe(f"{place}/d/c", b"")
        assert len(counted.ls(f"{place}/d")) == 3
        counted.rm(f"{place}/d/a")
        assert counted.ls(f"{place}/d") == [f"{place}/d/b", f"{place}/d/c"]

    def test_are_forgotten_when_somebody_says_so(self, counted, files, place):
        counted, _ = counted
        for number, forget in enumerate((counted.invalidate_cache, lambda: counted.invalidate_cache(f"{place}/d/0"))):
            files.pipe(f"{place}/d/{number}", b"")
            assert len(counted.ls(f"{place}/d")) == number + 1
            files.pipe(f"{place}/d/new", b"")
            assert len(counted.ls(f"{place}/d")) == number + 1
            forget()
            assert len(counted.ls(f"{place}/d")) == number + 2
            counted.rm(f"{place}/d/new")
        assert len(counted.ls(f"{place}/d")) == 2
        files.pipe(f"{place}/d/new", b"")
        assert len(counted.ls(f"{place}/d", refresh=True)) == 3

    @pytest.mark.parametrize("how", [{"use_listings_cache": False}, {"listings_expiry_time": 1e-9}])
    def test_none_are_remembered_for_who_wants_none(self, radosgw, files, place, how):
        asking = S3FileSystem(**arguments(radosgw), **how)
        for number in range(2):
            files.pipe(f"{place}/{number}", b"")
            assert len(asking.ls(place)) == len(asking.find(place)) == number + 1

    def test_absence_is_never_remembered(self, counted, files, place):
        counted, _ = counted
        files.pipe(f"{place}/a", b"1")
        assert len(counted.ls(place)) == 1 and not counted.exists(f"{place}/b")
        files.pipe(f"{place}/b", b"1")
        assert counted.exists(f"{place}/b")
        assert counted.cat(f"{place}/b") == b"1"

    def test_find_tells_what_lies_in_directories(self, counted, place):
        counted, proxy = counted
        names = ["a", "d/b", "d/e/f", "d-x/c", "marked/"]
        counted.client.put_many([(f"s3://{place}/{name}", b"") for name in names])
        proxy.clear()
        assert counted.find(place) == [f"{place}/{name}" for name in ["a", "d-x/c", "d/b", "d/e/f"]]
        asked = len(proxy.requests())
        assert counted.ls(place) == [f"{place}/{name}" for name in ["a", "d", "d-x", "marked"]]
        assert counted.ls(f"{place}/d") == [f"{place}/d/b", f"{place}/d/e"]
        assert counted.isdir(f"{place}/marked") and counted.isfile(f"{place}/d/e/f")
        assert len(proxy.requests()) == asked == 1
        assert [path for path, _, _ in counted.walk(place)][:2] == [place, f"{place}/d"]
        assert counted.find(place, maxdepth=1) == [f"{place}/a"]
        assert counted.find(place, prefix="d/") == [f"{place}/d/b", f"{place}/d/e/f"]
        assert counted.glob(f"{place}/*/[bc]") == [f"{place}/d-x/c", f"{place}/d/b"]
        assert counted.du(place) == 0
        counted.rm(place, recursive=True)
        assert not list(counted.client.list(f"s3://{place}/"))

    def test_one_listed_before_a_write_is_not_kept(self, files, place):
        begun = files._listings.begin()
        files.pipe(f"{place}/a", b"1")
        files._listings.keep(begun, {place: []})
        assert files._listings.of(place) is None


class TestManyFiles:
    def test_get_and_put_tell_callbacks(self, files, place, tmp_path):
        for name, size in (("a", 3), ("b", 5)):
            (tmp_path / name).write_bytes(bytes(size))

        class Told(Callback):
            def __init__(self):
                super().__init__()
                self.files = {}

            def branched(self, path_1, path_2, **kwargs):
                self.files[os.path.basename(path_1)] = child = Callback()
                return child

        told = Told()
        files.put(str(tmp_path), f"{place}/up", recursive=True, callback=told)
        assert (told.size, told.value) == (2, 2)
        assert {name: child.value for name, child in told.files.items()} == {"a": 3, "b": 5}
        told = Callback()
        files.get(f"{place}/up/", str(tmp_path / "down") + "/", recursive=True, callback=told)
        assert (told.size, told.value) == (2, 2)
        assert (tmp_path / "down" / "b").read_bytes() == bytes(5)
        one = Callback()
        files.get_file(f"{place}/up/b", tmp_path / "one", callback=one)
        assert (one.size, one.value) == (5, 5)

    def test_links_to_files_are_followed(self, files, place, tmp_path):
        (tmp_path / "from" / "d").mkdir(parents=True)
        (tmp_path / "from" / "d" / "file").write_bytes(b"1")
        (tmp_path / "from" / "link").symlink_to("d/file")
        (tmp_path / "from" / "deep").symlink_to("d")
        files.put(f"{tmp_path}/from/", f"{place}/up", recursive=True)
        assert files.cat(f"{place}/up", recursive=True) == {f"{place}/up/d/file": b"1", f"{place}/up/link": b"1"}

    def test_names_do_not_leave_the_destination(self, files, place, tmp_path):
        files.client.put_many([(f"s3://{place}/d/../../out", b"x")])
        with pytest.raises(ValueError, match="outside"):
            files.get(f"{place}/d", str(tmp_path / "in" / "here"), recursive=True)
        assert not list(tmp_path.iterdir())

    def test_mv_deletes_what_it_copied(self, files, place):
        files.pipe({f"{place}/a/1": b"1", f"{place}/a/2": b"2"})
        files.mv(f"{place}/a", f"{place}/b", recursive=True)
        assert files.cat(f"{place}/b", recursive=True) == {f"{place}/b/1": b"1", f"{place}/b/2": b"2"}
        assert not files.exists(f"{place}/a")
        files.mv(f"{place}/b/1", f"{place}/c")
        assert files.cat(f"{place}/c") == b"1" and not files.exists(f"{place}/b/1")

    def test_touch(self, files, place):
        files.touch(f"{place}/a")
        assert files.info(f"{place}/a")["size"] == 0
        files.pipe(f"{place}/a", b"kept")
        before = files.checksum(f"{place}/a")
        files.touch(f"{place}/a", truncate=False)
        assert files.cat(f"{place}/a") == b"kept" and files.checksum(f"{place}/a") == before
        assert files.modified(f"{place}/a") == files.created(f"{place}/a")

    def test_signed_urls(self, files, place):
        files.pipe(f"{place}/a", b"for anybody")
        with urllib.request.urlopen(files.sign(f"{place}/a", expiration=100)) as answer:
            assert answer.read() == b"for anybody"

    def test_threads(self, files, place):
        def write(number):
            files.pipe(f"{place}/t{number}", str(number).encode())

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(files.ls(place)) == 8


class TestBuckets:
    def test_are_made_and_removed(self, files):
        name = f"made-{os.urandom(8).hex()}"
        assert not files.exists(name) and not files.exists(f"{name}/a")
        files.mkdir(name)
        assert files.isdir(name) and name in files.ls("") and files.ls(name) == []
        with pytest.raises(FileExistsError):
            files.mkdir(name)
        with pytest.raises(FileNotFoundError):
            files.mkdir(f"no-{name}/a", create_parents=False)
        files.makedirs(name, exist_ok=True)
        files.pipe(f"{name}/a/b", b"")
        with pytest.raises(OSError):
            files.rmdir(name)
        files.rm(name, recursive=True)
        assert not files.exists(name) and name not in files.ls("")
        with pytest.raises(FileNotFoundError):
            files.rmdir(name)
        with pytest.raises(FileNotFoundError):
            files.ls(name)

    def test_not_all_of_s3(self, files):
        for call in (lambda: files.find(""), lambda: files.glob("*/a")):
            with pytest.raises(InvalidKey):
                call()


class TestRefusals:
    def test_are_no_absence(self, radosgw, place):
        stranger = S3FileSystem(**{**arguments(radosgw), "secret": "wrong"})
        for call in (
            stranger.exists, stranger.isfile, stranger.isdir, stranger.ls, stranger.cat, stranger.find,
            lambda path: stranger.glob(f"{path}*"), lambda path: list(stranger.walk(path)),
        ):  # fmt: skip
            with pytest.raises(PermissionError) as caught:
                call(f"{place}/a")
            assert isinstance(caught.value, AccessDenied)

    def test_versions_are_for_those_who_are_aware(self, files, place):
        with pytest.raises(WrongArgument):
            files.cat_file(f"{place}/a", version_id="x")


def test_versions(radosgw, place, tmp_path):
    aware = S3FileSystem(**arguments(radosgw), version_aware=True)
    bucket = radosgw.create_bucket(f"versions-{os.urandom(8).hex()}")
    radosgw.boto.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    aware.pipe(f"{bucket}/a", b"one")
    first = aware.info(f"{bucket}/a")["VersionId"]
    aware.pipe(f"{bucket}/a", b"two!")
    assert aware.cat(f"{bucket}/a?versionId={first}") == b"one"
    assert aware.cat_file(f"{bucket}/a", version_id=first) == b"one"
    assert aware.open(f"{bucket}/a", version_id=first).read() == b"one"
    assert sorted(info["size"] for info in aware.ls(f"{bucket}/a", detail=True, versions=True)) == [3, 4]
    named, beside = f"{bucket}/a?versionId={first}", f"{bucket}/b"
    aware.pipe(beside, b"three")
    assert aware.cat([named, beside]) == {named: b"one", beside: b"three"}
    assert aware.cat_ranges([named, named, beside], [0, 1, -2], [9, 2, None]) == [b"one", b"n", b"ee"]
    aware.get(named, str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == b"one"
    with urllib.request.urlopen(aware.url(named)) as answer:
        assert answer.read() == b"one"
    for change in (
        lambda: aware.pipe(named, b""), lambda: aware.rm(named), lambda: aware.rm_file(named),
        lambda: aware.open(named, "wb"), lambda: aware.touch(named), lambda: aware.setxattr(named, a="b"),
        lambda: aware.cp(named, beside), lambda: aware.mv(named, beside), lambda: aware.cp(beside, named),
        lambda: asyncio.run(aware._pipe_file(named, b"")),
    ):  # fmt: skip
        with pytest.raises(Unsupported):
            change()
    assert aware.cat(f"{bucket}/a") == b"two!" and aware.cat(beside) == b"three"


def test_nothing_is_moved_over_what_is_moved(files, place):
    files.pipe({f"{place}/d/x": b"outer", f"{place}/d/d/x": b"inner", f"{place}/e/x": b"e"})
    for call in (
        lambda: files.mv(f"{place}/d/", f"{place}/", recursive=True),
        lambda: files.mv([f"{place}/d/x", f"{place}/e/x"], f"{place}/z/"),
        lambda: files.cp([f"{place}/d/x", f"{place}/e/x"], [f"{place}/e/x", f"{place}/f"]),
    ):
        with pytest.raises(InvalidKey):
            call()
    assert list(files.cat(place, recursive=True).values()) == [b"inner", b"outer", b"e"]


def test_several_files_are_not_got_as_one(files, place, tmp_path):
    files.pipe({f"{place}/a/b": b"1", f"{place}/a//b": b"2"})
    with pytest.raises(InvalidKey):
        files.get(place, str(tmp_path / "got"), recursive=True)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(name.encode())
    with pytest.raises(InvalidKey):
        files.put([str(tmp_path / "a/x"), str(tmp_path / "b/x")], f"{place}/both/")


def test_an_empty_directory_is_listed(radosgw, files, place):
    bucket, _, key = place.partition("/")
    radosgw.boto.put_object(Bucket=bucket, Key=f"{key}/empty/", Body=b"")
    assert files.ls(f"{place}/empty") == [] and files.isdir(f"{place}/empty")
    assert list(files.walk(place)) == [(place, ["empty"], []), (f"{place}/empty", [], [])]


def test_a_bucket_with_odd_directories_is_deleted(radosgw, files):
    bucket = radosgw.create_bucket(f"odd-{os.urandom(8).hex()}")
    for key in ("/", "a", "a/", "a/b", "c//", "c//d", "//", "x/../y"):
        radosgw.boto.put_object(Bucket=bucket, Key=key, Body=b"")
    files.rm(f"{bucket}/a", recursive=True)
    left = [one["Key"] for one in radosgw.boto.list_objects_v2(Bucket=bucket)["Contents"]]
    assert left == ["/", "//", "c//", "c//d", "x/../y"]
    files.rm(bucket, recursive=True)
    assert not files.exists(bucket)


@pytest.mark.parametrize("how", [{}, {"compression": "gzip"}], ids=["plain", "compressed"])
@pytest.mark.parametrize("mode", ["w", "wb"])
def test_whatever_is_forgotten_is_not_stored(files, place, mode, how):
    with pytest.warns(MfstoreWarning, match="not closed"):
        file = files.open(f"{place}/a", mode, **how)
        file.write("half" if mode == "w" else b"half")
        del file
        gc.collect()
    assert not files.exists(f"{place}/a")


def test_a_slice_from_the_end_is_of_what_is_there_now(radosgw, files, place):
    files.pipe(f"{place}/a", b"0123456789")
    files.ls(place)
    bucket, _, key = f"{place}/a".partition("/")
    radosgw.boto.put_object(Bucket=bucket, Key=key, Body=b"abcdefghijklmnop")
    assert files.cat_file(f"{place}/a", -3, -1) == b"no"


def test_that_a_directory_is_no_file_is_not_taken_from_a_listing(radosgw, files, place, tmp_path):
    bucket, _, key = place.partition("/")
    files.pipe(f"{place}/a/b", b"below")
    files.ls(place)
    radosgw.boto.delete_object(Bucket=bucket, Key=f"{key}/a/b")
    for call in (
        lambda: files.ls(f"{place}/a"), lambda: files.get(f"{place}/a", str(tmp_path / "none"), recursive=True),
    ):  # fmt: skip
        with pytest.raises(FileNotFoundError):
            call()
    assert not (tmp_path / "none").exists()
    radosgw.boto.put_object(Bucket=bucket, Key=f"{key}/a", Body=b"a file now")
    assert files.isfile(f"{place}/a") and files.open(f"{place}/a").read() == b"a file now"
    files.get(f"{place}/a", str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == b"a file now"


def test_a_mode_that_is_none_is_refused(files, place):
    with pytest.raises(WrongArgument):
        files.pipe(f"{place}/a", b"", mode="x")


def test_register(radosgw, place, files, registered):
    assert fsspec.get_filesystem_class("s3") is S3FileSystem
    with fsspec.open(f"s3://{place}/a", "wb", **arguments(radosgw)) as file:
        file.write(b"by protocol")
    assert files.cat(f"{place}/a") == b"by protocol"


@pytest.mark.parametrize(("kind", "number"), [(PathNotFound, 2), (FileReplaced, errno.ESTALE)])
def test_errors_pickle(kind, number):
    error = pickle.loads(pickle.dumps(kind("gone", key="a")))
    assert isinstance(error, MfstoreError) and error.errno == number and error.key == "a"


def test_errors_have_the_numbers_of_local_ones(files, place, tmp_path):
    files.pipe(f"{place}/d/a", b"1")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"1")
    for name, mode in (("none", "rb"), ("d/a", "xb"), ("d", "rb")):
        with pytest.raises(OSError) as local, (tmp_path / name).open(mode):
            pass
        with pytest.raises(local.type) as caught:
            files.open(f"{place}/{name}", mode)
        assert isinstance(caught.value, MfstoreError) and caught.value.errno == local.value.errno


@pytest.mark.parametrize("path", ["az://box/key", "gs://bucket/key", "abfss://box@account/key", "http://host/key"])
def test_urls_of_another_service_are_not_buckets(path):
    files = S3FileSystem(skip_instance_cache=True)
    for ask in (files.ls, files.cat, files.info, files.exists, files.rm, files.touch):
        with pytest.raises(ValueError, match="that of S3"):
            ask(path)
    assert (
        files._strip_protocol("s3://bucket/gs://key") == files._strip_protocol("bucket/gs://key") == "bucket/gs://key"
    )
