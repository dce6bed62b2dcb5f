"""The native engine: connections, ends, signatures, checksums and TLS."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mfstore._core.crc import update as crc
from mfstore.s3.aws.routes import Credentials, Transport
from mfstore.s3.calls import Call
from mfstore.s3.engines.native import NativeEngine
from tests.rigs.native_engine import KEYS, FixedRoutes, Rig, ask, body_of, drain, get, raw
from tests.rigs.raw_server import Connection, Request, Server


def tasks() -> set[Path]:
    """The threads of this process."""
    return set(Path("/proc/self/task").iterdir())


def seconds(threads: set[Path]) -> float:
    """The CPU time they took: the process's would count what other tests left running."""
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


class TestConnections:
    @pytest.mark.second
    def test_many_small(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> None:
            data = request.path.encode() * 50
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data), data)

        channel = rig(answer)
        calls = [get(f"k{number}") for number in range(1000)]
        channel.submit(calls)
        replies = drain(channel, 1000, 60)
        assert {id(reply.call) for reply in replies} == {id(call) for call in calls}
        for reply in replies:
            assert reply.failure is None and reply.data == f"/b/{reply.call.key}".encode() * 50
        assert rig.control.asked == 1

    def test_kept_alive(self, rig: Rig) -> None:
        channel = rig(body_of(b"x"), transport=Transport(threads=1))
        assert [ask(channel, get()).reused for _ in range(3)] == [False, True, True]
        assert ask(channel, get(fresh=True)).reused is False
        assert len(rig.server.connections) == 2

    def test_closed_while_idle(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> bool:
            connection.reply("200 OK", ["Content-Length: 1"], b"x")
            return False

        channel = rig(answer, transport=Transport(threads=1))
        for _ in range(3):
            reply = ask(channel, get())
            assert (reply.failure, reply.data, reply.reused) == (None, b"x", False)
            rig.server.connections[-1].closed.wait()

    def test_an_answer_nobody_asked_for(self, rig: Rig) -> None:
        sent = threading.Semaphore(0)

        def answer(connection: Connection, request: Request) -> None:
            name = request.path.encode()
            connection.reply("200 OK", [f"Content-Length: {len(name)}"], name)
            time.sleep(0.02)  # so that it comes when the connection is idle
            try:
                connection.reply("200 OK", [f"Content-Length: {len(name)}"], b"?" * len(name))
            finally:
                sent.release()

        channel = rig(answer, transport=Transport(threads=1))
        for number in range(5):
            reply = ask(channel, get(f"key-{number}"))
            assert reply.failure is None and (reply.data or b"").endswith(f"key-{number}".encode())
            sent.acquire()

    @pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")
    def test_idle_threads_cost_nothing(self, rig: Rig) -> None:
        channel = rig(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"))
        others = tasks()
        ask(channel, get())
        time.sleep(0.05)
        started = tasks() - others
        assert started
        before = seconds(started)
        time.sleep(0.5)
        assert seconds(started) - before < 0.05

    @pytest.mark.skipif(sys.platform != "linux", reason="one address for this machine")
    def test_more_origins_than_descriptors(self, rig: Rig) -> None:
        """Idle connections take a part of what the process may open, and all of them go when nothing can be opened."""
        everywhere = socket.create_server(("0.0.0.0", 0), backlog=2048)
        rig.servers.append(Server(body_of(b"x"), listener=everywhere))
        code = f"""
            import resource
            from tests.s3.engines.test_native_connections import *
            resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
            control = FixedRoutes("")
            channel = NativeEngine(control, Transport(threads=1)).channel()

            def ask_of(place, call):
                control.origin = f"http://{{place}}:{everywhere.getsockname()[1]}"
                control.version += 1
                return ask(channel, call)

            def opened():
                return len(os.listdir("/proc/self/fd"))

            def fill():
                with contextlib.suppress(OSError):
                    while True:
                        others.append(os.open(os.devnull, os.O_RDONLY))

            ask_of("127.0.0.1", get())
            one, others = opened(), []
            print({{ask_of(f"127.0.0.{{n}}", get()).failure for n in range(1, 101)}}, opened() - one <= 15)
            fill()
            print(ask_of("127.0.0.200", get()).failure, ask_of("127.0.0.200", get()).failure)
            {{ask_of(f"127.0.0.{{n}}", get()).failure for n in range(1, 5)}}
            fill()
            print(ask_of("a-name.invalid", get()).message, ask_of("127.0.0.200", get(fresh=True)).failure, sep=", ")
            fill()
            os.close(others.pop())
            print(ask_of("127.0.0.201", get()).failure)  # which a socket takes, of which a copy is to be made
        """
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
        )
        assert (answer.stdout, answer.returncode) == (
            "{None} True\nconnect None\nToo many open files, None\nconnect\n",
            0,
        ), answer.stderr

    def test_reset_on_reuse(self, rig: Rig) -> None:
        def answer(connection: Connection, request: Request) -> bool | None:
            if connection.number == 0 and connection.served == 1:
                connection.reset()
                return False
            connection.reply("200 OK", ["Content-Length: 1"], b"x")
            return None

        channel = rig(answer, transport=Transport(threads=1))
        ask(channel, get())
        assert ask(channel, get()).data == b"x"

    def test_descriptor_of_the_channel(self, rig: Rig) -> None:
        channel = rig(body_of(b"x"))
        channel.submit([get(), get()])
        got = 0
        while got < 2:
            assert select.select([channel.fileno()], [], [], 5)[0]
            got += len(channel.poll(0))
        time.sleep(0.01)
        assert not select.select([channel.fileno()], [], [], 0)[0]

    def test_two_channels(self, rig: Rig) -> None:
        first = rig(body_of(b"x"))
        second = rig.engine.channel()
        calls = [get() for _ in range(50)]
        first.submit(calls[:25])
        second.submit(calls[25:])
        assert {id(r.call) for r in drain(second, 25)} == {id(c) for c in calls[25:]}
        assert {id(r.call) for r in drain(first, 25)} == {id(c) for c in calls[:25]}

    def test_engine_closed_and_used_again(self, rig: Rig) -> None:
        channel = rig(slow)
        channel.submit([get(), get()])
        time.sleep(0.05)
        rig.engine.close()
        assert [r.failure for r in drain(channel, 2)] == ["cancelled"] * 2
        channel.cancel(get())
        channel.close()
        assert ask(channel, Call("HeadObject", "b", "quick")).status == 200

    def test_no_descriptors_left(self, rig: Rig) -> None:
        before = len(os.listdir("/proc/self/fd"))
        server = Server(body_of(b"x"))
        engine = NativeEngine(FixedRoutes(server.origin), Transport())
        channel = engine.channel()
        channel.submit([get() for _ in range(20)])
        drain(channel, 20)
        channel.close()
        engine.close()
        del channel, engine
        server.close()
        assert len(os.listdir("/proc/self/fd")) <= before + 1


def slow(connection: Connection, request: Request) -> bool:
    if request.path.endswith("quick"):
        connection.reply("200 OK", ["Content-Length: 0"])
        return True
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 1000)
    connection.hold(60)
    return False


