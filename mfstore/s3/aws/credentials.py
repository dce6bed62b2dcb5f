"""Credentials: found and refreshed by botocore, handed out frozen."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from mfstore.errors import AccessDenied, BackendError, MfstoreError
from mfstore.s3.aws.errors import copied, local, no_credentials
from mfstore.s3.aws.routes import Credentials
from mfstore.s3.aws.sessions import KEY_OPTIONS, Setup

CALM = 5.0  # seconds between two forced refreshes, or two searches, that brought nothing


class Keyring:
    """The credentials of one control plane. Safe to use from several threads: botocore refreshes once for all."""

    def __init__(self, setup: Setup, core: Any) -> None:
        self._setup = setup
        self._core = core
        self._lock = threading.Lock()
        self._source: Any = None
        self._useless: tuple[Credentials, float] | None = None
        self._none: tuple[MfstoreError, float] | None = None

    def source(self) -> Any:
        """botocore's credentials object. Raises AccessDenied when there is none."""
        if self._source is None:
            with self._lock:
                if self._source is None:
                    # Asking the instance metadata in vain takes seconds: not again for each of many requests.
                    if self._none is not None and time.monotonic() - self._none[1] < CALM:
                        raise copied(self._none[0])
                    try:
                        self._source = self._find()
                    except MfstoreError as error:
                        self._none = copied(error), time.monotonic()
                        raise
        return self._source

    def current(self) -> Credentials | None:
        """What to sign with now, refreshed when due; None for anonymous requests. Raises AccessDenied, BackendError."""
        if self._setup.anonymous:
            return None
        source = self.source()
        try:
            frozen = source.get_frozen_credentials()
        except Exception as error:
            raise _unfit(error, self._profile) from error
        if not frozen.access_key or not frozen.secret_key:
            raise no_credentials(self._profile)
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or None)

    def expire(self, refused: Credentials | None) -> bool:
        """The server refused these: True if there are others by now. Of many threads at once one refreshes."""
        if refused is None or self._setup.anonymous:
            return False
        self.source()
        with self._lock:
            if self._frozen() != refused:
                return True
            if self._useless is not None:
                what, when = self._useless
                if what == refused and time.monotonic() - when < CALM:
                    return False
            if self._renew(refused):
                return True
            self._useless = refused, time.monotonic()
            return False

    @property
    def _profile(self) -> str | None:
        return self._setup.profile or getattr(self._core, "profile", None)

    def _frozen(self) -> Credentials:
        frozen = self._source.get_frozen_credentials()
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or None)

    def _find(self) -> Any:
        setup = self._setup
        given = [setup.options.get(name) for name in KEY_OPTIONS]
        try:
            if given[0] or given[1]:
                from botocore.credentials import Credentials as Static

                found = Static(*given)
            elif setup.client is not None:
                found = setup.client._get_credentials()  # botocore has no public way from a client to its credentials
            else:
                found = self._core.get_credentials()
        except Exception as error:
            raise _unfit(error, self._profile) from error
        if found is None:
            raise no_credentials(self._profile)
        return found

    def _renew(self, refused: Credentials) -> bool:
        """Make botocore refresh what it takes to be good, or look again where it found it."""
        source = self._source
        if not hasattr(source, "refresh_needed"):  # static: the file or variables may have been rewritten
            if self._setup.client is not None or self._setup.options.get(KEY_OPTIONS[0]):
                return False
            try:
                found = self._core.get_component("credential_provider").load_credentials()
                if found is None:
                    return False
                self._source = found
                return self._frozen() != refused
            except Exception as error:
                self._source = source
                raise _unfit(error, self._profile) from error
        # An assumed role is kept in a dictionary of the provider, from which a refresh would be served.
        chain = self._core.get_component("credential_provider")
        for provider in getattr(chain, "providers", ()):
            cache = getattr(provider, "cache", None)
            if isinstance(cache, dict):
                cache.clear()
        try:
            # There is no public way to say "expired"; in the past is what the clock would have made of it.
            source._expiry_time = datetime.now(UTC) - timedelta(minutes=1)
            return self._frozen() != refused
        except Exception as error:
            raise _unfit(error, self._profile) from error


def _unfit(error: Exception, profile: str | None) -> MfstoreError:
    """Whatever it was, it was about credentials: not about the key or request at hand."""
    found = local(error, profile)
    if isinstance(found, AccessDenied | BackendError):
        return found
    return AccessDenied(f"the AWS credentials could not be had: {found.message}", hint=found.hint)
