"""A server far away: ``python -m benchmarks.far_away OPTIONS``. It answers a GET some time after it came, and sends no
faster than a connection of its network brings.

One thread and ``sendfile``, since client and server share the cores: what they lack would show as a client that does
not fill the network. A proxy before nginx, which this was, took 0.47 s of CPU for a GB, and 0.4 ms for a small object.
It has one object of each size, says nothing but what a GET needs, and looks at no signature.
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

UNLIMITED = 1e12
TICK = 0.008
"""Seconds of bytes sent at once, ten times what a timer is late on a machine that has time."""
LATE = 0.2
"""Seconds of bytes that a timer was late for, at most, and that are made up for."""
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
    """Serves objects of some ``sizes`` until its standard input ends. ``latency``: seconds before each answer;
    ``connect``: before the first of a connection, besides; ``bandwidth``: bytes per second of each."""

    def __init__(self, sizes, latency=0.0, bandwidth=None, connect=0.0):
        self.latency, self.connect = latency, connect
        self.bandwidth = bandwidth or UNLIMITED
        self.chunk = min(4 << 20, int(self.bandwidth * TICK))
        self.poller = select.epoll()
        self.connections = {}
        self.timers, self.order = [], itertools.count()
        self.files = {size: made(size) for size in sizes}
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
        size = int(request.split(b" ", 2)[1].split(b"/")[-2])
        connection.at, connection.end, said = 0, size, b"200 OK\r\n"
        if found := RANGE.search(request):
            connection.at, connection.end = int(found[1]), int(found[2]) + 1 if found[2] else size
            said = b"206 Partial\r\nContent-Range: bytes %d-%d/%d\r\n" % (connection.at, connection.end - 1, size)
        head = b'HTTP/1.1 %sETag: "%d"\r\nContent-Length: %d\r\n\r\n' % (said, size, connection.end - connection.at)
        connection.file, connection.due = self.files[size], time.monotonic()
        if connection.end - connection.at <= self.chunk // 8:
            head += os.pread(connection.file, connection.end - connection.at, connection.at)
            connection.at = connection.end
        connection.sock.send(head, socket.MSG_MORE if connection.at < connection.end else 0)
        if connection.at < connection.end:
            self.send(connection)

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


if __name__ == "__main__":
    FarAway(**json.loads(sys.argv[1])).run()
