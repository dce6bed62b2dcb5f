"""The group of commands that Metaflow adds to its own."""

from mfstore.metaflow.hooks.commands import cli  # noqa: F401
