"""What the URL of a place in Azure says: ``az://container/key``, or ``abfss://container@account…/key``, which names the
account as well."""

from __future__ import annotations

import re

from mfstore.errors import InvalidKey
from mfstore.records import NamedTuple

SCHEMES = ("az", "abfss")
_CONTAINER = re.compile(r"\$root|\$web|\$logs|[a-z0-9](?:-?[a-z0-9]){2,62}")
"""Naming and referencing containers, blobs, and metadata (Microsoft Learn)."""
_HOST = re.compile(r"([a-z0-9]{3,24})(\.z[0-9]{1,2})?\.(?:blob|dfs)\.(.+)")
"""An account may have a zone of Azure's DNS: ``account.z12.blob.storage.azure.net``."""


class Location(NamedTuple):
    """Where a URL points to."""

    container: str
    key: str
    account: str = ""
    """Empty where the URL does not say."""
    endpoint: str = ""
    """That of the account's Blob service, where the URL names the account with its host."""


def locate(url: str) -> Location:
    """``az://container/key``, or ``abfss://container@account.dfs.core.windows.net/key``. InvalidKey for any other."""
    scheme, _, rest = url.partition("://")
    place, _, key = rest.partition("/")
    container, at, host = place.partition("@")
    if scheme not in SCHEMES or not container or (at and not host):
        raise InvalidKey(
            "a URL of Azure is az://container/key or abfss://container@account.dfs.core.windows.net/key",
            found=repr(without_query(url)),
        )  # fmt: skip
    check_container(container)
    if not at:
        return Location(container, key)
    if found := _HOST.fullmatch(host):
        # Both services of an account have the same objects; ours is the Blob service.
        return Location(container, key, found[1], f"https://{found[1]}{found[2] or ''}.blob.{found[3]}")
    if "." in host:
        raise InvalidKey("the host is that of no storage account", found=repr(host))
    return Location(container, key, host)


def check_container(name: str) -> None:
    """InvalidKey for what can be no container."""
    if not _CONTAINER.fullmatch(name):
        raise InvalidKey(
            "no name of a container", found=repr(name),
            hint="It has 3 to 63 lower-case letters, digits and single hyphens",
        )  # fmt: skip


def check_key(key: str) -> None:
    """InvalidKey for what cannot be the name of a blob, or is another's by the time it arrives."""
    if not key:
        raise InvalidKey("a blob needs a name", found=repr(key))
    if len(key) > 1024:
        raise InvalidKey("names of blobs have at most 1024 characters", key=key[:80] + "…")
    if any(part in (".", "..") for part in key.split("/")):
        raise InvalidKey("a part of this name is . or .., which URLs do not keep", key=key)
    if "\\" in key:
        raise InvalidKey("Azure takes a backslash for a slash", key=key)
    if key.endswith(".") or "./" in key:
        raise InvalidKey("Azure drops dots at the end of a name, and of its parts", key=key)


def without_query(text: str) -> str:
    """A URL without what follows its ``?``: a shared access signature is a secret."""
    return text.partition("?")[0]
