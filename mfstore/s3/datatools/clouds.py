"""What a client for a place on Azure or Google Cloud is made of, by Metaflow's configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from mfstore.records import NamedTuple
from mfstore.s3.datatools.settings import setting
from mfstore.s3.urls import bucket_url, split_url

GOOGLES_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
"""What a provider of Metaflow's is asked for: a task reads and writes objects."""
AZURES_PROVIDER, GOOGLES_PROVIDER = "azure-default", "gcp-default"
"""Metaflow's own, which find what mfstore finds by itself."""


class CloudSettings(NamedTuple):
    """For all of a container of Azure's, or of a bucket of Google's."""

    bucket: str
    """Its URL."""
    options: Mapping[str, Any]
    """Arguments of ``BulkClient``."""


def cloud_settings(url: str) -> CloudSettings:
    """By ``AZURE_STORAGE_BLOB_SERVICE_ENDPOINT``, and the provider of credentials that Metaflow is configured for. What
    they do not say, the environment says, as it does without Metaflow."""
    bucket = bucket_url(split_url(url)[0])
    options = _azures_options(url) if bucket.startswith("az://") else _googles_options()
    return CloudSettings(bucket, options)


def _azures_options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    endpoint = setting("AZURE_STORAGE_BLOB_SERVICE_ENDPOINT")
    if endpoint and not url.startswith("abfss://"):  # which names the account itself
        options["endpoint_url"] = str(endpoint)
    provider = setting("DEFAULT_AZURE_CLIENT_PROVIDER") or AZURES_PROVIDER
    if provider != AZURES_PROVIDER:
        options["credential"] = _azures_credential(os.getpid(), provider)
    return options


def _googles_options() -> dict[str, Any]:
    provider = setting("DEFAULT_GCP_CLIENT_PROVIDER") or GOOGLES_PROVIDER
    if provider == GOOGLES_PROVIDER:
        return {}
    return {"credentials": _googles_credentials(os.getpid(), provider)}


# One for each process: clients are shared by who has the same.


@cache
def _azures_credential(_process: int, _provider: str) -> Any:
    from metaflow.plugins.azure.azure_credential import create_cacheable_azure_credential

    return create_cacheable_azure_credential()


@cache
def _googles_credentials(_process: int, _provider: str) -> Any:
    from metaflow.plugins.gcp.gs_storage_client_factory import get_credentials

    return get_credentials(list(GOOGLES_SCOPES))[0]
