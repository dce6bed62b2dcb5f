"""Real runs of stock Metaflow, collected: what is kept loads whole through stock Metaflow, the rest is gone."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mfstore.cli import main
from mfstore.maintenance.metaflow.root import Root
from mfstore.maintenance.metaflow.verify import verify_metaflow
from mfstore.maintenance.verification import VerifyOptions
from tests.rigs.metaflow_trees import blobs_of, files

pytestmark = [pytest.mark.flow, pytest.mark.timeout(1200)]

FLOWS = {
    "LinearFlow": """
from metaflow import FlowSpec, IncludeFile, Parameter, step

class LinearFlow(FlowSpec):
    number = Parameter("number", default=0)
    text = IncludeFile("text", default="included.txt")

    @step
    def start(self):
        self.same = list(range(5000))
        self.own = [self.number] * 3000
        self.next(self.end)

    @step
    def end(self):
        self.size = len(self.text)
        print("the end of", self.number)

if __name__ == "__main__":
    LinearFlow()
""",
    "FanFlow": """
from metaflow import FlowSpec, Parameter, card, step

class FanFlow(FlowSpec):
    number = Parameter("number", default=0)

    @step
    def start(self):
        self.items = [0, 1]
        self.next(self.body, foreach="items")

    @step
    def body(self):
        self.value = {"number": self.number, "item": self.input, "pad": "x" * 2000}
        self.next(self.join)

    @card
    @step
    def join(self, inputs):
        self.values = [i.value for i in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    FanFlow()
""",
    "ResumeFlow": """
import os
from metaflow import FlowSpec, Parameter, step

class ResumeFlow(FlowSpec):
    number = Parameter("number", default=0)

    @step
    def start(self):
        self.costly = [self.number, "costly"] * 2000
        self.next(self.end)

    @step
    def end(self):
        if not os.environ.get("WELL"):
            raise ValueError("not well")
        self.result = len(self.costly)

if __name__ == "__main__":
    ResumeFlow()
""",
}

DUMP = """
import hashlib, json, pickle, sys
from metaflow import Flow, namespace
from metaflow.cards import get_cards
namespace(None)
found = {}
for flow in sys.argv[1:]:
    for run in Flow(flow):
        values = found[f"{flow}/{run.id}"] = {}
        for step in run:
            for task in step:
                for artifact in task:
                    value = artifact.data
                    data = value.encode() if isinstance(value, str) else pickle.dumps(value)
                    values[artifact.pathspec] = hashlib.sha256(data).hexdigest()
                if flow == "FanFlow" and step.id == "join":
                    (card,) = get_cards(task)
                    values[f"{task.pathspec}/card"] = str(len(card.get()) > 1000)
                if step.id == "end" and flow == "LinearFlow":
                    assert task.stdout.startswith("the end of"), task.stdout
json.dump(found, sys.stdout)
"""


class Project:
    """A directory with flows and a local datastore, and stock Metaflow in other processes."""

    def __init__(self, place):
        self.place = place
        self.root = place / ".metaflow"
        self.env = {
            # Stock Metaflow: mfstore is not on its path, and switched off where it is installed.
            **{name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW_", "PYTHONPATH"))},
            "METAFLOW_MFSTORE": "0", "METAFLOW_USER": "tester", "METAFLOW_HOME": str(place / "home"),
            "METAFLOW_DEFAULT_DATASTORE": "local", "METAFLOW_DEFAULT_METADATA": "local", "HOME": str(place),
            "METAFLOW_CLIENT_CACHE_PATH": str(place / "cache"), "PYTHONHASHSEED": "0",
        }  # fmt: skip
        for name, source in FLOWS.items():
            (place / f"{name}.py").write_text(source)

    def python(self, *arguments, well=True, ok=True):
        """Run Python; returns what it printed."""
        env = {**self.env, **({"WELL": "1"} if well else {})}
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=self.place, env=env, capture_output=True, text=True, timeout=300
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout

    def run(self, flow, number, *more, **options):
        """One run; returns its id."""
        note = self.place / f"id-{flow}-{number}-{len(more)}"
        self.python(f"{flow}.py", "--quiet", "run", "--run-id-file", note, "--number", number, *more, **options)
        return note.read_text().strip()

    def resume(self, flow, origin):
        """Resume a run; returns the new run's id."""
        note = self.place / f"resumed-{origin}"
        self.python(f"{flow}.py", "--quiet", "resume", "--origin-run-id", origin, "--run-id-file", note)
        return note.read_text().strip()

    def dump(self, *flows):
        """A digest of every artifact that stock Metaflow's client loads, by run."""
        return json.loads(self.python("-c", DUMP, *flows))


@pytest.fixture
def project(tmp_path):
    """Eight runs: 4 of a flow with an IncludeFile, 2 with a card and a foreach, one that failed and the one that resumed
    it. A run takes two seconds of CPU."""
    project = Project(tmp_path)

    def linear():
        ids = []
        for number, included in enumerate("abbc"):
            (project.place / "included.txt").write_text(f"included {included} " * 1000)
            more = ("--tag", "release") if number == 1 else ()
            ids.append(project.run("LinearFlow", number, *more))
        return ids

    def others():
        fan = [project.run("FanFlow", number) for number in range(2)]
        failed = project.run("ResumeFlow", 0, well=False, ok=False)
        return fan, failed, project.resume("ResumeFlow", failed)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(linear), pool.submit(others)
        project.linear = first.result()
        project.fan, project.failed, project.resumed = second.result()
    return project


def test_runs_collected_to_the_last_of_each_flow(project, capsys):
    def gc(*arguments):
        main(["gc", "--metaflow", str(project.root), "--keep-last", "1", "--tag", "release", "--json", *arguments])
        return json.loads(capsys.readouterr().out)

    before_values = project.dump(*FLOWS)
    assert len(before_values) == 8
    before = files(project.root)
    kept = {f"LinearFlow/{project.linear[1]}", f"LinearFlow/{project.linear[-1]}", f"FanFlow/{project.fan[-1]}"}
    # What the run that failed stored is the resumed one's too.
    kept.add(f"ResumeFlow/{project.resumed}")

    plan = gc()
    assert plan["executed"] is None and plan["condemn"] == [] and files(project.root) == before
    assert set(plan["keep"].values()) >= {"written to within the grace period"}
    plan = gc("--grace", "0s")
    assert set(plan["keep"]) == kept
    assert set(plan["condemn"]) == set(before_values) - kept
    gc("--grace", "0s", "--execute")
    assert files(project.root) == before  # condemned, and no more than that
    wait = gc("--grace", "1h")
    assert set(wait["wait"]) | set(wait["keep"]) == set(before_values)
    done = gc("--grace", "0s", "--execute")
    assert set(done["executed"]["removed"]) == set(before_values) - kept

    # Every kept run loads every artifact, IncludeFile, log and card through stock Metaflow.
    assert project.dump(*FLOWS) == {run: values for run, values in before_values.items() if run in kept}
    # The rest is gone, to the byte.
    after = files(project.root)
    assert set(after) < set(before)
    freed = sum(before.values()) - sum(after.values())
    assert freed == done["executed"]["deleted"]["bytes"] == done["freed"]["bytes"] > 100_000
    assert len(before) - len(after) == done["executed"]["deleted"]["objects"]
    for run in set(before_values) - kept:
        assert not [path for path in after if f"/{run.split('/')[1]}/" in path]
        assert not Path(project.root, run).exists()
    for flow in FLOWS:
        needed = set()
        for path in Path(project.root, flow).rglob("*.data.json"):
            needed.update(json.loads(path.read_text())["objects"].values())
        assert blobs_of(project.root, flow) == needed
    assert len(list(Path(project.root, "data", "LinearFlow").iterdir())) == 2  # of three IncludeFiles
    root = Root(str(project.root))
    report, _ = verify_metaflow(root, VerifyOptions("full"))
    root.close()
    assert report.findings == () and report.runs == 4
    # And life goes on.
    project.run("LinearFlow", 99)
    assert gc("--grace", "0s")["condemn"] == [f"LinearFlow/{project.linear[-1]}"]
