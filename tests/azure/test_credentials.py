"""Who asks: signatures that a key makes, tokens, and when they are renewed."""

import asyncio
import base64
import hashlib
import hmac
import logging
import os
import sys
import threading
import time
import types
from urllib.parse import parse_qs

import pytest

from mfstore import errors
from mfstore.azure import credentials
from mfstore.azure.credentials import EARLY_SECONDS, Keyring, default_credential, end_of, shared_access_signature
from mfstore.azure.settings import Account

ORIGIN = "https://acct.blob.core.windows.net"
KEY = base64.b64encode(b"secret").decode()


class Source:
    """A credential object: its tokens are numbered, and last so many seconds."""

    def __init__(self, seconds=3600.0, error=None):
        self.seconds, self.error, self.asked = seconds, error, 0

    def get_token(self, *scopes, **options):
        assert scopes == ("https://storage.azure.com/.default",)
        if self.error is not None:
            raise self.error
        self.asked += 1
        return types.SimpleNamespace(token=f"token-{self.asked}", expires_on=time.time() + self.seconds)


def keyring(**account):
    return Keyring(Account("acct", ORIGIN, **account))


def test_a_signature_is_what_the_documentation_says():
    """Create an account SAS: the string to sign of version 2020-12-06."""
    query = parse_qs(shared_access_signature(Account("acct", ORIGIN, key=KEY), 0.0, 3600.0))
    text = "acct\nrwdlac\nb\nsco\n1970-01-01T00:00:00Z\n1970-01-01T01:00:00Z\n\nhttps\n2020-12-06\n\n"
    assert base64.b64decode(query["sig"][0]) == hmac.new(b"secret", text.encode(), hashlib.sha256).digest()
    assert (query["sp"], query["ss"], query["srt"], query["spr"]) == (["rwdlac"], ["b"], ["sco"], ["https"])
    with pytest.raises(errors.AccessDenied) as caught:
        keyring(key="no Base64!").current()
    assert "no Base64!" not in str(caught.value)


def test_when_a_signature_ends():
    assert end_of("sv=2020-12-06&se=1970-01-01T01%3A00%3A00Z") == 3600.0
    assert end_of("sv=2020-12-06&se=1970-01-02") == 86400.0
    assert end_of("si=policy&sig=x") == float("inf")


def test_what_is_given_is_said_as_it_is():
    assert keyring(sas="sig=x").current().query == "sig=x"
    assert keyring(anonymous=True).current().query == ""
    assert not keyring(sas="sig=x").expire()
    assert not keyring(sas="sig=x").due()


def test_a_token_is_asked_for_once_and_renewed_before_it_ends(monkeypatch):
    source = Source()
    ring = keyring(credential=source)
    assert ring.due()
    first = ring.current()
    assert first.headers == (("authorization", "Bearer token-1"),)
    assert ring.current() is first
    assert not ring.due()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 - EARLY_SECONDS + 1)
    assert ring.due()
    assert ring.current().headers == (("authorization", "Bearer token-2"),)
    assert source.asked == 2


def test_a_token_that_cannot_be_renewed_is_used_until_it_ends(monkeypatch):
    source = Source()
    ring = keyring(credential=source)
    first = ring.current()
    source.error = OSError("no network")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 - 100)
    assert ring.current() is first
    assert not ring.due()  # not again at once
    monkeypatch.setattr(time, "time", lambda: real() + 3601)
    with pytest.raises(errors.AccessDenied, match="no network"):
        ring.current()


def test_a_refused_token_is_replaced_once_for_all_that_were_sent_with_it(monkeypatch):
    source = Source()
    ring = keyring(credential=source)
    ring.current()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 60)
    assert ring.expire()
    assert ring.expire()
    assert source.asked == 2
    same = Source()
    same.get_token = lambda *scopes: types.SimpleNamespace(token="same", expires_on=time.time() + 3600)
    ring = keyring(credential=same)
    ring.current()
    monkeypatch.setattr(time, "time", lambda: real() + 120)
    assert not ring.expire()


def test_a_key_signs_anew_and_by_the_servers_clock(monkeypatch):
    ring = keyring(key=KEY)
    first = ring.current()
    assert ring.current() is first
    ring.learn(7 * 86400.0)
    assert end_of(ring.current().query) > time.time() + 6 * 86400
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 - EARLY_SECONDS + 1)
    assert ring.current().query != first.query


def test_after_a_fork_a_lock_that_somebody_held_is_another():
    ring = keyring(credential=Source())
    holder = threading.Thread(target=ring._lock.acquire)
    holder.start()
    holder.join()
    child = os.fork()
    if child == 0:
        os._exit(0 if ring.current().headers else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_what_goes_wrong_says_where_was_looked():
    class CredentialUnavailableError(Exception):
        pass

    with pytest.raises(errors.AccessDenied, match=r"az login.*anonymous=True"):
        keyring(credential=Source(error=CredentialUnavailableError("nothing found"))).current()
    left = Keyring(Account("acct", ORIGIN, credential=Source(error=ValueError("x"))), ("account_key",))
    with pytest.raises(errors.AccessDenied, match="does not travel: account_key"):
        left.current()

    class ServiceRequestError(Exception):
        pass

    with pytest.raises(errors.BackendError, match="network"):
        keyring(credential=Source(error=ServiceRequestError("no route"))).current()
    with pytest.raises(errors.Unsupported, match="account_key"):
        keyring(credential="a key").current()

    class Aio:
        async def get_token(self, *scopes):
            await asyncio.sleep(0)

    with pytest.raises(errors.Unsupported, match=r"azure\.identity"):
        keyring(credential=Aio()).current()


def test_without_azure_identity_it_is_said_what_to_do(monkeypatch):
    monkeypatch.setattr(credentials, "_default", (0, None))
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(errors.Unsupported, match=r"mfstore\[azure\]"):
        keyring().current()


def test_the_chain_of_azure_identity_is_used_when_nothing_is_given(monkeypatch):
    identity = pytest.importorskip("azure.identity")
    made = []
    monkeypatch.setattr(credentials, "_default", (0, None))
    monkeypatch.setattr(identity, "DefaultAzureCredential", lambda: made.append(1) or Source())
    assert keyring().current().headers == (("authorization", "Bearer token-1"),)
    assert keyring().current().headers == (("authorization", "Bearer token-2"),)
    assert made == [1]


def test_nothing_is_printed_beside_the_error():
    """Without any handler, Python prints warnings: azure-identity's would say all over again what the error says."""
    default_credential()
    logger = logging.getLogger("azure.identity")
    assert any(isinstance(handler, logging.NullHandler) for handler in logger.handlers) and logger.propagate