SLOW_START = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
int curl_global_init(long flags) {
    int (*real)(long) = (int (*)(long)) dlsym(RTLD_NEXT, "curl_global_init");
    close(open(getenv("BEGUN"), O_CREAT | O_WRONLY, 0600));
    usleep(100000);
    return real(flags);
}
"""


class TestEnds:
    def test_cancel(self, rig: Rig) -> None:
        channel = rig(slow)
        calls = [get() for _ in range(5)]
        channel.submit(calls)
        time.sleep(0.1)
        begun = time.monotonic()
        channel.cancel(calls[2])
        (reply,) = drain(channel, 1)
        assert reply.call is calls[2] and reply.failure == "cancelled" and time.monotonic() - begun < 8
        channel.cancel(calls[2])
        for call in calls:
            channel.cancel(call)
        assert {r.failure for r in drain(channel, 4)} == {"cancelled"}

    def test_cancel_at_once(self, rig: Rig) -> None:
        channel = rig(slow)
        calls = [get() for _ in range(200)]
        channel.submit(calls)
        for call in calls:
            channel.cancel(call)
        assert {r.failure for r in drain(channel, 200)} == {"cancelled"}

    def test_close_frees_buffers(self, rig: Rig) -> None:
        channel = rig(slow)
        targets = [bytearray(100_000) for _ in range(20)]
        bodies = [bytearray(10 << 20)]
        channel.submit([get(target=memoryview(target)) for target in targets])
        channel.submit([Call("PutObject", "b", "k", body=bodies)])
        time.sleep(0.1)
        begun = time.monotonic()
        channel.close()
        assert time.monotonic() - begun < 8
        for target in targets:
            target.clear()
        bodies[0].clear()

    def test_forgotten_channel(self, rig: Rig) -> None:
        channel = rig(slow)
        target = bytearray(100_000)
        channel.submit([get(target=memoryview(target)), get()])
        loop: list[object] = [channel]
        loop.append(loop)
        del channel, loop
        gc.collect()
        target.clear()

    def test_ctrl_c(self) -> None:
        code = """
            import signal, sys, threading, time, os
            from tests.s3.engines.test_native_connections import *
            engine = NativeEngine(FixedRoutes(Server(slow).origin), Transport())
            channel = engine.channel()
            channel.submit([get()])
            begun = time.monotonic()
            try:
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
                while not channel.poll(10):
                    pass
            except KeyboardInterrupt:
                print("interrupted", time.monotonic() - begun < 8)
        """
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
        )
        assert (answer.stdout, answer.returncode) == ("interrupted True\n", 0), answer.stderr

    @pytest.mark.second
    @pytest.mark.parametrize(
        "way", ["pass", "os._exit(0)", "sys.exit(0)", "channel.close()", "engine.close()", "del engine"]
    )
    def test_exit_with_live_threads(self, way: str) -> None:
        code = f"""
            import sys, os
            from tests.s3.engines.test_native_connections import *
            engine = NativeEngine(FixedRoutes(Server(slow).origin), Transport())
            channel = engine.channel()
            channel.submit([get() for _ in range(50)] + [get(target=memoryview(bytearray(100000))) for _ in range(50)])
            channel.poll(0.1)
            {way}
        """
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
        )
        assert (answer.returncode, answer.stderr) == (0, "")

    @pytest.mark.slow
    def test_fork(self, rig: Rig) -> None:
        channel = rig(slow)
        target = bytearray(100_000)
        channel.submit([get(), get(target=memoryview(target))])
        ask(channel, Call("HeadObject", "b", "quick"))
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.alarm(100)
                    assert channel.poll(0.05) == []
                    assert ask(channel, Call("HeadObject", "b", "quick")).status == 200
                    other = rig.engine.channel()
                    assert ask(other, Call("HeadObject", "b", "quick")).status == 200
                    channel.close()
                    rig.engine.close()
                    del channel, other
                    gc.collect()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
        rig.server.close()
        assert len(drain(channel, 2)) == 2

    def test_a_forked_child_holds_no_connection_of_its_parents(self, rig: Rig) -> None:
        """One that is idle, one with an answer under way, one that is being made. The server sees the end of each."""
        ends: list[bytes] = []

        def serve() -> None:
            busy, _ = listener.accept()
            busy.recv(10_000)
            busy.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            asked.set()
            idle, _ = listener.accept()
            idle.recv(10_000)
            idle.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            for one in (busy, idle):
                one.settimeout(30)
                ends.append(one.recv(10_000))
                one.close()

        def shaking() -> None:
            one, _ = other.accept()
            one.recv(10_000)
            hello.set()
            one.settimeout(30)
            ends.append(one.recv(10_000))
            one.close()

        asked, hello = threading.Event(), threading.Event()
        listener, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        with listener, other:
            threads = [threading.Thread(target=serve), threading.Thread(target=shaking)]
            for thread in threads:
                thread.start()
            held = rig.to(f"https://127.0.0.1:{other.getsockname()[1]}")
            held.submit([get()])
            assert hello.wait(60)
            dialing = rig.engine
            channel = rig.to(f"http://127.0.0.1:{listener.getsockname()[1]}", transport=Transport(threads=1))
            channel.submit([get()])
            assert asked.wait(60)
            assert ask(channel, Call("HeadObject", "b", "k")).status == 200
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(write)
                os.read(read, 1)  # as long as the parent wants
                os._exit(0)
            os.close(read)
            try:
                channel.close()
                rig.engine.close()
                held.close()
                dialing.close()
                for thread in threads:
                    thread.join()
            finally:
                os.close(write)
                os.waitpid(pid, 0)
        assert ends == [b""] * 3

    @pytest.mark.slow
    def test_fork_under_load(self, rig: Rig) -> None:
        channel = rig(body_of(b"x" * 1000))
        alive = [channel]
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                channel.submit([get() for _ in range(32)])
                drain(channel, 32)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            for _ in range(20):
                pid = os.fork()
                if pid == 0:
                    status = 1
                    try:
                        signal.alarm(100)
                        assert ask(rig.engine.channel(), get()).data == b"x" * 1000
                        status = 0
                    finally:
                        os._exit(status)
                assert os.waitpid(pid, 0)[1] == 0
        finally:
            stop.set()
            thread.join()
        del alive

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform == "darwin", reason="needs LD_PRELOAD")
    def test_fork_while_another_thread_starts_the_first_engine(self, rig: Rig, tmp_path: Path) -> None:
        """libcurl is initialised then, here for a tenth of a second: a child would find our lock taken for ever."""
        (tmp_path / "slow.c").write_text(SLOW_START)
        command = f"{os.environ.get('CC', 'cc')} -shared -fPIC -Wl,--no-as-needed -o {tmp_path}/slow.so {tmp_path}/slow.c -lcurl -ldl"
        subprocess.run(command.split(), check=True, capture_output=True)
        rig(body_of(b"x"))
        code = f"""
            import os, signal, time
            from tests.s3.engines.test_native_connections import *
            engine = NativeEngine(FixedRoutes("{rig.server.origin}"), Transport(verify=False))
            thread = threading.Thread(target=lambda: ask(engine.channel(), get()))
            thread.start()
            while not os.path.exists({str(tmp_path / "begun")!r}):
                time.sleep(0.001)
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                os._exit(ask(engine.channel(), get()).data != b"x")
            assert os.waitpid(pid, 0)[1] == 0
        """
        answer = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "LD_PRELOAD": f"{tmp_path}/slow.so", "BEGUN": str(tmp_path / "begun")},
        )
        assert (answer.returncode, answer.stderr) == (0, "")

    @pytest.mark.second
    def test_no_leaks(self, rig: Rig) -> None:
        channel = rig(body_of(b"x" * 4000))

        def some(n: int) -> None:
            for _ in range(n // 50):
                channel.submit([get(metadata={"a": "b"}) for _ in range(25)])
                channel.submit([Call("PutObject", "b", "k", body=[b"y" * 500], metadata={"a": "b"}) for _ in range(25)])
                drain(channel, 50)
                rig.requests.clear()

        some(2000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        some(10_000)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4000


class TestSignatures:
    """The server's view of a request, signed once more by botocore, has the same signature."""

    def check(self, origin: str, request: Request, credentials: Credentials, payload: bytes | None) -> None:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials as BotoCredentials

        class Fixed(S3SigV4Auth):
            def _should_sha256_sign_payload(self, request: object) -> bool:
                return payload is not None

        authorization = request.headers["authorization"]
        signed = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert set(request.headers) - set(signed) <= {"authorization", "user-agent", "content-length", "connection"}
        again = AWSRequest(
            request.method,
            origin + request.path,
            {
                name: request.headers[name]
                for name in signed
                if not name.startswith("x-amz-security") and name != "host"
            },
            payload,
        )
        timestamp = request.headers["x-amz-date"]
        again.context["timestamp"] = timestamp
        auth = Fixed(
            BotoCredentials(credentials.access_key, credentials.secret_key, credentials.token), "s3", "us-east-1"
        )
        if credentials.token:
            again.headers["X-Amz-Security-Token"] = credentials.token
        canonical = auth.canonical_request(again)
        signature = auth.signature(auth.string_to_sign(again, canonical), again)
        assert authorization.endswith("Signature=" + signature), canonical

    @pytest.mark.parametrize("key", ["k", "a b+c/ä~!*'()//./../x%20y?z=1&w#f", "日本/../..", "/", "//"])
    @pytest.mark.parametrize("token", [None, "IQoJb3JpZ2luX2VjE/+=="])
    def test_gets_and_puts(self, rig: Rig, key: str, token: str | None) -> None:
        keys = Credentials(KEYS.access_key, KEYS.secret_key, token)
        headers = (("x-amz-checksum-mode", "ENABLED"), ("x-amz-expected-bucket-owner", "111122223333"))
        channel = rig(body_of(b""), signer=keys, headers=headers)
        calls = [
            get(key),
            get(key, start=1, stop=5, if_match='"e"'),
            Call("HeadObject", "b", key),
            Call(
                "PutObject",
                "b",
                key,
                body=[b"abc", b"def"],
                checksum="CRC64NVME",
                metadata={"Z": "a  b", "a": "1", "m": ""},
            ),
            Call("UploadPart", "b", key, body=[b"abc", b"def"], part=7, upload="a/b=c"),
            Call("DeleteObject", "b", key),
        ]
        for call in calls:
            assert ask(channel, call).failure is None
            body = b"abcdef" if call.body else b""
            assert rig.requests[-1].body == body
            self.check(rig.server.origin, rig.requests[-1], keys, body)
        assert len(rig.requests) == len(calls)

    def test_unsigned_payload(self, rig: Rig) -> None:
        channel = rig(body_of(b""), sign_payload=False)
        ask(channel, Call("PutObject", "b", "k", body=[b"abc"]))
        assert rig.requests[0].headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"

    def test_anonymous(self, rig: Rig) -> None:
        channel = rig(body_of(b""), signer=None)
        ask(channel, get())
        assert set(rig.requests[0].headers) == {"host", "user-agent"}

    def test_new_credentials(self, rig: Rig) -> None:
        channel = rig(body_of(b""))
        ask(channel, get())
        rig.control.signer = Credentials("AKIDOTHER", "other", None)
        rig.control.skew = 86400.0 * 2
        ask(channel, get())
        first, second = (request.headers for request in rig.requests)
        assert "AKIDEXAMPLE" in first["authorization"] and "AKIDOTHER" in second["authorization"]
        assert first["x-amz-date"][:8] < second["x-amz-date"][:8]
        assert second["x-amz-date"][:8] in second["authorization"]

    def test_new_version(self, rig: Rig) -> None:
        channel = rig(body_of(b""))
        ask(channel, get())
        ask(channel, get())
        assert rig.control.asked == 1
        rig.control.version += 1
        ask(channel, get())
        assert rig.control.asked == 2


