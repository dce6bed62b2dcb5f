"""A server far away: ``python -m benchmarks.far_away OPTIONS``. It answers a GET some time after it came, and sends no
faster than a connection of its network brings.

One thread and ``sendfile``, since client and server share the cores: what they lack would show as a client that does
not fill the network. A proxy before nginx, which this was, took 0.47 s of CPU for a GB, and 0.4 ms for a small object.
It has one object of each size, or a copy of what lies in a bucket, says nothing but what a GET needs, and looks at no
signature.
"""

import heapq
import itertools
import json
import os
import re
import select
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from urllib.parse import unquote

UNLIMITED = 1e12
TICK = 0.008
"""Seconds of bytes sent at once, ten times what a timer is late on a machine that has time."""
LATE = 0.2
"""Seconds of bytes that a timer was late for, at most, and that are made up for."""
MISSING = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: application/xml\r\nContent-Length: 37\r\n\r\n"
    b"<Error><Code>NoSuchKey</Code></Error>"
)
RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d*)", re.IGNORECASE)


class Connection:
    """What is known of one: the bytes that came, and what is still to be sent of the body, at ``due`` at the
    earliest."""

    __slots__ = ("at", "due", "end", "file", "ready", "received", "sock")

    def __init__(self, sock, ready):
        self.sock, self.ready = sock, ready
        self.received = b""
        self.file = self.at = self.end = 0
        self.due = 0.0


class FarAway:
    """Serves objects of some ``sizes``, as /bucket/get/SIZE/NUMBER, and what was ``copied``, until its standard input
    ends. ``latency``: seconds before each answer; ``connect``: before the first of a connection, besides;
    ``bandwidth``: bytes per second of each."""

    def __init__(self, sizes=(), copied=None, latency=0.0, bandwidth=None, connect=0.0):
        self.latency, self.connect = latency, connect
        self.bandwidth = bandwidth or UNLIMITED
        self.chunk = min(4 << 20, int(self.bandwidth * TICK))
        self.poller = select.epoll()
        self.connections = {}
        self.timers, self.order = [], itertools.count()
        self.files = {size: made(size) for size in sizes}
        self.copied = {}
        if copied:
            file = os.open(copied, os.O_RDONLY)
            for path, start, size, metadata in json.loads(Path(f"{copied}.json").read_text()):
                said = "".join(f"x-amz-meta-{name}: {value}\r\n" for name, value in metadata.items())
                self.copied[path] = file, start, size, said.encode()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)

    def run(self):
        """Say where, and serve."""
        print(f"http://127.0.0.1:{self.listener.getsockname()[1]}", flush=True)
        self.poller.register(self.listener, select.EPOLLIN)
        self.poller.register(0, select.EPOLLIN)
        while True:
            wait = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else -1
            for fd, events in self.poller.poll(wait):
                if fd == 0:
                    return
                if fd == self.listener.fileno():
                    self.accept()
                elif (connection := self.connections.get(fd)) is not None:
                    self.guarded(self.send if events & select.EPOLLOUT else self.receive, connection)
            now = time.monotonic()
            while self.timers and self.timers[0][0] <= now:
                _, _, work, connection = heapq.heappop(self.timers)
                self.guarded(work, connection)

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections[sock.fileno()] = Connection(sock, time.monotonic() + self.connect)
            self.poller.register(sock, select.EPOLLIN)

    def guarded(self, work, connection):
        """A client that goes ends its connection."""
        try:
            if connection.sock.fileno() >= 0:
                work(connection)
        except ConnectionError:
            self.close(connection)

    def close(self, connection):
        del self.connections[connection.sock.fileno()]
        connection.sock.close()

    def later(self, at, work, connection):
        heapq.heappush(self.timers, (at, next(self.order), work, connection))

    def receive(self, connection):
        data = connection.sock.recv(1 << 16)
        if not data:
            self.close(connection)
            return
        connection.received += data
        if connection.received.endswith(b"\r\n\r\n"):
            self.later(max(time.monotonic(), connection.ready) + self.latency, self.answer, connection)

    def answer(self, connection):
        request, connection.received = connection.received, b""
        found = self.find(unquote(request.split(b" ", 2)[1].decode()))
        if found is None:
            connection.sock.send(MISSING)
            return
        connection.file, start, size, metadata = found
        first, last, said = 0, size - 1, b"200 OK\r\n"
        if asked := RANGE.search(request):
            first, last = int(asked[1]), min(int(asked[2]), size - 1) if asked[2] else size - 1
            said = b"206 Partial\r\nContent-Range: bytes %d-%d/%d\r\n" % (first, last, size)
        length = last + 1 - first
        head = b'HTTP/1.1 %s%sETag: "%d"\r\nContent-Length: %d\r\n\r\n' % (said, metadata, start + size, length)
        connection.at, connection.end, connection.due = start + first, start + first + length, time.monotonic()
        whole = length <= self.chunk // 8
        answer = head + os.pread(connection.file, length, connection.at) if whole else head
        sent = connection.sock.send(answer, 0 if whole else socket.MSG_MORE)
        connection.at += max(0, sent - len(head))
        if connection.at < connection.end:
            self.send(connection)

    def find(self, path):
        """File, place in it, size and metadata of an object; None: there is none."""
        if path in self.copied:
            return self.copied[path]
        size = int(number) if (number := path.split("/")[-2]).isdigit() else None
        return (self.files[size], 0, size, b"") if size in self.files else None

    def send(self, connection):
        """The next bytes that are due; the rest when it is, or when the connection takes some."""
        now = time.monotonic()
        connection.due = max(connection.due, now - LATE)
        while connection.at < connection.end:
            if connection.due > now:
                self.later(connection.due, self.send, connection)
                self.poller.modify(connection.sock, select.EPOLLIN)
                return
            try:
                count = min(self.chunk, connection.end - connection.at)
                sent = os.sendfile(connection.sock.fileno(), connection.file, connection.at, count)
            except BlockingIOError:
                self.poller.modify(connection.sock, select.EPOLLIN | select.EPOLLOUT)
                return
            connection.at += sent
            connection.due += sent / self.bandwidth
        self.poller.modify(connection.sock, select.EPOLLIN)


def made(size):
    """The descriptor of an object of that size."""
    file = os.memfd_create("object")
    os.pwrite(file, os.urandom(size), 0)
    return file


@contextmanager
def serving(**options):
    """The URL of one in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.far_away", json.dumps(options)]
    server = Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=Path(__file__).parent.parent)
    try:
        yield server.stdout.readline().strip()
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()


def copy(objects, path):
    """Write what a server will have ``copied``: ``objects`` are path, data and metadata of each."""
    index = []
    with open(path, "wb") as file:
        for name, data, metadata in objects:
            index.append((name, file.tell(), len(data), dict(metadata)))
            file.write(data)
    Path(f"{path}.json").write_text(json.dumps(index))


if __name__ == "__main__":
    FarAway(**json.loads(sys.argv[1])).run()
