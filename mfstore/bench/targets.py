"""Where the benchmark runs: a scratch prefix of a place, that is new, and gone afterwards."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from time import sleep, time
from typing import Any
from urllib.parse import unquote

from mfstore.backends import Backend, bucket_backend, local_path, open_backend, said_of
from mfstore.bench.cloud_peers import PEERS_OF
from mfstore.bench.flaky import flaky_endpoint
from mfstore.bench.link import measure_link
from mfstore.bench.movers import BackendMover, BulkMover, Mover
from mfstore.bench.peers import PEERS, Peer, PeerMover, Where, surroundings
from mfstore.bench.plan import MEMORY
from mfstore.bench.recording import Traffic, record
from mfstore.bench.scenarios import Scenario
from mfstore.display.amounts import size
from mfstore.errors import AccessDenied, BackendError, MfstoreError, NotAStore, NotFound, OutOfSpace
from mfstore.host.permissions import refused_because
from mfstore.maintenance.versions import VersionsKept
from mfstore.opening import open_store
from mfstore.s3.calls import Call
from mfstore.s3.transfers.deletions import KEYS_PER_DELETE
from mfstore.s3.urls import names_object
from mfstore.settings import EncryptionKnobs, resolve
from mfstore.store import Store

RETRY_SECONDS = 20.0
"""A service that has not answered for so long ends the measurement in good time."""
REMOVAL_SECONDS = 180.0
"""A service that was overloaded by what it measured answers late: 30,000 objects took radosgw on a busy machine longer
than ``RETRY_SECONDS``, and some stayed. Who does not want to wait interrupts once more."""
LATE_LOOKS, LATE_SECONDS = 15, 1.0
"""After an interruption: a request that was let go is carried out by its server a moment later. The looks end when
``QUIET_LOOKS`` one after the other find nothing: two, since a busy server may take longer than one."""
QUIET_LOOKS = 2
TRIAL = b"mfstore bench 16"


def scratch_name() -> str:
    """Random, so that it exists nowhere: what a place holds already is never touched."""
    return f"mfstore-bench-{secrets.token_hex(8)}"


class Target(ABC):
    """A place. ``check`` before anything else, ``remove`` at the end, whatever happened between."""

    kind: str
    """``s3``, ``az``, ``gs``, ``directory``, ``memory``, or another backend's scheme."""
    url: str
    name: str
    """Of the scratch prefix below the URL."""
    scratch: str
    """Where everything the benchmark writes lies."""
    directory: Path | None = None
    """The scratch directory, of a directory."""
    object_prefix = ""
    """Of the keys of a scenario's objects, as the mover takes them."""
    remains = ""
    """What could not be removed by ``remove``, for people; empty when nothing is left."""

    def cautions(self, written: int) -> list[str]:
        """What to know before so many bytes are written there, for people."""
        return []

    @abstractmethod
    def check(self) -> Mapping[str, Any]:
        """Try whether everything the benchmark does is allowed; returns what is worth knowing of the place. Raises
        what a user can act on."""

    @abstractmethod
    def mover(self, scenario: Scenario, seed: int) -> Any:
        """A context manager that gives (Mover, Traffic or None) for the scenario."""

    @abstractmethod
    def store(self, scenario: Scenario, number: int) -> Any:
        """A context manager that gives (function that opens the scenario's store anew, Traffic or None)."""

    @abstractmethod
    def notes(self) -> Backend:
        """A part of the scratch prefix where several machines that run one benchmark tell each other; to be closed."""

    @abstractmethod
    def remove(self, *, cut_off: bool = False) -> None:
        """Remove the scratch prefix and all that lies in it. What was never made is no error. ``cut_off`` says that
        requests were let go before their answers came."""


