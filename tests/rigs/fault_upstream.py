"""A small HTTP server behind the proxy under test, and ways to see what a client of the proxy gets."""

import contextlib
import hashlib
import http.client
import random
import re
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mfstore.testing import NetworkFault

DATA = random.Random(0).randbytes(200_000)


class Handler(BaseHTTPRequestHandler):
    """Objects in memory; /chunked/… answers in chunks, /status/204 with that status, /raw without a length."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        if self.path.startswith("/status/"):
            self.send_response(int(self.path.split("/")[2]))
            self.send_header("ETag", '"0"')
            self.end_headers()
            return
        data = self.server.objects.get(self.path.partition("?")[0], DATA)
        if self.path.startswith("/chunked/"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if self.command == "GET":
                for start in range(0, len(data), 30_000):
                    piece = data[start : start + 30_000]
                    self.wfile.write(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\nX-Trailer: 1\r\n\r\n")
            return
        if self.path.startswith("/raw"):
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
            return
        total, status = len(data), 200
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, end = map(int, found.groups())
            data, status = data[start : end + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end}/{total}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        if self.path == "/refused":
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            return
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            data = b"".join(parts)
        else:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if len(data) < int(self.headers["Content-Length"]):
                self.server.seen.append(("CUT", self.path, len(data)))
                return
        self.server.objects[self.path] = data
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


class Upstream(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects, self.seen = {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # connections break here by design

    def count(self, method):
        return sum(1 for entry in self.seen if entry[0] == method)


@contextlib.contextmanager
def connected(proxy, timeout=20):
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()


def fetch(proxy, path="/b/k", method="GET", body=None, headers=None, timeout=20):
    with connected(proxy, timeout) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def raw(proxy, data, timeout=20):
    """What comes back for these bytes until the end, and whether the end was a reset."""
    parts = []
    try:  # a reset may come before anything is sent, even while connecting
        with socket.create_connection(("127.0.0.1", proxy.port), timeout) as sock:
            sock.sendall(data)
            while part := sock.recv(1 << 16):
                parts.append(part)
    except (ConnectionResetError, BrokenPipeError):
        return b"".join(parts), "reset"
    except TimeoutError:
        return b"".join(parts), "silence"
    return b"".join(parts), "end"


def get(path="/b/k", *fields):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def body(response):
    return response.partition(b"\r\n\r\n")[2]


def fault(action, **which):
    return [NetworkFault(action=action, **which)]
