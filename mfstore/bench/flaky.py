"""A proxy in a process of its own that fails requests for real: ``python -m mfstore.bench.flaky URL RATE SEED``.

It prints its address and ends when its standard input does. In another process, so that its CPU is not counted.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mfstore.errors import BackendError
from mfstore.testing import Exchange, FaultProxy, NetworkFault, actions

MEASURED = ("GET", "HEAD", "PUT")
"""Methods that may fail. Deletes and listings clear the scratch prefix, and have to work."""


def law(rate: float, seed: int) -> Callable[[Exchange], bool]:
    """Whether a request fails: ``rate`` per cent of first tries, half as many of the second, and so on, as
    ``inject_failure_rate`` of ``S3`` has it. Which ones depends on the seed and on the request alone."""
    seen: Counter[str] = Counter()

    def fails(exchange: Exchange) -> bool:
        name = f"{seed} {exchange.method} {exchange.path} {exchange.query} {exchange.headers.get('range', '')}"
        number = seen[name]
        seen[name] += 1
        drawn = hashlib.blake2b(f"{name} {number}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "big") / 2**64 * 100 < rate * 0.5**number

    return fails


@contextmanager
def flaky_endpoint(url: str, rate: float, seed: int) -> Iterator[str]:
    """The address of a proxy in front of ``url`` that fails ``rate`` per cent of the first tries with HTTP 500."""
    command = [sys.executable, "-m", "mfstore.bench.flaky", url, str(rate), str(seed)]
    # A session of its own: the Ctrl-C that ends the measurement must not end the proxy that removing goes through.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise BackendError("the proxy that injects failures did not start", backend=url)
        yield address
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def main() -> None:
    """Serve until the standard input ends."""
    url, rate, seed = sys.argv[1:]
    wanted = law(float(rate), int(seed))

    def hit(exchange: Exchange) -> bool:
        return exchange.method in MEASURED and "list-type" not in exchange.query and wanted(exchange)

    fault = NetworkFault(action=actions.Status(500, "InternalError"), when=hit)
    with FaultProxy(url, [fault]) as proxy:
        sys.stdout.write(proxy.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
