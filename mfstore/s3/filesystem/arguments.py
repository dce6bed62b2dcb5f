"""What s3fs's arguments mean here: settings of a filesystem and of its client. What has no meaning is refused by name.
Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mfstore.errors import InvalidKey, WrongArgument
from mfstore.records import dataclass, field
from mfstore.s3.aws.errors import without_passwords

OURS = (
    *("engine", "concurrency", "memory", "max_bandwidth", "attempts", "retry_seconds", "first_byte_timeout"),
    *("stall_timeout", "expected_bucket_owner", "checksum", "payload_signing", "encryption", "kms_key", "bucket_key"),
    *("region_name", "withheld"),
)
"""Arguments of ``BulkClient``, under its names."""
KEYS = {
    "key": "aws_access_key_id", "secret": "aws_secret_access_key", "token": "aws_session_token",
    "username": "aws_access_key_id", "password": "aws_secret_access_key",
}  # fmt: skip
"""s3fs's names of keys, and boto3's."""
AS_HERE: dict[str, tuple[Any, ...]] = {
    "cache_regions": (None, True, False),  # regions are learned, and remembered
    "fixed_upload_size": (None, True, False),  # parts are of one size, but for the last
    "local_expiry_check": (None, True, False),  # each range's ETag is compared here
}
"""Arguments of s3fs that ask for what is so anyway, with the values that do."""
REFUSED = {
    "max_concurrency": "concurrency= is how many requests there are at once; without it that follows measurements",
    "batch_size": "concurrency= is how many requests there are at once; without it that follows measurements",
    "config": "Give config_kwargs, the arguments of botocore's Config",
}
"""Arguments that mean something else here, with what to write instead."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a filesystem was made with."""

    client: dict[str, Any]
    """Arguments of ``BulkClient``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Parameters of every operation that knows them, by botocore's names."""


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings that s3fs's arguments come to; those that are None say nothing. WrongArgument, a TypeError, for one
    that has no meaning here."""
    client: dict[str, Any] = {}
    options: dict[str, Any] = {}
    in_client = dict(given.get("client_kwargs") or {})
    for name, value in given.items():
        if value is None or name == "client_kwargs":
            continue
        if name in KEYS:
            if client.get(KEYS[name], value) != value:
                raise WrongArgument(f"{name} is given twice, under two names")
            client[KEYS[name]] = value
        elif name == "s3_additional_kwargs":
            options = dict(value)
        elif name == "config_kwargs":
            client["config"] = _config(value)
        elif name == "anon":
            client["anonymous"] = bool(value)
        elif name == "requester_pays":
            client["request_payer"] = "requester" if value else None
        elif name == "profile":
            client["profile_name"] = value
        elif name in ("endpoint_url", "session", *OURS):
            client[name] = value
        elif name == "use_ssl":
            if not value:
                in_client.setdefault("use_ssl", False)
        elif value in AS_HERE.get(name, ()):
            continue
        else:
            raise WrongArgument(
                f"{name} has no meaning here", found=f"{name}={value!r:.60}",
                hint=REFUSED.get(name, "docs/s3-filesystem.md lists the arguments"),
            )  # fmt: skip
    for name, value in in_client.items():
        if client.get(name, value) != value:
            raise WrongArgument(f"{name} is given twice: in client_kwargs and as an argument")
    return Settings({**in_client, **client}, options)


def _config(given: Mapping[str, Any]) -> Any:
    from botocore.config import Config

    try:
        return Config(**given)
    except TypeError as error:
        raise InvalidKey(f"config_kwargs are not botocore's: {error}") from None


def without_secrets(given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Arguments that may travel, and the names of those that stayed behind: keys, and passwords in URLs."""
    left: dict[str, Any] = {}
    withheld: list[str] = list(given.get("withheld") or ())
    for name, value in given.items():
        if name in KEYS:
            if value:
                withheld.append(KEYS[name])
        elif name == "client_kwargs" and value:
            inner, stayed = without_secrets({KEYS_BACK.get(one, one): found for one, found in value.items()})
            inner.pop("withheld", None)
            left[name] = inner
            withheld += stayed
        elif name == "endpoint_url" and isinstance(value, str) and without_passwords(value) != value:
            left[name] = without_passwords(value)
            withheld.append("the password in endpoint_url")
        elif name == "config_kwargs" and value and value.get("proxies"):
            bare = {scheme: without_passwords(str(url)) for scheme, url in value["proxies"].items()}
            if bare != dict(value["proxies"]):
                withheld.append("the password in proxies")
            left[name] = {**value, "proxies": bare}
        else:
            left[name] = value
    told = tuple(dict.fromkeys(withheld))
    if told:
        left["withheld"] = told
    return left, told


KEYS_BACK = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "aws_session_token": "token"}
"""boto3's names of keys, which ``client_kwargs`` has, and s3fs's."""
