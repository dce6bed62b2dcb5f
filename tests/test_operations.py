"""The recipes of examples/operations run: as cron, systemd and Kubernetes would run their commands, on a store that is
there."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

import mfstore
from mfstore.cli import metrics_file
from tests import ROOT

RECIPES = ROOT / "examples" / "operations"
PLACE = "/var/lib/node_exporter/textfile_collector"
PROGRAM = "/opt/mfstore/bin"
BIN = Path(sys.executable).parent


@pytest.fixture
def store(tmp_path):
    with mfstore.open(tmp_path / "store", fsync="none") as found:
        found.put(np.random.default_rng(0).random(30_000), "one")
    return tmp_path / "store"


@pytest.fixture
def metrics(tmp_path):
    (tmp_path / "metrics").mkdir()
    return tmp_path / "metrics"


def written(path):
    text = path.read_text()
    return float(re.search(r"^mfstore_command_exit_code\{.*\} (\S+)$", text, re.MULTILINE)[1])


def damage(store):
    pack = next(path for path in (store / "packs").rglob("*") if path.is_file())
    pack.write_bytes(pack.read_bytes()[:-10])


# ---- cron ---------------------------------------------------------------------------------


def crontab():
    """The variables of the file, and its commands: what cron takes from it."""
    variables, commands = {}, []
    for line in (RECIPES / "mfstore.cron").read_text().splitlines():
        if re.match(r"[A-Z_]+=", line):
            name, _, value = line.partition("=")
            variables[name] = value
        elif line and not line.startswith("#"):
            *times, user, command = line.split(maxsplit=6)
            assert len(times) == 5 and all(re.fullmatch(r"[\d*/,-]+", part) for part in times) and user == "mfstore"
            assert not re.search(r"(?<!\\)%", command)  # which cron makes a new line
            commands.append(command.replace(r"\%", "%"))
    return variables, commands


def by_cron(command, variables, store, metrics):
    """As cron runs it: by sh, and with no other environment."""
    variables = {
        **variables, "HOME": str(metrics), "LOGNAME": "mfstore", "MFSTORE_STORE": str(store), "METRICS": str(metrics),
        "PATH": variables["PATH"].replace(PROGRAM, str(BIN)),
    }  # fmt: skip
    command = command.replace("/var/lock/", f"{metrics}/")
    return subprocess.run(
        [variables["SHELL"], "-c", command], env=variables, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.skipif(not shutil.which("flock"), reason="flock is of util-linux")
def test_lines_of_cron(store, metrics):
    variables, commands = crontab()
    assert variables["METRICS"] == PLACE
    for command in commands:
        done = by_cron(command, variables, store, metrics)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")  # so cron sends no mail
    assert {path.name for path in metrics.glob("*.prom")} == {
        "mfstore-verify.prom", "mfstore-gc.prom", "mfstore-du.prom",
    }  # fmt: skip
    damage(store)
    done = by_cron(commands[0], variables, store, metrics)
    assert done.returncode == 3 and "DAMAGE" in done.stdout.upper()
    assert written(metrics / "mfstore-verify.prom") == 3


# ---- systemd --------------------------------------------------------------------------------

UNITS = ("mfstore-verify.service", "mfstore-verify.timer", "mfstore-gc.service", "mfstore-gc.timer")


def setting(unit, name):
    (found,) = re.findall(rf"^{name}=(.*)$", (RECIPES / unit).read_text(), re.MULTILINE)
    return found.replace("%%", "%") if name == "ExecStart" else found


@pytest.mark.parametrize("unit", ["mfstore-verify.service", "mfstore-gc.service"])
def test_what_units_start(unit, store, metrics):
    """ExecStart as systemd splits it: by quotes, with ${VARIABLES}, no shell."""
    assert setting(unit, "OnFailure") == "mfstore-failed@%n.service"
    environment = dict(re.findall(r"^([A-Z_]+)=(.*)$", (RECIPES / "mfstore.env").read_text(), re.MULTILINE))
    assert environment["METRICS"] == PLACE == setting(unit, "ReadWritePaths")
    environment = {**environment, "MFSTORE_STORE": str(store), "METRICS": str(metrics), "PATH": "/usr/bin:/bin"}
    words = shlex.split(setting(unit, "ExecStart").replace(PROGRAM, str(BIN)))
    words = [re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], word) for word in words]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = metrics.glob("*.prom")
    assert written(file) == 0 and file.stem in unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_units_are_what_systemd_takes(tmp_path):
    for unit in (*UNITS, "mfstore-failed@.service"):
        text = (RECIPES / unit).read_text().replace(PROGRAM, str(BIN))
        (tmp_path / unit).write_text(text.replace("/usr/bin/logger", shutil.which("logger") or "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "mfstore" in line]
    assert not ours and done.returncode == 0, done.stderr


# ---- Kubernetes -----------------------------------------------------------------------------


def documents():
    return list(yaml.safe_load_all((RECIPES / "cronjob.yaml").read_text()))


def test_manifests_are_what_kubernetes_takes():
    """By the models that its client is generated with from its schema: a field that these do not know would be gone,
    one of another type or missing is an error."""
    client = pytest.importorskip("kubernetes.client")
    api = client.ApiClient()

    for document in documents():
        made = api.deserialize(json.dumps(document), f"V1{document['kind']}", "application/json")
        assert api.sanitize_for_serialization(made) == document


def test_jobs_are_careful():
    account, *jobs = documents()
    assert len(jobs) == 2
    for job in jobs:
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == account["metadata"]["name"] and pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


class Gateway(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.pushed.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_what_containers_run(store, metrics):
    server = HTTPServer(("127.0.0.1", 0), Gateway)
    server.pushed = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        _, *jobs = documents()
        codes = []
        for job in (*jobs, None):
            if job is None:
                damage(store)
            (container,) = (job or jobs[0])["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
            environment = {one["name"]: one["value"] for one in container["env"]}
            environment |= {
                "MFSTORE_STORE": str(store), "PUSHGATEWAY": f"http://127.0.0.1:{server.server_port}",
                "PATH": f"{BIN}:/usr/bin:/bin", "no_proxy": "127.0.0.1",
            }  # fmt: skip
            script = [part.replace("/metrics/mfstore.prom", f"{metrics}/mfstore.prom") for part in container["args"]]
            done = subprocess.run(
                [*container["command"], *script], env=environment, capture_output=True, text=True, timeout=300,
                check=False,
            )  # fmt: skip
            codes.append(done.returncode)
            assert "not pushed" not in done.stderr
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert codes == [0, 0, 3]
    assert [path for path, _ in server.pushed] == [
        f"/metrics/job/mfstore-{name}" for name in ("verify", "gc", "verify")
    ]
    assert all("mfstore_command_exit_code" in body and str(store) in body for _, body in server.pushed)


# ---- alerts -----------------------------------------------------------------------------------


def test_alerts_name_what_is_written(store, metrics):
    rules = [
        rule for group in yaml.safe_load((RECIPES / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]
    source = Path(metrics_file.__file__).read_text()
    for rule in rules:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys()
        names = re.findall(r"mfstore_\w+", rule["expr"])
        assert names and all(f'"{name}"' in source for name in names)
        for what in re.findall(r'what="(\w+)"', rule["expr"]):
            commands = "".join(path.read_text() for path in (ROOT / "mfstore" / "cli").glob("*.py"))
            assert f'"{what}"' in commands


def test_the_page_shows_the_recipes():
    text = (ROOT / "docs" / "operations.md").read_text()
    for path in RECIPES.iterdir():
        assert path.stem in text, path.name
