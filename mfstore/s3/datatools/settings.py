"""What a client for ``mfstore.S3`` is made of: Metaflow's configuration, also where there is no Metaflow, and what was
asked for besides."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mfstore.errors import InvalidKey, NotSerializable
from mfstore.records import NamedTuple
from mfstore.settings import EncryptionKnobs, resolve_encryption, resolve_place

_DEFAULTS: Mapping[str, Any] = {
    "S3_RETRY_COUNT": 7, "S3_TRANSIENT_RETRY_COUNT": 20, "S3_WORKER_COUNT": 64, "TEMPDIR": ".",
    "DATATOOLS_SUFFIX": "data", "DATATOOLS_CLIENT_PARAMS": {}, "DATATOOLS_SESSION_VARS": {},
    "DEFAULT_AWS_CLIENT_PROVIDER": "boto3", "AWS_SANDBOX_ENABLED": False,
}  # fmt: skip
"""Metaflow's own. What is not listed is None."""


class Settings(NamedTuple):
    """What Metaflow's ``METAFLOW_…`` variables and files say."""

    root: str | None
    """``DATATOOLS_S3ROOT``, by default ``DATASTORE_SYSROOT_S3`` and ``DATATOOLS_SUFFIX``."""
    temporary: str
    """``TEMPDIR``"""
    encryption: EncryptionKnobs
    """``MFSTORE_ENCRYPTION`` and ``MFSTORE_KMS_KEY``, else ``S3_SERVER_SIDE_ENCRYPTION``, else mfstore's own knobs."""
    client_params: Mapping[str, Any]
    """``DATATOOLS_CLIENT_PARAMS`` with ``S3_ENDPOINT_URL`` and ``S3_VERIFY_CERTIFICATE``"""
    session_vars: Mapping[str, Any]
    """``DATATOOLS_SESSION_VARS``"""
    attempts: int
    """One more than the larger of ``S3_RETRY_COUNT`` and ``S3_TRANSIENT_RETRY_COUNT``."""
    workers: int | None
    """``S3_WORKER_COUNT``; None where nobody changed it."""
    provider: bool
    """Whether clients have to come from Metaflow: ``DEFAULT_AWS_CLIENT_PROVIDER`` or the sandbox."""


class ClientSettings(NamedTuple):
    """What a client is made of: what is ``configured``, and what an S3 was asked for instead (None: nothing)."""

    configured: Settings
    role: str | None = None
    """ARN of the role to assume."""
    session_vars: Mapping[str, Any] | None = None
    """Variables of the botocore session."""
    client_params: Mapping[str, Any] | None = None
    """Arguments of boto3's ``client``."""
    external_client: Any = None
    """A boto3 client, or what has one as ``client``: it replaces these three."""
    failure_rate: float = 0.0
    """Per cent of the tries that fail on purpose."""
    engine: str | None = None
    """This and what follows: as of ``BulkClient``."""
    concurrency: int | None = None
    memory: int | None = None
    max_bandwidth: float | None = None
    attempts: int | None = None
    retry_seconds: float | None = None
    payload_signing: str | None = None
    encryption: EncryptionKnobs | None = None
    withheld: tuple[str, ...] = ()
    """Of an unpickled S3: what was secret, and stayed behind."""

    def without_secrets(self) -> ClientSettings:
        """What may be pickled: neither keys nor passwords in URLs. NotSerializable for an external client."""
        if self.external_client is not None:
            raise NotSerializable(
                "an S3 made from a client object cannot be pickled",
                hint="Give client_params= and the like instead: they travel, credentials do not",
            )
        held: list[str] = list(self.withheld)
        left = [_without_secrets(given, held) for given in (self.client_params, self.session_vars)]
        return self._replace(client_params=left[0], session_vars=left[1], withheld=tuple(dict.fromkeys(held)))

    @property
    def transfer_arguments(self) -> dict[str, Any]:
        """BulkClient's arguments that do not concern where S3 is: asked for, else configured, else left out."""
        given = {"attempts": self.configured.attempts, "concurrency": self.configured.workers}
        for name in (
            "engine", "concurrency", "memory", "max_bandwidth", "attempts", "retry_seconds", "payload_signing",
        ):  # fmt: skip
            if getattr(self, name) is not None:
                given[name] = getattr(self, name)
        return given


def _without_secrets(given: Mapping[str, Any] | None, held: list[str]) -> Mapping[str, Any] | None:
    """``given`` without what is secret, the names of which are added to ``held``."""
    if given is None:
        return None
    from mfstore.s3.aws.errors import without_passwords
    from mfstore.s3.aws.settings import KEY_OPTIONS

    left = {}
    for name, value in given.items():
        bare = without_passwords(value) if isinstance(value, str) else value
        if name in KEY_OPTIONS:
            held.append(name)
        else:
            left[name] = bare
            if bare != value:
                held.append(f"the password in {name}")
    return left


