"""Metaflow's content-addressed store by mfstore, on a directory and on S3: what stock reads, and what stock gets wrong."""

import gzip
import os
import random
import uuid

import pytest
from metaflow.datastore.exceptions import DataException, UnpicklableArtifactException

from mfstore.host.cache import HostCache
from mfstore.metaflow.process_state import forget_process_state, process_state
from mfstore.metaflow.stock.content_store import SENT_UNSEEN_BYTES
from mfstore.metaflow.stock.encoding import MEMBER_BYTES, key_of
from mfstore.testing import NetworkFault
from mfstore.testing.actions import LoseResponse, Status, access_denied
from tests.rigs.concurrency import in_a_child, in_threads
from tests.rigs.metaflow_stores import local_place, s3_place
from tests.servers.base import boto_client

NOISE = random.Random(7).randbytes(SENT_UNSEEN_BYTES + 1000)
BLOBS = [b"", b"x", b"\x80\x04N.", os.urandom(3000), b"ab" * 100_000, NOISE, NOISE + bytes(3 * MEMBER_BYTES)]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def place(request, tmp_path, monkeypatch):
    monkeypatch.setenv("MFSTORE_CACHE", str(tmp_path / "cache"))
    forget()
    if request.param == "local":
        yield local_place(tmp_path)
    else:
        with s3_place(request.getfixturevalue("radosgw"), monkeypatch) as found:
            yield found
    forget()


@pytest.fixture
def s3(tmp_path, monkeypatch, radosgw):
    monkeypatch.setenv("MFSTORE_CACHE", "")
    forget()
    with s3_place(radosgw, monkeypatch) as found:
        yield found
    forget()


def forget():
    """What this process keeps."""
    forget_process_state()


def loaded(store, keys, **options):
    return dict(store.load_blobs(keys, **options))


def no_cache():
    """As another host would see it."""
    process_state().tiny_blobs.clear()
    process_state().host_cache = HostCache(None)


@pytest.mark.parametrize("raw", [False, True])
def test_stock_reads_what_we_write_and_we_what_stock_writes(place, raw):
    keys = [key_of(blob) for blob in BLOBS]
    ours, stock = place.content(), place.content(stock=True)
    results = ours.save_blobs(iter(BLOBS), raw=raw, len_hint=3)
    assert [result.key for result in results] == keys
    assert [result.uri for result in results] == [f"{place.root}/{place.path_of(key)}" if raw else None for key in keys]
    no_cache()
    assert loaded(stock, keys) == loaded(place.content(), keys) == dict(zip(keys, BLOBS, strict=True))
    for key, blob in zip(keys, BLOBS, strict=True):
        place.delete(place.path_of(key))
        if place.kind == "local":
            place.delete(place.path_of(key) + "_meta")
        stock.save_blobs([blob], raw=raw)
    assert loaded(place.content(), keys) == dict(zip(keys, BLOBS, strict=True))
    if raw:
        assert [place.read(place.path_of(key)) for key in keys] == BLOBS, "raw objects are the blobs themselves"


def test_objects_of_long_ago_have_no_metadata(place):
    key = key_of(b"old")
    place.content().save_blobs([b"other"])
    if place.kind == "local":
        os.makedirs(f"{place.root}/{os.path.dirname(place.path_of(key))}")
    place.write(place.path_of(key), gzip.compress(b"old"))
    assert loaded(place.content(), [key]) == {key: b"old"}
    place.write(place.path_of(key), b"old")
    assert loaded(place.content(), [key]) == {key: b"old"}, "a raw object whose metadata is still to come"
    assert loaded(place.content(), [key], force_raw=True) == {key: b"old"}


def test_each_blob_is_stored_once_and_missing_ones_only(place):
    store = place.content()
    store.save_blobs([b"a" * 50, b"b" * 50, b"a" * 50])
    if place.kind == "s3":
        assert len(place.proxy.requests("PUT")) == 2
        place.proxy.clear()
    before = {blob: place.read(place.path_of(key_of(blob))) for blob in (b"a" * 50, b"b" * 50)}
    store.save_blobs([b"a" * 50, b"c" * 50])
    if place.kind == "s3":
        assert [r.path.rpartition("/")[2] for r in place.proxy.requests()] == [key_of(b"c" * 50)], (
            "nothing else is asked"
        )
    assert before[b"a" * 50] == place.read(place.path_of(key_of(b"a" * 50)))


