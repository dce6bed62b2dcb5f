"""What an installed wheel is asked to do, within a root: ``python smoke.py NAME`` makes one check.

It needs nothing but what is installed. Variables say where an S3 server is (AWS_*, SMOKE_BUCKET) and where the files of
a private authority (SMOKE_CA) and of a server's certificate (SMOKE_CERTIFICATE, SMOKE_KEY) are.
"""

import importlib.metadata
import json
import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

DATA = {
    "numbers": list(range(1000)),
    "text": "a line of text\n" * 1000,
    "bytes": bytes(range(256)) * (16 << 10),
}
"""4 MiB: enough for chunks that are compressed."""

TOOL = [str(Path(sys.executable).with_name("mfstore"))]
if not Path(*TOOL).exists():  # installed into a folder
    TOOL = [sys.executable, "-m", "mfstore"]
OPEN = "import mfstore; mfstore.open('opened')"
SECONDS = 300.0


def installed():
    """Nothing is there to compile with, nor a libcurl. Prints what the installation takes."""
    import mfstore

    for program in ("cc", "gcc", "clang", "ld", "make", "pkg-config", "curl"):
        assert not shutil.which(program), f"{program} is in the root"
    assert not list(Path("/usr/include").rglob("*.h")), "headers are in the root"
    assert not list(Path("/usr/lib").rglob("libcurl*")), "libcurl is in the root"

    files = [Path(path.locate()) for path in importlib.metadata.files("mfstore") or ()]
    ours = {path: path.stat().st_size for path in files if path.is_file() and "__pycache__" not in path.parts}
    compiled = sum(size for path, size in ours.items() if ".so" in path.name)
    assert compiled
    site = Path(mfstore.__file__).parents[1]
    others = [path for path in site.rglob("*") if path.is_file() and path.relative_to(site).parts[0][:3] != "pip"]
    everything = sum(path.stat().st_size for path in others if "__pycache__" not in path.parts)
    print(f"mfstore {sum(ours.values()) / 1e6:.1f} MB, of it compiled {compiled / 1e6:.1f} MB;", end=" ")
    print(
        f"with what it needs {everything / 1e6:.1f} MB; CPU to import {import_cpu('import mfstore'):.0f} ms,", end=" "
    )
    print(f"to open a store {import_cpu('import mfstore; mfstore.open(chr(46))'):.0f} ms")


def import_cpu(program):
    """Milliseconds of CPU of a new Python beyond those of one that does nothing."""
    return cpu(program) - cpu("pass")


def cpu(program):
    """Milliseconds of CPU that a new Python takes: the least of seven."""
    times = []
    for _ in range(int(os.environ.get("SMOKE_STARTS", "7"))):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return 1000 * min(times)


def output(*command, **variables):
    """What a program prints. It must succeed."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **variables}
    )
    assert not done.returncode, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def put_and_get(url):
    """What is put is got, by other processes too."""
    import mfstore

    store = mfstore.open(url)
    key = store.put(DATA, "smoke/data")
    assert store.get(key) == DATA
    assert store.get("smoke/data") == DATA
    Path("file").write_bytes(DATA["bytes"])
    found = output(*TOOL, "put", "file", MFSTORE_STORE=url).split()[0]
    assert store.get_bytes(found) == DATA["bytes"]
    assert "smoke/data" in output(*TOOL, "refs", MFSTORE_STORE=url)
    output(*TOOL, "verify", "--level", "full", MFSTORE_STORE=url)


def directory():
    """A store in a directory."""
    put_and_get("store")


def bucket_url(name):
    return f"s3://{os.environ['SMOKE_BUCKET']}/{name}"


def s3():
    """A store in a bucket and the bulk client, by https, with the authorities that the variables name."""
    from mfstore.s3 import BulkClient

    assert os.environ["AWS_ENDPOINT_URL"].startswith("https:")
    put_and_get(bucket_url(os.environ["SMOKE_PREFIX"]))
    with BulkClient(os.environ["SMOKE_BUCKET"]) as client:
        items = {f"{os.environ['SMOKE_PREFIX']}/bulk/{number}": bytes([number]) * 100_000 for number in range(20)}
        list(client.put_many(items))
        assert {got.key: bytes(got.data) for got in client.get_many(list(items))} == items


def s3_untrusted():
    """Nobody vouches for the server: an error that says so and what to do, and nothing sent."""
    import mfstore
    from mfstore.errors import MfstoreError

    try:
        mfstore.open(bucket_url("untrusted")).put(DATA)
    except MfstoreError as error:
        assert "certificate" in str(error).lower(), error
        assert "AWS_CA_BUNDLE" in str(error), error
    else:
        raise AssertionError("a server that nobody vouches for was believed")


# Other copies of OpenSSL in the same process --------------------------------------------------------------------------


def others_first():
    """psycopg2 and grpc, each with a TLS of its own, are used before mfstore's."""
    use_others()
    s3()
    use_others()


def others_last():
    """They are imported when mfstore's TLS is in use."""
    s3()
    use_others()
    s3()


def others_beside():
    """All at the same time, in threads."""
    with ThreadPoolExecutor(3) as threads:
        for task in [threads.submit(s3), *(threads.submit(use_others) for _ in range(2))]:
            task.result()


