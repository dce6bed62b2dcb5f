"""S3 Express: directory buckets, whose sessions sign."""

from dataclasses import replace

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import Credentials

from mfstore import errors
from mfstore.s3.aws import express, kept_sessions
from mfstore.s3.transfers import uploads
from tests.rigs.concurrency import in_threads
from tests.rigs.directory_bucket import ACCOUNT, BUCKET, REGION, DirectoryBuckets, Refused

MIB = 1 << 20


@pytest.fixture(autouse=True)
def env(s3_env):
    return s3_env


@pytest.fixture
def service():
    with DirectoryBuckets() as service:
        yield service


@pytest.fixture
def client(service):
    with service.client() as client:
        yield client


@pytest.mark.parametrize("engine", ["native", "aiobotocore"])
def test_one_session_signs_all_that_is_asked_of_a_bucket(service, tmp_path, engine):
    with service.client(engine=engine) as client:
        every_operation(client, service, tmp_path)
    assert service.asked("GET session") == 1
    assert {by for what, by in service.signed_by if what != "GET session"} == {"token1"}


def every_operation(client, service, tmp_path):
    (tmp_path / "f").write_bytes(b"file" * 10)
    client.put_many({"k ü": b"1" * 1000, "parts": [b"a", b"b"], "file": tmp_path / "f"})
    assert [one.data for one in client.get_many(["k ü", "parts", "file"])] == [b"1" * 1000, b"ab", b"file" * 10]
    assert [bytes(one.data) for one in client.get_ranges([("file", 4, 4)])] == [b"file"]
    assert [one.size for one in client.head_many(["file"])] == [40]
    assert sorted(entry.key for entry in client.list()) == ["file", "k ü", "parts"]
    client.delete_many(["k ü", "parts"])
    assert [*service.objects] == ["file"]


def test_parts(client, service, monkeypatch):
    monkeypatch.setattr(uploads, "LONGEST_SINGLE_PUT", 5 * MIB)
    monkeypatch.setattr(uploads, "PART_BYTES", 5 * MIB)
    client.put_many({"k": bytes(11 * MIB)})
    assert service.objects == {"k": bytes(11 * MIB)} and service.asked("PUT object") == 3


def test_copies_are_signed_by_the_account(client, service):
    client.put_many({"a": b"1"})
    client.copy({"a": "b"})
    assert service.objects["b"] == b"1"
    assert ("PUT object", "account") in service.signed_by


def test_threads_share_a_session(client, service):
    client.put_many({"k": b"1"})
    service.end_sessions()
    client.transfers.control.process().sessions._sessions.clear()
    assert in_threads(lambda _: list(client.get_many(["k"] * 4)), range(4)) == []
    assert service.asked("GET session") == 2


def test_a_session_is_renewed_before_it_ends(client, service):
    service.lifetime = express.ENDING_SECONDS
    client.put_many({"k": b"1"})
    assert [one.data for one in client.get_many(["k"])] == [b"1"]
    assert service.asked("GET session") == 2
    assert service.signed_by[-1] == ("GET object", "token2")


def test_the_old_session_serves_while_there_is_no_other(client, service):
    service.lifetime = express.ENDING_SECONDS
    client.put_many({"k": b"1"})
    service.planned = [Refused(503, "SlowDown")] * 3
    assert [one.data for one in client.get_many(["k"])] == [b"1"]
    assert service.signed_by[-1] == ("GET object", "token1")


def test_a_session_that_is_refused_is_replaced_once(client, service, monkeypatch):
    client.put_many({"k": b"1"})
    monkeypatch.setattr(express, "SECONDS_YOUNG", 0.0)
    service.end_sessions()
    assert [one.data for one in client.get_many(["k"])] == [b"1"]
    assert service.asked("GET session") == 2
    service.end_sessions()
    service.planned = [Refused(403, "AccessDenied")] * 10
    with pytest.raises(errors.AccessDenied):
        list(client.get_many(["k"]))


def test_a_session_of_aiobotocores_that_is_refused_is_replaced(service, monkeypatch):
    with service.client(engine="aiobotocore", attempts=2) as client:
        client.put_many({"k": b"1"})
        kept = client.transfers.control.process().kept_sessions
        assert kept.refused(BUCKET)  # it is young: another has told it
        monkeypatch.setattr(kept_sessions, "SECONDS_YOUNG", 0.0)
        service.end_sessions()
        assert [one.data for one in client.get_many(["k"])] == [b"1"]
        assert service.asked("GET session") == 2 and not kept.refused("other")
        service.end_sessions()
        service.planned = [Refused(403, "InvalidAccessKeyId")] * 10
        with pytest.raises(errors.AccessDenied):
            list(client.get_many(["k"]))


