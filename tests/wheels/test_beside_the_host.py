"""TLS of mfstore beside what the machine and other libraries of the process have of their own.

`make wheel-test` runs it on wheels, whose OpenSSL is inside; here it runs on whatever is installed.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rigs.native_engine import body_of
from tests.rigs.raw_server import Server
from tests.servers.base import Authority

ASK = """
    from mfstore.s3.aws.routes import Transport
    from tests.rigs.native_engine import Rig, ask, get

    def fetch():
        with Rig() as rig:
            reply = ask(rig.to(ORIGIN, transport=Transport(ca_file=AUTHORITY, threads=1)), get())
        assert (reply.failure, reply.data) == (None, b"hello"), reply
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server(authority: Authority) -> Iterator[Server]:
    server = Server(body_of(b"hello"), tls=authority.server_context())
    yield server
    server.close()


def run(server: Server, authority: Authority, code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    head = f"ORIGIN, AUTHORITY = {server.origin!r}, {authority.ca_file!r}\n"
    script = head + textwrap.dedent(ASK) + textwrap.dedent(code)
    import os

    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | environ)


def carries_its_libraries() -> bool:
    """Whether OpenSSL is inside the extension."""
    code = "import mfstore._core.transfer; print('/libssl' in open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_hosts_openssl_cnf_does_no_harm(server: Server, authority: Authority, tmp_path: Path) -> None:
    """A newer OpenSSL's directives, and a provider that is not there: of those the host's own OpenSSL makes errors."""
    if not carries_its_libraries():
        pytest.skip("the host's OpenSSL reads the host's openssl.cnf, as for all its users")
    config = tmp_path / "openssl.cnf"
    config.write_text(
        "config_diagnostics = 1\nopenssl_conf = init\n[init]\nproviders = provided\nssl_conf = tls\nunheard_of = x\n"
        "[provided]\nabsent = absent_section\n[absent_section]\nmodule = /nonexistent/absent.so\nactivate = 1\n"
        "[tls]\nsystem_default = of_system\n[of_system]\nUnheardOf = yes\nMinProtocol = TLSv9\n"
    )
    done = run(server, authority, "fetch()", OPENSSL_CONF=str(config))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["mfstore", "other"])
@pytest.mark.parametrize("other", ["ssl", "psycopg2", "grpc"])
def test_another_openssl_in_the_process(server: Server, authority: Authority, other: str, first: str) -> None:
    """psycopg2-binary and grpcio bring one of their own, and Python's ssl may have a third."""
    pytest.importorskip(other)
    load = {
        "ssl": "import hashlib, ssl, urllib.request; hashlib.sha256(b'x').digest()",
        "psycopg2": "import psycopg2",
        "grpc": "import grpc",
    }[other]
    use = {
        "ssl": "context = ssl.create_default_context(cafile=AUTHORITY)\n"
        "assert urllib.request.urlopen(ORIGIN + '/b/k', context=context).read() == b'hello'",
        # It looks for a server's certificate and finds no server; libpq's OpenSSL is begun by then.
        "psycopg2": "try: psycopg2.connect(host='localhost', port=1, sslmode='require')\n"
        "except psycopg2.OperationalError: pass",
        "grpc": "grpc.secure_channel('localhost:1', grpc.ssl_channel_credentials()).close()",
    }[other]
    ours = "fetch()"
    order = [ours, load, use, ours, use] if first == "mfstore" else [load, use, ours, use, ours]
    done = run(server, authority, "\n".join(order))
    assert done.returncode == 0, done.stderr
