"""Every tunable, in one place: argument > environment > configuration file > default."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, overload

from mfstore.records import NamedTuple

if TYPE_CHECKING:
    from mfstore.allow import Allow

FSYNC_POLICIES = ("none", "batch", "always")
COMPRESSIONS = ("fast", "balanced", "small", "off")
"""How hard chunks are compressed."""
PROFILES = ("stock", "packed")
"""In which form artifacts of Metaflow's flows are written."""
FORMER_PROFILES = {"native": "packed"}
"""Names that profiles had once; they stay accepted wherever a profile is named."""
ENGINES = ("auto", "native", "aiobotocore")
PAYLOAD_SIGNING = ("auto", "always", "never")
ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
"""How S3 encrypts what it stores."""
MOST_BANDWIDTH = 1e15
CACHE_BYTES = 10 << 30
"""What the cache of a host takes where somebody names its directory and says no more."""
VARIABLES: Mapping[str, type | tuple[type, ...]] = {
    "MFSTORE_BUCKET_KEY": bool, "MFSTORE_CACHE": str, "MFSTORE_CACHE_SIZE": int, "MFSTORE_COMPRESS": str,
    "MFSTORE_DELTA": bool, "MFSTORE_ENCRYPTION": str, "MFSTORE_EXPIRE_DAYS": int, "MFSTORE_FSYNC": str,
    "MFSTORE_KMS_KEY": str, "MFSTORE_MAP": bool, "MFSTORE_MEMORY": int, "MFSTORE_OTEL": bool, "MFSTORE_RECORD": bool,
    "MFSTORE_S3_CONCURRENCY": int, "MFSTORE_S3_ENGINE": str, "MFSTORE_S3_PAYLOAD_SIGNING": str,
    "MFSTORE_SAFE": (bool, str), "MFSTORE_THREADS": int, "MFSTORE_VERIFY": bool,
}  # fmt: skip
"""What is read from the environment, and its type in a configuration file, where ``MFSTORE_THREADS`` is ``threads``."""
STORE = "store"
"""The key of a configuration file that is ``MFSTORE_STORE`` in the environment: the store of the command line."""
OF_PLACES: Mapping[str, type] = {
    "endpoint_url": str, "region": str, "profile": str, "single_writer": bool, "account": str,
}  # fmt: skip
"""What a configuration file says of a place alone."""


class Configuration(NamedTuple):
    """What a configuration file says."""

    path: str | None = None
    """None: there is none."""
    knobs: Mapping[str, Any] = {}
    places: Mapping[str, Mapping[str, Any]] = {}
    """By URL, or path of a directory, without a slash at its end."""

    def of(self, place: str | None) -> Mapping[str, tuple[str, Any, int]]:
        """By key, who says it, what, and the length of the place that it is said of (0: of all), for a place: what its
        own tables say, that of the longest name before others, and before them what holds everywhere."""
        if self.path is None:
            return {}
        found = {name: (f"{self.path}: {name}", value, 0) for name, value in self.knobs.items()}
        if place is not None and self.places:
            from mfstore.configuration import place_of

            inside = f"{place_of(place)}/"
            for url in sorted((url for url in self.places if inside.startswith(f"{url}/")), key=len):
                table = self.places[url].items()
                found.update((name, (f"{self.path}: {name} of {url}", value, 1 + len(url))) for name, value in table)
        return found


NO_CONFIGURATION = Configuration()


def configuration() -> Configuration:
    """What the configuration file says: that of ``MFSTORE_CONFIG``, empty for none, else ``mfstore/config.toml`` in
    ``XDG_CONFIG_HOME`` or ``~/.config``. It is read once in a process. InvalidKey (naming file and key) for what it may
    not say, NotFound where the variable names none, AccessDenied where it may not be read."""
    said = os.environ.get
    return _configuration(said("MFSTORE_CONFIG"), said("XDG_CONFIG_HOME"), said("HOME"))


