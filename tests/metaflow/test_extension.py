"""Where mfstore is used, and where it cannot be."""

import os
import subprocess
import sys

import pytest

from tests import ROOT

PROBE = """
import sys
{before}
from metaflow import S3
from metaflow.plugins import DATASTORES, DATACLIENTS
from metaflow.datastore import flow_datastore
classes = {{d.TYPE: d for d in DATASTORES}}
classes["local"]("/nowhere")
import metaflow.plugins.datatools.s3, metaflow.plugins.datatools.s3.s3, metaflow.plugins.datastores.s3_storage
from metaflow.datatools.s3 import S3 as alias
ways = metaflow.plugins.datatools, metaflow.plugins.datatools.s3, metaflow.plugins.datatools.s3.s3, metaflow.plugins.datastores.s3_storage
assert {{S3, alias}} == {{way.S3 for way in ways}}
print(S3.__module__, classes["s3"].__module__, classes["local"].__module__,
      flow_datastore.ContentAddressedStore.__module__, *(d.__module__ for d in DATACLIENTS if d.TYPE == "s3"))
"""


STOCK = (
    "metaflow.plugins.datatools.s3.s3 metaflow.plugins.datastores.s3_storage metaflow.plugins.datastores.local_storage"
    " metaflow.datastore.content_addressed_store metaflow.plugins.datatools.s3.s3"
)


OURS = "mfstore.s3.datatools.s3 mfstore.metaflow.hooks.storages mfstore.metaflow.hooks.storages mfstore.metaflow.stock.content_store mfstore.s3.datatools.s3"


def probe(before="", **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before)],
        capture_output=True,
        text=True,
        env={**os.environ, "METAFLOW_USER": "tester", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.splitlines()


def test_it_is_on_when_installed():
    assert probe() == (OURS, [])


@pytest.mark.second
@pytest.mark.parametrize("value", ["0", "false", "off"])
def test_it_can_be_switched_off(value):
    assert probe(METAFLOW_MFSTORE=value) == (STOCK, [])


@pytest.mark.second
@pytest.mark.parametrize("missing", ["mfstore", "mfstore._core.transfer", "mfstore._core.crc", "isal", "blake3"])
def test_without_what_it_needs_metaflow_runs_on_with_one_warning(missing):
    found, said = probe(f"sys.modules[{missing!r}] = None")
    assert found == STOCK
    assert len(said) == 1
    assert "Metaflow's own storage is used" in said[0]


EARLIER = {
    "aaa-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: aaa\nVersion: 1\n",
    "aaa-1.dist-info/top_level.txt": "metaflow_extensions\n",
    "aaa-1.dist-info/RECORD": "metaflow_extensions/aaa/plugins/datatools/mfextinit_aaa.py,,\n",
    "metaflow_extensions/aaa/plugins/datatools/mfextinit_aaa.py": "from metaflow.plugins.datatools.s3 import S3\n",
}
"""An extension that Metaflow loads before mfstore's."""


@pytest.mark.second
def test_an_extension_that_took_the_class_before_gets_this_one(tmp_path):
    for name, text in EARLIER.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = "import metaflow, sys; print({sys.modules[name].S3 is metaflow.S3 for name in sys.modules if name.endswith('mfextinit_aaa')})"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
        env={**os.environ, "METAFLOW_USER": "tester"},
    )
    assert (done.stdout, done.stderr) == ("{True}\n", "")


LATER = """
import sys
class Later:
    def find_spec(self, name, path=None, target=None):
        found = sys.modules.get("metaflow.datastore.datastore_storage")
        if found is not None and hasattr(found, "DataStoreStorage"):
            found.DataStoreStorage.save_bytes = lambda self, items, more: None
sys.meta_path.insert(0, Later())
"""


def test_a_metaflow_that_calls_storages_otherwise_keeps_its_own_with_one_warning():
    found, said = probe(LATER)
    assert found.split()[1:4] == STOCK.split()[1:4]
    assert found.split()[0] == OURS.split()[0]
    assert len(said) == 1
    assert "Metaflow's own storage is used" in said[0]


def test_nothing_of_it_is_imported_where_it_is_off():
    code = "import metaflow, sys; print([name for name in sys.modules if name.split('.')[0] == 'mfstore'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "METAFLOW_MFSTORE": "0"}
    )
    assert done.stdout.strip() == "[]"


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "mfstore" / "metaflow").rglob("[a-z]*.py")
)


# What others wrote is imported once; of Metaflow and of ours each child has its own.
FIRST = """
import contextlib, importlib, os, subprocess, sys
names = subprocess.run([sys.executable, "-c", "import metaflow, sys; print(*sys.modules)"], capture_output=True, text=True)
for name in names.stdout.split():
    if name.split(".")[0] not in ("metaflow", "metaflow_extensions", "mfstore", "__main__"):
        with contextlib.suppress(ImportError):  # some only have a name
            importlib.import_module(name)
assert names.stdout and not [name for name in sys.modules if name.startswith(("metaflow", "mfstore"))]
for module in sys.argv[2:]:
    print(module, end=" ", flush=True)
    if not (child := os.fork()):
        exec(sys.argv[1].format(before=f"import {module}"))
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, module
"""


@pytest.mark.slow
def test_any_module_may_be_imported_first():
    command = [sys.executable, "-c", FIRST, PROBE, *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "METAFLOW_USER": "tester"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{module} {OURS}" for module in MODULES]
    assert len(MODULES) > 20
