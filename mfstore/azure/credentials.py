"""What requests to Azure say of who asks: a shared access signature in the URL, or a bearer token in a header; renewed
before it ends.

An account's key signs no requests: it signs, once an hour, a shared access signature, which then is in all of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode

from mfstore.azure.settings import Account
from mfstore.errors import AccessDenied, BackendError, MfstoreError, Unsupported
from mfstore.host.forks import anew_in_children
from mfstore.records import dataclass, field

SCOPE = "https://storage.azure.com/.default"
SIGNATURE_VERSION = "2020-12-06"
"""Of the text that is signed: the first with a line for the encryption scope, which all later ones take."""
SIGNATURE_SECONDS = 3600.0
BACKDATED_SECONDS = 900.0
"""The clock of this machine may be ahead of Azure's by so much."""
EARLY_SECONDS = 300.0
"""What ends within so many seconds is renewed: as long as the longest request takes."""
AGAIN_SECONDS = 30.0
"""Another try to renew what still counts waits so long."""
MESSAGE_CHARACTERS = 1000
SOURCES = (
    "arguments (account_key=, sas_token=, connection_string=, credential=); AZURE_STORAGE_CONNECTION_STRING, "
    "AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN; and what azure-identity looks at: the environment (AZURE_CLIENT_ID, "
    "AZURE_TENANT_ID, …), workload identity, managed identity, az login, azd, Azure PowerShell"
)


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a request says of who asks."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    query: str = field(default="", repr=False)
    """Percent-encoded, without ``?``."""
    until: float = float("inf")
    """When it ends (time.time()), by this machine's clock."""


def shared_access_signature(account: Account, start: float, end: float) -> str:
    """The query by which everything may be done to blobs and containers of an account from ``start`` to ``end``
    (time.time()). AccessDenied for a key that is none."""
    try:
        key = base64.b64decode(account.key or "", validate=True)
    except (binascii.Error, ValueError):
        raise AccessDenied(
            f"the key of the account {account.name} is no key: it is not Base64",
            hint="The portal shows it under Access keys; az storage account keys list",
        ) from None
    fields = {
        "sv": SIGNATURE_VERSION, "ss": "b", "srt": "sco", "sp": "rwdlac", "st": _moment(start), "se": _moment(end),
        "spr": "https" if account.origin.startswith("https:") else "https,http",
    }  # fmt: skip
    lines = (account.name, "rwdlac", "b", "sco", fields["st"], fields["se"], "", fields["spr"], SIGNATURE_VERSION, "")
    text = "\n".join((*lines, ""))
    signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    return urlencode({**fields, "sig": signature})


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def end_of(sas: str) -> float:
    """When a shared access signature ends; infinite where it does not say (a stored access policy does)."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(parse_qs(sas)["se"][0])
    except (KeyError, ValueError):
        return float("inf")
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


class Keyring:
    """Who asks, of one account. Safe to use from several threads and, as it notices forks, in children."""

    def __init__(self, account: Account, withheld: tuple[str, ...] = ()) -> None:
        self._account = account
        self._withheld = withheld
        self.forked()
        anew_in_children(self)
        self._now: Authorization | None = None
        self._tried = 0.0
        """When it was last tried to renew what still counts."""
        self._renewed = 0.0
        self.skew = 0.0
        """Seconds to add to this machine's clock for the server's."""
        if account.anonymous:
            self._now = Authorization()
        elif account.key is None and account.sas is not None:
            self._now = Authorization((), account.sas)

    def forked(self) -> None:
        """A lock anew, in a new child too: another thread may have held it. Reentrant: so may whom a signal's handler
        interrupted."""
        self._lock = threading.RLock()

    @property
    def by_token(self) -> bool:
        """Whether it is a bearer token."""
        return not self._account.anonymous and self._account.key is None and self._account.sas is None

    @property
    def by_key(self) -> bool:
        """Whether the account's key signs."""
        return not self._account.anonymous and self._account.key is not None

    def due(self) -> bool:
        """Whether the next request has to wait for a token, or a token is near its end. Asks nobody."""
        found = self._now
        if found is None:
            return self.by_token
        now = time.time()
        return self.by_token and found.until - now < EARLY_SECONDS and now - self._tried >= AGAIN_SECONDS

    def current(self) -> Authorization:
        """What to say now; another than before if that is near its end. Raises AccessDenied when nothing is found,
        Unsupported without azure-identity."""
        found = self._now
        now = time.time()
        if found is not None:
            left = found.until - now
            if left >= EARLY_SECONDS or (left > AGAIN_SECONDS and now - self._tried < AGAIN_SECONDS):
                return found
        with self._lock:
            found = self._now
            if found is not None and found.until - time.time() >= EARLY_SECONDS:
                return found
            self._tried = time.time()
            try:
                self._now = self._made()
            except MfstoreError:
                if found is None or found.until <= time.time():
                    raise
            assert self._now is not None
            return self._now

    def expire(self) -> bool:
        """The service takes what was said for expired: gets something else if it can, and False if it cannot. Raises as
        ``current``."""
        if not (self.by_token or self.by_key):
            return False
        with self._lock:
            before = self._now
            if time.time() - self._renewed < AGAIN_SECONDS and before is not None:
                return True  # of many requests that were sent together the first has had it renewed
            self._now = made = self._made()
            return before is None or made.headers != before.headers or made.query != before.query

    def learn(self, skew: float) -> None:
        """Have what is signed from now on be signed by the server's clock."""
        with self._lock:
            self.skew = skew
            if self.by_key:
                self._now = self._made()

    def _made(self) -> Authorization:
        account, now = self._account, time.time()
        if self.by_key:
            there = now + self.skew
            query = shared_access_signature(account, there - BACKDATED_SECONDS, there + SIGNATURE_SECONDS)
            found = Authorization((), query, now + SIGNATURE_SECONDS)
        else:
            token, until = token_of(account.credential or default_credential(), self._withheld)
            found = Authorization((("authorization", f"Bearer {token}"),), "", until)
        self._renewed = now
        return found


