"""Metaflow's content-addressed store by mfstore, on a directory and on S3: what stock reads, and what stock gets
wrong."""

import gzip
import os
import random
import uuid

import pytest
from metaflow.datastore.exceptions import DataException, UnpicklableArtifactException
from metaflow.datastore.task_datastore import TaskDataStore

from mfstore.backends import local
from mfstore.host.cache import HostCache
from mfstore.metaflow.hooks.storages import LocalStorage
from mfstore.metaflow.process_state import forget_process_state, process_state
from mfstore.metaflow.stock.content_store import SENT_UNSEEN_BYTES
from mfstore.metaflow.stock.encoding import MEMBER_BYTES, key_of
from mfstore.testing import NetworkFault
from mfstore.testing.actions import LoseResponse, Status, access_denied
from tests.rigs.concurrency import in_a_child, in_threads
from tests.rigs.metaflow_stores import local_datastore
from tests.servers.base import boto_client

NOISE = random.Random(7).randbytes(SENT_UNSEEN_BYTES + 1000)
BLOBS = [b"", b"x", b"\x80\x04N.", os.urandom(3000), b"ab" * 100_000, NOISE, NOISE + bytes(3 * MEMBER_BYTES)]


@pytest.fixture
def uncached(s3, monkeypatch):
    """In S3, where nothing is remembered on this host."""
    monkeypatch.setenv("MFSTORE_CACHE", "")
    forget_process_state()
    return s3


def loaded(store, keys, **options):
    return dict(store.load_blobs(keys, **options))


def no_cache():
    """As another host would see it."""
    process_state().tiny_blobs.clear()
    process_state().host_cache = HostCache(None)


@pytest.mark.parametrize("raw", [False, True])
def test_stock_reads_what_we_write_and_we_what_stock_writes(datastore, raw):
    keys = [key_of(blob) for blob in BLOBS]
    ours, stock = datastore.content(), datastore.content(stock=True)
    results = ours.save_blobs(iter(BLOBS), raw=raw, len_hint=3)
    assert [result.key for result in results] == keys
    assert [result.uri for result in results] == [
        f"{datastore.root}/{datastore.path_of(key)}" if raw else None for key in keys
    ]
    no_cache()
    assert loaded(stock, keys) == loaded(datastore.content(), keys) == dict(zip(keys, BLOBS, strict=True))
    for key, blob in zip(keys, BLOBS, strict=True):
        datastore.delete(datastore.path_of(key))
        if datastore.kind == "local":
            datastore.delete(datastore.path_of(key) + "_meta")
        stock.save_blobs([blob], raw=raw)
    assert loaded(datastore.content(), keys) == dict(zip(keys, BLOBS, strict=True))
    if raw:
        assert [datastore.read(datastore.path_of(key)) for key in keys] == BLOBS, "raw objects are the blobs themselves"


def test_objects_of_long_ago_have_no_metadata(datastore):
    key = key_of(b"old")
    datastore.content().save_blobs([b"other"])
    if datastore.kind == "local":
        os.makedirs(f"{datastore.root}/{os.path.dirname(datastore.path_of(key))}")
    datastore.write(datastore.path_of(key), gzip.compress(b"old"))
    assert loaded(datastore.content(), [key]) == {key: b"old"}
    datastore.write(datastore.path_of(key), b"old")
    assert loaded(datastore.content(), [key]) == {key: b"old"}, "a raw object whose metadata is still to come"
    assert loaded(datastore.content(), [key], force_raw=True) == {key: b"old"}


def test_each_blob_is_stored_once_and_missing_ones_only(datastore):
    store = datastore.content()
    store.save_blobs([b"a" * 50, b"b" * 50, b"a" * 50])
    if datastore.kind == "s3":
        assert len(datastore.proxy.requests("PUT")) == 2
        datastore.proxy.clear()
    before = {blob: datastore.read(datastore.path_of(key_of(blob))) for blob in (b"a" * 50, b"b" * 50)}
    store.save_blobs([b"a" * 50, b"c" * 50])
    if datastore.kind == "s3":
        assert [r.path.rpartition("/")[2] for r in datastore.proxy.requests()] == [key_of(b"c" * 50)], (
            "nothing else is asked"
        )
    assert before[b"a" * 50] == datastore.read(datastore.path_of(key_of(b"a" * 50)))


