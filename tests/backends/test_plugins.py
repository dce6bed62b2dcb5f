"""A backend another package registers works by URL scheme."""

import textwrap

import pytest

PLUGIN = """
from mfstore.backends.memory import MemoryBackend

class Backend(MemoryBackend):
    def __init__(self, url, *, colour=None):
        super().__init__("memory://plugin")
        self.url, self.colour = url, colour
"""


@pytest.fixture
def plugin(tmp_path):
    info = tmp_path / "plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mfstore.backends]\nrainbow = rainbow:Backend\nmemory = rainbow:Backend\n")
    (tmp_path / "rainbow.py").write_text(textwrap.dedent(PLUGIN))
    return {"PYTHONPATH": str(tmp_path)}


@pytest.mark.slow
def test_plugins_open_by_scheme(python, plugin):
    code = (
        "import mfstore\n"
        "store = mfstore.open('rainbow://somewhere', colour='red')\n"
        "print(store.get(store.put([1, 2])), store.backend.url, store.backend.colour)\n"
        "print(type(mfstore.open('memory://').backend).__module__)\n"
    )
    lines = python(code, env=plugin).splitlines()
    assert lines == ["[1, 2] rainbow://somewhere red", "mfstore.backends.memory"]


def test_plugins_must_be_backends(python, plugin, tmp_path):
    (tmp_path / "rainbow.py").write_text("def Backend(url): return object()\n")
    code = "import mfstore\ntry: mfstore.open('rainbow://x')\nexcept mfstore.errors.Unsupported as e: print(e)"
    assert "not an mfstore Backend" in python(code, env=plugin)
