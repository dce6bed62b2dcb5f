"""One bad read is no damage: nothing is called so, moved or written for it. What was moved comes back, or goes for good."""

from itertools import count

import pytest

from mfstore import errors
from mfstore.backends.local import LocalBackend
from mfstore.backends.memory import MemoryBackend
from mfstore.backends.s3.backend import S3Backend
from mfstore.maintenance.quarantine import empty_quarantine, list_quarantine, quarantine, restore_quarantined
from tests.rigs.damage import DAMAGE, BadReads, damage, fill, unreadable, wrapped
from tests.rigs.gc import Hooked, RemoteMemory, objects
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client


@pytest.fixture
def memory():
    return MemoryBackend()


def everything(backend):
    return {info.key: backend.get(info.key) for info in backend.list("") if not info.key.startswith("verify/")}


def test_repair_does_nothing_for_one_bad_read(memory):
    """Whichever it is."""
    found = fill(wrapped(memory))
    before = everything(memory)
    unsteady = 0
    for nth in count(1):
        backend = BadReads(memory.url, nth)
        handle = wrapped(backend)
        handle.handle.require_read()
        begun = backend.reads
        if nth <= begun:
            continue
        report = handle.repair("full")
        assert report.actions == () and report.before.clean and report.lost == ()
        unsteady += any(finding.kind == "unsteady" for finding in report.before.findings)
        assert everything(memory) == before
        if backend.reads < nth:
            break
    assert nth > 20
    assert unsteady > 15
    assert not unreadable(memory, found)


@pytest.mark.second
def test_repair_of_real_damage_writes_nothing_of_a_bad_read(memory):
    """Whichever it is: then repair stops before it moves anything, or does what it does with good ones."""
    found = fill(wrapped(memory))
    pack = max(objects(memory, "packs"), key=lambda key: memory.head(key).size)
    damage(memory, pack, DAMAGE["middle"])
    damage(memory, objects(memory, "index")[0], DAMAGE["middle"])
    lost = unreadable(memory, found)
    damaged = {info.key: memory.get(info.key) for info in memory.list("")}
    for nth in count(1):
        place = MemoryBackend()
        for key, data in damaged.items():
            place.put(key, [data])
        backend = BadReads(place.url, nth)
        try:
            wrapped(backend).repair("full")
        except (errors.Conflict, errors.CorruptObject, errors.NotAStore):
            assert not objects(place, "quarantine")
        assert unreadable(place, found) <= lost, nth
        if backend.reads < nth:
            break
    assert nth > 25


def test_what_is_in_quarantine_is_listed_put_back_and_emptied(memory):
    found = fill(wrapped(memory))
    pack = objects(memory, "packs")[0]
    data = memory.get(pack)
    assert quarantine(memory, pack, None) is not None
    assert unreadable(memory, found)
    (item,) = list_quarantine(memory)
    assert (item.key, item.size) == (pack, len(data)) and item.path.startswith(f"quarantine/{pack}.")
    assert restore_quarantined(memory, item.path) == pack
    assert memory.get(pack) == data and not list_quarantine(memory) and not unreadable(memory, found)
    quarantine(memory, objects(memory, "recipes")[0], None)
    empty_quarantine(memory, list_quarantine(memory))
    assert objects(memory, "quarantine") == []


def test_nothing_that_is_stored_is_overwritten_from_quarantine(memory):
    fill(wrapped(memory))
    pack, recipe = objects(memory, "packs")[0], objects(memory, "recipes")[0]
    for key in (pack, recipe):
        path = quarantine(memory, key, None, replaced=True)
        with pytest.raises(errors.Refused):
            restore_quarantined(memory, path)
        assert memory.get(key) == memory.get(path)
    for name in ("quarantine/none.1", "packs/ab/none", "quarantine/.5"):
        with pytest.raises(errors.NotFound):
            restore_quarantined(memory, name)


@pytest.mark.parametrize("kind", [MemoryBackend, RemoteMemory])
@pytest.mark.parametrize("unsound", [True, False])
def test_a_removed_ref_comes_back_from_quarantine(kind, unsound):
    backend = kind()
    store = wrapped(backend)
    keys = store.put_many(range(2))
    for key in keys:
        store.refs["r"] = key
    if unsound:
        backend.put("refs/r", [backend.get("refs/r").replace(b"history", b"hist0ry")])
    was = backend.get("refs/r")
    path = quarantine(backend, "refs/r", None, replaced=True)
    with pytest.raises(errors.Refused):
        restore_quarantined(backend, path)
    del store.refs["r"]
    assert restore_quarantined(backend, path) == "refs/r"
    assert not list_quarantine(backend)
    if unsound:
        assert backend.get("refs/r") == was
    else:
        assert [entry.key for entry in store.refs.history("r")] == keys[::-1]
        assert backend.get("refs/r") != was  # where bytes are the etag: no condition of before is met


@pytest.mark.parametrize("kind", ["packs", "recipes"])
@pytest.mark.parametrize("place", ["memory", "root"])
def test_what_is_stored_while_an_object_comes_back_from_quarantine_stays(request, place, kind):
    found = request.getfixturevalue(place)
    backend = found if place == "memory" else LocalBackend(str(found), fsync="none")
    fill(wrapped(backend))
    key = objects(backend, kind)[0]
    path = quarantine(backend, key, None)
    hooked = Hooked(backend)
    if place == "root":
        hooked.move_unchanged = backend.move_unchanged
    hooked.on("head", path, lambda: backend.put(key, [b"stored again"]), after=True)
    with pytest.raises(errors.Refused):
        restore_quarantined(hooked, path)
    assert not hooked.waiting
    assert backend.get(key) == b"stored again" and len(list_quarantine(backend)) == 1


def test_what_comes_back_from_quarantine_in_s3_is_described_as_it_was():
    class OnS3(S3Backend):
        def make_client(self, options):
            return simulated_client(world)

    world = SimulatedS3()
    backend = OnS3("s3://b/store")
    fill(wrapped(backend))
    pack = objects(backend, "packs")[0]
    described = dict(world.metadata[f"store/{pack}"])
    assert described
    path = quarantine(backend, pack, None)
    assert objects(backend, "packs").count(pack) == 0
    restore_quarantined(backend, path)
    assert described.items() <= world.metadata[f"store/{pack}"].items() and backend.vouch([pack])


def test_a_file_read_again_is_read_from_the_device(tmp_path):
    """Where the file system can do that; the bytes are the same everywhere."""
    backend = LocalBackend(str(tmp_path), fsync="none")
    data = bytes(range(251)) * 20_000
    backend.put("packs/ab/one", [data])
    for start, length in ((0, None), (1, 5000), (4096, 4096), (4095, 1 << 20), (len(data) - 1, 1), (7, 0)):
        end = len(data) if length is None else start + length
        assert backend.read_again("packs/ab/one", start, length) == data[start:end]
    with pytest.raises(errors.CorruptObject):
        backend.read_again("packs/ab/one", len(data) - 1, 2)
    with pytest.raises(errors.NotFound):
        backend.read_again("packs/ab/two")