def test_all_that_a_session_has_signed_are_signed_by_the_next(client, service):
    """The first refusal gives the session up. The others are of the same one, and say nothing of the account's keys."""
    client.put_many({"k": b"1"})
    control = client.transfers.control
    known = control.process().sessions._sessions
    ((bucket, session),) = known.items()
    known[bucket] = replace(session, begun=session.begun - express.SECONDS_YOUNG)
    keys = control.credentials()
    assert control.expire(keys, bucket) and control.expire(keys, bucket) and not control.expire(keys, "other")
    service.end_sessions()
    assert [one.data for one in client.get_many(["k"] * 40)] == [b"1"] * 40
    assert service.asked("GET session") == 2


@pytest.mark.parametrize(
    ("refusals", "asked"),
    [([Refused(503, "SlowDown")], 2), ([Refused(500, "InternalError")] * 3, 4)],
    ids=["slow", "broken"],
)
def test_a_service_that_is_not_ready_is_asked_again(client, service, monkeypatch, refusals, asked):
    monkeypatch.setattr(express, "SECONDS_BETWEEN_FAILURES", 0.0)
    service.planned = [*refusals]
    client.put_many({"k": b"1"})
    assert service.objects and service.asked("GET session") == asked


def test_no_session_is_an_error_of_each_item(client, service, monkeypatch):
    """For which the service is asked once."""
    monkeypatch.setattr(express, "SECONDS_BETWEEN_FAILURES", 1000.0)
    service.planned = [Refused(403, "AccessDenied")] * 10
    outcomes = client.get_many(["a", "b", "c"], on_error="return").wait()
    assert [type(one.error) for one in outcomes] == [errors.AccessDenied] * 3
    assert service.asked("GET session") == 1


def test_no_such_bucket(service):
    with service.client() as client, pytest.raises(errors.NotFound, match="bucket"):
        list(client.get_many(["s3://none--euw1-az1--x-s3/k"]))


@pytest.mark.parametrize("begun", [False, True], ids=["at first", "after a session"])
def test_credentials_of_the_account_that_have_expired(service, env, monkeypatch, begun):
    """Are looked for again, where they were found."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    service.accounts = [Credentials("OLD", "s"), Credentials("NEW", "t")]
    (env / "credentials").write_text("[p]\naws_access_key_id = OLD\naws_secret_access_key = s\n")
    with service.client(session=boto3.Session(profile_name="p")) as client:
        assert client.transfers.control.credentials().access_key == "OLD"
        if begun:
            client.put_many({"j": b"0"})
            sessions = client.transfers.control.process().sessions._sessions
            ((bucket, session),) = sessions.items()
            sessions[bucket] = replace(session, begun=0.0, ends=0.0)
        service.expired.add("OLD")
        (env / "credentials").write_text("[p]\naws_access_key_id = NEW\naws_secret_access_key = t\n")
        client.put_many({"k": b"1"})
    assert "k" in service.objects and service.asked("GET session") == 1 + begun


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
def test_a_wrong_clock(ahead):
    with DirectoryBuckets(ahead=ahead) as service, service.client() as client:
        client.put_many({"k": b"1"})
        assert [one.data for one in client.get_many(["k"])] == [b"1"]
        assert service.asked("GET session") == 1, "by the service's clock it lasts as long as ever"


def test_handlers_see_what_a_session_signs(service):
    seen = []
    session = boto3.Session(
        aws_access_key_id=ACCOUNT.access_key, aws_secret_access_key=ACCOUNT.secret_key, region_name=REGION
    )
    session.events.register("before-sign.s3.PutObject", lambda request, **_: seen.append(request.url))
    with service.client(session=session) as client:
        client.put_many({"k": b"1", "l": b"2"})
        assert service.objects == {"k": b"1", "l": b"2"} and len(seen) == 2
        assert service.asked("GET session") == 1 and {by for _, by in service.signed_by} == {"account", "token1"}


def test_sessions_that_the_configuration_does_without(service):
    service.sessions_needed = False
    config = Config(s3={"disable_s3_express_session_auth": True}, proxies={"http": service.origin})
    with service.client(config=config) as client:
        client.put_many({"k": b"1"})
        assert [one.data for one in client.get_many(["k"])] == [b"1"]
    assert service.signed_by == [("PUT object", "account"), ("GET object", "account")]
