"""``mfstore doctor URL``: a store, a datastore root of Metaflow, or where one is to be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mfstore.doctor import bucket, collector, connection, container, directory, rights, trial
from mfstore.doctor.cloud_trial import CloudRun
from mfstore.doctor.findings import Finding, Section, bare, examined, failure
from mfstore.errors import AccessDenied, InvalidKey, MfstoreError, NotAStore, NotFound
from mfstore.format.description import OPERATIONS, PATH, decode
from mfstore.maintenance.lifecycle import PARTS, Part, root_parts
from mfstore.metaflow.roots.layout import MAINTENANCE_FOLDER, is_flow, parse
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER
from mfstore.records import NamedTuple
from mfstore.s3.transfers.metadata import HeadJob
from mfstore.s3.urls import names_object, scheme_of, split_url
from mfstore.settings import resolve

if TYPE_CHECKING:
    from mfstore.backends.base import Backend
    from mfstore.backends.buckets import BucketBackend

Kind = Literal["store", "root", "empty", "other", "unknown"]
ATTEMPTS = 3
RETRY_SECONDS = 15.0
PACKS = "packs/"
LOOKED_AT = 50
"""Objects, and folders that may be flows', by which a root is told from something else: a root may have thousands."""

LISTED_PAGES = 20
"""Requests for what lies directly in a place, each for a thousand names: somebody's bucket may have millions."""


class What(NamedTuple):
    """What lies in a place."""

    kind: Kind
    text: str
    flows: tuple[str, ...] = ()
    packed: bool = False
    """Whether the packed profile has stored there."""
    error: MfstoreError | None = None
    """Why that is not known."""
    trouble: MfstoreError | None = None
    """Why a store that lies there cannot be used as it is."""

    def finding(self, name: str) -> Finding:
        """The same, to be shown."""
        facts = {"kind": self.kind, "flows": len(self.flows)}
        error = self.trouble or self.error
        if error is None:
            return Finding(name, self.text, facts=facts)
        refused = isinstance(error, AccessDenied)
        return Finding(name, self.text, "refused" if refused else "broken", error.hint or "", facts=facts)

    @property
    def folders(self) -> tuple[str, ...]:
        """Where tasks write, below a root: a policy may let them write in one of these alone."""
        return (*[f"{STORE_FOLDER}/"] * self.packed, *(f"{flow}/" for flow in self.flows[:LOOKED_AT]))

    @property
    def shared(self) -> str:
        """Where a collection deletes."""
        if self.kind == "store":
            return PACKS
        return f"{self.flows[0]}/data/" if self.flows else ""

    @property
    def parts(self) -> Mapping[str, Part]:
        """What lies where, as lifecycle rules meet it."""
        return root_parts(self.flows, self.packed) if self.kind == "root" else PARTS


def sections(url: str, options: Mapping[str, Any]) -> Iterator[Section]:
    """Everything that is found out about a place, one section after the other.

    Args:
        url: ``s3://bucket/prefix``, ``az://container/prefix``, ``gs://bucket/prefix``, or a directory.
        options: How the service is reached: arguments of its backend.
    """
    yield examined("container", container.container)
    if names_object(url):
        yield from _in_bucket(url, options)
    else:
        yield from _in_directory(url)


def _opened(url: str, options: Mapping[str, Any]) -> BucketBackend:
    """The place, reached as ``options`` say, else, below Metaflow's own root, as Metaflow's settings do, else as the
    configuration file does."""
    from mfstore.backends import bucket_backend, said_of
    from mfstore.maintenance.metaflow.root import remote_backend
    from mfstore.s3.datatools.places import kind_of, root_url
    from mfstore.s3.datatools.settings import setting

    reached = {"attempts": ATTEMPTS, "retry_seconds": RETRY_SECONDS, **options}
    kind = kind_of(url)
    if kind == "s3" and "@" in split_url(url)[0]:  # whoever writes a password there finds it nowhere in a report
        raise InvalidKey("a bucket's name has no @, and no URL of S3 a user or password", hint="Name a --profile")
    root = setting(f"DATASTORE_SYSROOT_{kind.upper()}")
    if root and f"{url.rstrip('/')}/".startswith(f"{root_url(kind, root).rstrip('/')}/"):
        found: BucketBackend = remote_backend(url, reached)
        return found
    return bucket_backend(url)(url, **said_of(url, reached))