@pytest.mark.parametrize("blob", [b"small" * 20, NOISE], ids=["small", "large"])
@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty", "other content", "plain"])
def test_damage_is_an_error_and_saving_again_repairs(datastore, blob, damage):
    key = key_of(blob)
    datastore.content().save_blobs([blob])
    whole = datastore.read(datastore.path_of(key))
    datastore.write(
        datastore.path_of(key),
        {
            "garbage": b"\xff" * 100,
            "truncated": whole[:-5],
            "empty": b"",
            "other content": gzip.compress(b"other" + blob),
            "plain": b"neither gzip nor what the key says",
        }[damage],
    )
    no_cache()
    with pytest.raises(DataException, match=f"{key}.*(damaged)"):
        loaded(datastore.content(), [key])
    datastore.content().save_blobs([blob])
    no_cache()
    assert loaded(datastore.content(), [key]) == loaded(datastore.content(stock=True), [key]) == {key: blob}


def test_damage_in_the_middle_is_repaired_by_who_met_it(datastore):
    key = key_of(NOISE)
    datastore.content().save_blobs([NOISE])
    whole = datastore.read(datastore.path_of(key))
    datastore.write(datastore.path_of(key), whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    store = datastore.content()
    with pytest.raises(DataException, match="damaged"):
        loaded(store, [key])
    store.save_blobs([NOISE])
    assert loaded(store, [key]) == {key: NOISE}


def test_a_missing_blob_is_named(datastore):
    key = key_of(b"never")
    with pytest.raises(DataException, match=f"Nothing is stored at {datastore.root}/{datastore.path_of(key)}"):
        loaded(datastore.content(), [key])


def test_encodings_of_newer_versions_are_refused(datastore):
    store = datastore.content()
    key = key_of(b"future")
    from mfstore.metaflow.stock.blob_storage import NewBlob

    for metadata, said in (({"cas_raw": False, "cas_version": 9}, "version 9"), ({"cas_raw": False}, "version None")):
        store._storage_impl.blobs.put([NewBlob(datastore.path_of(key), [b"?"], metadata)])
        no_cache()
        with pytest.raises(DataException, match=f"{said}.*newer Metaflow"):
            loaded(datastore.content(), [key])


def test_raw_objects_stay_raw_and_packed_ones_become_raw(datastore):
    first, second = os.urandom(2000), os.urandom(2000)
    store = datastore.content()
    store.save_blobs([first])
    store.save_blobs([first], raw=True)
    datastore.content().save_blobs([second], raw=True)
    datastore.content().save_blobs([second])
    for blob in (first, second):
        assert datastore.read(datastore.path_of(key_of(blob))) == blob
    assert loaded(datastore.content(stock=True), map(key_of, (first, second))) == {
        key_of(first): first,
        key_of(second): second,
    }


@pytest.mark.skipif(not hasattr(TaskDataStore, "transfer_artifacts"), reason="before Metaflow 2.19 nothing is")
def test_transfers_between_stores(datastore, tmp_path):
    blobs = {key_of(blob): blob for blob in BLOBS}
    datastore.content().save_blobs(blobs.values())
    other = local_datastore(tmp_path / "other")
    for source in (datastore.content(), datastore.content(stock=True)):
        other.content().save_blobs(source.load_blobs([*blobs], is_transfer=True), is_transfer=True)
        assert loaded(other.content(stock=True), [*blobs]) == blobs


def test_blob_caches_are_used(datastore):
    class Cache(dict):
        load_key = dict.get
        store_key = dict.__setitem__

    datastore.content().save_blobs([b"cached", NOISE])
    no_cache()
    store, cache = datastore.content(), Cache()
    store.set_blob_cache(cache)
    keys = [key_of(b"cached"), key_of(NOISE)]
    loaded(store, keys)
    assert cache == {keys[0]: b"cached", keys[1]: NOISE}
    for key in keys:
        datastore.delete(datastore.path_of(key))
    assert loaded(store, keys) == {keys[0]: b"cached", keys[1]: NOISE}


def test_an_error_while_pickling_is_not_changed_and_stores_nothing_half(datastore):
    def blobs():
        yield b"first" * 10
        raise UnpicklableArtifactException("model")

    with pytest.raises(UnpicklableArtifactException):
        datastore.content().save_blobs(blobs())


def test_many_threads_and_a_forked_child(datastore):
    store = datastore.content()
    blobs = [random.Random(n).randbytes(5000) for n in range(40)]

    def work(number):
        part = blobs[number::4] + blobs[:10]
        keys = [result.key for result in store.save_blobs(part)]
        assert loaded(store, keys) == dict(zip(keys, part, strict=True))

    def forked():
        assert loaded(store, [key_of(blobs[0])]) == {key_of(blobs[0]): blobs[0]}
        assert store.save_blobs([b"child" + blobs[1]])[0].key == key_of(b"child" + blobs[1])

    assert not in_threads(work, range(4))
    assert in_a_child(forked) == 0
    assert loaded(store, [key_of(b"child" + blobs[1])])


# ---- local files -----------------------------------------------------------------------------


@pytest.mark.parametrize("fsync", ["none", "batch"])
def test_an_object_is_never_there_without_its_metadata(tmp_path, monkeypatch, fsync):
    """Renames fail from one of the two on, one by one or many in a call."""
    monkeypatch.setattr(LocalStorage, "fsync", fsync)
    datastore = local_datastore(tmp_path)
    rename, rename_each = os.rename, local.rename_each
    for done in (0, 1):
        left = done

        def failing(*args, **options):
            nonlocal left
            if left == 0:
                raise OSError(28, "No space left on device")
            left -= 1
            rename(*args, **options)

        def failing_each(directory, olds, news, done=done):
            rename_each(directory, olds[:done], news[:done])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "rename", failing)
        monkeypatch.setattr(local, "rename_each", failing_each)
        blob = f"metadata {done}".encode()
        with pytest.raises(DataException, match="No space left"):
            datastore.content().save_blobs([blob])
        monkeypatch.setattr(os, "rename", rename)
        monkeypatch.setattr(local, "rename_each", rename_each)
        names = {name for _, _, files in os.walk(datastore.root) for name in files}
        assert key_of(blob) not in names
        assert not any(name.startswith(".tmp") for name in names), "no temporary file stays behind"
        datastore.content().save_blobs([blob])
        assert loaded(datastore.content(), [key_of(blob)])