class BackendTarget(Target):
    """A directory, memory, or any backend a package offers."""

    def __init__(self, url: str, *, name: str | None = None) -> None:
        scheme, separator, rest = url.partition("://")
        self.url = url
        self._made: Path | None = None
        self.name = name = name or scratch_name()
        if separator and scheme != "file":
            self.kind = scheme
            self.scratch = f"{scheme}://{rest.strip('/')}/{name}".replace(":///", "://")
            return
        self.kind = "directory"
        parent = Path(unquote(rest.removeprefix("localhost")) if separator else local_path(url))
        self.directory = parent / name
        self.scratch = str(self.directory)

    def check(self) -> Mapping[str, Any]:
        """Make the scratch directory, and try the operations."""
        if self.directory is not None:
            self._make(self.directory)
        backend = self._backend("check")
        backend.put("check/object", [TRIAL])
        if bytes(backend.get("check/object")) != TRIAL:
            raise AccessDenied("the place does not return what was stored", backend=self.url)
        backend.delete("check/object")
        return {}

    def _make(self, directory: Path) -> None:
        parent = directory.parent
        if parent.exists() and not parent.is_dir():
            raise NotAStore("not a directory", backend=self.url, hint="Name a directory, or one that can be made")
        missing = [path for path in (parent, *parent.parents) if not path.exists()]
        # The topmost directory that was not there: with it all that were made for this run go again.
        self._made = missing[-1] if missing else None
        try:
            directory.mkdir(parents=True)
        except PermissionError as error:
            why, hint = refused_because(str(directory), error.errno or 0)
            raise AccessDenied(f"cannot write there: {why}", backend=self.url, hint=hint) from error
        except OSError as error:
            raise OutOfSpace(f"cannot make the scratch directory: {error}", backend=self.url) from error

    def _backend(self, name: str) -> Backend:
        return open_backend(f"{self.scratch}/{name}", resolve(memory=MEMORY))

    def notes(self) -> Backend:
        """As Target's."""
        return self._backend("clients")

    @contextmanager
    def mover(self, scenario: Scenario, seed: int) -> Iterator[tuple[Mover, Traffic | None]]:
        """Threads on a backend: as many as CPUs, unless the scenario says how many."""
        mover = BackendMover(self._backend("objects"), self.kind, scenario.concurrency or resolve().threads)
        try:
            yield mover, None
        finally:
            mover.close()

    @contextmanager
    def store(self, scenario: Scenario, number: int) -> Iterator[tuple[Any, Traffic | None]]:
        """A store below the scratch prefix."""
        url = f"{self.scratch}/store-{number}"
        made: list[Store] = []

        def reopen() -> Store:
            for store in made:
                store.close()
            made[:] = [open_store(url, memory=MEMORY, threads=scenario.concurrency)]
            return made[0]

        try:
            yield reopen, None
        finally:
            for store in made:
                store.close()
            if self.directory is not None:
                shutil.rmtree(url, ignore_errors=True)
            else:
                self._empty(url)

    def _empty(self, url: str) -> None:
        backend = open_backend(url, resolve())
        backend.delete_many([info.key for info in backend.list("")])

    def remove(self, *, cut_off: bool = False) -> None:
        """The directory with all in it; elsewhere, object by object. Its threads have ended with their calls."""
        if self.directory is None:
            for name in ("check", "objects", "clients"):
                with suppress(MfstoreError):
                    self._empty(f"{self.scratch}/{name}")
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.directory.exists():
            raise BackendError("could not remove the scratch directory", backend=str(self.directory))
        if self._made is not None:
            with suppress(OSError):
                # Only empty ones: somebody else may have begun to use them.
                for path in [self.directory.parent, *self.directory.parent.parents]:
                    path.rmdir()
                    if path == self._made:
                        break