@lru_cache(8)
def _configuration(named: str | None, directory: str | None, home: str | None) -> Configuration:
    if named == "":
        return NO_CONFIGURATION
    if not directory or not directory.startswith("/"):
        directory = f"{home}/.config" if home else None
    path = named or (directory and f"{directory}/mfstore/config.toml")
    if not path:
        return NO_CONFIGURATION
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        # Of a home that this process may not look into nobody can say what is there.
        if not named and (not isinstance(error, PermissionError) or not os.path.lexists(path)):
            return NO_CONFIGURATION
        from mfstore.errors import AccessDenied, NotFound

        kind = NotFound if isinstance(error, FileNotFoundError) else AccessDenied
        hint = "MFSTORE_CONFIG= (empty) does without" if named else "Make it readable, or set MFSTORE_CONFIG= (empty)"
        raise kind(f"the configuration file {path} cannot be read: {error.strerror}", hint=hint) from None
    with file:
        from mfstore.configuration import read

        everywhere = {_key(name): kind for name, kind in VARIABLES.items()}
        return Configuration(path, *read(path, file, everywhere, OF_PLACES, {STORE: str}))


class _Said:
    """What environment and configuration file say, for a place."""

    __slots__ = ("_file",)

    def __init__(self, place: str | None = None) -> None:
        found = configuration()
        self._file = found.of(place) if found.path is not None else None

    def find(self, variable: str) -> tuple[str, Any] | None:
        """Who says it and what: texts from the environment, values from a file. None: nobody."""
        text = os.environ.get(variable)
        if text is not None:
            return variable, text
        found = self._in_file(variable)
        return None if found is None else found[:2]

    def rank(self, variable: str, given: object) -> tuple[int, int]:
        """How far above others it is said: as an argument, in the environment, in the file (of a place with a longer
        name above one with a shorter one), nowhere."""
        if given is not None:
            return 3, 0
        if variable in os.environ:
            return 2, 0
        found = self._in_file(variable)
        return (0, 0) if found is None else (1, found[2])

    def _in_file(self, variable: str) -> tuple[str, Any, int] | None:
        return self._file.get(_key(variable)) if self._file else None

    def text(self, variable: str) -> Any:
        found = self.find(variable)
        return None if found is None else found[1]

    @overload
    def number(self, name: str, variable: str, given: int | None, default: int, low: int, high: int) -> int: ...
    @overload
    def number(self, name: str, variable: str, given: int | None, default: None, low: int, high: int) -> int | None: ...
    def number(
        self, name: str, variable: str, given: int | None, default: int | None, low: int, high: int
    ) -> int | None:
        source, value = name, given
        if value is None:
            found = self.find(variable)
            if found is None:
                return default
            source = found[0]
            try:
                value = int(found[1])
            except ValueError:
                raise _invalid(f"{source} must be a whole number", repr(found[1])) from None
        if not low <= value <= high:
            raise _invalid(f"{source} is out of range", value, f"{low} to {high}")
        return value

    @overload
    def flag(self, variable: str, given: bool | None, default: bool) -> bool: ...
    @overload
    def flag(self, variable: str, given: bool | None, default: None) -> bool | None: ...
    def flag(self, variable: str, given: bool | None, default: bool | None) -> bool | None:
        if given is not None:
            return bool(given)
        found = self.find(variable)
        if found is None:
            return default
        word = str(found[1]).lower()
        if word not in WORDS:
            raise _invalid(f"{found[0]} must be 0 or 1", repr(found[1]))
        return WORDS[word]

    def choice(self, name: str, variable: str, given: str | None, default: str, allowed: tuple[str, ...]) -> str:
        source, value = (name, given) if given is not None else self.find(variable) or (variable, default)
        if value not in allowed:
            raise _invalid(f"{source} must be one of {', '.join(allowed)}", repr(value))
        return value


def _key(variable: str) -> str:
    """What a variable is called in a file."""
    return variable[len("MFSTORE_") :].lower()


WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class Knobs(NamedTuple):
    """Settings of one store handle."""

    threads: int
    """Threads for hashing, codecs and reads. ``MFSTORE_THREADS``; default: the CPUs this process may use."""
    memory: int
    """Bytes of extra memory one operation may hold. ``MFSTORE_MEMORY``; default 256 MiB."""
    verify: bool
    """Check digests on every read. ``MFSTORE_VERIFY``; default on."""
    fsync: str
    """Local durability: none, batch or always. ``MFSTORE_FSYNC``; default batch."""
    expire_days: int | None
    """Something else (a lifecycle rule, a clean-up job) removes objects of this age: what a save relies on is made
    young again in time. ``MFSTORE_EXPIRE_DAYS``; default: what S3 says of its own rules."""
    map: bool | None = None
    """Map large raw arrays out of local files instead of reading them. ``MFSTORE_MAP``; default None: unless the files
    lie on a network file system."""
    delta: bool = True
    """Store what has a counterpart in the base that a save names as what differs from it. ``MFSTORE_DELTA``; default
    on."""
    cache: str | None = None
    """Directory where this host keeps what it has read in S3, for all processes of this user. ``MFSTORE_CACHE``, empty
    for none; default None: parts of indexes alone, in one below the temporary directory that only this user may
    read."""
    cache_size: int = CACHE_BYTES
    """Bytes that contents of artifacts take there at most; 0: none are kept. ``MFSTORE_CACHE_SIZE``; default 10 GiB."""
    compress: str = "balanced"
    """How hard chunks are compressed: fast, balanced, small or off. ``MFSTORE_COMPRESS``; default balanced."""
    record: bool = True
    """Record with each artifact who stored it, when, and with which versions of Python, mfstore and libraries.
    ``MFSTORE_RECORD``; default on."""
    safe: Allow | None = None
    """Load data alone, and what is on this list. ``MFSTORE_SAFE``: 1 for nothing but data, or names with commas between
    them; default None: whatever was stored."""

    @property
    def builds(self) -> bool:
        """Whether saves build upon what they name as a base: not where nothing is compressed, as reading would cost
        more than nothing then."""
        return self.delta and self.compress != "off"


def resolve(
    threads: int | None = None,
    memory: int | None = None,
    verify: bool | None = None,
    fsync: str | None = None,
    expire_days: int | None = None,
    map: bool | None = None,  # noqa: A002
    delta: bool | None = None,
    compress: str | bool | None = None,
    record: bool | None = None,
    safe: bool | Allow | None = None,
    place: str | None = None,
    cache: str | None = None,
    cache_size: int | None = None,
) -> Knobs:
    """The knobs in force, at a place. InvalidKey (naming the source) when one is out of range."""
    said = _Said(place)
    return Knobs(
        threads=said.number("threads", "MFSTORE_THREADS", threads, usable_cpus(), 1, 256),
        memory=said.number("memory", "MFSTORE_MEMORY", memory, 256 << 20, 32 << 20, 1 << 46),
        verify=said.flag("MFSTORE_VERIFY", verify, True),
        fsync=said.choice("fsync", "MFSTORE_FSYNC", fsync, "batch", FSYNC_POLICIES),
        expire_days=said.number("expire_days", "MFSTORE_EXPIRE_DAYS", expire_days, 0, 0, 36500) or None,
        map=said.flag("MFSTORE_MAP", map, None),
        delta=said.flag("MFSTORE_DELTA", delta, True),
        cache=_one_place(said.text("MFSTORE_CACHE") if cache is None else cache),
        cache_size=said.number("cache_size", "MFSTORE_CACHE_SIZE", cache_size, CACHE_BYTES, 0, 1 << 60),
        compress=said.choice("compress", "MFSTORE_COMPRESS", _compression(compress), "balanced", COMPRESSIONS),
        record=said.flag("MFSTORE_RECORD", record, True),
        safe=_safe(safe, said.find("MFSTORE_SAFE")),
    )


def records(given: bool | None = None) -> bool:
    """Whether it is recorded who stored something, and with what: ``MFSTORE_RECORD``; default on."""
    return _Said().flag("MFSTORE_RECORD", given, True)


