"""The options that commands share, and where a command works: a store, or a datastore root of Metaflow."""

from __future__ import annotations

import click

store_option = click.option(
    "-s", "--store", "url", envvar="MFSTORE_STORE", required=True, metavar="URL",
    help="Path or URL of the store. [env: MFSTORE_STORE]",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
where_option = click.option(
    "-s", "--store", "url", envvar="MFSTORE_STORE", metavar="URL", help="Path or URL of the store. [env: MFSTORE_STORE]"
)
metaflow_option = click.option(
    "--metaflow",
    metavar="ROOT",
    help="Instead of a store, a datastore root of stock Metaflow: the directory or s3:// prefix the flows lie in.",
)


def given(url: str | None) -> str:
    """The store's URL, or wrong usage."""
    if url is None:
        raise click.UsageError("Missing option '-s' / '--store' (or '--metaflow').")
    return url
