"""Every tunable, in one place: argument > environment > default."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, overload

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
    """Directory where parts of the indexes of stores in S3 are remembered, for all processes of this user.
    ``MFSTORE_CACHE``, empty for none; default None: one below the temporary directory that only this user may read."""
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
) -> Knobs:
    """The knobs in force. ValueError (naming the source) when one is out of range."""
    return Knobs(
        threads=_number("threads", "MFSTORE_THREADS", threads, usable_cpus(), 1, 256),
        memory=_number("memory", "MFSTORE_MEMORY", memory, 256 << 20, 32 << 20, 1 << 46),
        verify=_flag("verify", "MFSTORE_VERIFY", verify, True),
        fsync=_choice("fsync", "MFSTORE_FSYNC", fsync, "batch", FSYNC_POLICIES),
        expire_days=_number("expire_days", "MFSTORE_EXPIRE_DAYS", expire_days, 0, 0, 36500) or None,
        map=_flag("map", "MFSTORE_MAP", map, None),
        delta=_flag("delta", "MFSTORE_DELTA", delta, True),
        cache=os.environ.get("MFSTORE_CACHE"),
        compress=_choice("compress", "MFSTORE_COMPRESS", _compression(compress), "balanced", COMPRESSIONS),
        record=records(record),
        safe=_safe(safe, os.environ.get("MFSTORE_SAFE")),
    )


def records(given: bool | None = None) -> bool:
    """Whether it is recorded who stored something, and with what: ``MFSTORE_RECORD``; default on."""
    return _flag("record", "MFSTORE_RECORD", given, True)


def telemetry() -> bool:
    """Whether stores that are opened are observed by OpenTelemetry: ``MFSTORE_OTEL``; default off."""
    return _flag("telemetry", "MFSTORE_OTEL", None, False)


def payload_signing(given: str | None = None) -> str:
    """Whether a body's SHA-256 is signed with the request: always, never, or auto, as AWS's SDKs have it: over http,
    and not over https where a checksum goes with the body. ``MFSTORE_S3_PAYLOAD_SIGNING``; default auto, which also
    heeds ``payload_signing_enabled`` of botocore's configuration. InvalidKey for another word."""
    return _choice("payload_signing", "MFSTORE_S3_PAYLOAD_SIGNING", given, "auto", PAYLOAD_SIGNING)


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


def resolve_s3(engine: str | None = None, concurrency: int | None = None, memory: int | None = None) -> S3Knobs:
    """The S3 knobs in force. InvalidKey (naming the source) when one is out of range."""
    return S3Knobs(
        engine=_choice("engine", "MFSTORE_S3_ENGINE", engine, "auto", ENGINES),
        concurrency=_number("concurrency", "MFSTORE_S3_CONCURRENCY", concurrency, 0, 0, 4096) or None,
        memory=_number("memory", "MFSTORE_MEMORY", memory, 256 << 20, 1 << 20, 1 << 46),
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
    encryption: str | None = None, kms_key: str | None = None, bucket_key: bool | None = None
) -> EncryptionKnobs:
    """The knobs in force; empty texts are nothing, whatever the environment says. InvalidKey (naming the source) for
    what is none, and for what does not go together. An argument puts out of force what the environment says against it.
    """
    algorithm = _choice("encryption", "MFSTORE_ENCRYPTION", encryption, "", ("", *ENCRYPTIONS))
    key = os.environ.get("MFSTORE_KMS_KEY", "") if kms_key is None else kms_key
    one = _flag("bucket_key", "MFSTORE_BUCKET_KEY", bucket_key, None)
    if key and "kms" not in algorithm:
        if encryption is None and (kms_key or not algorithm):
            algorithm = "aws:kms"
        elif encryption is not None and kms_key is None:
            key = ""
        else:
            source = "MFSTORE_KMS_KEY" if kms_key is None else "kms_key"
            raise _invalid(f"{source} is a key of KMS, and the encryption is not of KMS", algorithm or "none")
    if one is not None and algorithm != "aws:kms":
        if bucket_key:
            raise _invalid("bucket_key is of another encryption", algorithm or "none", "aws:kms")
        one = None
    return EncryptionKnobs(algorithm or None, key or None, one)


