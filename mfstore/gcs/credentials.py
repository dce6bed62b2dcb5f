"""Credentials: found and refreshed by google-auth, or given; as the headers that requests carry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from mfstore.errors import AccessDenied, BackendError, MfstoreError, Unsupported
from mfstore.gcs.settings import GcsSettings
from mfstore.host.forks import anew_in_children
from mfstore.host.interrupts import uninterrupted
from mfstore.records import dataclass, field
from mfstore.s3.aws.errors import copied
from mfstore.s3.headers import header_value

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
EARLY = 225.0
"""Seconds before a token expires at which it is renewed, as by google-auth. The metadata server of a machine gives the
same token until five minutes before, so that asking much earlier brings nothing new."""
ASKED_AGAIN = 300.0
"""Seconds after which a function is asked again that does not say when its token expires."""
BETWEEN_TRIES = 5.0
"""Seconds between two tries to get credentials that brought nothing."""
BETWEEN_RENEWALS = 30.0
"""The same while the token that there is is still good."""
SOURCES = (
    "Searched: arguments (credentials=, token=, anonymous=True); GOOGLE_APPLICATION_CREDENTIALS; the login of gcloud; "
    "the metadata server of the machine. Run gcloud auth application-default login, or name a key file or a workload "
    "identity's configuration in GOOGLE_APPLICATION_CREDENTIALS; for an emulator set STORAGE_EMULATOR_HOST"
)


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """What requests carry until something newer comes."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    expires: float | None = None
    """Seconds since the epoch; None: not known, or never."""


class Keyring:
    """The credentials of one control plane. Safe to use from several threads, of which one renews them for all, and in
    forked children. Nothing is searched before it is needed."""

    def __init__(self, settings: GcsSettings, emulated: bool) -> None:
        self._settings = settings
        self._source = _source(settings, emulated)
        self._access: Access | None = None
        self._due = 0.0
        """When to renew it (time.time())."""
        self._refused = 0.0
        """When it was renewed last because the service refused it (time.monotonic())."""
        self._failed: tuple[MfstoreError, float] | None = None
        self.forked()
        anew_in_children(self)

    def forked(self) -> None:
        """A lock anew, in a new child too: another thread may have held it."""
        self._lock = threading.RLock()

    @property
    def found(self) -> Any:
        """The credentials object of google-auth, once there is one; else None."""
        return self._source.found if isinstance(self._source, _Google) else None

    def renews(self) -> bool:
        """Whether ``current`` may now take as long as it takes to be given other credentials."""
        return self._access is not None and time.time() >= self._due

    def current(self) -> Access:
        """What to send now, renewed when due. Raises AccessDenied, BackendError and Unsupported."""
        access = self._access
        if access is not None and time.time() < self._due:
            return access
        return uninterrupted(self._current)

    def _current(self) -> Access:
        with self._lock:
            access = self._access
            if access is not None and time.time() < self._due:
                return access
            if self._failed is not None and time.monotonic() - self._failed[1] < BETWEEN_TRIES:
                raise copied(self._failed[0])
            try:
                return self._take(self._source(False))
            except MfstoreError as error:
                if access is not None and access.expires is not None and time.time() < access.expires:
                    self._due = min(time.time() + BETWEEN_RENEWALS, access.expires)
                    return access
                self._failed = copied(error), time.monotonic()
                raise

    def expire(self) -> bool:
        """The server refused the token: True if there is another by now. Raises like ``current``."""
        if self._source is _nothing or isinstance(self._settings.token, str):
            return False
        return uninterrupted(self._expire)

    def _expire(self) -> bool:
        with self._lock:
            if self._refused and time.monotonic() - self._refused < BETWEEN_TRIES:
                return True  # of many that were refused at once the first has seen to it
            before = self._access
            after = self._take(self._source(True))
            self._refused = time.monotonic()
            return before is None or after.headers != before.headers

    def _take(self, access: Access) -> Access:
        now = time.time()
        before, self._failed = self._access, None
        if before is not None and before.headers == access.headers:
            access = before if before.expires == access.expires else Access(before.headers, access.expires)
        self._due = float("inf")
        if access.expires is not None:
            self._due = max(access.expires - EARLY, min(now + BETWEEN_RENEWALS, access.expires))
        elif callable(self._settings.token):
            self._due = now + ASKED_AGAIN
        self._access = access
        return access


