"""The S3 client and answers that are wrong, late, lost or refused: cases A17 to A44 of the scoreboard, on both engines."""

import asyncio
import contextlib
import datetime
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import trustme

from mfstore.errors import AccessDenied, BackendError, Conflict, CorruptObject, MfstoreError, Unsupported
from mfstore.s3 import PutItem
from mfstore.testing.actions import (
    CloseAfter,
    CloseOnReuse,
    Duplicate,
    DuplicateHeader,
    IgnoreRange,
    Informational,
    LoseResponse,
    Status,
    WrongObject,
    WrongRange,
    access_denied,
    error_in_200,
    expired_token,
    gzip_label,
    redirect,
    time_skewed,
    wrong_region,
)
from tests.s3_faults import KIB, MIB, check_error, fault

pytestmark = pytest.mark.usefixtures("quick")

DATA = random.Random(2).randbytes(6 * MIB)
SMALL = DATA[: 100 * KIB]
LARGE = DATA[: 4 * MIB]


# ---- regions, clocks, credentials -----------------------------------------------------------


def test_a17_redirect_to_a_region(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(redirect(region="eu-west-3"), count=1))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    # The server here is in one region and says so by refusing the other's signature, or does not mind.
    assert outcome.error is not None or outcome.data == SMALL
    assert len(proxy.requests()) <= 4


def test_a17_a_redirect_loop_ends(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(redirect(region="eu-west-3")))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "eu-west-3")
    assert len(proxy.requests()) <= 6


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a17_a_foreign_host_sees_nothing(rig, status):
    rig.store("k", SMALL)
    foreign = rig.proxy()
    proxy = rig.proxy(fault(redirect(location=f"{foreign.url}/elsewhere/k", status=status)))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    assert isinstance(outcome.error, MfstoreError) and foreign.requests() == []


def test_a18_wrong_region_in_the_signature(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(wrong_region("eu-west-3")))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "eu-west-3", "region")
    assert len(proxy.requests()) <= 6


def test_a19_a_skewed_clock_is_learned(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(time_skewed(time.time() + 1200), count=1))
    client = rig.client(proxy)
    (outcome,) = client.get_many(["k"], on_error="return")
    assert abs(client.control.skew - 1200) < 30 and len(proxy.requests()) == 2
    # The server's clock is right after all, so what is signed 20 minutes ahead may be refused: clearly.
    assert outcome.data == SMALL or isinstance(outcome.error, AccessDenied)


class Refreshing:
    """A botocore session whose credentials are fetched by us, and counted."""

    def __init__(self, server, fetch=None):
        from botocore.credentials import RefreshableCredentials
        from botocore.session import Session

        self.count = 0
        self._lock = threading.Lock()

        def fresh():
            with self._lock:
                self.count += 1
            until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
            found = {"access_key": server.access_key, "secret_key": server.secret_key, "token": None}
            return {**found, "expiry_time": until.isoformat(), **(fetch(self.count) if fetch else {})}

        self.session = Session()
        self.session._credentials = RefreshableCredentials.create_from_metadata(fresh(), fresh, "test")


def test_a20_an_expired_token_is_refreshed_once(rig):
    for number in range(50):
        rig.store(f"k{number}", SMALL[:100])
    # The first credentials are of a session that is over; the server knows them by their key id.
    proxy = rig.proxy(fault(expired_token(), when=lambda request: "AKIAOLD" in str(request.headers)))
    source = Refreshing(rig.server, lambda count: {"access_key": "AKIAOLD"} if count == 1 else {})
    result = rig.client(proxy, session=source.session).get_many([f"k{number}" for number in range(50)])
    assert [o.data for o in result] == [SMALL[:100]] * 50
    assert source.count == 2  # however many were refused at once


def test_a20_a_failing_refresh_is_a_clear_error(rig):
    def fetch(count):
        if count > 1:
            raise OSError("the credential service is down")
        return {}

    rig.store("k", SMALL)
    proxy = rig.proxy(fault(expired_token()))
    source = Refreshing(rig.server, fetch)
    (outcome,) = rig.client(proxy, session=source.session).get_many(["k"], on_error="return")
    assert isinstance(outcome.error, (AccessDenied, BackendError)) and outcome.error.key == "k"
    assert "credential" in str(outcome.error).lower() or "token" in str(outcome.error)
    assert len(proxy.requests()) <= 2


def test_a20_the_same_expired_token_again_is_not_tried_for_ever(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(expired_token()))
    source = Refreshing(rig.server)
    (outcome,) = rig.client(proxy, session=source.session).get_many(["k"], on_error="return")
    check_error(outcome.error, AccessDenied, rig, "k", "expired")
    assert len(proxy.requests()) <= 3