def test_files_have_ordinary_permissions(tmp_path):
    datastore = local_datastore(tmp_path)
    old = os.umask(0o022)
    try:
        datastore.content().save_blobs([b"for all to read"])
    finally:
        os.umask(old)
    path = f"{datastore.root}/{datastore.path_of(key_of(b'for all to read'))}"
    assert os.stat(path).st_mode & 0o777 == os.stat(path + "_meta").st_mode & 0o777 == 0o644


# ---- S3 --------------------------------------------------------------------------------------


def test_a_refusal_is_never_absence(uncached):
    key = uncached.content().save_blobs([b"there" * 30])[0].key
    no_cache()
    uncached.proxy.faults = [NetworkFault(action=access_denied(), method="GET")]
    with pytest.raises(DataException, match="AccessDenied"):
        loaded(uncached.content(), [key])
    with pytest.raises(DataException, match="AccessDenied"):
        uncached.content().save_blobs([NOISE])
    uncached.proxy.faults = [NetworkFault(action=access_denied(), method="PUT")]
    with pytest.raises(DataException, match="AccessDenied"):
        uncached.content().save_blobs([b"refused"])


def test_a_lost_answer_to_a_conditional_put_is_no_failure(uncached):
    uncached.proxy.faults = [NetworkFault(action=LoseResponse(), method="PUT", nth=1)]
    key = uncached.content().save_blobs([b"once" * 9])[0].key
    no_cache()
    assert loaded(uncached.content(), [key]) == {key: b"once" * 9}


def test_a_service_without_conditional_puts_will_do(uncached):
    uncached.content().save_blobs([b"there" * 9])
    refuse = Status(501, "NotImplemented")

    class Conditional(type(refuse)):
        def applies(self, exchange):
            return "if-none-match" in exchange.headers

    uncached.proxy.faults = [NetworkFault(action=Conditional(501, "NotImplemented"), method="PUT")]
    keys = [result.key for result in uncached.content().save_blobs([b"there" * 9, b"new" * 9])]
    no_cache()
    assert loaded(uncached.content(), keys) == {keys[0]: b"there" * 9, keys[1]: b"new" * 9}


def test_counts_of_requests(uncached):
    blobs = [f"artifact {n}".encode() * 20 for n in range(20)]
    uncached.content().save_blobs(blobs)
    assert [r.method for r in uncached.proxy.requests()] == ["PUT"] * 20, "nothing is asked before"
    uncached.proxy.clear()
    uncached.content().save_blobs([*blobs, b"another"])
    methods = [r.method for r in uncached.proxy.requests()]
    assert (methods.count("PUT"), methods.count("GET"), len(methods)) == (21, 20, 41), "what is there is read back"
    uncached.proxy.clear()
    large = [random.Random(n).randbytes(SENT_UNSEEN_BYTES + 1) for n in range(5)]
    uncached.content().save_blobs(large)
    uncached.proxy.clear()
    uncached.content().save_blobs(large)
    assert [r.method for r in uncached.proxy.requests()] == ["GET"] * 5
    assert sum(r.response_bytes for r in uncached.proxy.requests()) == 40, "large ones are known by their last bytes"