def settings(place: str | None = None) -> Settings:
    """The settings now: of Metaflow when it is loaded, else read as Metaflow does, from the environment,
    ``.metaflow/config.json`` here or above, and ``~/.metaflowconfig/config.json`` (``METAFLOW_HOME``,
    ``METAFLOW_PROFILE``). What they do not say, mfstore's configuration file says of ``place``: the datastore's root,
    unless it is another. InvalidKey, naming the variable, for values that make no sense."""
    source = _source()
    place = place or source.get("DATASTORE_SYSROOT_S3")
    root = source.get("DATATOOLS_S3ROOT")
    if root is None and source.get("DATASTORE_SYSROOT_S3"):
        root = os.path.join(source.get("DATASTORE_SYSROOT_S3"), source.get("DATATOOLS_SUFFIX"))  # noqa: PTH118
    params = dict(_mapping("DATATOOLS_CLIENT_PARAMS", source.get("DATATOOLS_CLIENT_PARAMS")))
    if source.get("S3_ENDPOINT_URL"):
        params.setdefault("endpoint_url", source.get("S3_ENDPOINT_URL"))
    if source.get("S3_VERIFY_CERTIFICATE"):
        params["verify"] = source.get("S3_VERIFY_CERTIFICATE")
    provider = source.get("DEFAULT_AWS_CLIENT_PROVIDER") != "boto3" or bool(source.get("AWS_SANDBOX_ENABLED"))
    if place and not provider:
        params = {**resolve_place(place).options("s3"), **params}
    workers = _whole("S3_WORKER_COUNT", source.get("S3_WORKER_COUNT"))
    retries = [_whole(name, source.get(name)) for name in ("S3_RETRY_COUNT", "S3_TRANSIENT_RETRY_COUNT")]
    return Settings(
        root=root,
        temporary=source.get("TEMPDIR"),
        encryption=resolve_encryption(
            source.get("MFSTORE_ENCRYPTION") or source.get("S3_SERVER_SIDE_ENCRYPTION") or None,
            source.get("MFSTORE_KMS_KEY") or None,
            place=place,
        ),
        client_params=params,
        session_vars=_mapping("DATATOOLS_SESSION_VARS", source.get("DATATOOLS_SESSION_VARS")),
        attempts=max(retries) + 1,
        workers=workers if workers != _DEFAULTS["S3_WORKER_COUNT"] else None,
        provider=provider,
    )


def setting(name: str) -> Any:
    """One setting of Metaflow's, by its name without ``METAFLOW_``, from where ``settings`` reads them; None where
    nothing says it."""
    return _source().get(name)


def _source() -> _Loaded | _Files:
    loaded = sys.modules.get("metaflow.metaflow_config")
    return _Loaded(loaded) if loaded is not None and hasattr(loaded, "DATATOOLS_CLIENT_PARAMS") else _Files()


class _Loaded:
    """Metaflow's own modules. What its S3 module has is what its users patch."""

    def __init__(self, config: Any) -> None:
        self._modules = [sys.modules.get("metaflow.plugins.datatools.s3.s3"), config]

    def get(self, name: str) -> Any:
        if name.startswith("MFSTORE_"):
            from metaflow.metaflow_config_funcs import from_conf

            return from_conf(name)
        for module in self._modules:
            if hasattr(module, name):
                return getattr(module, name)
        return _DEFAULTS.get(name)


class _Files:
    """Environment and files, the first that names a setting."""

    def __init__(self) -> None:
        self._files = [_nearby(), _home()]

    def get(self, name: str) -> Any:
        variable = f"METAFLOW_{name}"
        default = _DEFAULTS.get(name)
        for mapping in (os.environ, *self._files):
            if variable in mapping:
                value = mapping[variable]
                return value.lower() not in ("0", "false", "") if default is False and isinstance(value, str) else value
        return default


def _nearby() -> Mapping[str, Any]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".metaflow").is_dir():
            return _read(folder / ".metaflow" / "config.json")
    return {}


def _home() -> Mapping[str, Any]:
    profile = os.environ.get("METAFLOW_PROFILE")
    folder = Path(os.environ.get("METAFLOW_HOME", "~/.metaflowconfig")).expanduser()
    path = folder / (f"config_{profile}.json" if profile else "config.json")
    if profile and not path.exists():
        raise InvalidKey(f"there is no METAFLOW_PROFILE {profile!r}", expected=str(path))
    return _read(path)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return _mapping(str(path), text)


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise InvalidKey(f"{_said(name)} is not JSON", found=repr(value[:80])) from None
    if not isinstance(value, Mapping):
        raise InvalidKey(f"{_said(name)} must be a JSON object", found=repr(value)[:80])
    return value


def _whole(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InvalidKey(f"{_said(name)} must be a whole number", found=repr(value)) from None


def _said(name: str) -> str:
    return f"METAFLOW_{name}" if name.isupper() else name