def telemetry(place: str | None = None) -> bool:
    """Whether stores that are opened there are observed by OpenTelemetry: ``MFSTORE_OTEL``; default off."""
    return _Said(place).flag("MFSTORE_OTEL", None, False)


def payload_signing(given: str | None = None, place: str | None = None) -> str:
    """Whether a body's SHA-256 is signed with the request: always, never, or auto, as AWS's SDKs have it: over http,
    and not over https where a checksum goes with the body. ``MFSTORE_S3_PAYLOAD_SIGNING``; default auto, which also
    heeds ``payload_signing_enabled`` of botocore's configuration. InvalidKey for another word."""
    return _Said(place).choice("payload_signing", "MFSTORE_S3_PAYLOAD_SIGNING", given, "auto", PAYLOAD_SIGNING)


def bandwidth(given: float | None) -> float | None:
    """The most bytes per second; None, as 0 and infinity are, for as many as can be. InvalidKey for what is no rate."""
    try:
        rate = float(given or "inf")
    except (TypeError, ValueError, OverflowError):
        rate = 0.0
    if rate == float("inf"):
        return None
    if not 1 <= rate <= MOST_BANDWIDTH:
        raise _invalid("max_bandwidth is bytes per second", f"{given!r:.40}", f"1 to {MOST_BANDWIDTH:.0e}")
    return rate


class S3Knobs(NamedTuple):
    """Settings of one S3 client."""

    engine: str
    """auto, native or aiobotocore. ``MFSTORE_S3_ENGINE``; default auto."""
    concurrency: int | None
    """Requests in flight. ``MFSTORE_S3_CONCURRENCY``; default: found by measuring."""
    memory: int
    """Bytes of results that may wait to be taken. ``MFSTORE_MEMORY``; default 256 MiB."""


def resolve_s3(
    engine: str | None = None, concurrency: int | None = None, memory: int | None = None, place: str | None = None
) -> S3Knobs:
    """The S3 knobs in force, at a place. InvalidKey (naming the source) when one is out of range."""
    said = _Said(place)
    return S3Knobs(
        engine=said.choice("engine", "MFSTORE_S3_ENGINE", engine, "auto", ENGINES),
        concurrency=said.number("concurrency", "MFSTORE_S3_CONCURRENCY", concurrency, 0, 0, 4096) or None,
        memory=said.number("memory", "MFSTORE_MEMORY", memory, 256 << 20, 1 << 20, 1 << 46),
    )


class EncryptionKnobs(NamedTuple):
    """How what is written to S3 is encrypted there. All None: as the bucket says."""

    encryption: str | None = None
    """AES256, aws:kms or aws:kms:dsse. ``MFSTORE_ENCRYPTION``, empty for none; default None."""
    kms_key: str | None = None
    """Id, ARN or alias of the key; alone it means aws:kms. ``MFSTORE_KMS_KEY``; default None: AWS's own for S3."""
    bucket_key: bool | None = None
    """Of aws:kms: whether one data key serves many objects, which spares requests to KMS. ``MFSTORE_BUCKET_KEY``;
    default None: as the bucket says."""


def resolve_encryption(
    encryption: str | None = None, kms_key: str | None = None, bucket_key: bool | None = None,
    place: str | None = None,
) -> EncryptionKnobs:  # fmt: skip
    """The knobs in force, at a place. Empty texts are nothing, whatever is said below them; a key that is said above
    the encryption means KMS, and one below another encryption is out of force. InvalidKey (naming the source) for what
    is none, and for what does not go together."""
    said = _Said(place)
    algorithm = said.choice("encryption", "MFSTORE_ENCRYPTION", encryption, "", ("", *ENCRYPTIONS))
    key = (said.text("MFSTORE_KMS_KEY") or "") if kms_key is None else kms_key
    one = said.flag("MFSTORE_BUCKET_KEY", bucket_key, None)
    if key and "kms" not in algorithm:
        of_key, of_algorithm = said.rank("MFSTORE_KMS_KEY", kms_key), said.rank("MFSTORE_ENCRYPTION", encryption)
        if of_key == of_algorithm:
            source = "kms_key" if kms_key is not None else (said.find("MFSTORE_KMS_KEY") or ("",))[0]
            raise _invalid(f"{source} is a key of KMS, and the encryption is not of KMS", algorithm or "none")
        algorithm, key = ("aws:kms", key) if of_key > of_algorithm else (algorithm, "")
    if algorithm != "aws:kms":
        if bucket_key:
            raise _invalid("bucket_key is of another encryption", algorithm or "none", "aws:kms")
        one = None
    return EncryptionKnobs(algorithm or None, key or None, one)