class TestChecksums:
    DATA = os.urandom(300_000)

    @pytest.mark.parametrize(
        ("headers", "algorithm"),
        [
            (["x-amz-checksum-crc64nvme: AAAAAAAAAAA=", "x-amz-checksum-type: FULL_OBJECT"], "CRC64NVME"),
            (["X-Amz-Checksum-Crc32c: AAAAAA=="], "CRC32C"),
            (["x-amz-checksum-crc32: AAAAAA=="], "CRC32"),
            (["x-amz-checksum-crc32: AAAAAA==-3"], None),
            (["x-amz-checksum-crc32: AAAAAA==", "x-amz-checksum-type: COMPOSITE"], None),
            (["x-amz-checksum-sha256: AAAAAA=="], None),
        ],
    )
    @pytest.mark.parametrize("into", [True, False])
    def test_whole(self, rig: Rig, headers: Sequence[str], algorithm: str | None, into: bool) -> None:
        target = memoryview(bytearray(len(self.DATA))) if into else None
        reply = ask(rig(body_of(self.DATA, *headers)), get(target=target))
        assert reply.checksum == (None if algorithm is None else (algorithm, crc(algorithm, self.DATA)))

    def test_none_for_errors(self, rig: Rig) -> None:
        assert ask(rig(body_of(b"no", status="404 No")), get(start=0, stop=5, checksum="CRC32")).checksum is None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), check=True, capture_output=True, cwd=path)
    return path


