"""The group of commands that Metaflow adds to its own."""

from mfstore.metaflow.hooks.commands import collection


def _run(arguments):
    from mfstore.cli import main

    main(arguments, prog_name="metaflow mfstore")


cli = collection(_run)