# ---- TLS --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["authority", "host", "expired"])
def test_a23_a_certificate_that_is_not_good_is_refused_at_once(rig, tmp_path, wrong):
    authority, other = trustme.CA(), trustme.CA()
    host = "elsewhere.example" if wrong == "host" else "127.0.0.1"
    until = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC) if wrong == "expired" else None
    since = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) if wrong == "expired" else None
    issued = authority.issue_cert(host, not_before=since, not_after=until)
    trusted = tmp_path / "ca.pem"
    (other if wrong == "authority" else authority).cert_pem.write_to_path(str(trusted))
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    proxy = rig.proxy(tls=context)
    (outcome,) = rig.client(proxy, verify=str(trusted)).get_many(["k"], on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "TLS", "AWS_CA_BUNDLE")
    assert outcome.error.attempts == 1 and proxy.requests() == []


# ---- answers that say something else than they seem --------------------------------------------


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
def test_a24_an_error_inside_a_200_of_a_completion(rig, code):
    proxy = rig.proxy(fault(error_in_200(code), method="POST", query="uploadId", count=1))
    rig.client(proxy).put_many({"k": DATA})
    assert rig.stored("k") == DATA


def test_a24_an_error_inside_a_200_of_a_copy_and_a_deletion(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(error_in_200(), method="PUT", count=1), fault(error_in_200(), query="delete", count=1))
    client = rig.client(proxy)
    client.copy({"k": "copy"})
    assert rig.stored("copy") == SMALL
    result = client.delete_many(["k", "copy"], on_error="return")
    assert rig.keys() == [] or not all(o.ok for o in result)


def test_a26_a_completion_whose_answer_was_lost(any_rig):
    proxy = any_rig.proxy(fault(LoseResponse(), method="POST", query="uploadId", count=1))
    (outcome,) = any_rig.client(proxy).put_many({"k": DATA})
    assert outcome.etag and any_rig.stored("k") == DATA


def test_a27_a_conditional_put_whose_answer_was_lost(any_rig):
    proxy = any_rig.proxy(fault(LoseResponse(), method="PUT", count=1))
    (outcome,) = any_rig.client(proxy).put_many([PutItem("k", SMALL, if_none_match=True)])
    assert outcome.ok and any_rig.stored("k") == SMALL
    (second,) = any_rig.client(proxy).put_many([PutItem("k", b"other", if_none_match=True)], on_error="return")
    assert isinstance(second.error, Conflict) and any_rig.stored("k") == SMALL


def test_a28_a_put_whose_answers_are_all_lost_says_that_nothing_is_known(rig):
    proxy = rig.proxy(fault(LoseResponse(), method="PUT"))
    (outcome,) = rig.client(proxy, attempts=2).put_many({"k": SMALL}, on_error="return")
    check_error(outcome.error, BackendError, rig, "k", "unknown", "again is safe")
    assert rig.client().put_many({"k": SMALL})[0].ok and rig.stored("k") == SMALL


def test_a29_a_part_that_fails_for_good_leaves_no_upload(any_rig):
    proxy = any_rig.proxy(fault(access_denied(), method="PUT", query="partNumber=2"))
    (outcome,) = any_rig.client(proxy).put_many({"k": DATA}, on_error="return")
    check_error(outcome.error, AccessDenied, any_rig, "k")
    assert any_rig.uploads() == [] and any_rig.keys() == []


@pytest.mark.parametrize("action", [Duplicate(), Informational()], ids=["twice", "1xx"])
def test_a30_no_answer_is_taken_for_anothers(rig, action):
    data = {f"k{number}": bytes([number]) * 2000 for number in range(60)}
    for key, value in data.items():
        rig.store(key, value)
    proxy = rig.proxy(fault(action, every=3))
    result = rig.client(proxy, concurrency=4).get_many([*data] * 3, on_error="return")
    for outcome in result:
        assert outcome.error is not None or outcome.data == data[outcome.key]
    assert result.stats.failed == 0


def test_a31_another_objects_answer_is_not_taken_where_checksums_or_sizes_tell(rig):
    rig.store("k", LARGE)
    rig.store("other", LARGE[::-1])
    proxy = rig.proxy(fault(WrongObject(f"/{rig.bucket}/other"), when=lambda request: "range" in request.headers))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    assert outcome.error is not None or outcome.data == LARGE


@pytest.mark.parametrize("action", [WrongRange(), IgnoreRange()], ids=["wrong", "ignored"])
def test_a33_a_range_that_is_another(rig, action):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(action, count=1))
    (outcome,) = rig.client(proxy).get_many([("k", 1000, 500)])
    assert outcome.data == SMALL[1000:1500]
    always = rig.proxy(fault(action))
    (outcome,) = rig.client(always, attempts=3).get_many([("k", 1000, 500)], on_error="return")
    assert isinstance(outcome.error, (BackendError, Unsupported, CorruptObject)) and outcome.error.key == "k"


