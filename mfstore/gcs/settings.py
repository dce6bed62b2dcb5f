"""How to reach Google Cloud Storage, as a user says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import FunctionType
from typing import Any
from urllib.parse import urlsplit

from mfstore.errors import InvalidKey, NotSerializable, Unsupported
from mfstore.records import NamedTuple, dataclass, field
from mfstore.s3.aws.errors import without_passwords

ENDPOINT = "https://storage.googleapis.com"
EMULATOR = "STORAGE_EMULATOR_HOST"
PROJECT = "GOOGLE_CLOUD_PROJECT"


class Place(NamedTuple):
    """Where the service is."""

    origin: str
    """Scheme, host, and port if unusual."""
    emulated: bool
    """Whether the environment names an emulator, which asks for no credentials."""
    project: str | None
    """For people."""


@dataclass(frozen=True, eq=False, slots=True)
class GcsSettings:
    """The arguments of a control plane, as they were given: the environment is not in them. Compared by identity.
    Pickles without what is secret: a token that was given, and a password in the endpoint."""

    credentials: Any = field(default=None, repr=False)
    """Of google-auth; None: ``google.auth.default``."""
    token: Any = field(default=None, repr=False)
    """An access token; or a function that returns one, alone or with the time at which it expires."""
    anonymous: bool = False
    """Send no credentials."""
    project: str | None = None
    """The project of the bucket, which errors name."""
    user_project: str | None = None
    """The project that pays for requests, where the bucket's owner does not."""
    endpoint_url: str | None = field(default=None, repr=False)
    verify: bool | str | None = None
    """False: trust any certificate; a path: trust this bundle; None: as the environment says."""
    withheld: tuple[str, ...] = ()
    """Of unpickled ones: what was secret, and stayed behind."""

    @classmethod
    def given(cls, url: str | None = None, **options: Any) -> GcsSettings:
        """From keyword arguments, and the URL of a bucket, which says nothing of them. Unsupported for one that Google
        Cloud Storage does not have."""
        known = [one.name for one in fields(cls)]
        for name, value in options.items():
            if name not in known and value is not None:
                raise Unsupported(
                    f"{name} is no option of gs://", found=url,
                    hint=f"There are {', '.join(name for name in known if name != 'withheld')}",
                )  # fmt: skip
        settings = cls(**{name: value for name, value in options.items() if name in known})
        named = [name for name in ("credentials", "token", "anonymous") if getattr(settings, name)]
        if len(named) > 1:
            raise Unsupported(f"{' and '.join(named)} exclude each other", hint="Give one of them")
        return settings

    def place(self, environ: Mapping[str, str]) -> Place:
        """Where requests go: as given, else as the environment says, else Google. InvalidKey for what is no endpoint:
        reads would go elsewhere than writes."""
        emulator = environ.get(EMULATOR) if self.endpoint_url is None else None
        text = self.endpoint_url or emulator or ENDPOINT
        scheme, _, host = (text if "://" in text else f"http://{text}").partition("://")
        origin = f"{scheme}://{host.rstrip('/')}"
        if not _is_origin(origin):
            named = "endpoint_url=" if emulator is None else EMULATOR
            raise InvalidKey(
                "no endpoint of Google Cloud Storage: it is http or https, a host and perhaps a port",
                found=repr(without_passwords(origin).partition("?")[0]), hint=f"It comes from {named}",
            )  # fmt: skip
        return Place(origin, bool(emulator), self.project or environ.get(PROJECT) or None)

    def __reduce__(self) -> tuple[Any, ...]:
        bare = self.without_secrets()
        return type(self), tuple(getattr(bare, one.name) for one in fields(self))

    def without_secrets(self) -> GcsSettings:
        """What of them may travel; ``withheld`` says what may not. NotSerializable with an object that may hold
        secrets."""
        held = "credentials" if self.credentials is not None else "token"
        if self.credentials is not None or not isinstance(self.token, str | FunctionType | None):
            raise NotSerializable(
                f"a client of Google Cloud Storage made from a {held} object cannot be pickled",
                hint="Set GOOGLE_APPLICATION_CREDENTIALS, or give token= a function of a module: these travel",
            )
        endpoint = without_passwords(self.endpoint_url) if self.endpoint_url else self.endpoint_url
        withheld = [*self.withheld]
        if endpoint != self.endpoint_url:
            withheld.append("the password in endpoint_url")
        if isinstance(self.token, str):
            withheld.append("token")
        token = None if isinstance(self.token, str) else self.token
        return replace(self, token=token, endpoint_url=endpoint, withheld=tuple(dict.fromkeys(withheld)))


def _is_origin(text: str) -> bool:
    parts = urlsplit(text)
    try:
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return sound and parts.scheme in ("http", "https") and not (parts.path or parts.query or parts.fragment)