def _in_bucket(url: str, options: Mapping[str, Any]) -> Iterator[Section]:
    try:
        backend = _opened(url, options)
    except MfstoreError as error:
        yield Section("place", (failure("place", error),))
        return
    try:
        yield examined("connection", *_connected(backend))
        what = look(backend)
        unreachable = what.error is not None and (what.error.status is None or isinstance(what.error, NotFound))
        if unreachable:
            assert what.error is not None
            yield Section("place", (failure("place", what.error),))
            return
        yield examined("place", partial(_placed, backend, what))
        answers = bucket.ask(backend)
        yield examined("rights", partial(_rights, backend, what, answers))
        yield examined("bucket", partial(_bucket, backend, what, answers))
        yield examined("collector", partial(collected, backend, what, backend.url))
    finally:
        backend.close()


def _connected(backend: BucketBackend) -> tuple[Callable[[], Iterator[Finding]], ...]:
    found: Any = backend
    scheme = scheme_of(backend.bucket)
    if scheme == "s3":
        return partial(connection.identity, found), partial(connection.connection, found)
    from mfstore.doctor import azure, google

    identity: Any = google.identity if scheme == "gs" else azure.identity
    return partial(identity, found.client.transfers.control), partial(connection.reached, backend)


def _placed(backend: BucketBackend, what: What) -> Iterator[Finding]:
    yield what.finding("place")
    key = backend.prefix.rstrip("/")
    if what.kind != "empty" or not key:
        return
    (outcome,) = backend.client.transfers.run(iter((HeadJob(0, key, backend.bucket, key),)))
    if outcome.error is None:
        yield Finding(
            "object", f"{backend.url} is an object itself: a place is what lies below a name", "doubtful",
            "Name the folder that is meant",
        )  # fmt: skip


def _rights(backend: BucketBackend, what: What, answers: bucket.Answers) -> Iterator[Finding]:
    kept = bucket.retention(answers)
    why = f"what is put would be locked: {kept}" if kept else ""
    found = trial.tried(
        backend,
        may_put=why,
        versioned=bucket.versioned(answers),
        folders=what.folders,
        shared=what.shared,
        by=None if scheme_of(backend.bucket) == "s3" else CloudRun,
    )
    yield from rights.rights(found)
    yield from rights.checksums(found)


def _bucket(backend: BucketBackend, what: What, answers: bucket.Answers) -> Iterator[Finding]:
    expires = resolve().expire_days is not None
    if scheme_of(backend.bucket) != "s3":
        yield from bucket.findings_elsewhere(backend.bucket, backend.prefix, what.parts, answers, expires=expires)
        return
    yield from bucket.findings(
        backend.bucket, backend.prefix, what.parts, answers, bucket.open_uploads(backend),
        aws=connection.is_aws(connection.endpoint_of(backend)), now=time.time(),
        expires=expires,
    )  # fmt: skip


def _in_directory(url: str) -> Iterator[Section]:
    from mfstore.backends import file_path, local_path
    from mfstore.backends.local import LocalBackend

    try:
        scheme, separator, _ = url.partition("://")
        if separator and scheme != "file":
            raise InvalidKey(
                "the doctor looks at directories, and at places in S3, Azure and Google Cloud",
                found=repr(url),
                hint="Such as s3://bucket/prefix, az://container/prefix or gs://bucket/prefix",
            )
        path = Path(file_path(url) if separator else local_path(url)).absolute()
    except MfstoreError as error:
        yield Section("place", (failure("place", error),))
        return
    inner = path / ".metaflow"
    if inner.is_dir():  # a project's directory stands for what is in it
        path = inner
    yield examined("place", partial(directory.place, path))
    if path.exists() and not path.is_dir():
        return
    yield examined("rights", partial(directory.tried, path))
    if not path.is_dir():
        return
    backend = LocalBackend(str(path), sweep=False)
    try:
        what = look(backend)
        yield Section("content", (what.finding("content"),))
        yield examined("collector", partial(collected, backend, what, str(path)))
    finally:
        backend.close()