def _safe(given: bool | Allow | None, said: tuple[str, Any] | None) -> Allow | None:
    """What may be loaded: as was given, or as a setting says; None: whatever was stored."""
    if given is None and not (said and said[1]):
        return None  # as it mostly is: nothing more is imported
    from mfstore.allow import allowed, allowed_by

    if given is not None or said is None:
        return allowed(given)
    source, value = said
    return allowed_by(str(value), source)


def _one_place(directory: str | None) -> str | None:
    """A directory, wherever this process goes later. ``~`` is left to who opens it."""
    return os.path.abspath(directory) if directory and not directory.startswith("~") else directory  # noqa: PTH100


class MetaflowKnobs(NamedTuple):
    """Settings of Metaflow's datastore on mfstore."""

    threads: int | None
    """As of ``Knobs``; None: ``usable_cpus``. Most tasks of a flow need no threads, and to count takes three files."""
    verify: bool
    """Check every blob against its key. ``MFSTORE_VERIFY``; default on."""
    fsync: str
    """Local durability. ``MFSTORE_FSYNC``; default none, as Metaflow keeps its own records beside the data."""
    profile: str
    """stock: what every Metaflow reads; packed: mfstore's own format (``native`` is accepted for it).
    ``METAFLOW_MFSTORE_PROFILE``, in the environment or in Metaflow's configuration; default stock."""
    cache: str | None
    """Directory where this host keeps what it has read in S3. ``METAFLOW_MFSTORE_CACHE``, in the environment or in
    Metaflow's configuration, else ``MFSTORE_CACHE``, empty for none; default None: small objects alone, in one below
    the temporary directory that only this user may read."""
    safe: Allow | None = None
    """Load data alone, and what is on this list. ``METAFLOW_MFSTORE_SAFE``, in the environment or in Metaflow's
    configuration, else ``MFSTORE_SAFE``: 1 for nothing but data, or names with commas between them; default None:
    whatever was stored."""


def resolve_metaflow(
    profile: str | None, safe: str | None = None, root: str | None = None, cache: str | None = None
) -> MetaflowKnobs:
    """The knobs in force; ``profile``, ``safe`` and ``cache`` are what Metaflow's configuration says, ``root`` is
    its datastore. InvalidKey (naming the variable) when one is out of range."""
    profile = profile or "stock"
    said = _Said(root)
    return MetaflowKnobs(
        threads=said.number("threads", "MFSTORE_THREADS", None, None, 1, 256),
        verify=said.flag("MFSTORE_VERIFY", None, True),
        fsync=said.choice("fsync", "MFSTORE_FSYNC", None, "none", FSYNC_POLICIES),
        profile=said.choice("METAFLOW_MFSTORE_PROFILE", "", FORMER_PROFILES.get(profile, profile), "", PROFILES),
        cache=_one_place(said.text("MFSTORE_CACHE") if cache is None else cache),
        safe=_safe(None, ("METAFLOW_MFSTORE_SAFE", safe) if safe else said.find("MFSTORE_SAFE")),
    )


class PlaceKnobs(NamedTuple):
    """What a configuration file says of one place in S3, Azure or Google Cloud alone."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    """Of AWS's configuration."""
    single_writer: bool = False
    """No two processes ever write there at the same time, so that a service without conditional writes will do."""
    account: str | None = None
    """Of Azure."""

    def options(self, scheme: str) -> dict[str, str]:
        """How it is reached: in S3 as arguments of boto3's ``client``, elsewhere as those of a client of that cloud."""
        named = {"endpoint_url": self.endpoint_url}
        if scheme == "s3":
            named |= {"region_name": self.region, "profile_name": self.profile}
        elif scheme != "gs":
            named["account_name"] = self.account
        return {name: value for name, value in named.items() if value}


