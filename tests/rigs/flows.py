"""Real Metaflow flows in real processes: who runs them, where they store, and what the Client reads back.

A *place* is where datastore and metadata are, as environment variables; a *side* is what a process can import and which
switches are set. Two sides on one place read each other's runs.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests import ROOT

FLOWS = ROOT / "tests" / "flows"
# Only what tells a hang: a task takes a second, or several on a busy machine.
HANG = 300


@dataclass(frozen=True, slots=True)
class Side:
    """A Python with or without the extension."""

    name: str
    python: str = sys.executable
    path: tuple[Path, ...] = (ROOT,)
    environment: dict[str, str] = field(default_factory=dict)


ONE_WORKER = {"METAFLOW_S3_WORKER_COUNT": "1"}
"""Released Metaflow starts a process with a client of its own for each object that it moves at once, up to 64, which is
most of what its flows cost in S3."""
MFSTORE = Side("mfstore")
PACKED = Side("packed", environment={"METAFLOW_MFSTORE_PROFILE": "packed"})
OFF = Side("off", environment={"METAFLOW_MFSTORE": "0", **ONE_WORKER})
"""Metaflow as released: the extension is there, but switched off."""
BROKEN = Side("broken", path=(FLOWS / "without_mfstore", ROOT), environment=ONE_WORKER)
"""The extension is found, and what it needs cannot be imported."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended."""

    flow: str
    run_id: str | None
    returncode: int
    stdout: str
    stderr: str

    def checked(self):
        """Itself, if the process did what it should."""
        if self.returncode:
            raise AssertionError(f"{self.flow} failed:\n{self.stdout}\n{self.stderr}")
        return self


class Running:
    """A flow that runs; ``finish`` waits for it."""

    def __init__(self, flow, process, run_id_file):
        self._flow, self._process, self._run_id_file = flow, process, run_id_file

    def finish(self, check=True):
        try:
            stdout, stderr = self._process.communicate(timeout=HANG)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"{self._flow} hangs: {self._process.communicate()}") from None
        run_id = self._run_id_file.read_text().strip() if self._run_id_file.exists() else None
        finished = Finished(self._flow, run_id, self._process.returncode, stdout, stderr)
        return finished.checked() if check else finished


def finish_all(running):
    """Wait for every one of the flows before any of them is judged: none is left running."""
    return [one.checked() for one in [one.finish(check=False) for one in running]]


class FlowRig:
    """One home directory, one place."""

    def __init__(self, home, place=None):
        self.home = Path(home)
        self.temporary = self.home / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.place = {"METAFLOW_DEFAULT_DATASTORE": "local", **(place or {})}
        self._started = 0

    def environment(self, side=MFSTORE, **more):
        """Nothing of this machine's Metaflow and AWS configuration but what the place and the side say."""
        return {
            "PATH": f"{Path(side.python).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, side.path)),
            # What is installed without bytecode (the Makefile) gets it from who imports it first.
            "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
            "HOME": str(self.home),
            "USER": "tester",
            "METAFLOW_USER": "tester",
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.temporary),
            "AWS_EC2_METADATA_DISABLED": "true",
            "METAFLOW_DEFAULT_METADATA": "local",
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(self.home),
            # What one side has in its cache must not be what the other one reads.
            "METAFLOW_CLIENT_CACHE_PATH": str(self.home / f"client-{side.name}"),
            **self.place,
            **side.environment,
            **more,
        }

    def start(self, flow, *arguments, side=MFSTORE, before=(), **environment):
        """``python flow.py *before *arguments`` in a working directory of its own."""
        self._started += 1
        directory = self.home / f"work-{self._started}"
        directory.mkdir()
        run_id_file = directory / "run-id"
        if arguments and arguments[0] in ("run", "resume"):
            arguments = (*arguments, "--run-id-file", str(run_id_file))
        process = subprocess.Popen(
            [side.python, str(FLOWS / flow), "--no-pylint", *before, *arguments],
            env=self.environment(side, **environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Running(flow, process, run_id_file)

    def run(self, flow, *arguments, check=True, **options):
        """Run to the end; with no arguments, the command ``run``."""
        return self.start(flow, *(arguments or ("run",)), **options).finish(check)

    def python(self, script, *arguments, side=MFSTORE, **environment):
        """A script of tests/flows in a process, and the JSON that it prints last."""
        done = subprocess.run(
            [side.python, str(FLOWS / script), *map(str, arguments)],
            env=self.environment(side, **environment),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        if done.returncode:
            raise AssertionError(f"{script} failed:\n{done.stdout}\n{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def read(self, run, *cards_of, side=MFSTORE, **environment):
        """What the Client API of ``side`` finds of a run ("Flow/1"), see ``read_runs.py``."""
        return self.read_all({run: cards_of}, side, **environment)[run]

    def read_all(self, runs, side=MFSTORE, **environment):
        """The same of several, by one process: ``{run: steps whose cards are wanted}``."""
        return self.python(
            "read_runs.py", json.dumps({run: [*cards] for run, cards in runs.items()}), side=side, **environment
        )

    def files(self, pattern="**/*"):
        """The local datastore's files, relative to it."""
        root = self.home / ".metaflow"
        return {str(path.relative_to(root)): path for path in root.glob(pattern) if path.is_file()}


def s3_place(server, bucket, url=None):
    """The environment that puts a flow's artifacts in a bucket, reached by ``url``."""
    root = f"s3://{bucket}/mf"
    return {
        "METAFLOW_DEFAULT_DATASTORE": "s3",
        "METAFLOW_DATASTORE_SYSROOT_S3": root,
        "METAFLOW_DATATOOLS_S3ROOT": f"{root}/data",
        "METAFLOW_CARD_S3ROOT": f"{root}/mf.cards",
        "METAFLOW_S3_ENDPOINT_URL": url or server.url,
        **aws_keys(server),
    }


def aws_keys(server):
    """Credentials; and, for radosgw, what its age wants: no checksums in trailers."""
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": server.region,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
