"""The group of commands that Metaflow adds to its own."""

from mfstore.metaflow.commands import cli  # noqa: F401