@pytest.mark.parametrize("blob", [b"small" * 20, NOISE], ids=["small", "large"])
@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty", "other content", "plain"])
def test_damage_is_an_error_and_saving_again_repairs(place, blob, damage):
    key = key_of(blob)
    place.content().save_blobs([blob])
    whole = place.read(place.path_of(key))
    place.write(
        place.path_of(key),
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
        loaded(place.content(), [key])
    place.content().save_blobs([blob])
    no_cache()
    assert loaded(place.content(), [key]) == loaded(place.content(stock=True), [key]) == {key: blob}


def test_damage_in_the_middle_is_repaired_by_who_met_it(place):
    key = key_of(NOISE)
    place.content().save_blobs([NOISE])
    whole = place.read(place.path_of(key))
    place.write(place.path_of(key), whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    store = place.content()
    with pytest.raises(DataException, match="damaged"):
        loaded(store, [key])
    store.save_blobs([NOISE])
    assert loaded(store, [key]) == {key: NOISE}


def test_a_missing_blob_is_named(place):
    key = key_of(b"never")
    with pytest.raises(DataException, match=f"Nothing is stored at {place.root}/{place.path_of(key)}"):
        loaded(place.content(), [key])


def test_encodings_of_newer_versions_are_refused(place):
    store = place.content()
    key = key_of(b"future")
    from mfstore.metaflow.stock.blob_storage import NewBlob

    for metadata, said in (({"cas_raw": False, "cas_version": 9}, "version 9"), ({"cas_raw": False}, "version None")):
        store._storage_impl.blobs.put([NewBlob(place.path_of(key), [b"?"], metadata)])
        no_cache()
        with pytest.raises(DataException, match=f"{said}.*newer Metaflow"):
            loaded(place.content(), [key])


def test_raw_objects_stay_raw_and_packed_ones_become_raw(place):
    first, second = os.urandom(2000), os.urandom(2000)
    store = place.content()
    store.save_blobs([first])
    store.save_blobs([first], raw=True)
    place.content().save_blobs([second], raw=True)
    place.content().save_blobs([second])
    for blob in (first, second):
        assert place.read(place.path_of(key_of(blob))) == blob
    assert loaded(place.content(stock=True), map(key_of, (first, second))) == {
        key_of(first): first,
        key_of(second): second,
    }


def test_transfers_between_stores(place, tmp_path):
    blobs = {key_of(blob): blob for blob in BLOBS}
    place.content().save_blobs(blobs.values())
    other = local_place(tmp_path / "other")
    for source in (place.content(), place.content(stock=True)):
        other.content().save_blobs(source.load_blobs([*blobs], is_transfer=True), is_transfer=True)
        assert loaded(other.content(stock=True), [*blobs]) == blobs


def test_blob_caches_are_used(place):
    class Cache(dict):
        load_key = dict.get
        store_key = dict.__setitem__

    place.content().save_blobs([b"cached", NOISE])
    no_cache()
    store, cache = place.content(), Cache()
    store.set_blob_cache(cache)
    keys = [key_of(b"cached"), key_of(NOISE)]
    loaded(store, keys)
    assert cache == {keys[0]: b"cached", keys[1]: NOISE}
    for key in keys:
        place.delete(place.path_of(key))
    assert loaded(store, keys) == {keys[0]: b"cached", keys[1]: NOISE}


def test_an_error_while_pickling_is_not_changed_and_stores_nothing_half(place):
    def blobs():
        yield b"first" * 10
        raise UnpicklableArtifactException("model")

    with pytest.raises(UnpicklableArtifactException):
        place.content().save_blobs(blobs())


def test_many_threads_and_a_forked_child(place):
    store = place.content()
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


def test_an_object_is_never_there_without_its_metadata(tmp_path, monkeypatch):
    place = local_place(tmp_path)
    rename = os.rename
    for fail_at in (1, 2):
        calls = 0

        def failing(*args, fail_at=fail_at, **options):
            nonlocal calls
            calls += 1
            if calls == fail_at:
                raise OSError(28, "No space left on device")
            rename(*args, **options)

        monkeypatch.setattr(os, "rename", failing)
        blob = f"metadata {fail_at}".encode()
        with pytest.raises(DataException, match="No space left"):
            place.content().save_blobs([blob])
        monkeypatch.setattr(os, "rename", rename)
        names = {name for _, _, files in os.walk(place.root) for name in files}
        assert key_of(blob) not in names
        assert not any(name.startswith(".tmp") for name in names), "no temporary file stays behind"
        place.content().save_blobs([blob])
        assert loaded(place.content(), [key_of(blob)])


def test_files_have_ordinary_permissions(tmp_path):
    place = local_place(tmp_path)
    old = os.umask(0o022)
    try:
        place.content().save_blobs([b"for all to read"])
    finally:
        os.umask(old)
    path = f"{place.root}/{place.path_of(key_of(b'for all to read'))}"
    assert os.stat(path).st_mode & 0o777 == os.stat(path + "_meta").st_mode & 0o777 == 0o644


# ---- S3 --------------------------------------------------------------------------------------


def test_a_refusal_is_never_absence(s3):
    key = s3.content().save_blobs([b"there" * 30])[0].key
    no_cache()
    s3.proxy.faults = [NetworkFault(action=access_denied(), method="GET")]
    with pytest.raises(DataException, match="AccessDenied"):
        loaded(s3.content(), [key])
    with pytest.raises(DataException, match="AccessDenied"):
        s3.content().save_blobs([NOISE])
    s3.proxy.faults = [NetworkFault(action=access_denied(), method="PUT")]
    with pytest.raises(DataException, match="AccessDenied"):
        s3.content().save_blobs([b"refused"])


def test_a_lost_answer_to_a_conditional_put_is_no_failure(s3):
    s3.proxy.faults = [NetworkFault(action=LoseResponse(), method="PUT", nth=1)]
    key = s3.content().save_blobs([b"once" * 9])[0].key
    no_cache()
    assert loaded(s3.content(), [key]) == {key: b"once" * 9}


def test_a_service_without_conditional_puts_will_do(s3):
    s3.content().save_blobs([b"there" * 9])
    refuse = Status(501, "NotImplemented")

    class Conditional(type(refuse)):
        def applies(self, exchange):
            return "if-none-match" in exchange.headers

    s3.proxy.faults = [NetworkFault(action=Conditional(501, "NotImplemented"), method="PUT")]
    keys = [result.key for result in s3.content().save_blobs([b"there" * 9, b"new" * 9])]
    no_cache()
    assert loaded(s3.content(), keys) == {keys[0]: b"there" * 9, keys[1]: b"new" * 9}


def test_counts_of_requests(s3):
    blobs = [f"artifact {n}".encode() * 20 for n in range(20)]
    s3.content().save_blobs(blobs)
    assert [r.method for r in s3.proxy.requests()] == ["PUT"] * 20, "nothing is asked before"
    s3.proxy.clear()
    s3.content().save_blobs([*blobs, b"another"])
    methods = [r.method for r in s3.proxy.requests()]
    assert (methods.count("PUT"), methods.count("GET"), len(methods)) == (21, 20, 41), "what is there is read back"
    s3.proxy.clear()
    large = [random.Random(n).randbytes(SENT_UNSEEN_BYTES + 1) for n in range(5)]
    s3.content().save_blobs(large)
    s3.proxy.clear()
    s3.content().save_blobs(large)
    assert [r.method for r in s3.proxy.requests()] == ["GET"] * 5
    assert sum(r.response_bytes for r in s3.proxy.requests()) == 40, "large ones are known by their last bytes"


def test_tiny_blobs_are_cached_on_the_host_and_checked(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("MFSTORE_CACHE", str(tmp_path / "host"))
    forget()
    blob = uuid.uuid4().bytes
    key = s3.content().save_blobs([blob])[0].key
    s3.proxy.clear()
    process_state().tiny_blobs.clear()
    assert loaded(s3.content(), [key]) == {key: blob}
    assert not s3.proxy.requests()
    (entry,) = [path for path in (tmp_path / "host").rglob("*") if path.is_file()]
    entry.write_bytes(entry.read_bytes()[:-1] + b"!")
    process_state().tiny_blobs.clear()
    assert loaded(s3.content(), [key]) == {key: blob}
    assert len(s3.proxy.requests("GET")) == 1, "a damaged entry is not believed"


def test_metadata_that_is_no_json_is_damage_that_saving_repairs(place):
    for blob in (b"meta" * 9, NOISE):
        key = place.content().save_blobs([blob])[0].key
        if place.kind == "local":
            place.write(place.path_of(key) + "_meta", b"")
        else:
            client = boto_client(place.server)
            where = {"Bucket": place.bucket, "Key": place._key(place.path_of(key))}
            client.put_object(**where, Body=place.read(place.path_of(key)), Metadata={"metaflow-user-attributes": "{"})
        no_cache()
        with pytest.raises(DataException, match="unreadable"):
            loaded(place.content(), [key])
        place.content().save_blobs([blob])
        no_cache()
        assert loaded(place.content(), [key]) == loaded(place.content(stock=True), [key]) == {key: blob}


def test_force_raw_gives_what_is_stored(place):
    key = place.content().save_blobs([b"packed" * 50])[0].key
    assert loaded(place.content(), [key], force_raw=True) == {key: place.read(place.path_of(key))}
    assert loaded(place.content(), [key]) == {key: b"packed" * 50}


def test_longer_keys_are_read(place):
    from mfstore.metaflow.stock.blob_storage import NewBlob

    store = place.content()
    key = "ab" * 32
    store._storage_impl.blobs.put([NewBlob(place.path_of(key), [b"long"], {"cas_raw": True, "cas_version": 1})])
    assert loaded(store, [key]) == {key: b"long"}


def test_flows_on_another_disk_by_a_link(tmp_path):
    place = local_place(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "Flow").symlink_to(tmp_path / "disk")
    key = place.content().save_blobs([b"elsewhere"])[0].key
    assert loaded(place.content(), [key]) == {key: b"elsewhere"}
    assert (tmp_path / "disk" / "data").is_dir()


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_cache_that_others_may_use_is_refused(s3, tmp_path, monkeypatch, mode):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    monkeypatch.setenv("MFSTORE_CACHE", str(tmp_path / "open"))
    forget()
    with pytest.raises(DataException, match="MFSTORE_CACHE must be a directory of this user's"):
        s3.content().save_blobs([b"x"])
