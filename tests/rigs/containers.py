"""What a scheduler does with what Metaflow compiled for it, without the scheduler: each step's command, in the order
and with the values that Argo Workflows or Step Functions would give it, in a process with only what its container
has."""

import base64
import json
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path

from tests.rigs.flows import HANG
from tests.servers.moto import TABLE

# Metaflow hands values to Argo through files below /mnt/out, a volume of the pod. A mount namespace gives each
# container a /mnt of its own.
VOLUME = (
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs none /mnt && mkdir /mnt/out && "$@"',
)
VOLUME = (*VOLUME, "sh")
# What Batch tells each of its jobs beside its number.
BATCH = {"AWS_BATCH_JQ_NAME": "queue", "AWS_BATCH_CE_NAME": "compute", "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE"}
INPUT_PATHS = "/tmp/mf-input-paths"  # would be the container's own /tmp


class Containers:
    """Runs commands, each in a new directory, with the programs of the image that its step has: ``{step: Python}``."""

    def __init__(self, directory, pythons, environment):
        self.directory = Path(directory)
        self._pythons = pythons
        self._environment = environment
        self.logs = []
        """Of each container that ran, its step and what it printed."""

    def run(self, name, command, environment):
        """Run a container to its end; returns what it left in /mnt/out, by file name."""
        home = self.directory / f"{len(self.logs)}-{name}"
        home.mkdir(parents=True)
        done = subprocess.run(
            [
                *VOLUME,
                "sh",
                "-c",
                '"$@"; code=$?; cp -r /mnt/out "$HOME/out"; exit $code',
                "sh",
                *self._own(command, home),
            ],
            cwd=home,
            env={
                "PATH": f"{Path(self._pythons[name]).parent}:/usr/bin:/bin",
                "HOME": str(home),
                "METAFLOW_SKIP_INSTALL_DEPENDENCIES": "1",
                "AWS_EC2_METADATA_DISABLED": "true",
                **self._environment,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        self.logs.append((name, done.stdout + done.stderr))
        if done.returncode:
            raise AssertionError(f"{name} failed:\n{self.logs[-1][1]}")
        return {path.name: path.read_text() for path in (home / "out").iterdir()}

    def _own(self, command, home):
        return [part.replace(INPUT_PATHS, str(home / "mf-input-paths")) for part in command]


def can_mount():
    """Whether this machine lets us give a process a volume of its own."""
    return bool(shutil.which("unshare")) and not subprocess.run([*VOLUME, "true"], capture_output=True).returncode


class Argo:
    """A WorkflowTemplate, run once."""

    def __init__(self, template, containers, parameters):
        self._templates = {found["name"]: found for found in template["spec"]["templates"]}
        self._entry = template["spec"]["entrypoint"]
        self._containers = containers
        self._values = {
            "workflow.name": f"run-{uuid.uuid4().hex[:8]}",
            "workflow.creationTimestamp": "2026-01-01T00:00:00Z",
            "retries": "0",
            **{f"=toBase64(workflow.parameters['{key}'])": _base64(value) for key, value in parameters.items()},
        }

    def run(self):
        """Run every task of the graph; returns the run's id."""
        self._run(self._entry, {})
        return f"argo-{self._values['workflow.name']}"

    def _run(self, name, inputs):
        template = self._templates[name]
        if "dag" not in template:
            return self._run_container(template, inputs)
        values = dict(inputs)
        for task in template["dag"]["tasks"]:
            items = json.loads(self._fill(task["withParam"], values)) if "withParam" in task else [None]
            for item in items:
                scope = {**values, "item": str(item)}
                arguments = {
                    f"inputs.parameters.{given['name']}": self._fill(given["value"], scope)
                    for given in task["arguments"]["parameters"]
                }
                outputs = self._run(task["template"], arguments)
                values |= {f"tasks.{task['name']}.outputs.parameters.{key}": value for key, value in outputs.items()}
        wanted = template.get("outputs", {}).get("parameters", [])
        return {given["name"]: self._fill(given["valueFrom"]["parameter"], values, bare=True) for given in wanted}

    def _run_container(self, template, inputs):
        container = template["container"]
        environment = {
            item["name"]: self._fill(item["value"], inputs) if item.get("value") is not None else _of_the_pod(item)
            for item in container["env"]
        }
        command = [self._fill(part, inputs) for part in container["command"]]
        out = self._containers.run(template["name"], command, environment)
        wanted = template["outputs"]["parameters"]
        return {given["name"]: out[Path(given["valueFrom"]["path"]).name] for given in wanted}

    def _fill(self, text, values, bare=False):
        known = {**self._values, **values}
        return re.sub(r"\{\{(.+?)\}\}", lambda found: known[found[1].strip()], text)


def _of_the_pod(item):
    """A value that Kubernetes would fill in from the pod's own description."""
    return item["valueFrom"]["fieldRef"]["fieldPath"]


def _base64(value):
    return base64.b64encode(json.dumps(value).encode()).decode()


class StepFunctions:
    """A state machine that submits Batch jobs and asks a DynamoDB table, executed once."""

    def __init__(self, machine, containers, dynamodb, parameters):
        self._machine, self._containers, self._dynamodb = machine, containers, dynamodb
        self._context = {"Execution": {"Name": uuid.uuid4().hex[:12]}}
        self._input = {"Parameters": json.dumps(parameters)}

    def run(self):
        """Run to the end; returns the run's id."""
        self._execute(self._machine, self._input, self._context)
        return f"sfn-{self._context['Execution']['Name']}"

    def _execute(self, machine, state, context):
        name = machine["StartAt"]
        while True:
            step = machine["States"][name]
            state = self._enter(step, name, state, context)
            if step.get("End"):
                return state
            name = step["Next"]

    def _enter(self, step, name, state, context):
        given = _evaluate(step.get("Parameters", {}), state, context)
        if step["Type"] == "Map":
            results = []
            for index, item in enumerate(_path(step["ItemsPath"], state, context)):
                inner = {**context, "Map": {"Item": {"Value": item, "Index": index}}}
                results.append(self._execute(step["Iterator"], _evaluate(step["Parameters"], state, inner), inner))
            return results[0]  # OutputPath "$.[0]"
        if step["Resource"].endswith("dynamodb:getItem"):
            item = self._dynamodb.get_item(TableName=TABLE, Key=given["Key"], ConsistentRead=True)
            return {**state, "Result": item}
        job = str(uuid.uuid4())
        overrides = given["ContainerOverrides"]
        environment = {item["Name"]: item["Value"] for item in overrides["Environment"]}
        batch = {"AWS_BATCH_JOB_ID": job, "AWS_BATCH_JOB_ATTEMPT": "1", **BATCH}
        self._containers.run(name, overrides["Command"], {**environment, **batch})
        return {"JobId": job, "Parameters": given["Parameters"]}


def _evaluate(value, state, context):
    """The value with each "name.$" replaced by what its path finds."""
    if isinstance(value, list):
        return [_evaluate(item, state, context) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, item in value.items():
        if not key.endswith(".$"):
            found[key] = _evaluate(item, state, context)
        else:
            with_value = _path(item, state, context)
            if with_value is not None:
                found[key[:-2]] = with_value
    return found


def _path(path, state, context):
    root, path = (context, path[2:]) if path.startswith("$$") else (state, path[1:])
    for quoted, plain in re.findall(r"\['([^']+)'\]|\.(\w+)", path):
        root = root.get(quoted or plain)
        if root is None:
            return None
    return root


def needs_mounts():
    """A reason to skip, or None. In continuous integration there is none."""
    return None if os.environ.get("CI") or can_mount() else "this machine allows no private mounts (unshare)"
