"""Who Google Cloud takes us for, and what an installation has to reach it: no secret is shown, and without a place
nobody is asked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfstore.doctor.claims import claims, until, whose
from mfstore.doctor.findings import Finding, bare
from mfstore.errors import MfstoreError

if TYPE_CHECKING:
    from mfstore.gcs.control import GcsControlPlane

KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
TRY = "mfstore doctor gs://bucket/prefix asks"


def google() -> Iterator[Finding]:
    """The endpoint, and where credentials come from."""
    from mfstore.gcs.settings import EMULATOR, GcsSettings

    place = GcsSettings().place(os.environ)
    there = find_spec("google") is not None and find_spec("google.auth") is not None
    if place.emulated:
        yield Finding(
            "endpoint", f"{place.origin}, an emulator that {EMULATOR} names: no credentials are sent", "doubtful",
            f"Unset {EMULATOR} to reach Google",
        )  # fmt: skip
        return
    if not there:
        yield Finding("Google Cloud", "nothing is set up for it: pip install 'mfstore[gcs]'")
        return
    yield Finding("endpoint", place.origin)
    named = os.environ.get(KEY_FILE)
    if named and not Path(named).is_file():
        yield Finding("credentials", f"{KEY_FILE} names {named}, which is not there", "broken", f"Unset {KEY_FILE}")
    elif named:
        yield Finding("credentials", f"of {named} (from {KEY_FILE})")
    else:
        yield Finding("credentials", f"whatever google-auth finds, which was not asked: {TRY}")


def identity(control: GcsControlPlane) -> Iterator[Finding]:
    """Who asks, of a place."""
    settings = control.settings
    try:
        access = control.keyring.current()
    except MfstoreError as error:
        yield Finding("credentials", bare(error), "broken", error.hint or "")
        return
    if not access.headers:
        told = "none, as was asked for" if settings.anonymous else "none: an emulator is asked"
        yield Finding("credentials", told, facts={"method": "anonymous"})
        return
    left = until(access.expires, time.time())
    if settings.token is not None:
        said = claims(dict(access.headers)["authorization"].removeprefix("Bearer "))
        yield Finding(
            "credentials", f"a token that was given{left}", facts={"method": "token", "expires": access.expires}
        )
        yield Finding("identity", whose(said) if said else "a token of Google does not tell", facts=_named(said))
        return
    found = control.keyring.found
    kind = f"{type(found).__module__.rpartition('.')[2]}.{type(found).__name__}"
    yield Finding("credentials", f"{kind} of google-auth{left}", facts={"method": kind, "expires": access.expires})
    who = principal(found)
    paying = getattr(found, "quota_project_id", None)
    more = f", paid by the project {paying}" if paying else ""
    yield Finding(
        "identity", f"{who or 'not told by these credentials'}{more}", facts={"principal": who, "project": paying}
    )


def principal(credentials: Any) -> str | None:
    """Whom credentials of google-auth name: as IAM writes it, as far as they know."""
    email = getattr(credentials, "service_account_email", None)
    if email and email != "default":
        return f"serviceAccount:{email}"
    account = getattr(credentials, "account", None) or getattr(credentials, "signer_email", None)
    return f"user:{account}" if account else None


def _named(said: Any) -> dict[str, Any]:
    return {name: said[name] for name in ("email", "sub") if said.get(name)}