class BucketTarget(Target):
    """A prefix of a bucket or container. ``options`` are those of ``BulkClient``; without ``checksum`` uploads carry
    none, as those of peers."""

    def __init__(self, url: str, *, checksum: bool = True, name: str | None = None, **options: Any) -> None:
        from mfstore.s3.urls import scheme_of, split_url

        self.url = url
        self.options = said_of(url, options)
        self._single_writer = self.options.pop("single_writer", None)
        self._refused = False
        """Nothing has been stored, for certain."""
        self._reached = False
        self._bulk = self.options if checksum else {**self.options, "checksum": None}
        self.bucket, prefix = split_url(url)
        self.prefix = f"{prefix.strip('/')}/".lstrip("/") + (name or scratch_name())
        self.name = self.prefix.rpartition("/")[2]
        scheme, _, rest = url.partition("://")
        self.kind = scheme_of(self.bucket)
        self._place = f"{scheme}://{rest.partition('/')[0]}" if self.kind != "s3" else f"s3://{self.bucket}"
        """The bucket's URL, which may say whose it is."""
        self.scratch = f"{self._place}/{self.prefix}"
        self.object_prefix = f"{self.prefix}/objects/"

    def check(self) -> Mapping[str, Any]:
        """Store, read, list and delete one object, with few retries."""
        from email.utils import parsedate_to_datetime

        client = self._client(attempts=2, retry_seconds=10.0)
        key = f"{self.prefix}/check"
        try:
            sent = time()
            try:
                stored = client.put_many([(key, TRIAL)])[0]
            except (AccessDenied, NotFound):
                self._refused = True
                raise
            self._reached = True
            (got,) = client.get_many([key])
            if bytes(got.data) != TRIAL:
                raise AccessDenied("the place does not return what was stored", backend=self.url)
            if [entry.key for entry in client.list(f"{self.prefix}/")] != [key]:
                raise NotFound("the listing does not show the object that was just stored", backend=self.url)
            service, endpoint = client.service.name, self.endpoint(client)
            link = measure_link(endpoint, lambda: sum(found.seconds for found in client.head_many([key])))
            client.delete_many([key])
        finally:
            client.close()
        said = stored.headers.get("date")
        # The header has whole seconds, cut off.
        skew = round(parsedate_to_datetime(said).timestamp() + 0.5 - sent) if said else None
        return {
            "service": service,
            "endpoint": endpoint,
            **self.known(),
            "server": got.headers.get("server"),
            "clock_skew": skew,
            "failures_by": "proxy" if self.http_endpoint else "client",
            "link": asdict(link),
        }

    @abstractmethod
    def endpoint(self, client: Any) -> str:
        """Where the requests of a client go."""

    def known(self) -> Mapping[str, Any]:
        """What else is known of the place."""
        return {}

    @abstractmethod
    def peer(self, name: str, concurrency: int | None) -> Any:
        """A context manager that gives the peer, connected."""

    def abort(self) -> int:
        """Give up the uploads that were begun and not ended. How many there were."""
        return 0

    def remove_rest(self) -> None:
        """What is there besides objects."""

    def _client(self, **more: Any) -> Any:
        from mfstore.s3.bulk.client import BulkClient

        return BulkClient(self._place, **{"retry_seconds": RETRY_SECONDS, **self._bulk, **more})

    http_endpoint: str | None = None
    """Where failures can be injected by a proxy: a TLS endpoint would not bear it, nor one that is found by its name.
    Else the client fails the requests itself, before they are sent."""

    @contextmanager
    def _behind_faults(self, scenario: Scenario, seed: int) -> Iterator[dict[str, Any]]:
        """Options for the scenario, behind a proxy if requests are to fail."""
        engine = None if scenario.engine in PEERS_OF[self.kind] else scenario.engine
        options: dict[str, Any] = {"engine": engine, "concurrency": scenario.concurrency}
        if not scenario.failure or self.http_endpoint is None:
            yield options
            return
        with flaky_endpoint(self.http_endpoint, scenario.failure, seed) as address:
            yield {**options, "endpoint_url": address}

    def notes(self) -> Backend:
        """As Target's."""
        url = f"{self.scratch}/clients"
        return bucket_backend(url)(url, retry_seconds=RETRY_SECONDS, **self._bulk)

    @contextmanager
    def mover(self, scenario: Scenario, seed: int) -> Iterator[tuple[Mover, Traffic | None]]:
        """A bulk client, or a peer."""
        from mfstore.s3.datatools.injection import flaky_client

        with self._behind_faults(scenario, seed) as options:
            if scenario.failure and "endpoint_url" not in options:
                client: Any = flaky_client(scenario.failure, bucket=self._place, **{**self._bulk, **options})
            else:
                client = self._client(**options)
            rest = BulkMover(client)
            if scenario.engine not in PEERS_OF[self.kind]:
                traffic = record(client)
                with closing(rest):
                    yield rest, traffic
                return
            name = str(scenario.engine)
            with self.peer(name, scenario.concurrency) as peer, closing(PeerMover(name, peer, rest)) as mover:
                yield mover, None

    @contextmanager
    def store(self, scenario: Scenario, number: int) -> Iterator[tuple[Any, Traffic | None]]:
        """A store below the scratch prefix."""
        url = f"{self.scratch}/store-{number}"
        made: list[Store] = []
        traffic = Traffic()
        options = {"memory": MEMORY // 4, "retry_seconds": RETRY_SECONDS, **self._bulk}
        if self._single_writer is not None:
            options["single_writer"] = self._single_writer

        def reopen() -> Store:
            for store in made:
                store.close()
            backend = bucket_backend(url)(url, engine=scenario.engine, concurrency=scenario.concurrency, **options)
            record(backend.client, traffic)
            store = Store(url, backend, resolve(memory=MEMORY), create=True, algorithm="blake3")
            made[:] = [store]
            return store

        try:
            yield reopen, traffic
        finally:
            for store in made:
                store.close()
            self._empty(f"{self.prefix}/store-{number}/")

    def _empty(self, prefix: str, **more: Any) -> int:
        """How many objects there were."""
        with self._client(**more) as client:
            keys = [entry.key for entry in client.list(prefix)]
            if keys:
                client.delete_many(keys)
        return len(keys)

    def remove(self, *, cut_off: bool = False) -> None:
        """All objects, and all uploads that were begun and not ended; those as well that a server was still about to
        store when we let them go."""
        if self._refused:
            return
        # Where there was no answer to the first request either, two tries are enough.
        patience: dict[str, Any] = {"retry_seconds": REMOVAL_SECONDS} if self._reached else {"attempts": 2}
        self._empty(f"{self.prefix}/", **patience)
        self.abort()
        quiet = 0
        for _ in range(LATE_LOOKS if cut_off and self._reached else 0):
            sleep(LATE_SECONDS)
            found = self._empty(f"{self.prefix}/", **patience) + self.abort()
            quiet = 0 if found else quiet + 1
            if quiet == QUIET_LOOKS:
                break
        self.remove_rest()


class S3Target(BucketTarget):
    """A prefix of a bucket. ``options`` are boto3's; without ``checksum`` uploads carry none, as those of peers."""

    kind = "s3"
    _versions = ""
    """The state of the bucket's versioning, once it was asked for."""

    def cautions(self, written: int) -> list[str]:
        """Whether the bucket keeps versions of what is overwritten and deleted."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._versions = self.boto().get_bucket_versioning(Bucket=self.bucket).get("Status", "")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "AccessDenied":
                return []  # a service without versions; what else is wrong, ``check`` tells
            return [
                "whether the bucket keeps versions may not be asked (s3:GetBucketVersioning): if it does, all stays"
            ]
        except BotoCoreError:
            return []
        if self._versions != "Enabled":
            return []
        told = (
            f"the bucket keeps versions: all that is overwritten or deleted stays in it, and costs, to the end of the "
            f"run: {size(written)}, or more with --duration. Then the versions below the scratch prefix are deleted "
            "(s3:ListBucketVersions, s3:DeleteObjectVersion)"
        )
        return [told]

    def boto(self) -> Any:
        """A plain botocore client of the same place."""
        from botocore.config import Config
        from botocore.session import Session

        options = {name: value for name, value in self.options.items() if name not in EncryptionKnobs._fields}
        session = Session(profile=options.pop("profile_name", None))
        config = Config(connect_timeout=5, read_timeout=RETRY_SECONDS, retries={"total_max_attempts": 2})
        return session.create_client("s3", config=config, **options)

    def _where(self, concurrency: int | None) -> Where:
        """The place as peers want it described."""
        from botocore.session import Session

        boto = self.boto()
        found = Session(profile=self.options.get("profile_name")).get_credentials()
        if found is None:
            raise AccessDenied("peers need credentials, and there are none", backend=self.url)
        keys = found.get_frozen_credentials()
        return Where(
            boto.meta.endpoint_url, self.bucket, boto.meta.region_name, keys.access_key, keys.secret_key, keys.token,
            os.environ.get("AWS_CA_BUNDLE"), concurrency,
        )  # fmt: skip

    def endpoint(self, client: Any) -> str:
        """As BucketTarget's."""
        return str(self.boto().meta.endpoint_url)

    def known(self) -> Mapping[str, Any]:
        """As BucketTarget's."""
        return {"region": self.boto().meta.region_name}

    @property
    def http_endpoint(self) -> str | None:  # type: ignore[override]
        """As BucketTarget's."""
        found = str(self.boto().meta.endpoint_url)
        return found if found.startswith("http://") else None

    @contextmanager
    def peer(self, name: str, concurrency: int | None) -> Iterator[Peer]:
        """As BucketTarget's."""
        where = self._where(concurrency)
        with surroundings(where):
            yield PEERS[name](where)

    def remove_rest(self) -> None:
        """As BucketTarget's."""
        if self._versions:
            self._remove_versions()

    def _remove_versions(self) -> None:
        """Those of all that was stored, and the marks of its deletion."""
        from botocore.exceptions import BotoCoreError, ClientError

        boto, refused, why = self.boto(), 0, ""
        try:
            for page in boto.get_paginator("list_object_versions").paginate(
                Bucket=self.bucket, Prefix=f"{self.prefix}/"
            ):
                found = [
                    {"Key": entry["Key"], "VersionId": entry["VersionId"]}
                    for kind in ("Versions", "DeleteMarkers")
                    for entry in page.get(kind, ())
                ]
                for begin in range(0, len(found), KEYS_PER_DELETE):
                    wanted = {"Objects": found[begin : begin + KEYS_PER_DELETE], "Quiet": True}
                    errors = boto.delete_objects(Bucket=self.bucket, Delete=wanted).get("Errors", ())
                    refused += len(errors)
                    why = why or next((error.get("Code", "") for error in errors), "")
        except (ClientError, BotoCoreError) as error:
            why = why or str(error)
        if why:
            counted = f"{refused} " if refused else ""
            rule = VersionsKept("Enabled", prefix=f"{self.prefix}/").rule
            self.remains = (
                f"{counted}versions below {self.scratch} stay in the bucket ({why}): delete them with "
                f"s3:DeleteObjectVersion, or by this lifecycle rule: {json.dumps(rule)}"
            )

    def abort(self) -> int:
        """How many uploads there were."""
        from botocore.exceptions import BotoCoreError, ClientError

        boto = self.boto()
        # Listing uploads is a permission of its own. mfstore gives up its uploads itself; this is for peers.
        with suppress(ClientError, BotoCoreError):
            found = boto.list_multipart_uploads(Bucket=self.bucket, Prefix=f"{self.prefix}/")
            uploads = found.get("Uploads", ())
            for upload in uploads:
                boto.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            return len(uploads)
        return 0


class CloudTarget(BucketTarget):
    """A prefix of a container of Azure, or of a bucket of Google Cloud."""

    def endpoint(self, client: Any) -> str:
        """As BucketTarget's."""
        return str(client.transfers.control.host(Call("HeadBucket", self.bucket)))

    @contextmanager
    def peer(self, name: str, concurrency: int | None) -> Iterator[Peer]:
        """As BucketTarget's."""
        from mfstore.bench.cloud_peers import azure_place, google_place

        place = azure_place if self.kind == "az" else google_place
        yield PEERS_OF[self.kind][name](place(self._place, self.bucket, self.options, concurrency))


def open_target(url: str, *, checksum: bool = True, name: str | None = None, **options: Any) -> Target:
    """The place a URL or path names. ``name`` is of a scratch prefix that another machine has made. The rest is for
    clouds; options that are None are left out."""
    given = {name: value for name, value in options.items() if value is not None}
    if url.startswith("s3://"):
        return S3Target(url, checksum=checksum, name=name, **given)
    if names_object(url):
        return CloudTarget(url, checksum=checksum, name=name, **given)
    return BackendTarget(os.fspath(url), name=name)