def use_others():
    """One request by TLS of psycopg2, of grpc, and of Python's own ssl."""
    os.environ["GRPC_VERBOSITY"] = "NONE"  # it tells of each connection that ends
    import grpc
    import psycopg2

    with Listening(answer_as_postgres) as port:
        try:
            psycopg2.connect(
                host="127.0.0.1", port=port, user="smoke", dbname="smoke", connect_timeout=int(SECONDS),
                sslmode="verify-ca", sslrootcert=os.environ["SMOKE_CA"],
            )  # fmt: skip
        except psycopg2.OperationalError as error:
            assert "heard through TLS" in str(error), error
        else:
            raise AssertionError("there is no such database")

    authority = Path(os.environ["SMOKE_CA"]).read_bytes()
    pair = (Path(os.environ["SMOKE_KEY"]).read_bytes(), Path(os.environ["SMOKE_CERTIFICATE"]).read_bytes())
    echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request[::-1])
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("smoke", {"Echo": echo})])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(authority)) as channel:
        assert channel.unary_unary("/smoke/Echo")(b"abc", timeout=SECONDS, wait_for_ready=True) == b"cba"
    server.stop(None).wait()

    with Listening(answer_by_tls) as port, socket.create_connection(("127.0.0.1", port), SECONDS) as plain:
        trust = ssl.create_default_context(cafile=os.environ["SMOKE_CA"])
        with trust.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            assert secure.recv(100) == b"heard"


class Listening:
    """A server of one connection, in a thread: its port, while ``with`` lasts."""

    def __init__(self, answer):
        self._answer = answer

    def __enter__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self._socket.getsockname()[1]

    def __exit__(self, *_):
        self._thread.join(SECONDS)
        self._socket.close()

    def _serve(self):
        connection, _ = self._socket.accept()
        with connection:
            self._answer(connection)


def by_tls(connection):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["SMOKE_CERTIFICATE"], os.environ["SMOKE_KEY"])
    return context.wrap_socket(connection, server_side=True)


def answer_by_tls(connection):
    with by_tls(connection) as secure:
        secure.sendall(b"heard")


def answer_as_postgres(connection):
    """The least that libpq takes for a server: TLS is welcome, and then an error for whatever is asked."""
    connection.recv(8)  # SSLRequest
    connection.sendall(b"S")
    with by_tls(connection) as secure:
        secure.recv(10_000)  # StartupMessage
        fields = b"SFATAL\0C28000\0Mheard through TLS\0\0"
        secure.sendall(b"E" + (4 + len(fields)).to_bytes(4, "big") + fields)


# Tools and flows ------------------------------------------------------------------------------------------------------


def bench():
    """``mfstore bench``, of a directory and of the bucket."""
    for url in ("bench", bucket_url("bench")):
        output(*TOOL, "bench", url, "--yes", "--seconds", "0.2", "--output", "bench.json")
        assert Path("bench.json").stat().st_size


def doctor():
    """``mfstore doctor`` finds nothing wrong, and libraries that are part of the installation."""
    found = json.loads(output(*TOOL, "doctor", "--s3", bucket_url("doctor"), "--json"))
    assert found["broken"] == found["doubtful"] == 0, found
    carried = [line["text"] for line in found["sections"]["libraries"] if line["name"].startswith("lib")]
    assert carried
    assert not [text for text in carried if re.search(r", /(usr/)?lib", text)], carried


def flow_local():
    """A flow of Metaflow, with the extension, on the local datastore."""
    run_flow({"METAFLOW_DATASTORE_SYSROOT_LOCAL": str(Path.cwd() / "flows")}, "local")
    assert list(Path("flows/.metaflow/mf.store").rglob("*")), "the packed profile was not used"


def flow_s3():
    """And on S3, by https."""
    from mfstore.s3 import BulkClient

    root = bucket_url(f"flows/{os.environ['SMOKE_PREFIX']}")
    run_flow({"METAFLOW_DATASTORE_SYSROOT_S3": root}, "s3")
    with BulkClient() as client:
        assert list(client.list([f"{root}/mf.store/"])), "the packed profile was not used"


def pypi_steps():
    """Metaflow, which has pip resolve @pypi for platforms of its own choice, takes this wheel."""
    from metaflow.plugins.pypi.utils import conda_platform, pip_tags

    said = importlib.metadata.distribution("mfstore").read_text("WHEEL") or ""
    ours = {line.removeprefix("Tag: ") for line in said.splitlines() if line.startswith("Tag: ")}
    version = ".".join(map(str, sys.version_info[:2]))
    assert ours & {str(tag) for tag in pip_tags(version, conda_platform())}, ours


def run_flow(variables, datastore):
    """Runs the flow in both profiles; its artifacts are read by the Client, and by Metaflow alone if they are stock."""
    flow = Path(__file__).with_name("flow.py")
    settings = {
        **variables,
        "METAFLOW_DEFAULT_DATASTORE": datastore,
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_S3_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
    }
    for profile in ("stock", "packed"):
        said = output(sys.executable, flow, "run", **settings, METAFLOW_MFSTORE_PROFILE=profile)
        assert "mfstore cannot be loaded" not in said, said
        for switch in ("1", "0") if profile == "stock" else ("1",):
            read = output(sys.executable, flow.with_name("read.py"), **settings, METAFLOW_MFSTORE=switch)
            assert read.split()[-2:] == ["499500", "True"], read


if __name__ == "__main__":
    globals()[sys.argv[1]]()