def test_what_was_read_whole_is_not_asked_for_when_it_is_saved(uncached, monkeypatch):
    """By the digest that it was compared with: a raw object may be another form of it, and without the comparison
    nothing is known."""
    blob = b"read before" * 9
    [key] = [result.key for result in uncached.content().save_blobs([blob])]
    for verify, raw, asked in (("1", False, []), ("1", True, ["GET", "PUT"]), ("0", False, ["PUT", "GET"])):
        monkeypatch.setenv("MFSTORE_VERIFY", verify)
        forget_process_state()
        no_cache()
        store = uncached.content()
        assert loaded(store, [key]) == {key: blob}
        uncached.proxy.clear()
        store.save_blobs([blob], raw=raw)
        assert [r.method for r in uncached.proxy.requests()] == asked
        if raw:
            uncached.delete(uncached.path_of(key))
            uncached.content().save_blobs([blob])


def test_tiny_blobs_are_cached_on_the_host_and_checked(uncached, tmp_path, monkeypatch):
    monkeypatch.setenv("MFSTORE_CACHE", str(tmp_path / "host"))
    forget_process_state()
    blob = uuid.uuid4().bytes
    key = uncached.content().save_blobs([blob])[0].key
    uncached.proxy.clear()
    process_state().tiny_blobs.clear()
    assert loaded(uncached.content(), [key]) == {key: blob}
    assert not uncached.proxy.requests()
    # The client may keep there what botocore told it.
    (entry,) = [path for path in (tmp_path / "host").rglob("*") if path.is_file() and path.read_bytes().endswith(blob)]
    entry.write_bytes(entry.read_bytes()[:-1] + b"!")
    process_state().tiny_blobs.clear()
    assert loaded(uncached.content(), [key]) == {key: blob}
    assert len(uncached.proxy.requests("GET")) == 1, "a damaged entry is not believed"


def test_metadata_that_is_no_json_is_damage_that_saving_repairs(datastore):
    for blob in (b"meta" * 9, NOISE):
        key = datastore.content().save_blobs([blob])[0].key
        if datastore.kind == "local":
            datastore.write(datastore.path_of(key) + "_meta", b"")
        else:
            client = boto_client(datastore.server)
            where = {"Bucket": datastore.bucket, "Key": datastore.key_of(datastore.path_of(key))}
            client.put_object(
                **where, Body=datastore.read(datastore.path_of(key)), Metadata={"metaflow-user-attributes": "{"}
            )
        no_cache()
        with pytest.raises(DataException, match="unreadable"):
            loaded(datastore.content(), [key])
        datastore.content().save_blobs([blob])
        no_cache()
        assert loaded(datastore.content(), [key]) == loaded(datastore.content(stock=True), [key]) == {key: blob}


def test_force_raw_gives_what_is_stored(datastore):
    key = datastore.content().save_blobs([b"packed" * 50])[0].key
    assert loaded(datastore.content(), [key], force_raw=True) == {key: datastore.read(datastore.path_of(key))}
    assert loaded(datastore.content(), [key]) == {key: b"packed" * 50}


def test_longer_keys_are_read(datastore):
    from mfstore.metaflow.stock.blob_storage import NewBlob

    store = datastore.content()
    key = "ab" * 32
    store._storage_impl.blobs.put([NewBlob(datastore.path_of(key), [b"long"], {"cas_raw": True, "cas_version": 1})])
    assert loaded(store, [key]) == {key: b"long"}


def test_flows_on_another_disk_by_a_link(tmp_path):
    datastore = local_datastore(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "Flow").symlink_to(tmp_path / "disk")
    key = datastore.content().save_blobs([b"elsewhere"])[0].key
    assert loaded(datastore.content(), [key]) == {key: b"elsewhere"}
    assert (tmp_path / "disk" / "data").is_dir()


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_cache_that_others_may_use_is_refused(uncached, tmp_path, monkeypatch, mode):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    monkeypatch.setenv("MFSTORE_CACHE", str(tmp_path / "open"))
    forget_process_state()
    with pytest.raises(DataException, match="MFSTORE_CACHE must be a directory of this user's"):
        uncached.content().save_blobs([b"x"])
