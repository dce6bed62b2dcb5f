"""Credentials: found and refreshed by botocore, handed out frozen.

Imports botocore.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from botocore.credentials import Credentials as StaticCredentials

from mfstore.errors import AccessDenied, BackendError, MfstoreError
from mfstore.host.interrupts import uninterrupted
from mfstore.s3.aws import botocore_internals as internals
from mfstore.s3.aws.errors import copied, local, no_credentials
from mfstore.s3.aws.routes import Credentials
from mfstore.s3.aws.settings import KEY_OPTIONS, ConnectionSettings

SECONDS_BETWEEN_SEARCHES = 5.0
"""Between two forced refreshes, or two searches, that brought nothing."""
REFRESHED_ASIDE = 15 * 60 + 1
"""Seconds before credentials end: from a second before botocore thinks of refreshing them, which is a quarter of an
hour before, they are asked for where no signal handler interrupts it."""


class Keyring:
    """The credentials of one control plane. Safe to use from several threads: botocore refreshes once for all."""

    def __init__(self, settings: ConnectionSettings, session: Any) -> None:
        self._settings = settings
        self._session = session
        self._lock = threading.RLock()
        self._found: Any = None
        self._useless: tuple[Credentials, float] | None = None
        """The last refused ones for which there were no others, and when that was seen."""
        self._none: tuple[MfstoreError, float] | None = None
        """Why none were found, and when."""

    def botocore_credentials(self) -> Any:
        """botocore's credentials object. Raises AccessDenied when there is none."""
        if self._found is None:
            uninterrupted(self._search)
        return self._found

    def _search(self) -> None:
        with self._lock:
            if self._found is None:
                # Asking the instance metadata in vain takes seconds: not again for each of many requests.
                if self._none is not None and time.monotonic() - self._none[1] < SECONDS_BETWEEN_SEARCHES:
                    raise copied(self._none[0])
                try:
                    self._found = self._find()
                except MfstoreError as error:
                    self._none = copied(error), time.monotonic()
                    raise

    def renews(self) -> bool:
        """Whether ``current`` may now take as long as it takes to be given other credentials."""
        return self._found is not None and _due(self._found)

    def current(self) -> Credentials | None:
        """What to sign with now, refreshed when due; None for anonymous requests. Raises AccessDenied, BackendError."""
        if self._settings.anonymous:
            return None
        found = self._found or self.botocore_credentials()
        try:
            # botocore has a lock of its own while it refreshes, for which those who sign may wait.
            frozen = uninterrupted(found.get_frozen_credentials) if _due(found) else found.get_frozen_credentials()
        except Exception as error:
            raise _unfit(error, self._profile) from error
        if not frozen.access_key or not frozen.secret_key:
            raise no_credentials(self._profile, self._settings.withheld)
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or None)

    def expire(self, refused: Credentials | None) -> bool:
        """The server refused these: True if there are others by now. Of many threads at once one refreshes."""
        if refused is None or self._settings.anonymous:
            return False
        self.botocore_credentials()
        return uninterrupted(self._expire, refused)

    def _expire(self, refused: Credentials) -> bool:
        with self._lock:
            if self._frozen() != refused:
                return True
            if self._useless is not None:
                what, when = self._useless
                if what == refused and time.monotonic() - when < SECONDS_BETWEEN_SEARCHES:
                    return False
            if self._renew(refused):
                return True
            self._useless = refused, time.monotonic()
            return False

    @property
    def _profile(self) -> str | None:
        return self._settings.profile or getattr(self._session, "profile", None)

    def _frozen(self) -> Credentials:
        frozen = self._found.get_frozen_credentials()
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or None)

    def _find(self) -> Any:
        settings = self._settings
        given = [settings.client_options.get(name) for name in KEY_OPTIONS]
        try:
            if given[0] or given[1]:
                found = StaticCredentials(*given)
            elif settings.client is not None:
                found = internals.client_credentials(settings.client)
            else:
                found = self._session.get_credentials()
        except Exception as error:
            raise _unfit(error, self._profile) from error
        if found is None:
            raise no_credentials(self._profile, settings.withheld)
        return found

    def _renew(self, refused: Credentials) -> bool:
        """Make botocore refresh what it takes to be good, or look again where it found it."""
        before = self._found
        if not internals.is_refreshable(before):  # static: the file or variables may have been rewritten
            if self._settings.client is not None or self._settings.client_options.get(KEY_OPTIONS[0]):
                return False
            try:
                found = internals.find_credentials_again(self._session)
                if found is None:
                    return False
                self._found = found
                return self._frozen() != refused
            except Exception as error:
                self._found = before
                raise _unfit(error, self._profile) from error
        try:
            internals.expire(self._session, before)
            return self._frozen() != refused
        except Exception as error:
            raise _unfit(error, self._profile) from error


def _due(found: Any) -> bool:
    return internals.is_refreshable(found) and bool(found.refresh_needed(REFRESHED_ASIDE))


def _unfit(error: Exception, profile: str | None) -> MfstoreError:
    """Whatever it was, it was about credentials: not about the key or request at hand."""
    found = local(error, profile)
    if isinstance(found, AccessDenied | BackendError):
        return found
    return AccessDenied(f"the AWS credentials could not be had: {found.message}", hint=found.hint)
