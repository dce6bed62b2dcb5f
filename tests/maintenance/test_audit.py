"""The log of collections: written before anything goes and at the end, by stores and by roots alike."""

import json
import logging

import pytest

from mfstore import errors
from mfstore.backends.memory import MemoryBackend
from mfstore.format.audit import AuditRecord, decode_record, encode_record, is_record, last_removal, record_key
from mfstore.maintenance import audit
from mfstore.maintenance.audit import Account, AuditLog, read_log
from mfstore.testing import Fault, FaultyBackend
from tests.rigs.gc import collect, noise, store_on

NOW = 1_800_000_000.25
RECORD = AuditRecord(
    "0123456789abcdef", "end", "gc", NOW, "ana@host", {"last": 5}, {"outcome": "done", "bytes": 7},
    ({"remove": "Flow/1", "bytes": 7}, {"held": "Other", "why": "running"}),
)  # fmt: skip


def log_of(backend, folder="gc/log/"):
    return [*read_log(backend, folder)]


def test_a_record_is_read_as_it_was_written():
    assert decode_record(encode_record(RECORD)) == RECORD
    assert record_key("gc/log/", RECORD) == "gc/log/2027/01/15/080000.250000-0123456789abcdef-end.jsonl"
    assert is_record(record_key("", RECORD)) and not is_record("gc/log/notes.jsonl")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"version": 2}', b"[" * 100_000, b"\xff", b"null\n"])
def test_what_is_no_record_is_none(data):
    assert decode_record(data) is None


def test_a_record_that_is_cut_tells_what_it_can():
    data = encode_record(RECORD)
    assert decode_record(data[:-20]).lines == RECORD.lines[:1]


def test_each_line_of_a_record_is_json():
    head, *lines = encode_record(RECORD).decode().splitlines()
    assert json.loads(head)["version"] == 1 and json.loads(lines[0])["remove"] == "Flow/1"


def test_the_removal_of_a_run_is_found():
    earlier = AuditRecord("a" * 16, "end", "gc", NOW - 5, "bob@host", lines=({"remove": "Flow/1"},))
    assert last_removal([earlier, RECORD], "Flow/1") is RECORD
    assert last_removal([RECORD], "Other/1") is None


def test_two_objects_an_execution_the_first_before_anything_is_done(caplog):
    backend = MemoryBackend()
    caplog.set_level(logging.INFO, "mfstore.gc")
    log = AuditLog(backend, "log/", "gc", {"last": 1})
    with log.execution(NOW, Account({"bytes": 5}, [{"remove": "F/1"}]), lambda: Account({"bytes": 4})):
        (begun,) = log_of(backend, "log/")
    assert (begun.event, begun.facts["bytes"], begun.lines) == ("begin", 5, ({"remove": "F/1"},))
    ended, again = log_of(backend, "log/")
    assert again == begun and ended.event == "end" and ended.execution == begun.execution
    assert ended.facts["outcome"] == "done" and ended.facts["bytes"] == 4 and ended.time >= NOW
    assert "@" in ended.user and ended.policy == {"last": 1} and log.complete
    assert "gc of memory" in caplog.text and "bytes 4" in caplog.text


def test_what_fails_is_logged_with_how_far_it_was():
    backend = MemoryBackend()
    done = []
    with pytest.raises(errors.BackendError), AuditLog(backend, "log/", "gc", {}).execution(
        NOW, Account({}), lambda: Account({"runs": len(done)})
    ):  # fmt: skip
        done.append(1)
        raise errors.BackendError("the network is gone")
    ended, _ = log_of(backend, "log/")
    assert ended.facts == {"outcome": "failed", "error": "the network is gone", "runs": 1}


def test_without_the_right_to_log_nothing_is_done():
    backend = FaultyBackend(MemoryBackend(), Fault(1, error=lambda: errors.AccessDenied("no")))
    done = []
    with pytest.raises(errors.AccessDenied), AuditLog(backend, "log/", "gc", {}).execution(
        NOW, Account({}), lambda: Account({})
    ):  # fmt: skip
        done.append(1)
    assert not done


def test_a_full_disk_is_collected_without_a_log(caplog):
    backend = FaultyBackend(MemoryBackend(), Fault(1, error=lambda: errors.OutOfSpace("full")))
    log = AuditLog(backend, "log/", "gc", {})
    with log.execution(NOW, Account({}), lambda: Account({})):
        pass
    assert not log.complete and "not all of this gc" in caplog.text


def test_a_log_is_read_from_its_end_and_no_further_than_asked(monkeypatch):
    backend = MemoryBackend()
    monkeypatch.setattr(audit, "READ_TOGETHER", 2)
    for number in range(6):
        record = AuditRecord(f"{number:016x}", "end", "gc", NOW + number * 90_000, "u@h")
        backend.put(record_key("log/", record), [encode_record(record)])
    backend.put("log/2027/01/15/000000.000000-x-end.jsonl", [b"damage"])
    backend.put("log/notes", [b"of somebody"])
    assert [record.execution[-1] for record in read_log(backend, "log/")] == ["5", "4", "3", "2", "1", "0"]
    assert [record.execution[-1] for record in read_log(backend, "log/", NOW + 4 * 90_000)] == ["5", "4"]


# ---- stores ----------------------------------------------------------------------------------------------------------


def test_a_store_logs_what_goes_and_by_which_policy():
    store = store_on(MemoryBackend())
    for number in range(3):
        store.refs["model"] = store.put(noise(number))
    history = store.refs.history("model")
    collect(store, keep_last=1)
    records = log_of(store.backend)
    assert [record.event for record in records] == ["end", "begin"] * 2
    second, _, _, first = records
    assert first.policy == {"grace": 0, "repack": 0, "keep_last": 1} and first.action == "gc"
    (ref,) = [line for line in first.lines if "ref" in line]
    assert ref["ref"] == "model" and [row[0] for row in ref["dropped"]] == [entry.key for entry in history[:0:-1]]
    (condemned,) = [line["condemn"] for line in first.lines if "condemn" in line]
    assert set(condemned) == {entry.key for entry in history[1:]}
    assert (second.facts["keys"], second.facts["outcome"]) == (2, "done") and second.facts["bytes"] > 150_000
    # What does nothing writes nothing.
    store.plan_gc(grace=0, keep_last=1, repack=0).execute()
    assert log_of(store.backend) == records
