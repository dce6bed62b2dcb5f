"""Who Azure takes us for, and what an installation has to reach it: no secret is shown, and without a place nobody is
asked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from mfstore.doctor.claims import claims, until, whose
from mfstore.doctor.findings import Finding, bare
from mfstore.errors import MfstoreError

if TYPE_CHECKING:
    from mfstore.azure.control import AzureControlPlane

LETTERS = {
    "r": "read", "w": "write", "c": "create", "a": "add", "d": "delete", "l": "list", "x": "delete versions",
}  # fmt: skip
"""Of a shared access signature."""
IDENTITY_VARIABLES = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT")
TRY = "mfstore doctor az://container/prefix asks"


def azure() -> Iterator[Finding]:
    """The account, the endpoint, and where credentials come from."""
    from mfstore.azure.settings import AzureSettings

    there = find_spec("azure") is not None and find_spec("azure.identity") is not None
    found = _credentials(os.environ, there)
    if found is None:
        yield Finding("Azure", "nothing is set up for it: pip install 'mfstore[azure]', or set AZURE_STORAGE_KEY")
        return
    try:
        account = AzureSettings.given().account(os.environ)
        yield Finding("account", account.name or "none is named")
        yield Finding("endpoint", account.origin + account.root)
    except MfstoreError as error:
        yield Finding("account", f"{error.message}: a URL of abfss:// names one, or --account")
    yield found


def _credentials(environ: Mapping[str, str], there: bool) -> Finding | None:
    from mfstore.azure.settings import CONNECTION_VARIABLES, KEY_VARIABLES, SAS_VARIABLES

    secrets = (
        (CONNECTION_VARIABLES, "a connection string"), (KEY_VARIABLES, "the account's key"),
        (SAS_VARIABLES, "a shared access signature"),
    )  # fmt: skip
    for names, what in secrets:
        for name in names:
            if environ.get(name):
                return Finding("credentials", f"{what} (from {name})")
    if not there:
        return None
    named = [name for name in IDENTITY_VARIABLES if environ.get(name)]
    told = f" ({', '.join(named)} set)" if named else ""
    return Finding("credentials", f"whatever azure-identity finds{told}, which was not asked: {TRY}")


def identity(control: AzureControlPlane) -> Iterator[Finding]:
    """Who asks, of a place."""
    try:
        account = control.account
        keyring = control.keyring
        who = keyring.current()
    except MfstoreError as error:
        yield Finding("credentials", bare(error), "broken", error.hint or "")
        return
    yield Finding("account", account.name or account.origin, facts={"account": account.name or None})
    now = time.time()
    if keyring.by_key:
        yield Finding(
            "credentials", f"{_where(control)}the key of the account, which may do everything in it", "doubtful",
            "Who has it cannot be told from others, and no role limits it: let tasks log in by a managed identity, and "
            "give that what mfstore policy prints", facts={"method": "key"},
        )  # fmt: skip
    elif keyring.by_token:
        said = claims(dict(who.headers).get("authorization", "").removeprefix("Bearer "))
        kind = type(account.credential).__name__ if account.credential is not None else "azure-identity"
        yield Finding(
            "credentials", f"a token by {kind}{until(who.until, now)}", facts={"method": "token", "expires": who.until}
        )
        names = ("oid", "tid", "appid", "upn", "xms_mirid")
        facts = {name: said.get(name) for name in names if said.get(name)}
        yield Finding("identity", whose(said) if said else "the token does not tell", facts=facts)
    elif account.sas is not None and not account.anonymous:
        yield signature(account.sas, now)
    else:
        yield Finding("credentials", "none, as was asked for", facts={"method": "anonymous"})


def _where(control: AzureControlPlane) -> str:
    settings = control.settings
    if settings.account_key or settings.connection_string:
        return "given to this command: "
    found = _credentials(os.environ, True)
    source = found.text.rpartition("(")[2].rstrip(")") if found is not None else ""
    return f"{source}: " if source.startswith("from ") else ""


def signature(sas: str, now: float) -> Finding:
    """What a shared access signature allows, by what it says. Pure."""
    from mfstore.azure.credentials import end_of

    said = {name: values[0] for name, values in parse_qs(sas.lstrip("?")).items()}
    end = end_of(sas)
    letters = said.get("sp", "")
    may = ", ".join(LETTERS.get(letter, letter) for letter in letters) or "what a stored policy says"
    facts: dict[str, Any] = {"method": "sas", "permissions": letters or None, "policy": said.get("si")}
    facts["expires"] = None if end == float("inf") else end
    kind = "user delegation" if "skoid" in said else "account" if "ss" in said else "service"
    text = f"a shared access signature ({kind}) to {may}{until(end, now)}"
    if end <= now:
        return Finding(
            "credentials", text, "broken", "Have another one made: az storage container generate-sas", facts=facts
        )
    return Finding("credentials", text, facts=facts)


def settings_not_told(container: str) -> Sequence[Finding]:
    """What an account does with what is deleted, which it does not tell those who read its data."""
    show = "show --account-name ACCOUNT -g GROUP --query"
    return (
        Finding(
            "lifecycle", "not told to those who read data; mfstore policy judges what the account prints", "absent",
            fix=f"az storage account management-policy {show} policy > rules.json\n"
            f"mfstore policy auditor az://{container} --lifecycle --present rules.json",
        ),
        Finding(
            "soft delete", "not told to those who read data", "absent",
            fix=f"az storage account blob-service-properties {show} deleteRetentionPolicy",
        ),
    )  # fmt: skip
