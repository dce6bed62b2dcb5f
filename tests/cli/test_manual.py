"""Manual pages: one of each command, with all that its help has, in roff that nothing objects to."""

import shutil
import subprocess

import pytest

from mfstore.cli import manual
from mfstore.cli.exits import exits_of
from tests.cli.test_options import COMMANDS

PAGES = dict(manual.pages())


def test_every_command_has_a_page():
    names = {f"mfstore-{name.replace(' ', '-')}.1" for name, found in COMMANDS.items() if not found.hidden}
    assert PAGES.keys() == names | {"mfstore.1", "mfstore-fleet.1"}


@pytest.mark.parametrize("name", ["gc", "refs rm", "put"])
def test_a_page_has_what_the_help_has(name):
    page = PAGES[f"mfstore-{name.replace(' ', '-')}.1"].replace("\\-", "-")
    for option in (parameter.opts[-1] for parameter in COMMANDS[name].params if parameter.param_type_name == "option"):
        assert option in page
    for code, text in exits_of(name).items():
        assert f".TP\n\\fB{code}\\fR\n{text}\n" in page
    assert ".SH SEE ALSO" in page and "\\fB-h, --help\\fR" in page


def test_what_roff_would_take_for_something_else():
    assert manual.escaped(".x -y\n 'z' a\\b…") == "\\&.x \\-y 'z' a\\eb..."
    assert manual.escaped("'x") == "\\&'x"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not there")
def test_groff_has_no_objection(tmp_path):
    assert manual.write(tmp_path / "man1") == len(PAGES)
    files = sorted((tmp_path / "man1").iterdir())
    done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-z", *files], capture_output=True, text=True, check=True)
    assert done.stderr == ""
