"""``python -m mfstore`` is the ``mfstore`` command."""

from mfstore.cli import main

main(prog_name="mfstore")