def _safe(given: bool | Allow | None, text: str | None) -> Allow | None:
    """What may be loaded: as was given, or as a setting says; None: whatever was stored."""
    if given is None and not text:
        return None  # as it mostly is: nothing more is imported
    from mfstore.allow import allowed, allowed_by

    return allowed_by(text) if given is None else allowed(given)


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
    """Directory where small objects from S3 are remembered. ``MFSTORE_CACHE``, empty for none; default None: one below
    the temporary directory that only this user may read."""
    safe: Allow | None = None
    """Load data alone, and what is on this list. ``METAFLOW_MFSTORE_SAFE``, in the environment or in Metaflow's
    configuration, else ``MFSTORE_SAFE``: 1 for nothing but data, or names with commas between them; default None:
    whatever was stored."""


def resolve_metaflow(profile: str | None, safe: str | None = None) -> MetaflowKnobs:
    """The knobs in force; ``profile`` and ``safe`` are what Metaflow's configuration says. InvalidKey (naming
    the variable) when one is out of range."""
    profile = profile or "stock"
    return MetaflowKnobs(
        threads=_number("threads", "MFSTORE_THREADS", None, None, 1, 256),
        verify=_flag("verify", "MFSTORE_VERIFY", None, True),
        fsync=_choice("fsync", "MFSTORE_FSYNC", None, "none", FSYNC_POLICIES),
        profile=_choice("METAFLOW_MFSTORE_PROFILE", "", FORMER_PROFILES.get(profile, profile), "", PROFILES),
        cache=os.environ.get("MFSTORE_CACHE"),
        safe=_safe(None, safe or os.environ.get("MFSTORE_SAFE")),
    )


def usable_cpus() -> int:
    """The CPUs that this process may use: by its affinity, and by the quota of its control group (of a container)."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return min(len(os.sched_getaffinity(0)), _quota("/proc/self/cgroup", "/sys/fs/cgroup"))


@lru_cache(1)
def _quota(own: str, groups: str) -> int:
    """CPUs by quota, rounded up; many when there is none. In a container its own group is shown as the root."""
    paths = ["/"]
    with suppress(OSError, UnicodeDecodeError), open(own, encoding="utf-8") as file:
        paths += [line.rstrip("\n").split(":", 2)[2] for line in file if line.startswith("0::/")]
    least = 1 << 16
    for path in paths:
        while True:
            with suppress(OSError, ValueError, ZeroDivisionError):
                with open(f"{groups}{path.rstrip('/')}/cpu.max", encoding="ascii") as file:
                    quota, period = file.read().split()
                least = min(least, max(1, -(-int(quota) // int(period))))  # "max" is no number
            if path in ("", "/"):
                break
            path = path.rpartition("/")[0]
    return least


@overload
def _number(name: str, variable: str, given: int | None, default: int, low: int, high: int) -> int: ...
@overload
def _number(name: str, variable: str, given: int | None, default: None, low: int, high: int) -> int | None: ...
def _number(name: str, variable: str, given: int | None, default: int | None, low: int, high: int) -> int | None:
    source, value = name, given
    if value is None:
        text = os.environ.get(variable)
        if text is None:
            return default
        source = variable
        try:
            value = int(text)
        except ValueError:
            raise _invalid(f"{variable} must be a whole number", repr(text)) from None
    if not low <= value <= high:
        raise _invalid(f"{source} is out of range", value, f"{low} to {high}")
    return value


@overload
def _flag(name: str, variable: str, given: bool | None, default: bool) -> bool: ...
@overload
def _flag(name: str, variable: str, given: bool | None, default: None) -> bool | None: ...
def _flag(name: str, variable: str, given: bool | None, default: bool | None) -> bool | None:
    if given is not None:
        return bool(given)
    text = os.environ.get(variable)
    if text is None:
        return default
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise _invalid(f"{variable} must be 0 or 1", repr(text))
    return words[text.lower()]


def _compression(given: str | bool | None) -> str | None:
    if isinstance(given, bool):
        return "balanced" if given else "off"
    return given


def _choice(name: str, variable: str, given: str | None, default: str, allowed: tuple[str, ...]) -> str:
    source, value = (name, given) if given is not None else (variable, os.environ.get(variable, default))
    if value not in allowed:
        raise _invalid(f"{source} must be one of {', '.join(allowed)}", repr(value))
    return value


def _invalid(message: str, found: object, expected: str | None = None) -> Exception:
    # What a process imports that meets no error, a small task's say, has no errors.
    from mfstore.errors import InvalidKey

    return InvalidKey(message, found=found, expected=expected)
