"""The command ``mfstore`` run in this process: one of its own takes half a second of CPU to start."""

import sys
from inspect import signature

import pytest
from click.testing import CliRunner

from mfstore.cli import main

APART = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}
"""Before click 8.2 stderr was in stdout, unless one asked."""


def mfstore(*arguments, code=0, env=None):
    """Run it: what it wrote is in ``stdout`` and ``stderr``. It ends with ``code``, or with one of several."""
    arguments = [*map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mfstore", *arguments])
        done = CliRunner(**APART).invoke(main, arguments, env=env, catch_exceptions=False, prog_name="mfstore")
    assert done.exit_code in (code if isinstance(code, tuple) else (code,)), done.stderr
    return done
