"""Credentials as botocore finds them: keys, SSO, processes, roles, web identity; refreshed, and asked for once."""

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("botocore")

from mfstore import errors
from mfstore.s3.aws.routes import Credentials
from mfstore.s3.calls import Call
from tests.rigs.control_planes import control_plane, nobody
from tests.rigs.s3_wire import Wire, respond

REGION = "eu-west-1"


@pytest.fixture(autouse=True)
def env(s3_env):
    return s3_env


def no_keys(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


def test_no_credentials(monkeypatch):
    no_keys(monkeypatch)
    for action in (
        control_plane(region=REGION).credentials,
        lambda: control_plane(region=REGION).route("GetObject", "bucket"),
    ):
        with pytest.raises(errors.AccessDenied, match=r"AWS_ACCESS_KEY_ID.*~/\.aws.*SSO.*IMDS.*anonymous"):
            action()


def test_bad_profile():
    with pytest.raises(errors.AccessDenied, match=r"nope.*list-profiles"):
        control_plane(profile="nope").credentials()


def test_sso_says_what_to_run(env, monkeypatch):
    no_keys(monkeypatch)
    (env / "config").write_text(
        "[profile s]\nsso_start_url = https://x.example\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r\nregion = us-east-1\n"
    )
    with pytest.raises(errors.AccessDenied, match="aws sso login --profile s"):
        control_plane(profile="s").credentials()


def test_sso_credentials_and_their_end(env, monkeypatch):
    """From the token that ``aws sso login`` left; when that is refused, the error says to log in again."""
    from botocore.credentials import SSOProvider

    no_keys(monkeypatch)
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(env))
    start = "https://x.example"
    (env / "config").write_text(
        f"[profile s]\nsso_start_url = {start}\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r\nregion = us-east-1\n"
    )
    later = datetime.now(UTC) + timedelta(hours=1)
    token = {
        "startUrl": start,
        "region": "us-east-1",
        "accessToken": "login",
        "expiresAt": f"{later:%Y-%m-%dT%H:%M:%SZ}",
    }
    (env / f"{hashlib.sha1(start.encode()).hexdigest()}.json").write_text(json.dumps(token))

    def issued(key):
        role = {"accessKeyId": key, "secretAccessKey": "s", "sessionToken": "t"}
        body = {"roleCredentials": {**role, "expiration": int(later.timestamp() * 1000)}}
        return respond(200, json.dumps(body).encode(), Content_Type="application/json")

    with Wire() as wire:
        refused = respond(
            401, b'{"message": "Session token not found or invalid"}', x_amzn_ErrorType="UnauthorizedException"
        )
        wire.answers["/federation/credentials"] = [issued("SSO"), issued("NEXT"), refused]
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", wire.url)
        control = control_plane(profile="s")
        assert control.credentials() == Credentials("SSO", "s", "t")
        assert control.expire(control.credentials(), "bucket") and control.credentials().access_key == "NEXT"
        with pytest.raises(errors.AccessDenied, match="aws sso login --profile s"):
            control.expire(control.credentials(), "bucket")


def process(path, expires, key="PROC"):
    path.write_text(
        json.dumps(
            {
                "Version": 1,
                "AccessKeyId": key,
                "SecretAccessKey": "s",
                "SessionToken": "t",
                "Expiration": expires.isoformat(),
            }
        )
    )


def test_process_credentials_refresh_once_for_100_threads(env, monkeypatch):
    no_keys(monkeypatch)
    log = env / "log"
    (env / "config").write_text(f"[default]\ncredential_process = sh -c 'echo x >> {log}; cat {env}/creds'\n")
    process(env / "creds", datetime.now(UTC) + timedelta(hours=5))
    control = control_plane(region=REGION)
    old = control.credentials()
    assert (old.access_key, old.token) == ("PROC", "t")
    process(env / "creds", datetime.now(UTC) + timedelta(hours=5), "NEXT")
    outcomes, start = [], threading.Barrier(100)

    def refresh():
        start.wait()
        outcomes.append(control.expire(old, "bucket"))

    threads = [threading.Thread(target=refresh) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 100 and log.read_text().count("x") == 2
    new = control.credentials()
    assert new.access_key == "NEXT"
    assert not control.expire(new, "bucket") and not control.expire(
        new, "bucket"
    )  # the same ones again: nothing new came
    assert log.read_text().count("x") == 3
    (env / "creds").write_text("no json")
    with pytest.raises(errors.AccessDenied, match="could not be had"):
        control_plane(region=REGION).credentials()


def test_rewritten_keys_are_found(env, monkeypatch):
    control = control_plane(region=REGION)
    old = control.credentials()
    assert not control.expire(old, "bucket")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ROTATED")
    monkeypatch.setattr("mfstore.s3.aws.credentials.SECONDS_BETWEEN_SEARCHES", 0.0)
    assert control.expire(old, "bucket") and control.credentials().access_key == "ROTATED"
    assert (
        "Credential=ROTATED/" in dict(control.signed(Call("GetObject", "bucket", "k"), nobody).headers)["Authorization"]
    )


def sts(kind, expires, key="ROLE"):
    return (
        f'<{kind}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{kind}Result><Credentials>'
        f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
        f"<Expiration>{expires.isoformat()}</Expiration></Credentials></{kind}Result></{kind}Response>"
    ).encode()


@pytest.mark.parametrize("kind", ["AssumeRole", "AssumeRoleWithWebIdentity"])
def test_assumed_roles(env, monkeypatch, kind):
    later = datetime.now(UTC) + timedelta(hours=1)
    with Wire() as wire:
        wire.answers["/"] = [respond(200, sts(kind, later)), respond(200, sts(kind, later, "NEXT"))]
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", wire.url)
        if kind == "AssumeRole":
            (env / "config").write_text(
                "[profile r]\nrole_arn = arn:aws:iam::123456789012:role/r\ncredential_source = Environment\nregion = us-east-1\n"
            )
            control = control_plane(profile="r")
        else:
            no_keys(monkeypatch)
            (env / "token").write_text("token")
            monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(env / "token"))
            monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
            control = control_plane(region="us-east-1")
        assert control.credentials().access_key == "ROLE"
        assert control.expire(control.credentials(), "bucket") and control.credentials().access_key == "NEXT"
        wire.answers["/"] = respond(
            403, b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>m</Message></Error></ErrorResponse>"
        )
        with pytest.raises(errors.AccessDenied, match="could not be had"):
            control.expire(control.credentials(), "bucket")
