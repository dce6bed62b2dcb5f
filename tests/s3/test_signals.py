"""Signal handlers that use S3 while their own thread does: nothing waits for itself."""

import pytest

HOOK = """
import faulthandler, os, signal, sys, threading
faulthandler.dump_traceback_later(100, exit=True)
main, seen, handled, inside = threading.get_ident(), set(), [], []

def hooked(make):
    # Whoever takes a lock in the main thread, whosever it is, is interrupted while he holds it: once at each place.
    class Hooked:
        def __init__(self): self.lock = make()
        def __getattr__(self, name): return getattr(self.lock, name)
        def acquire(self, *arguments, **named):
            taken = self.lock.acquire(*arguments, **named)
            if taken and watching and threading.get_ident() == main and not inside:
                frame = sys._getframe(1)
                while frame.f_code.co_filename in (__file__, threading.__file__): frame = frame.f_back
                place = frame.f_code.co_filename, frame.f_lineno
                if place not in seen:
                    seen.add(place)
                    signal.raise_signal(signal.SIGUSR1)
            return taken
        __enter__ = acquire
        def __exit__(self, *error): self.lock.release()
    return Hooked

__file__ = "<string>"
watching = False
threading.Lock, threading.RLock = hooked(threading.Lock), hooked(threading.RLock)

def handler(number, frame):
    inside.append(1)
    try: handled.append(use("handler"))
    finally: inside.pop()
signal.signal(signal.SIGUSR1, handler)
"""

USE = """
import mfstore
from mfstore.s3 import BulkClient
from tests.rigs.raw_server import Server

def answer(connection, request):
    body = b"data" * 500_000 if request.method == "GET" else b""
    if request.method == "POST": body = b"<DeleteResult></DeleteResult>"
    connection.reply("200 OK", ['ETag: "e"', f"Content-Length: {len(body)}"], body)

server = Server(answer)
def client(): return BulkClient("bucket", engine=sys.argv[1], endpoint_url=server.origin, region_name="us-east-1", attempts=2)
cold, warm, local = client(), client(), mfstore.open(sys.argv[2], fsync="none", threads=2)
warm.put_many({"warm": b"x"}).wait()

def use(name):
    for one in (cold, warm):
        assert one.put_many({name: b"x" * 100}).wait()[0].ok
        assert len(one.get_many([name]).wait()[0].data) == 2_000_000
        assert one.delete_many([name]).wait()[0].ok
    begun = iter(warm.get_many([name] * 3)); next(begun); begun.close()
    return local.put([name, os.urandom(3_000_000)])

watching = True
use("main")
watching = False
cold.close(); warm.close(); local.close(); server.close()
print(len(handled) == len(seen) > 3)
"""


@pytest.mark.second
@pytest.mark.parametrize("engine", ["native", "aiobotocore"])
def test_a_handler_uses_what_its_thread_holds_locks_of(python, root, s3_env, engine):
    assert python(HOOK + USE, engine, root) == "True\n"


REFRESH = """
import faulthandler, signal, sys, threading
from datetime import UTC, datetime, timedelta
import boto3
from botocore.credentials import DeferredRefreshableCredentials
from botocore.session import Session
from mfstore.s3.aws.control import BotocoreControlPlane
from mfstore.s3.aws.settings import ConnectionSettings
faulthandler.dump_traceback_later(100, exit=True)
begun, found = threading.Event(), []

def refresh():
    # While botocore holds its lock. What refreshes does not wait for the handler, nor the handler for itself.
    if not begun.is_set():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        if threading.current_thread() is not threading.main_thread(): begun.wait(60)
    end = datetime.now(UTC) + timedelta(hours=1)
    return {"access_key": "a", "secret_key": "b", "token": "c", "expiry_time": end.isoformat()}

def handler(number, frame):
    begun.set()
    found.append(control.credentials())
signal.signal(signal.SIGUSR1, handler)

session = Session()
session._credentials = DeferredRefreshableCredentials(refresh, "test")
control = BotocoreControlPlane(ConnectionSettings.given(session=session, region_name="us-east-1"))
control.process()
found.append(control.credentials())
print([each.access_key for each in found])
"""


def test_a_handler_needs_credentials_that_its_thread_is_refreshing(python, s3_env):
    assert python(REFRESH) == "['a', 'a']\n"
