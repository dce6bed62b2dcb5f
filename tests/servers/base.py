"""What the servers have in common: processes that are gone afterwards whatever happens, ports, directories, a CA."""

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY = "AKIATESTTESTTESTTEST"
SECRET_KEY = "secretsecretsecretsecretsecretsecret1234"
PREFIX = "mfstore-servers-"
CHILD = Path(__file__).parent / "_child.py"
PYTHON = os.environ.get("MFSTORE_SERVERS_PYTHON", sys.executable)
"""Runs the servers that are Python programs. They pin botocore: tests on another one name the interpreter of another
environment here (`make test-newest`)."""


class Missing(Exception):
    """A server is not installed. Says how to install it."""


class Died(Exception):
    """A server's process ended while it was to start."""


def need(programs, command):
    """Raise ``Missing`` unless these programs are there."""
    # Debian's daemons are in /usr/sbin, which an ordinary user's PATH lacks.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [name for name in programs if not shutil.which(name, path=path)]
    if missing:
        raise Missing(f"{', '.join(missing)} not found. Run:  {command}")
    return [shutil.which(name, path=path) for name in programs]


def need_packages(names, command):
    """Raise ``Missing`` unless ``PYTHON`` has these packages."""
    if missing := [name for name, place in zip(names, _places(names), strict=True) if not place]:
        raise Missing(f"{', '.join(missing)} not found. Run:  {command}")


def package_directory(name):
    """Where ``PYTHON`` has this package; None if it has none."""
    (place,) = _places([name])
    return Path(place) if place else None


def _places(names):
    look = (
        "import importlib.util, sys\n"
        "for name in sys.argv[1:]:\n"
        "    found = importlib.util.find_spec(name)\n"
        "    print((found.submodule_search_locations or [found.origin])[0] if found else '')"
    )
    done = subprocess.run([PYTHON, "-c", look, *names], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def free_ports(count):
    """Ports that nobody uses now. Somebody may before the server does, so starting is tried more than once."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


@functools.cache
def _parent():
    return Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())


def make_directory(name):
    """A directory in memory, where there is such a place, that names its owner; and away with those of the dead."""
    for path in _parent().glob(f"{PREFIX}*"):
        pid = path.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{name}-", dir=_parent()))


@dataclass(frozen=True)
class Answer:
    """What a server answered, by lower-case names of headers."""

    status: int
    headers: dict[str, str]
    body: bytes


class Authority:
    """A private certificate authority, and a certificate of it for this machine's loopback."""

    def __init__(self, directory):
        try:
            import trustme
        except ImportError:
            raise Missing("trustme not found. Run:  pip install -e '.[test]'") from None
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        self.ca_file = str(directory / "ca.pem")
        self.cert_file = str(directory / "cert.pem")
        self.key_file = str(directory / "key.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        issued.private_key_pem.write_to_path(self.key_file)
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(self.cert_file, append=number > 0)

    def server_context(self):
        """For a server of Python's own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


class Server:
    """A server that runs within ``with``. Subclasses define ``_start``."""

    name = "server"
    region = "us-east-1"
    access_key = ACCESS_KEY
    secret_key = SECRET_KEY
    url = https_url = ca_file = None
    death = signal.SIGKILL

    def __enter__(self):
        for attempt in range(3):
            self._processes = []
            self.directory = make_directory(self.name)
            atexit.register(self.stop)
            try:
                self.authority = Authority(self.directory)
                self.ca_file = self.authority.ca_file
                self._start()
                return self
            except Died:  # most likely somebody else got the port
                if attempt == 2:
                    raise
                self.stop()
            except BaseException:
                self.stop()
                raise
        raise AssertionError

    def __exit__(self, *exception):
        self.stop()

    def stop(self):
        """End what was started. Nothing is worth an orderly end."""
        atexit.unregister(self.stop)
        for process in self._processes:
            # The group of a process that was not waited for yet is its own, dead or alive.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
        self._processes = []
        self.__dict__.pop("boto", None)
        shutil.rmtree(self.directory, ignore_errors=True)

    @functools.cached_property
    def boto(self):
        """Another client than ours, for all tests: to make one takes longer than what most ask of it. Each closes its
        connections, and the next that is asked opens new ones."""
        return boto_client(self)

    def create_bucket(self, name):
        """Make a bucket, with another client than ours."""
        try:
            self.boto.create_bucket(Bucket=name)
        finally:
            self.boto.close()
        return name

    # ---- for subclasses -----------------------------------------------------------------

    def _start(self):
        raise NotImplementedError

    def _spawn(self, command, env=None):
        with open(self.directory / f"{Path(command[0]).name}-{len(self._processes)}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-S", "-E", CHILD, str(int(self.death)), str(os.getpid()), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env={**os.environ, **(env or {})},
                start_new_session=True,  # what ^C sends, and what is ours to kill
            )
        self._processes.append(process)
        return process

    def _run(self, *command, check=True, timeout=60):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode:
            raise Died(f"{command[0]} failed: {done.stderr}{self._logs()}")
        return done.stdout

    def _wait(self, ready, seconds=60):
        """Until ``ready()``, and not for a process that is dead."""
        deadline = time.monotonic() + seconds
        while not ready():
            dead = [process for process in self._processes if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                raise Died(f"{self.name} did not start: {dead}{self._logs()}")
            time.sleep(0.02)

    def _answers(self, port):
        """Whether something on the port answers a request."""
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return sock.recv(5) == b"HTTP/"
        except OSError:
            return False

    def _logs(self):
        tails = [
            f"\n--- {path.name}\n{path.read_text('utf-8', 'replace')[-2000:]}" for path in self.directory.rglob("*.log")
        ]
        return "".join(tails)


@functools.cache
def _loader():
    """botocore's models, read once: a client takes a tenth of a second to read them anew, and each test wants one."""
    from botocore.loaders import create_loader

    return create_loader()


def client_options(server):
    """What ``BulkClient`` and ``S3Backend`` need to find a server."""
    return {
        "endpoint_url": server.url,
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
        "region_name": server.region,
    }


def boto_client(server, service="s3", *, secure=False, endpoint_url=None, **options):
    """A boto3 client of the server, to check what is there by other means than ours.

    Checksums only where required: older servers refuse the others. No retries, so that every request counts.
    """
    import boto3
    import botocore.session
    from botocore.config import Config

    config = Config(
        s3={"addressing_style": "path"},
        retries={"mode": "standard", "total_max_attempts": 1},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=50,
    )
    defaults = {
        **client_options(server),
        "endpoint_url": endpoint_url or (server.https_url if secure else server.url),
        "verify": server.ca_file,
        "config": config,
    }
    session = botocore.session.get_session()
    session.register_component("data_loader", _loader())
    return boto3.session.Session(botocore_session=session).client(service, **{**defaults, **options})