class TestTls:
    def server(self, rig: Rig, certificate: Path, answer: Callable[..., object]) -> Server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        server = Server(answer, tls=context)  # type: ignore[arg-type]
        rig.servers.append(server)
        return server

    @pytest.mark.second
    def test_trusted(self, rig: Rig, certificate: Path) -> None:
        data = os.urandom(8 << 20)
        server = self.server(rig, certificate, body_of(data))
        channel = rig.to(server.origin, transport=Transport(ca_file=str(certificate / "cert.pem")))
        for _ in range(3):
            target = bytearray(len(data))
            reply = ask(channel, get(target=memoryview(target)))
            assert (reply.failure, reply.received, target) == (None, len(data), data)
        ask(channel, Call("PutObject", "b", "k", body=[data]))
        assert server.requests[-1].body == data

    def test_not_trusted(self, rig: Rig, certificate: Path) -> None:
        server = self.server(rig, certificate, body_of(b"x"))
        assert ask(rig.to(server.origin, transport=Transport()), get()).failure == "tls"
        assert ask(rig.to(server.origin, transport=Transport(verify=False)), get()).data == b"x"
        assert len(server.requests) == 1

    def test_wrong_bundle(self, rig: Rig, certificate: Path) -> None:
        server = self.server(rig, certificate, body_of(b"x"))
        assert ask(rig.to(server.origin, transport=Transport(ca_file="/nonexistent")), get()).failure == "tls"

    def test_announced_over_tls(self, rig: Rig, certificate: Path) -> None:
        data = os.urandom(4 << 20)
        channel = rig.to(self.server(rig, certificate, body_of(data)).origin)
        rig.engine.close()
        call = get()
        assert ask(channel, call).announced
        target = bytearray(len(data))
        channel.resume(call, memoryview(target))
        assert drain(channel, 1)[0].failure is None and target == data

    @pytest.mark.second
    def test_fork_and_exit_under_load(self, rig: Rig, certificate: Path) -> None:
        server = self.server(rig, certificate, body_of(b"x" * 100_000))
        code = f"""
            import os, signal, sys
            from tests.s3.engines.test_native_connections import *
            engine = NativeEngine(FixedRoutes("{server.origin}"), Transport(verify=False))
            channel = engine.channel()
            channel.submit([get() for _ in range(100)])
            for _ in range(5):
                channel.poll(0.02)
                pid = os.fork()
                if pid == 0:
                    signal.alarm(100)
                    assert ask(engine.channel(), get()).received == 100_000
                    sys.exit(0)
                assert os.waitpid(pid, 0)[1] == 0
                channel.submit([get() for _ in range(20)])
        """
        answer = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (answer.returncode, answer.stderr) == (0, "")

    def test_handshake_cut(self, rig: Rig) -> None:
        for act in (lambda client: Connection(client, 0).reset(), lambda client: None):
            with self.listening(act) as port:
                reply = ask(rig.to(f"https://127.0.0.1:{port}"), get())
                assert reply.failure == "reset", reply.message

    def test_plain_server(self, rig: Rig) -> None:
        with self.listening(lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
            assert ask(rig.to(f"https://127.0.0.1:{port}"), get()).failure == "tls"

    @contextlib.contextmanager
    def listening(self, act: Callable[[socket.socket], object]) -> Iterator[int]:
        def accept() -> None:
            client, _ = listener.accept()
            client.recv(100)
            act(client)
            client.close()

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=accept)
            thread.start()
            yield listener.getsockname()[1]
            thread.join()