_default: tuple[int, Any] = (0, None)


def default_credential() -> Any:
    """azure-identity's own choice, one for all of a process, as it keeps its tokens. Unsupported without
    azure-identity."""
    global _default
    if _default[0] != os.getpid():
        import logging

        try:
            from azure.identity import DefaultAzureCredential
        except ImportError as error:
            raise Unsupported(
                "no key and no signature is given, and without azure-identity nothing else can be found",
                hint="pip install 'mfstore[azure]'; or give account_key=, sas_token= or connection_string=, or "
                "anonymous=True for a public container",
            ) from error
        # What it logs where it finds nothing is what our error says. Who has handlers gets it all the same.
        logging.getLogger("azure.identity").addHandler(logging.NullHandler())
        _default = (os.getpid(), DefaultAzureCredential())
    return _default[1]


def token_of(credential: Any, withheld: tuple[str, ...] = ()) -> tuple[str, float]:
    """A token of a credential object, and when it ends (time.time()). AccessDenied when there is none, BackendError
    when it could not be asked for."""
    get: Callable[..., Any] | None = getattr(credential, "get_token", None)
    if get is None:
        raise Unsupported(
            "credential= is an object of azure-identity, with a method get_token", found=type(credential).__name__,
            hint="A key is account_key=, a signature sas_token=",
        )  # fmt: skip
    try:
        found = get(SCOPE)
        if hasattr(found, "__await__"):
            found.close()
            raise Unsupported(
                "credential= is for asyncio", found=type(credential).__name__,
                hint="Give the one of azure.identity, not of azure.identity.aio: waiting for it blocks nothing here",
            )  # fmt: skip
        return str(found.token), float(found.expires_on)
    except MfstoreError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:MESSAGE_CHARACTERS]
        if any(kind.__name__ in ("ServiceRequestError", "ServiceResponseError") for kind in type(error).__mro__):
            raise BackendError(f"Azure could not be asked for a token: {text}", hint="Check the network") from error
        hint = f"Looked at: {SOURCES}. For a public container give anonymous=True"
        if withheld:
            left = ", ".join(withheld)
            hint = f"It was pickled, and what is secret does not travel: {left}. Set them where it is used. {hint}"
        raise AccessDenied(f"no Azure credentials found: {text}", hint=hint) from error