def resolve_place(place: str) -> PlaceKnobs:
    """What is said of a place."""
    found = configuration()
    if not found.places:
        return PlaceKnobs()
    said = found.of(place)
    return PlaceKnobs(**{name: said[name][1] for name in OF_PLACES if name in said})


def expire_days() -> int | None:
    """As of ``Knobs``, everywhere."""
    return _Said().number("expire_days", "MFSTORE_EXPIRE_DAYS", None, 0, 0, 36500) or None


def cache_directory() -> str | None:
    """As ``cache`` of ``Knobs``."""
    found: str | None = _Said().text("MFSTORE_CACHE")
    return found


def default_store() -> str | None:
    """The store of the command line: ``MFSTORE_STORE``, else ``store`` of the configuration file."""
    return os.environ.get("MFSTORE_STORE") or configuration().knobs.get(STORE)


def usable_cpus() -> int:
    """The CPUs that this process may use: by its affinity, and by the quota of its control group (of a container)."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return min(len(os.sched_getaffinity(0)), _cpus_by_quota(OWN_GROUP, GROUPS))


OWN_GROUP, GROUPS = "/proc/self/cgroup", "/sys/fs/cgroup"


@lru_cache(1)
def _cpus_by_quota(own: str, groups: str) -> int:
    """Rounded up; many when there is none."""
    quota = cpu_quota(own, groups)[0]
    return 1 << 16 if quota is None else max(1, -int(-quota // 1))


def cpu_quota(own: str, groups: str) -> tuple[float, str] | tuple[None, None]:
    """As many CPUs as the quotas of this process's control groups let it use, and the group that has the least one.
    What cannot be read is no quota. Of both versions: 2, and 1, which older clusters still have."""
    found = []
    for group in control_groups(own, groups, "cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):
            try:
                quota, period = _words(f"{group}/cpu.max")  # "max" is no number
            except FileNotFoundError:
                (quota,), (period,) = _words(f"{group}/cpu.cfs_quota_us"), _words(f"{group}/cpu.cfs_period_us")
            if int(quota) > 0:  # version 1 writes none as -1
                found.append((int(quota) / int(period), group))
    return min(found, default=(None, None))


def control_groups(own: str, groups: str, controller: str) -> Iterator[str]:
    """The directories that have a controller's files: of the own group, of those above it, whose limits hold too, and
    the root, as which a container sees its own group. ``own`` says which it is, and ``groups`` is where all are."""
    places = {(groups, "/")}
    with suppress(OSError, UnicodeDecodeError), open(own, encoding="utf-8") as file:
        for line in file:
            number, _, rest = line.rstrip("\n").partition(":")
            names, _, path = rest.partition(":")
            if number == "0" and not names:
                places.add((groups, path))
            elif controller in names.split(","):
                places |= {(f"{groups}/{names}", path), (f"{groups}/{names}", "/"), (f"{groups}/{controller}", path)}
    seen = set()
    for top, path in sorted(places):
        while True:
            directory = f"{top}/{path.strip('/')}".rstrip("/")
            if directory not in seen and ".." not in path:
                seen.add(directory)
                yield directory
            if path in ("", "/"):
                break
            path = path.rpartition("/")[0]


def _words(path: str) -> list[str]:
    with open(path, encoding="ascii") as file:
        return file.read().split()


def _compression(given: str | bool | None) -> str | None:
    if isinstance(given, bool):
        return "balanced" if given else "off"
    return given


def _invalid(message: str, found: object, expected: str | None = None) -> Exception:
    # What a process imports that meets no error, a small task's say, has no errors.
    from mfstore.errors import InvalidKey

    return InvalidKey(message, found=found, expected=expected)