# Where tokens come from: functions that get one, anew if they are told to ---------------------------------------------

Source = Callable[[bool], Access]


def _source(settings: GcsSettings, emulated: bool) -> Source:
    token = settings.token
    if settings.anonymous or (emulated and token is None and settings.credentials is None):
        return _nothing
    if isinstance(token, str):
        access = Access(_bearer(token, "token"))
        return lambda anew: access
    if token is not None:
        return lambda anew: _asked(token)
    return _Google(settings.credentials, settings.withheld)


def _nothing(anew: bool) -> Access:
    return Access()


def _bearer(token: Any, name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {header_value(name, token, secret=True)}"),)


def _asked(function: Callable[[], Any]) -> Access:
    try:
        found = function()
    except MfstoreError:
        raise
    except Exception as error:
        raise AccessDenied(f"the function given as token= failed: {type(error).__name__}") from error
    token, expires = found if isinstance(found, tuple) else (found, None)
    if isinstance(expires, datetime):
        expires = _seconds(expires)
    return Access(_bearer(token, "what the function given as token= returns"), expires)


def _seconds(moment: datetime) -> float:
    """google-auth's are in UTC and say no zone."""
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


class _Google:
    """A credentials object of google-auth, which is found by its default where none is given."""

    def __init__(self, given: Any, withheld: tuple[str, ...]) -> None:
        self.found: Any = None
        self._given = given
        self._withheld = withheld

    def __call__(self, anew: bool) -> Access:
        try:
            from google.auth import default, exceptions
            from google.auth.credentials import with_scopes_if_required
            from google.auth.transport.requests import Request
        except ImportError as error:
            raise Unsupported(
                "credentials of Google Cloud need google-auth and requests", found=str(error),
                hint="pip install 'mfstore[gcs]'",
            ) from error  # fmt: skip
        if self._given is not None and not hasattr(self._given, "refresh"):
            raise Unsupported(
                "credentials= is an object of google-auth", found=type(self._given).__name__,
                hint="A key file is named by GOOGLE_APPLICATION_CREDENTIALS, an access token is token=",
            )  # fmt: skip
        try:
            if self.found is None:
                if self._given is not None:
                    self.found = with_scopes_if_required(self._given, [SCOPE])
                else:
                    self.found, _ = default(scopes=[SCOPE])
            found = self.found
            if type(found).__name__ == "AnonymousCredentials":
                return Access()
            expiry = getattr(found, "expiry", None)
            if anew or not found.token or (expiry is not None and _seconds(expiry) - time.time() < EARLY):
                found.refresh(Request())
        except exceptions.DefaultCredentialsError as error:
            held = f"{', '.join(self._withheld)} did not travel here. " if self._withheld else ""
            raise AccessDenied(
                "no credentials of Google Cloud were found", found=_words(error), hint=held + SOURCES
            ) from error
        except exceptions.TransportError as error:
            raise BackendError("the service that issues tokens could not be asked", found=_words(error)) from error
        except exceptions.GoogleAuthError as error:
            raise AccessDenied(
                "the credentials of Google Cloud could not be had", found=_words(error),
                hint="Log in again: gcloud auth application-default login; check that a key file was not revoked",
            ) from error  # fmt: skip
        except Exception as error:
            raise AccessDenied(
                f"the credentials of Google Cloud could not be had: {type(error).__name__}", hint=SOURCES
            ) from error
        headers: dict[str, str] = {}
        if hasattr(found, "apply"):
            found.apply(headers)  # also the project that pays, where the credentials name one
        else:
            headers = dict(_bearer(found.token, "the token of the credentials"))
        said = sorted((name.lower(), header_value(name, value, secret=True)) for name, value in headers.items())
        expiry = getattr(found, "expiry", None)
        return Access(tuple(said), _seconds(expiry) if expiry is not None else None)


def _words(error: Exception) -> str:
    """What an error of google-auth says, which besides may hold the whole answer."""
    return str(error.args[0] if error.args else error)[:200]
