"""Clients of a benchmark on other machines, over ssh: a process for each, which gets its request on standard input and
writes its report to standard output. A client whose input ends stops: no machine goes on for a benchmark that is
gone."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from queue import SimpleQueue

from mfstore.bench.clients import ClientReport, ClientRequest, decode_report, decode_request, encode, take_part
from mfstore.errors import BackendError, InvalidKey, MfstoreError, Unsupported

GRACE = 20.0
"""Seconds for a client to end when it was told to."""


def over_ssh(hosts: Sequence[str], request: ClientRequest, ssh: str, program: str) -> list[ClientReport]:
    """Have all hosts measure, and gather what they found, in the order of the hosts. BackendError when one is lost: the
    others are stopped then, and nothing of what was measured is told. InvalidKey for what is no host."""
    words = [*shlex.split(ssh)]
    if odd := [host for host in hosts if host.startswith("-")]:
        raise InvalidKey("a host is a name, not an option of ssh", found=odd[0], hint="Options go into --ssh")
    found: SimpleQueue[tuple[int, str, str, int]] = SimpleQueue()
    clients: list[tuple[subprocess.Popen[str], threading.Thread]] = []
    reports: dict[int, ClientReport] = {}
    try:
        for number, host in enumerate(hosts):
            process = _start([*words, host, f"{program} bench --worker"])
            line = encode(replace(request, number=number, clients=len(hosts)))
            talk = threading.Thread(target=_talk, args=(number, process, line, found), daemon=True)
            clients.append((process, talk))
            talk.start()
        while len(reports) < len(hosts):
            number, output, said, code = found.get()
            if code:
                why = said.strip().splitlines()[-1:] or ["it said nothing"]
                raise BackendError(
                    f"client {hosts[number]} was lost (exit code {code}): {why[0]}",
                    hint=f"Try: {ssh} {hosts[number]} {program} --version",
                )  # fmt: skip
            reports[number] = decode_report(output)
    finally:
        for process, _ in clients:
            _no_more(process)
        for process, talk in clients:
            _end(process, talk)
    return [reports[number] for number in range(len(hosts))]


def _start(command: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C is ours to hand on
        )  # fmt: skip
    except OSError as error:
        raise Unsupported(f"cannot run {command[0]}: {error}", hint="Name the command with --ssh") from error


def _talk(
    number: int, process: subprocess.Popen[str], line: str, found: SimpleQueue[tuple[int, str, str, int]]
) -> None:  # fmt: skip
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    said: list[str] = []
    listener = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
    listener.start()
    output = broke = ""
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        output = process.stdout.read()
    except (OSError, ValueError) as error:
        broke = str(error)
    code = process.wait()
    listener.join(GRACE)
    # Why ssh ended is what it said, and not that nobody read what was written to it.
    found.put((number, output, "".join(said) or broke, code if code or output.strip() else 1))


def _no_more(process: subprocess.Popen[str]) -> None:
    """Its input ends, at which it stops by itself."""
    try:
        if process.stdin is not None:
            process.stdin.close()
    except OSError:
        pass


def _end(process: subprocess.Popen[str], talk: threading.Thread) -> None:
    """What does not stop by itself is stopped here: ssh, whose remote command then ends when it writes."""
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    talk.join(GRACE)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None and not talk.is_alive():
            pipe.close()


def serve() -> int:
    """Be a client: the request is the first line of standard input. The exit code; errors go to standard error."""
    request = decode_request(sys.stdin.readline())

    def watch() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    try:
        report = take_part(request)
    except (KeyboardInterrupt, MfstoreError, OSError) as error:
        sys.stderr.write(f"{error or 'interrupted'}\n")
        return 1
    sys.stdout.write(encode(report) + "\n")
    sys.stdout.flush()
    return 0