def test_a34_bytes_are_bytes_whatever_the_label(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(gzip_label()))
    (outcome,) = rig.client(proxy).get_many(["k"])
    assert outcome.data == SMALL


def test_a35_headers_twice(rig):
    rig.store("k", LARGE)
    proxy = rig.proxy(fault(DuplicateHeader("ETag", '"other"')))
    (outcome,) = rig.client(proxy).get_many(["k"], on_error="return")
    assert outcome.error is not None or outcome.data == LARGE


@pytest.mark.parametrize(
    "body",
    [
        b"<ListBucketResult><Contents><Key>k</K",
        b"",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult>&a;</ListBucketResult>",
    ],
)
def test_a36_a37_listings_that_are_none(rig, body):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(Status(200, body=body), query="list-type", count=1))
    assert [entry.key for entry in rig.client(proxy).list()] == ["k"]
    always = rig.proxy(fault(Status(200, body=body), query="list-type"))
    with pytest.raises(BackendError):
        list(rig.client(always, attempts=2).list())


def test_a38_a_connection_closed_when_it_is_used_again(rig):
    data = {f"k{number}": SMALL[:1000] for number in range(40)}
    for key, value in data.items():
        rig.store(key, value)
    proxy = rig.proxy(fault(CloseOnReuse(), every=5))
    result = rig.client(proxy, attempts=3).get_many(data)
    assert [o.data for o in result] == list(data.values())


def test_a40_every_connection_closed_after_its_answer(rig):
    rig.store("k", SMALL)
    proxy = rig.proxy(fault(CloseAfter()))
    assert [o.data for o in rig.client(proxy).get_many(["k"] * 20)] == [SMALL] * 20
    rig.client(proxy).put_many({f"p{number}": SMALL for number in range(10)})


# ---- ending early --------------------------------------------------------------------------------


PROGRAM = """
import os, sys
from pathlib import Path
from mfstore.s3 import BulkClient

def main():
    client = BulkClient({bucket!r}, **{options!r})
    print("ready", flush=True)
    {work}

try:
    main()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
WORK = {
    "get": "list(client.get_many(['k'] * 200))",
    "files": "client.get_many((f'k' for _ in range(200)), into='files', dest=lambda key: Path(sys.argv[1]) / str(os.urandom(8).hex()))",
    "put": "client.put_many((f'p{number}', bytes(6 << 20)) for number in range(100))",
}


def start(rig, proxy, work, folder):
    code = PROGRAM.format(bucket=rig.bucket, options=rig.options(proxy.url), work=WORK[work])
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    limit = time.monotonic() + 20
    while not proxy.requests() and time.monotonic() < limit:
        time.sleep(0.02)
    time.sleep(0.3)
    return process


@pytest.mark.parametrize("work", WORK)
def test_a43_ctrl_c_ends_everything(rig, work, tmp_path):
    rig.store("k", LARGE)
    proxy = rig.proxy(bandwidth=3e6)
    process = start(rig, proxy, work, tmp_path)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert out == "interrupted\n" and process.returncode == 0
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".mfstore")]


def test_a43_a_cancelled_task_ends_everything(rig, tmp_path):
    rig.store("k", LARGE)
    proxy = rig.proxy(bandwidth=20e6)
    client = rig.client(proxy)

    async def main():
        for delay in (0.0, 0.01, 0.1, 0.4):
            for work in (
                client.aget_many(["k"] * 50),
                client.aget_many(["k"] * 50, into="files", dest=lambda key: tmp_path / os.urandom(8).hex()),
                client.aput_many({f"p{number}": SMALL for number in range(100)}),
            ):
                task = asyncio.ensure_future(work)
                await asyncio.sleep(delay)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        assert [o.data async for o in client.aget_many(["k"])] == [LARGE]

    asyncio.run(main())
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".mfstore")]


def test_a44_a_killed_program_leaves_nothing_half_written(rig, tmp_path):
    proxy = rig.proxy(bandwidth=20e6)
    process = start(rig, proxy, "put", tmp_path)
    process.kill()
    process.communicate()
    proxy.reset_connections()
    for key in rig.keys():
        assert rig.stored(key) == bytes(6 * MIB)
    client = rig.client()
    client.put_many({f"p{number}": SMALL for number in range(100)})
    assert len(rig.keys()) == 100
    # What is open belongs to nobody any more: the bucket's lifecycle rule, or this, removes it.
    for upload in rig.uploads():
        rig.boto.abort_multipart_upload(Bucket=rig.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
