"""Where datastores of Metaflow's lie, and how its settings say that they are reached: in S3, on Azure, on Google Cloud.

Local flows import this module. What it takes to open something is imported when that is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mfstore.s3.datatools.clients import Lease


def root_url(kind: str, root: str) -> str:
    """The URL of a datastore root of Metaflow's, of which it says ``kind`` (s3, azure, gs, local): its roots on Azure
    are ``container/prefix``."""
    return f"az://{root}" if kind == "azure" and "://" not in root else root


def kind_of(url: str) -> str:
    """What Metaflow calls datastores that lie where this URL does."""
    scheme = url.partition("://")[0]
    return "azure" if scheme in ("az", "abfss") else scheme


def lease_at(url: str) -> Lease:
    """The use of a client for what lies at ``url``, shared with all who want the same; its user releases it."""
    from mfstore.s3.datatools.clients import Lease

    if not url.startswith("s3://"):
        from mfstore.s3.datatools.clouds import cloud_settings

        return Lease(cloud_settings(url))
    from mfstore.s3.datatools.settings import ClientSettings, settings

    return Lease(ClientSettings(settings()))


def arguments_at(url: str, place: str | None = None) -> dict[str, Any]:
    """Arguments of ``BulkClient`` for what lies at ``url``. For S3, what mfstore's configuration file says of
    ``place`` counts; None: of the datastore's root."""
    if not url.startswith("s3://"):
        from mfstore.s3.datatools.clouds import cloud_settings

        return dict(cloud_settings(url).options)
    from mfstore.s3.datatools.clients import client_arguments
    from mfstore.s3.datatools.settings import ClientSettings, settings

    return client_arguments(ClientSettings(settings(place)))
