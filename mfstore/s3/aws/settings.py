"""How to reach S3, as a user says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from mfstore.errors import NotSerializable
from mfstore.records import dataclass, field
from mfstore.s3.aws.errors import without_passwords
from mfstore.s3.aws.routes import Credentials

KEY_OPTIONS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
BOTO3_NAMES = {"region_name": "region", "profile_name": "profile"}


@dataclass(frozen=True, eq=False, slots=True)
class ConnectionSettings:
    """The arguments of a control plane. Compared by identity. Pickles unless it holds a session or a client, and
    without what is secret: keys, and passwords in the URLs of endpoint and proxies."""

    session: Any = None
    """A boto3, botocore or aiobotocore session. It is read, never changed."""
    endpoint_url: str | None = field(default=None, repr=False)
    region: str | None = None
    profile: str | None = None
    config: Any = None
    """A botocore ``Config``."""
    verify: bool | str | None = None
    """False: trust any certificate; a path: trust this bundle; None: as the environment and the profile say."""
    client: Any = None
    """A boto3 client, whose credentials, configuration and endpoint are used. It is read, never changed."""
    expected_bucket_owner: str | None = None
    request_payer: str | None = None
    anonymous: bool = False
    """Do not sign."""
    payload_signing: str | None = None
    """Whether bodies are signed: see ``mfstore.settings.payload_signing``."""
    client_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Whatever else botocore's ``create_client`` takes, keys included."""
    withheld: tuple[str, ...] = ()
    """Of unpickled ones: what was secret, and stayed behind."""

    @classmethod
    def given(cls, **arguments: Any) -> ConnectionSettings:
        """From keyword arguments: those that are named like the fields here, or as boto3 names them, and for
        ``create_client`` all others."""
        named: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for name, value in arguments.items():
            name = BOTO3_NAMES.get(name, name)
            (named if name in _NAMED else others)[name] = value
        return cls(**named, client_options=others)

    @property
    def every_request(self) -> dict[str, str]:
        """Parameters, by botocore's names, that all operations get that know them."""
        given = {"ExpectedBucketOwner": self.expected_bucket_owner, "RequestPayer": self.request_payer}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def keys(self) -> Credentials | None:
        """The keys that were given; None where they have to be looked for, or nothing is to be signed."""
        key, secret, token = (self.client_options.get(name) for name in KEY_OPTIONS)
        if self.anonymous or not (isinstance(key, str) and isinstance(secret, str) and key and secret):
            return None
        return Credentials(key, secret, token or None)

    def __reduce__(self) -> tuple[Any, ...]:
        for name in ("session", "client"):
            if getattr(self, name) is not None:
                raise NotSerializable(
                    f"an S3 client made from a {name} object cannot be pickled",
                    hint="Give profile=, region=, endpoint_url= and the like instead: they travel, credentials do not",
                )
        bare = self.without_secrets()
        return type(self), tuple(getattr(bare, one.name) for one in fields(self))

    def without_secrets(self) -> ConnectionSettings:
        """What of them may travel; ``withheld`` says what may not."""
        options = {name: value for name, value in self.client_options.items() if name not in KEY_OPTIONS}
        withheld = [name for name in KEY_OPTIONS if self.client_options.get(name)]
        endpoint = without_passwords(self.endpoint_url) if self.endpoint_url else self.endpoint_url
        if endpoint != self.endpoint_url:
            withheld.append("the password in endpoint_url")
        config, proxies = self.config, getattr(self.config, "proxies", None) or {}
        if any(without_passwords(str(url)) != url for url in proxies.values()):
            withheld.append("the password in proxies")
            bare = {scheme: without_passwords(str(url)) for scheme, url in proxies.items()}
            config = config.merge(type(config)(proxies=bare))
        return replace(
            self, endpoint_url=endpoint, config=config, client_options=options,
            withheld=tuple(dict.fromkeys((*self.withheld, *withheld))),
        )  # fmt: skip


_NAMED = frozenset(one.name for one in fields(ConnectionSettings)) - {"client_options"}
