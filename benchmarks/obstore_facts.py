"""What obstore does, and does not, that mfstore's own clients of Azure and Google Cloud rest on: ``python -m
benchmarks.obstore_facts``.

Each fact is tried against a small server in this process that writes down what it is sent, and is a line of what this
prints. It ends with 1 when one of them holds no more: then the decision that rests on them is worth another look.
"""

import http.server
import importlib.metadata
import os
import re
import subprocess
import sys
import threading
from datetime import timedelta

CHECKSUMS = ("content-md5", "x-ms-content-crc64", "x-ms-blob-content-md5", "x-goog-hash", "x-amz-checksum")
KEY = "bWZzdG9yZQ=="
ANSWERED = (
    ("ETag", '"0x8DC1"'), ("Last-Modified", "Mon, 30 Nov 2026 12:00:00 GMT"), ("x-ms-request-id", "one"),
    ("x-goog-generation", "7"), ("Content-Type", "multipart/mixed; boundary=answers"),
)  # fmt: skip
INNER = re.compile(r"^([A-Za-z][A-Za-z-]*): ?(.*)\r$", re.MULTILINE)
BATCH = (
    b"--answers\r\nContent-Type: application/http\r\nContent-ID: 0\r\n\r\n"
    b"HTTP/1.1 202 Accepted\r\nx-ms-request-id: one\r\n\r\n\r\n--answers--\r\n"
)


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers as both services do to a good request, and keeps what was asked."""

    protocol_version = "HTTP/1.1"

    def _answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        # Azure's deletions come as requests within the body of one.
        headers = {name.lower(): value for name, value in (*self.headers.items(), *INNER.findall(body.decode()))}
        self.server.requests.append((self.command, self.path, headers))
        body = {"GET": b"hello", "POST": BATCH}.get(self.command, b"")
        self.send_response({"PUT": 201, "DELETE": 202, "POST": 202}.get(self.command, 200))
        self.close_connection = True
        length = str(len(body) or (5 if self.command == "HEAD" else 0))
        for name, value in (*ANSWERED, ("Content-Length", length), ("Connection", "close")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_):
        """Nothing."""


class Facts:
    """The stores of both services on one recorder."""

    def __init__(self):
        from obstore.store import AzureStore, GCSStore

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
        self.server.daemon_threads = True
        self.server.requests = []
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        plain = {
            "client_options": {"allow_http": True},
            "retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=60)},
        }
        self.azure = AzureStore("box", account_name="account", account_key=KEY, endpoint=f"{self.url}/account", **plain)
        self.google = GCSStore(
            "box", config={"base_url": self.url}, credential_provider=lambda: {"token": "secret", "expires_at": None},
            **plain,
        )  # fmt: skip

    def asked(self, work):
        """What was asked for by ``work``."""
        self.server.requests.clear()
        work()
        return list(self.server.requests)

    def close(self):
        """End the server."""
        self.server.shutdown()
        self.server.server_close()


def no_conditional_deletion(facts):
    """`delete` takes paths and nothing else, and sends no condition."""
    import obstore

    signature = getattr(obstore.delete, "__text_signature__", "")
    sent = facts.asked(lambda: [store.delete("key") for store in (facts.azure, facts.google)])
    conditions = [name for _, _, headers in sent for name in headers if "match" in name or "unmodified" in name]
    return signature == "(store, paths)" and len(sent) == 2 and not conditions, f"delete{signature}"


def no_checksums(facts):
    """What is uploaded carries no checksum."""
    sent = facts.asked(lambda: [store.put("key", b"hello") for store in (facts.azure, facts.google)])
    found = [name for _, _, headers in sent for name in headers if name.startswith(CHECKSUMS)]
    return len(sent) == 2 and not found, f"headers of a PUT: {', '.join(sorted(sent[0][2]))}"


def xml_api(facts):
    """Google's objects are written by the XML API, which fake-gcs-server refuses (400, "invalid uploadType")."""
    (asked,) = facts.asked(lambda: facts.google.put("a/key", b"hello"))
    return asked[:2] == ("PUT", "/box/a%2Fkey"), f"{asked[0]} {asked[1]}"


def no_request_ids(facts):
    """Neither a PUT's result nor a GET's says the id under which the service knows the request."""
    stored, got = facts.azure.put("key", b"hello"), facts.azure.get("key")
    told = {**dict(stored), **dict(got.meta), **dict(got.attributes)}
    return "one" not in map(str, told.values()), f"told: {', '.join(sorted(told))}"


def no_place_to_read_into(_):
    """No read takes the caller's memory to receive into."""
    import obstore

    names = ("get", "get_range", "get_ranges")
    signatures = {name: getattr(getattr(obstore, name), "__text_signature__", "") for name in names}
    taken = [name for name, said in signatures.items() if any(word in said for word in ("buffer", "into", "out"))]
    return not taken and all(signatures.values()), f"get_range{signatures['get_range']}"


FORKED = """
import os, sys
from benchmarks.obstore_facts import Facts
facts = Facts()
facts.azure.head("key")
ours, theirs = os.pipe()
child = os.fork()
if child == 0:
    os.close(ours)
    try:
        facts.azure.head("key")
        said = b"answered"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}".encode()
    os.write(theirs, said)
    os._exit(0)
os.close(theirs)
import select, signal
said = os.read(ours, 300).decode() if select.select([ours], [], [], 5)[0] else "hangs"
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
sys.stdout.write(said)
sys.stdout.flush()
os._exit(0)
"""


def no_fork(_):
    """In a child that was forked, a store that was used before hangs, or raises."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout != "answered", done.stdout.splitlines()[0]


FACTS = (no_conditional_deletion, no_checksums, xml_api, no_request_ids, no_place_to_read_into, no_fork)


def held(facts):
    """Of each fact its words, whether it holds, and how that shows."""
    return [(fact.__doc__, *fact(facts)) for fact in FACTS]


def main():
    """Print them. 1 when one does not hold."""
    facts = Facts()
    found = held(facts)
    facts.close()
    print(f"obstore {importlib.metadata.version('obstore')}")
    for words, holds, shown in found:
        print(f"{'holds ' if holds else 'FAILS '} {words} ({shown})")
    return not all(holds for _, holds, _ in found)


if __name__ == "__main__":
    sys.stdout.flush()
    code = main()
    sys.stdout.flush()
    os._exit(code)