def look(backend: Backend) -> What:
    """What lies there."""
    try:
        with suppress(NotFound):
            found = _store(backend.url, backend.get(PATH))
            if found.trouble is not None:  # what answers everything alike has no listing
                with suppress(AccessDenied):
                    backend.list_first("", 1)
            return found
        folders, more = _folders(backend)
        marks = {MAINTENANCE_FOLDER, STORE_FOLDER} & {*folders}
        if more:
            marks |= {name for name in (MAINTENANCE_FOLDER, STORE_FOLDER) if backend.list_first(f"{name}/", 1)}
        stopped = f"; what lies there was listed in {LISTED_PAGES} requests, and there is more" if more else ""
        names = sorted(name for name in folders if is_flow(name))
        flows = tuple(name for name in names[:LOOKED_AT] if _has_runs(backend, name))
        if flows or marks:  # then the others are flows as well
            flows += tuple(names[LOOKED_AT:])
        if flows or marks:
            packed = STORE_FOLDER in marks
            profile = ", in the packed profile too" if packed else ""
            told = f"{backend.url}: a datastore root of Metaflow, {len(flows)} flows{profile}{stopped}"
            return What("root", told, flows, packed)
        if not folders and not more and not any(True for _ in islice(backend.list(""), 1)):
            return What("empty", f"{backend.url}: empty; a store or a root may begin here")
        hint = "neither a store nor a root of Metaflow"
        return What("other", f"{backend.url}: {hint}: a store takes an empty place{stopped}")
    except MfstoreError as error:
        return What("unknown", f"{backend.url}: what lies there cannot be told ({error.message})", error=error)


def _store(url: str, description: bytes) -> What:
    """What lies where this is the description of a store."""
    try:
        found = decode(description, url)
        for operation in OPERATIONS:
            found.require(operation, url)
    except NotAStore as error:
        return What("other", f"{url}: {error.message}", trouble=error)
    except MfstoreError as error:
        return What("store", f"{url}: a store of mfstore, but {bare(error)}", trouble=error)
    return What("store", f"{url}: a store of mfstore")


def _folders(backend: Backend) -> tuple[list[str], bool]:
    """The names directly below that go on, as far as they are listed; and whether there is more."""
    if hasattr(backend, "first_folders"):
        names, more = backend.first_folders("", LISTED_PAGES)
        return [name.rstrip("/") for name in names], more
    return [path.name for path in Path(backend.root).iterdir() if path.is_dir()], False  # type: ignore[attr-defined]


def _has_runs(backend: Backend, flow: str) -> bool:
    return any(parse(info.key).kind != "other" for info in islice(backend.list(f"{flow}/"), LOOKED_AT))


def collected(backend: Backend, what: What, url: str) -> Iterator[Finding]:
    """The state of collections, and of a store's index."""
    if what.kind not in ("store", "root"):
        return
    try:
        found = collector.of_store(backend, url) if what.kind == "store" else collector.of_root(backend, url)
        yield from collector.findings(found, time.time())
    except MfstoreError as error:
        yield collector.refused(error, "collector")
    if what.kind == "store" or what.packed:
        folder = f"{STORE_FOLDER}/" if what.kind == "root" else ""
        try:
            yield collector.index(backend, f"{url}/{folder}".rstrip("/") if folder else url, folder)
        except MfstoreError as error:
            yield collector.refused(error, "index")
