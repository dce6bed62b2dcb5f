"""Presigned URLs, as botocore makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from botocore.config import Config

from mfstore.errors import AccessDenied
from mfstore.s3.aws import botocore_internals as internals
from mfstore.s3.aws import errors, sessions
from mfstore.s3.aws.control import BotocoreControlPlane
from mfstore.s3.aws.settings import KEY_OPTIONS

if TYPE_CHECKING:
    from mfstore.s3.aws.interface import ControlPlane


OF_AWS = ".amazonaws.com"


def presigned(
    control: ControlPlane, bucket: str, key: str, seconds: int, version_id: str | None = None
) -> tuple[str, float | None]:  # fmt: skip
    """A URL that gets an object, or a version of it, for so long, and when the credentials end with which it is signed
    (time.time(); None where they say nothing of an end). It is made here: nobody is asked."""
    assert isinstance(control, BotocoreControlPlane)
    process = control.process()
    settings = control.settings
    credentials = process.keyring.current()
    if credentials is None:
        raise AccessDenied("a URL is signed, and this client has no credentials", hint="Leave out anonymous=True")
    secrets = credentials.access_key, credentials.secret_key, credentials.token
    keys = {name: value for name, value in zip(KEY_OPTIONS, secrets, strict=True) if value is not None}
    region = process.regions.of(bucket)
    params = {"Bucket": bucket, "Key": key} | ({} if version_id is None else {"VersionId": version_id})
    config = process.config.merge(Config(signature_version="s3v4"))
    there = settings if region is None else replace(settings, region=region)
    try:
        client = sessions.client_for(there, process.session, config, keys)
        if client.meta.endpoint_url.endswith(OF_AWS) and (config.s3 or {}).get("addressing_style") in (None, "auto"):
            # Else botocore signs for the host of all regions, which sends to another one for a bucket that is new.
            config = config.merge(Config(s3={**(config.s3 or {}), "addressing_style": "virtual"}))
            client = sessions.client_for(there, process.session, config, keys)
        url: str = client.generate_presigned_url("get_object", params, ExpiresIn=seconds)
    except Exception as error:
        raise errors.local(error, settings.profile).where(key=key) from error
    return url, internals.end_of(process.keyring.botocore_credentials())
