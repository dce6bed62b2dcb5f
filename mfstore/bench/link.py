"""The way to an endpoint: what a connection takes, and a request that moves nothing. Measured before the run."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from urllib.parse import urlsplit

CONNECTIONS, REQUESTS = 5, 8
PATIENCE = 5.0
"""Seconds for a connection. One that is not made is not measured: there may be a proxy in between."""


@dataclass(frozen=True, slots=True)
class Link:
    """Seconds. None where it could not be measured."""

    connect: float | None = None
    """Until a TCP connection is there, the median of some: to the endpoint and back, and nothing of the service."""
    tls: float | None = None
    """From there until a request may be sent; None over http."""
    request: float | None = None
    """The shortest of some HEAD requests for one object: what a request takes when nothing queues."""


def measure_link(endpoint: str, ask: Callable[[], float]) -> Link:
    """Make some connections, and some requests. ``ask`` sends one, and returns the seconds that it took."""
    connects: list[float] = []
    handshakes: list[float] = []
    url = urlsplit(endpoint)
    address = (url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
    with suppress(OSError, ValueError):
        context = _context() if url.scheme == "https" else None
        for _ in range(CONNECTIONS):
            begin = perf_counter()
            with socket.create_connection(address, PATIENCE) as connection:
                connected = perf_counter()
                connects.append(connected - begin)
                if context is not None:
                    with context.wrap_socket(connection, server_hostname=address[0]):
                        handshakes.append(perf_counter() - connected)
    asked = min(ask() for _ in range(REQUESTS))
    return Link(median(connects) if connects else None, median(handshakes) if handshakes else None, asked)


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
