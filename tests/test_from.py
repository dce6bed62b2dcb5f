"""What ``docs/from.md`` shows of other tools is what they do, where they are installed: ``pip install dvc mlflow wandb``.
They take a minute, and are in no extra."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import ROOT

PAGE = (ROOT / "docs" / "from.md").read_text()
SECONDS = 300


def block(section, language):
    """The first block of a language in a section: what the other tool is shown to do."""
    (_, text) = PAGE.split(f"\n## {section}\n", 1)
    found = re.search(rf"^```{language}\n(.*?)^```$", text.split("\n## ", 1)[0], re.MULTILINE | re.DOTALL)
    return found.group(1)


def needs(name):
    return pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a program in an empty directory, as somebody who has no account anywhere."""
    home = tmp_path / "home"
    home.mkdir()
    tools = Path(sys.executable).parent
    environment = {
        **os.environ, "HOME": str(home), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1",
        "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
    }  # fmt: skip
    (home / "gitconfig").write_text("[user]\nname = Somebody\nemail = somebody@example.com\n")

    def call(*command, folder=tmp_path, fails=""):
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0 and fails in said) if fails else done.returncode == 0, said
        return done.stdout

    return call


@needs("dvc")
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_dvc(run, tmp_path):
    first, folder = tmp_path / "first", tmp_path / "first" / "data"
    folder.mkdir(parents=True)
    for command in ("git init -q", "dvc init -q", f"dvc remote add -q -d storage {tmp_path / 'remote'}", "git add -A"):
        run(*command.split(), folder=first)
    (folder / "train.parquet").write_bytes(b"the table")
    lines = re.findall(r"^\$ (.*?)(?:  +# .*)?$", block("From DVC", "console"), re.MULTILINE)
    *here, elsewhere = lines
    for line in here:
        run("sh", "-ec", line, folder=first)
    run("git", "clone", "-q", str(first), str(tmp_path / "second"))
    assert elsewhere == "dvc pull data/train.parquet"
    run("sh", "-ec", elsewhere, folder=tmp_path / "second")
    assert (tmp_path / "second" / "data" / "train.parquet").read_bytes() == b"the table"


@needs("wandb")
def test_wandb(run):
    """Logging needs no server; what is logged is there for others only once it has one."""
    here, elsewhere = block("From W&B artifacts", "python").split("\n\n")
    before = "import joblib, wandb\njoblib.dump({'weights': [0.5]}, 'churn.joblib')\n"
    after = "\nassert artifact.metadata == {'auc': 0.93} and list(artifact.manifest.entries) == ['churn.joblib']\n"
    run(sys.executable, "-c", before + here + after)
    run(sys.executable, "-c", before + elsewhere, fails="Cannot use artifact when in offline mode")


@needs("mlflow")
def test_mlflow(run):
    before = """
import mlflow
from mlflow import MlflowClient
from sklearn.tree import DecisionTreeClassifier
model = DecisionTreeClassifier(max_depth=5).fit([[0], [1]], ["stay", "leave"])
"""
    after = "\nassert list(model.predict([[1]])) == ['leave'] and list(runs['params.depth']) == ['5']\n"
    run(sys.executable, "-c", before + block("From MLflow", "python") + after)
