"""What the right to an operation is called by the service that gives it. Pure."""

from __future__ import annotations

from mfstore.s3.aws.rights import OPERATIONS


def action_of(scheme: str, operation: str) -> str:
    """The right that an operation, by S3's name, takes in a service, as its policies name it; empty where it takes
    none."""
    if scheme == "gs":
        from mfstore.gcs.rights import OPERATIONS as GOOGLE

        return GOOGLE[operation][0].permission if operation in GOOGLE else ""
    if scheme == "az":
        from mfstore.azure.rights import CONTAINERS
        from mfstore.azure.rights import OPERATIONS as AZURE

        return AZURE[operation].action.removeprefix(CONTAINERS) if operation in AZURE else ""
    return OPERATIONS[operation][0].action
