"""How to reach an account of Azure, as a user says it: argument before environment before default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from mfstore.azure.urls import Location, locate, without_query
from mfstore.errors import InvalidKey, Unsupported
from mfstore.records import dataclass, field

SECRETS = ("account_key", "sas_token", "connection_string", "credential")
"""Arguments that say who asks, and that stay behind when the settings travel."""
ACCOUNT_VARIABLES = ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
KEY_VARIABLES = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY")
SAS_VARIABLES = ("AZURE_STORAGE_SAS_TOKEN",)
CONNECTION_VARIABLES = ("AZURE_STORAGE_CONNECTION_STRING",)
ENDPOINT_VARIABLES = ("AZURE_STORAGE_SERVICE_ENDPOINT",)
"""The Azure CLI's names first, then those of object_store and adlfs."""
OF_S3 = (
    "region", "region_name", "profile", "profile_name", "session", "client", "config", "aws_access_key_id",
    "aws_secret_access_key", "aws_session_token", "expected_bucket_owner", "request_payer", "payload_signing",
    "encryption", "kms_key", "bucket_key", "single_writer",
)  # fmt: skip
"""Options that only a place in S3 has."""
NO_ARGUMENTS = {"url", "withheld"}
EMULATOR_ACCOUNT = "devstoreaccount1"
# The emulators' account and key are the same everywhere, and documented: no secret.
EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
EMULATOR_ENDPOINT = f"http://127.0.0.1:10000/{EMULATOR_ACCOUNT}"


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """An account as requests need it."""

    name: str
    origin: str
    """``https://account.blob.core.windows.net``: scheme, host, and port if unusual."""
    root: str = ""
    """What precedes the container in paths: nothing, or ``/account`` (emulators, and hosts that are addresses)."""
    key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)
    credential: Any = field(default=None, repr=False)
    """An object with ``get_token``; None: whatever azure-identity finds."""
    anonymous: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class AzureSettings:
    """The arguments of a control plane. Compared by identity. Pickles without what is secret: keys, signatures,
    credential objects."""

    url: str | None = None
    """Of a container, or of what is in one: it may name the account."""
    account_name: str | None = None
    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    connection_string: str | None = field(default=None, repr=False)
    credential: Any = field(default=None, repr=False)
    anonymous: bool = False
    endpoint_url: str | None = field(default=None, repr=False)
    """That of the Blob service: ``https://account.blob.core.windows.net``, ``http://127.0.0.1:10000/account``."""
    verify: bool | str | None = None
    """False: trust any certificate; a path: trust this bundle; None: as the environment says."""
    withheld: tuple[str, ...] = ()
    """Of unpickled ones: what was secret, and stayed behind."""

    @classmethod
    def given(cls, **options: Any) -> AzureSettings:
        """From keyword arguments, named as the fields here. Unsupported for what S3 alone has; TypeError for what
        nobody has."""
        named = {one.name for one in fields(cls)}
        for name in options:
            if name in named:
                continue
            if name in OF_S3:
                raise Unsupported(
                    f"{name}= is for places in S3", hint="Azure's own: " + ", ".join(sorted(named - NO_ARGUMENTS))
                )
            raise TypeError(f"unknown option {name!r}")
        return cls(**options)

    def account(self, environ: Mapping[str, str]) -> Account:
        """The account that is meant. InvalidKey when nothing says which, or two things say different ones."""
        found = self._said(environ)
        where = locate(self.url) if self.url and "://" in self.url else Location("", "")
        named = where.account
        url = self.endpoint_url or found.get("BlobEndpoint") or where.endpoint or _first(environ, ENDPOINT_VARIABLES)
        name = self.account_name or found.get("AccountName") or named or _named_in(url)
        name = name or (_first(environ, ACCOUNT_VARIABLES) or "")
        if named and name != named:
            raise InvalidKey("the URL names another account than the options do", expected=name, found=named)
        if not name and not url:
            raise _unnamed()
        if not url:
            protocol = found.get("DefaultEndpointsProtocol", "https")
            url = f"{protocol}://{name}.blob.{found.get('EndpointSuffix', 'core.windows.net')}"
        origin, root, query = _endpoint(url, name)
        name = name or _named_in(url) or root.strip("/")
        if not name and found.get("AccountKey"):
            raise _unnamed()  # what a key signs names the account
        return Account(
            name, origin, root, found.get("AccountKey"),
            found.get("SharedAccessSignature") or query or None, self.credential, self.anonymous,
        )  # fmt: skip

    def _said(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What says who asks, by the names of connection strings: the arguments, or, where there are none, the
        environment."""
        if self.anonymous:
            text = self.connection_string or _first(environ, CONNECTION_VARIABLES)
            return {name: value for name, value in _parts(text).items() if name not in _SECRET_PARTS}
        given = self.connection_string or self.account_key or self.sas_token or self.credential is not None
        if given:
            found = _parts(self.connection_string)
            key, sas = self.account_key, self.sas_token
        else:
            found = _parts(_first(environ, CONNECTION_VARIABLES))
            if found and self.account_name and found.get("AccountName") not in (None, self.account_name):
                found = {}  # of another account than the one that is meant
            key, sas = _first(environ, KEY_VARIABLES), _first(environ, SAS_VARIABLES)
        if key:
            found["AccountKey"] = key
        if sas:
            found["SharedAccessSignature"] = sas.lstrip("?")
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        bare = self.without_secrets()
        return type(self), tuple(getattr(bare, one.name) for one in fields(self))

    def without_secrets(self) -> AzureSettings:
        """What of them may travel; ``withheld`` says what may not. Account and endpoint travel, wherever they were
        named."""
        withheld = [name for name in SECRETS if getattr(self, name)]
        said = _parts(self.connection_string)
        endpoint = self.endpoint_url or said.get("BlobEndpoint")
        if not endpoint and said.get("EndpointSuffix") and said.get("AccountName"):
            protocol = said.get("DefaultEndpointsProtocol", "https")
            endpoint = f"{protocol}://{said['AccountName']}.blob.{said['EndpointSuffix']}"
        if endpoint and without_query(endpoint) != endpoint:
            withheld.append("the signature in endpoint_url")
            endpoint = without_query(endpoint)
        return replace(
            self, account_name=self.account_name or said.get("AccountName"), account_key=None, sas_token=None,
            connection_string=None, credential=None, endpoint_url=endpoint,
            withheld=tuple(dict.fromkeys((*self.withheld, *withheld))),
        )  # fmt: skip


_SECRET_PARTS = ("AccountKey", "SharedAccessSignature")
_NAMES = {
    name.lower(): name
    for name in (
        "AccountName", "AccountKey", "SharedAccessSignature", "BlobEndpoint", "EndpointSuffix",
        "DefaultEndpointsProtocol", "UseDevelopmentStorage",
    )
}  # fmt: skip


def _parts(text: str | None) -> dict[str, str]:
    """What a connection string says. InvalidKey, which shows nothing of it, for what is none."""
    found: dict[str, str] = {}
    for part in (text or "").split(";"):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        if not equals:
            raise InvalidKey(
                "no connection string: it is Name=value;Name=value", hint="The portal shows it under Access keys"
            )
        if (known := _NAMES.get(name.strip().lower())) is not None:
            found[known] = value.strip()
    if found.get("UseDevelopmentStorage", "").lower() == "true":
        return {"AccountName": EMULATOR_ACCOUNT, "AccountKey": EMULATOR_KEY, "BlobEndpoint": EMULATOR_ENDPOINT}
    return found


def _unnamed() -> InvalidKey:
    return InvalidKey(
        "which storage account is not said",
        hint="Give account_name= or connection_string=, or set AZURE_STORAGE_ACCOUNT; or name it in the URL: "
        "abfss://container@account.dfs.core.windows.net/path",
    )


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


_ACCOUNT_HOST = re.compile(r"([a-z0-9]{3,24})(?:-secondary)?(?:\.z[0-9]{1,2})?\.blob\..+")
_ADDRESS = re.compile(r"[0-9.]+|\[.*\]|localhost|[^.]+")
"""Hosts below which the account is the first part of the path: addresses, and names without a domain (containers)."""


def _named_in(url: str | None) -> str:
    """The account that an endpoint's host names."""
    found = _ACCOUNT_HOST.fullmatch(urlsplit(url or "").hostname or "")
    return found[1] if found else ""


def _endpoint(url: str, name: str) -> tuple[str, str, str]:
    """Origin, what precedes containers in paths, and query of an endpoint. InvalidKey for what is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise InvalidKey(
            "no endpoint of a Blob service: it is a URL of http or https, with no user in it",
            found=repr(without_query(url.rpartition("@")[2])),
        )  # fmt: skip
    root = unquote(parts.path).rstrip("/")
    if not root and name and _ADDRESS.fullmatch(parts.hostname):
        root = f"/{name}"
    return f"{parts.scheme}://{parts.netloc}", root, parts.query
