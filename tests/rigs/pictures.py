"""Pictures of what a notebook shows: a real notebook, run by a real kernel, rendered as JupyterLab does, photographed by
Chromium, light and dark, wide and narrow. For people to look at: ``python -m tests.rigs.pictures FOLDER``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CELLS = [
    """\
import random
import numpy as np
import mfstore
from mfstore.s3 import BulkClient
store = mfstore.open(FOLDER + "/store")
store""",
    """\
rng = np.random.default_rng(1)
for depth in range(12):
    store.put({"depth": depth, "leaves": rng.random(2000)}, ref=f"models/tree-{depth}", note={"auc": 0.8 + depth / 100})
for auc in (0.91, 0.925, 0.93):
    store.put({"auc": auc, "w": rng.random(100)}, ref="models/churn", note={"auc": auc, "tags": ["trial", "eu"]})
weights = {f"layer{n}": rng.random(50_000) for n in range(6)}
run = store.save({"model": weights, "score": 0.93, "<b>bold</b>": "<script>alert(1)</script>"}, ref="runs/<i>1</i>")
store""",
    "store.refs",
    'store.refs.log("models/churn")',
    "store.stat(run)",
    'store.stat("models/churn")',
    "store.stats()",
    "store.session",
    'store.delete("models/tree-3")',
]
WIDTHS = {"wide": 1000, "narrow": 400}


def notebook(folder, cells=CELLS):
    """The cells with their outputs, as a notebook of which a kernel has run every cell."""
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.cells[0].source = made.cells[0].source.replace("FOLDER", repr(str(folder)))
    kernel = AsyncKernelManager(kernel_name="python3")
    kernel.kernel_cmd = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    NotebookClient(made, km=kernel, timeout=60).execute()
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
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--screenshot={picture}", f"--window-size={width},{height}", source.as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "store", ignore_errors=True)
    made = notebook(folder)
    for theme in ("light", "dark"):
        html = page(made, theme)
        for name, width in WIDTHS.items():
            picture = folder / f"{theme}-{name}.png"
            photograph(html, picture, width, 4200)
            print(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
