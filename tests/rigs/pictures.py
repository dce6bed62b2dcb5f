"""Pictures of what a notebook shows: a real notebook, run by a real kernel, rendered as JupyterLab does, photographed by
Chromium, light and dark, wide and narrow. For people to look at: ``python -m tests.rigs.pictures FOLDER``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CELLS = [
    """\
import numpy as np
import pandas as pd
import mfstore
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client
rng = np.random.default_rng(1)
store = mfstore.open(FOLDER + "/store")
store""",
    """\
for depth in range(12):
    store.put({"depth": depth, "leaves": rng.random(2000)}, ref=f"models/tree-{depth}", note={"auc": 0.8 + depth / 100})
for auc in (0.91, 0.925, 0.93):
    store.put({"auc": auc, "w": rng.random(100)}, ref="models/churn", note={"auc": auc, "tags": ["trial", "eu"]})
frame = pd.DataFrame({"age": range(100_000), "income": rng.random(100_000), "town": ["Ulm", "Bonn"] * 50_000})
weights = {f"layer{n}": rng.random(50_000) for n in range(6)}
parts = {"frame": frame, "model": weights, "score": 0.93, "<b>bold</b>": "<script>alert(1)</script>"}
run = store.save(parts, ref="runs/<i>1</i>")
store""",
    "store.refs",
    'store.refs.log("models/churn")',
    "store.stat(run)",
    'store.stat("models/churn")',
    "view = store.view(run)\nview",
    'view["frame"]',
    'view["model"]',
    'view["model"]["layer0"]',
    'list(store.find("models/", where={"auc": (">", 0.88)}))',
    """\
@store.cache(verbose=1)
def train(rate):
    return {"rate": rate}
train(0.1), train(0.1)
train""",
    """\
parts["frame"] = frame.assign(income=frame.income.where(frame.age % 100 > 0, 0.0))
parts["score"] = 0.95
del parts["<b>bold</b>"]
parts["new <i>"] = rng.random(1000)
other = store.save(parts, ref="runs/2")
store.diff(run, other)""",
    'store.table("models/*").head(4)',
    "store.stats()",
    "store.session",
    'store.delete("models/tree-3")',
    "store.plan_gc(grace=0.0, keep_last=1)",
    "store.plan_gc(grace=0.0, keep_last=1).execute(yes_really=True)",
    'store.verify("full")',
    """\
pack = next(iter(store.backend.list("packs/"))).key
store.backend.put(pack, [store.backend.get(pack)[:-100]])
store.verify()""",
    "store.repair()",
    """\
client = simulated_client(SimulatedS3({f"data/part-{n:05}": b"x" * 40_000 for n in range(300)}))
result = client.get_many([f"data/part-{n:05}" for n in range(305)], on_error="return").wait()
result""",
    "result.stats",
    'client.head_many([f"data/part-{n:05}" for n in range(3)]).wait()',
    """\
from mfstore.maintenance.metaflow.migrate import migrate_metaflow, plan_migration
from mfstore.maintenance.metaflow.migrating.changes import MigrationOptions
from mfstore.maintenance.metaflow.repair import repair_metaflow
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.verification import verify_options
from tests.rigs.metaflow_trees import task
for flow in ("TrainFlow", "ScoreFlow"):
    for run in "123":
        task(FOLDER + "/root", flow, run, "train", 7, {"model": rng.random(20_000), "score": int(run)}, age=100_000.0)
root = Root(FOLDER + "/root")
verify_metaflow(root, verify_options("full", None, None, None))[0]""",
    'plan_migration(root, MigrationOptions("packed"))',
    """\
from pathlib import Path
blobs = sorted(path for path in Path(FOLDER, "root", "TrainFlow", "data").rglob("*") if path.stat().st_size > 20_000)
blobs[0].write_bytes(blobs[0].read_bytes()[:-100])
blobs[1].unlink()
verify_metaflow(root, verify_options("full", None, None, None))[0]""",
    'migrate_metaflow(root, MigrationOptions("packed"))[1]',
    'repair_metaflow(root, "full", False, None)',
    """\
from mfstore.maintenance.metaflow.collecting.plan import plan_metaflow_gc
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.gc import collect_metaflow
policy = RunPolicy(last_successful=1, last=2, daily=7, grace=0.0, max_drop=0.1)
plan_metaflow_gc(root, policy)""",
    "collect_metaflow(root, policy, yes_really=True)[1]",
]
"""What is photographed."""
ROOT = Path(__file__).parent.parent.parent
WIDTHS = {"wide": 1000, "narrow": 400}
HEIGHTS = {"wide": 7200, "narrow": 8600}
"""Pixels: no more than Chromium draws at once."""


def notebook(folder, cells=CELLS):
    """The cells with their outputs, as a notebook of which a kernel has run every cell."""
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    for cell in made.cells:
        cell.source = cell.source.replace("FOLDER", repr(str(folder)))
    kernel = AsyncKernelManager(kernel_name="python3")
    kernel.kernel_cmd = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    NotebookClient(made, km=kernel, timeout=60, resources={"metadata": {"path": str(ROOT)}}).execute()
    return made


def page(made, theme):
    """The notebook as HTML, in a theme of JupyterLab: ``light`` or ``dark``."""
    import nbconvert

    # Beside the package that has it, which another environment may share.
    os.environ["JUPYTER_PATH"] = str(Path(nbconvert.__file__).parents[4] / "share" / "jupyter")
    exporter = nbconvert.HTMLExporter(
        template_name="lab", theme=theme, exclude_input_prompt=True, exclude_output_prompt=True
    )
    return exporter.from_notebook_node(made)[0]


def photograph(html, picture, width, height):
    """A picture of a page in a browser, which reaches no network."""
    source = picture.with_suffix(".html")
    source.write_text(html)
    browser = shutil.which("chromium")
    subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={picture.parent / 'browser'}",
            f"--screenshot={picture}", f"--window-size={width},{height}", source.as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("store", "root"):
        shutil.rmtree(folder / name, ignore_errors=True)
    made = notebook(folder)
    for theme in ("light", "dark"):
        html = page(made, theme)
        for name, width in WIDTHS.items():
            picture = folder / f"{theme}-{name}.png"
            photograph(html, picture, width, HEIGHTS[name])
            print(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
