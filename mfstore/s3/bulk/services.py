"""Which service a client is for, by the URL that it was given: how it is reached, and what knows its requests.

Imported when the URL says so, so that nobody needs the libraries of a cloud he does not use.
"""

from __future__ import annotations

from typing import Any

from mfstore.errors import Unsupported
from mfstore.s3.aws.control import BotocoreControlPlane
from mfstore.s3.aws.interface import ControlPlane
from mfstore.s3.aws.settings import ConnectionSettings

S3_ALONE = (
    "session", "client", "expected_bucket_owner", "request_payer", "payload_signing", "encryption", "kms_key",
    "bucket_key",
)  # fmt: skip
"""Arguments of a client that other services know nothing of."""


def settings_of(scheme: str, url: str | None, arguments: dict[str, Any]) -> Any:
    """How a service is reached, by a client's arguments and the ``url`` of its bucket. Unsupported for those that are
    about S3, where it is another."""
    if scheme == "s3":
        return ConnectionSettings.given(**arguments)
    for name in S3_ALONE:
        if arguments.pop(name, None) is not None:
            raise Unsupported(
                f"{name} is for S3", found=url, hint="Leave it out: the account or bucket decides it here"
            )
    if scheme == "az":
        from mfstore.azure.settings import AzureSettings

        return AzureSettings.given(url=url, **arguments)
    if scheme == "gs":
        from mfstore.gcs.settings import GcsSettings

        return GcsSettings.given(url=url, **arguments)
    raise Unsupported(f"no client for {scheme}:// is built in", found=url)


def control_plane(scheme: str, settings: Any) -> ControlPlane:
    """What knows the requests of a service."""
    if scheme == "s3":
        return BotocoreControlPlane(settings)
    if scheme == "az":
        from mfstore.azure.control import AzureControlPlane

        return AzureControlPlane(settings)
    if scheme == "gs":
        from mfstore.gcs.control import GcsControlPlane

        return GcsControlPlane(settings)
    raise Unsupported(f"no client for {scheme}:// is built in")
