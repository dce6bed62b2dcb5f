"""``metaflow mfstore …``: mfstore's own commands on the datastore that Metaflow is configured for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from metaflow import metaflow_config
from metaflow._vendor import click
from metaflow.plugins import DATASTORES

from mfstore.s3.datatools.places import root_url
from mfstore.s3.datatools.settings import setting, settings

KINDS = ("local", "s3", "azure", "gs")
"""Datastores, by Metaflow's names."""
COMMANDS = {
    "verify": "Check that blobs, runs and artifacts are whole.",
    "repair": "Move damaged blobs to quarantine, to be stored again. Shows a plan; changes nothing by itself.",
    "quarantine": "List what repair set aside, put it back, or delete it for good.",
    "gc": "Delete what no kept run needs. Shows a plan; deletes nothing by itself.",
    "du": "Show what flows and their parts take.",
    "migrate": "Bring artifacts to the packed profile, or back. Shows a plan; changes nothing by itself.",
    "bench": "Measure the datastore with Metaflow's own workload.",
}


def collection(run: Callable[[list[str]], None]) -> Any:
    """The group ``mfstore`` in a collection, as Metaflow merges them. ``run`` does what a command line of ``mfstore``,
    without its first word, says."""

    @click.group()  # type: ignore[untyped-decorator]
    def cli() -> None:
        """A collection."""

    @cli.group(help="Look after the datastore: verify, repair, quarantine, gc, du, migrate, bench.")  # type: ignore[untyped-decorator]
    def mfstore() -> None:
        """The group."""

    for name, text in COMMANDS.items():
        mfstore.add_command(_command(name, text, run))
    return cli


def _command(name: str, text: str, run: Callable[[list[str]], None]) -> Any:
    options = {"ignore_unknown_options": True, "help_option_names": []}

    @click.command(name, help=text, context_settings=options)  # type: ignore[untyped-decorator]
    @click.argument("given", nargs=-1, type=click.UNPROCESSED)  # type: ignore[untyped-decorator]
    def command(given: tuple[str, ...]) -> None:
        _use_metaflows_settings()
        run(arguments(name, list(given)))

    return command


def root() -> str:
    """The root of the default datastore. UsageError when there is none."""
    kind = metaflow_config.DEFAULT_DATASTORE
    if kind not in KINDS:
        raise click.UsageError(f"The default datastore is {kind}; these commands look after {', '.join(KINDS)}")
    storage = next(storage for storage in DATASTORES if kind == storage.TYPE)
    found = storage.get_datastore_root_from_config(lambda *_: None, create_on_absent=False)
    if found is None:
        raise click.UsageError("There is no datastore here: go to a directory below .metaflow, or configure one")
    return root_url(kind, str(found))


def arguments(command: str, given: list[str]) -> list[str]:
    """The command line of ``mfstore`` for ``metaflow mfstore <command> <given…>``."""
    if {"--help", "-h", "--metaflow"} & {*given}:
        return [command, *given]
    if command == "bench":
        options = [] if "--profile" in given else ["--profile", "metaflow"]
        return [command, root(), *options, *given]
    if command == "migrate" and "--metadata" not in given:
        given = [*_local_metadata(), *given]
    return [command, "--metaflow", root(), *given]


def _local_metadata() -> list[str]:
    """Where the records of artifacts are, if not in the datastore itself or in a service."""
    if metaflow_config.DEFAULT_METADATA != "local" or metaflow_config.DEFAULT_DATASTORE == "local":
        return []
    from metaflow.plugins.datastores.local_storage import LocalStorage

    found = LocalStorage.get_datastore_root_from_config(lambda *_: None, create_on_absent=False)
    return [] if found is None else ["--metadata", str(found)]


def _use_metaflows_settings() -> None:
    """mfstore's own commands look where the clouds' own libraries do."""
    if endpoint := setting("AZURE_STORAGE_BLOB_SERVICE_ENDPOINT"):
        os.environ.setdefault("AZURE_STORAGE_SERVICE_ENDPOINT", str(endpoint))
    found = settings().client_params
    if found.get("endpoint_url"):
        os.environ.setdefault("AWS_ENDPOINT_URL_S3", str(found["endpoint_url"]))
    if isinstance(found.get("verify"), str):
        os.environ.setdefault("AWS_CA_BUNDLE", str(found["verify"]))
