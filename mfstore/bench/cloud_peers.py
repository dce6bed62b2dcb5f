"""Other clients of Azure's Blob Storage and of Google Cloud Storage, as ``peers`` has those of S3."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mfstore.bench.peers import PEERS, Looped, Peer, Take, Threaded
from mfstore.errors import InvalidKey, Unsupported

SCOPES = ["https://www.googleapis.com/auth/devstorage.read_write"]


@dataclass(frozen=True, slots=True)
class AzurePlace:
    """A container, and who asks for it. Of ``key``, ``sas`` and ``credential`` the one that is used."""

    endpoint: str
    """URL of the account."""
    account: str
    bucket: str
    key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)
    credential: Any = field(default=None, repr=False)
    """With ``get_token``, as azure-identity makes them; None without any: anonymous."""
    ca_file: str | None = None
    concurrency: int | None = None

    @property
    def secure(self) -> bool:
        """Whether it is https."""
        return self.endpoint.startswith("https")


@dataclass(frozen=True, slots=True)
class GooglePlace:
    """A bucket, and who asks for it."""

    endpoint: str
    bucket: str
    token: str | None = field(default=None, repr=False)
    """Of OAuth."""
    credentials: Any = field(default=None, repr=False)
    """google-auth's; None without a token either: anonymous."""
    project: str | None = None
    ca_file: str | None = None
    concurrency: int | None = None

    @property
    def secure(self) -> bool:
        """Whether it is https."""
        return self.endpoint.startswith("https")


CloudPlace = AzurePlace | GooglePlace


class CloudPeer(Peer):
    """A client that can list and delete as well."""

    where: Any

    def list(self, prefix: str) -> int:
        """How many objects are below it."""
        raise NotImplementedError

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        raise NotImplementedError


# obstore --------------------------------------------------------------------------------------------------------------


def obstore_store(where: CloudPlace) -> Any:
    """obstore's store of a container or bucket."""
    from obstore.store import AzureStore, GCSStore

    options: Any = {"allow_http": True, "timeout": "600s"}
    if where.ca_file and where.secure:
        options["root_certificate"] = Path(where.ca_file).read_bytes()
    if isinstance(where, GooglePlace):
        token = where.token
        if token is None and where.credentials is not None:
            where.credentials.refresh(import_module("google.auth.transport.requests").Request())
            token = where.credentials.token
        config: Any = {"base_url": where.endpoint}
        if token is None:
            config["skip_signature"] = True
            return GCSStore(where.bucket, config=config, client_options=options)

        def provide() -> Any:
            return {"token": token, "expires_at": None}

        return GCSStore(where.bucket, config=config, credential_provider=provide, client_options=options)
    who: Any = {"account_key": where.key} if where.key else {"sas_key": where.sas} if where.sas else {}
    if not who and where.credential is not None:
        who = {"token": where.credential.get_token("https://storage.azure.com/.default").token}
    return AzureStore(
        where.bucket, account_name=where.account, endpoint=where.endpoint, client_options=options,
        **(who or {"skip_signature": True}),
    )  # fmt: skip


class CloudObstore(Threaded, CloudPeer):
    """obstore's blocking calls in threads."""

    needs = ("obstore",)

    def open(self) -> None:
        """As Peer's."""
        self.store = obstore_store(self.where)

    def get_one(self, key: str) -> Any:
        """As Threaded's."""
        return self.store.get(key).bytes()

    def put_one(self, key: str, data: bytes) -> None:
        """As Threaded's."""
        self.store.put(key, data, use_multipart=False)

    def list(self, prefix: str) -> int:
        """As CloudPeer's."""
        return sum(len(page) for page in self.store.list(prefix, chunk_size=1000))

    def delete(self, keys: Iterable[str]) -> None:
        """As CloudPeer's."""
        self.store.delete(list(keys))


class CloudObstoreAsync(Looped, CloudPeer):
    """obstore's coroutines."""

    needs = ("obstore",)

    async def aopen(self) -> None:
        self.store = obstore_store(self.where)

    async def aget(self, key: str) -> Any:
        return await (await self.store.get_async(key)).bytes_async()

    async def aput(self, item: tuple[str, bytes]) -> None:
        await self.store.put_async(item[0], item[1], use_multipart=False)

    def list(self, prefix: str) -> int:
        """As CloudPeer's."""
        return sum(len(page) for page in self.store.list(prefix, chunk_size=1000))

    def delete(self, keys: Iterable[str]) -> None:
        """As CloudPeer's."""
        self.runner.run(self.store.delete_async(list(keys)))


# Azure ----------------------------------------------------------------------------------------------------------------


class AzureSdk(Threaded, CloudPeer):
    """azure-storage-blob in threads."""

    needs = ("azure.storage.blob",)

    def open(self) -> None:
        """As Peer's."""
        where = self.where
        self.client = import_module("azure.storage.blob").ContainerClient(
            where.endpoint, where.bucket, credential=where.key or where.sas or where.credential,
            connection_verify=where.ca_file or True,
        )  # fmt: skip

    def get_one(self, key: str) -> Any:
        """As Threaded's."""
        return self.client.download_blob(key).readall()

    def put_one(self, key: str, data: bytes) -> None:
        """As Threaded's."""
        self.client.upload_blob(key, data, overwrite=True)

    def list(self, prefix: str) -> int:
        """As CloudPeer's."""
        return sum(1 for _ in self.client.list_blob_names(name_starts_with=prefix))

    def delete(self, keys: Iterable[str]) -> None:
        """As CloudPeer's."""
        self._each(keys, self.client.delete_blob, lambda *_: None)


class Fsspec(CloudPeer):
    """A filesystem of fsspec, whose bulk calls take all objects at once."""

    files: Any

    def _path(self, key: str) -> str:
        return f"{self.where.bucket}/{key}"

    def get(self, keys: Iterable[str], take: Take) -> None:
        names = [self._path(key) for key in keys]
        # Neither takes no objects, and of one it returns the bytes alone.
        found = self.files.cat(names) if len(names) > 1 else {name: self.files.cat_file(name) for name in names}
        for number, name in enumerate(names):
            take(number, found[name], None)

    def put(self, items: Iterable[tuple[str, bytes]], take: Take) -> None:
        """As Peer's."""
        stored = {self._path(key): data for key, data in items}
        self.files.pipe(stored)
        for number in range(len(stored)):
            take(number, None, None)

    def list(self, prefix: str) -> int:
        """As CloudPeer's."""
        self.files.invalidate_cache()
        return len(self.files.find(self._path(prefix)))

    def delete(self, keys: Iterable[str]) -> None:
        """As CloudPeer's."""
        self.files.rm([self._path(key) for key in keys])


class Adlfs(Fsspec):
    """adlfs."""

    needs = ("adlfs",)

    def open(self) -> None:
        """As Peer's."""
        make = import_module("adlfs").AzureBlobFileSystem
        where = self.where
        if where.credential is not None:
            self.files = make(account_name=where.account, credential=where.credential, anon=False)
            return
        who = f"AccountKey={where.key}" if where.key else f"SharedAccessSignature={where.sas}"
        said = f"BlobEndpoint={where.endpoint};AccountName={where.account};{who}"
        self.files = make(connection_string=said, skip_instance_cache=True)


# Google ---------------------------------------------------------------------------------------------------------------


def google_credentials(where: GooglePlace) -> Any:
    """google-auth's, of a token too."""
    if where.credentials is not None:
        return where.credentials
    if where.token:
        return import_module("google.oauth2.credentials").Credentials(where.token)
    return import_module("google.auth.credentials").AnonymousCredentials()


class GoogleSdk(Threaded, CloudPeer):
    """google-cloud-storage in threads, without checksums."""

    needs = ("google.cloud.storage",)

    def open(self) -> None:
        """As Peer's."""
        where = self.where
        if where.ca_file and where.secure:
            os.environ["REQUESTS_CA_BUNDLE"] = where.ca_file
        self.client = import_module("google.cloud.storage").Client(
            project=where.project or "bench", credentials=google_credentials(where),
            client_options={"api_endpoint": where.endpoint},
        )  # fmt: skip
        self.bucket = self.client.bucket(where.bucket)

    def get_one(self, key: str) -> Any:
        """As Threaded's."""
        return self.bucket.blob(key).download_as_bytes(checksum=None)

    def put_one(self, key: str, data: bytes) -> None:
        """As Threaded's."""
        self.bucket.blob(key).upload_from_string(data, content_type="application/octet-stream", checksum=None)

    def list(self, prefix: str) -> int:
        """As CloudPeer's."""
        return sum(1 for _ in self.client.list_blobs(self.bucket, prefix=prefix))

    def delete(self, keys: Iterable[str]) -> None:
        """As CloudPeer's."""
        self._each(keys, lambda key: self.bucket.blob(key).delete(), lambda *_: None)


class Gcsfs(Fsspec):
    """gcsfs."""

    needs = ("gcsfs",)

    def open(self) -> None:
        """As Peer's."""
        where = self.where
        # Else it asks by gRPC, whatever the endpoint, what kind of bucket it is.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        who = where.credentials or (google_credentials(where) if where.token else "anon")
        self.files = import_module("gcsfs").GCSFileSystem(
            project=where.project or "bench", token=who, endpoint_url=where.endpoint, skip_instance_cache=True,
            consistency="none",
        )  # fmt: skip


AZURE_PEERS: Mapping[str, type[Peer]] = {
    "obstore": CloudObstore, "obstore-async": CloudObstoreAsync, "azure-storage-blob": AzureSdk, "adlfs": Adlfs,
}  # fmt: skip
"""By the names that ``--peers`` takes for az://."""
GOOGLE_PEERS: Mapping[str, type[Peer]] = {
    "obstore": CloudObstore, "obstore-async": CloudObstoreAsync, "google-cloud-storage": GoogleSdk, "gcsfs": Gcsfs,
}  # fmt: skip
"""... and for gs://."""
PEERS_OF: Mapping[str, Mapping[str, type[Peer]]] = {"s3": PEERS, "az": AZURE_PEERS, "gs": GOOGLE_PEERS}
"""By the scheme of a place."""


def require(names: Iterable[str], scheme: str) -> None:
    """InvalidKey for a peer that nobody knows there, Unsupported for one that is not installed."""
    peers = PEERS_OF.get(scheme, PEERS)
    for name in names:
        if name not in peers:
            raise InvalidKey("no such peer", found=repr(name), expected=", ".join(peers))
        if missing := [module for module in peers[name].needs if not _is_installed(module)]:
            raise Unsupported(
                f"the peer {name} is not installed", hint=f"pip install {' '.join(map(_package, missing))}"
            )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _package(module: str) -> str:
    return module.replace(".", "-")


# Places --------------------------------------------------------------------------------------------------------------


def azure_place(url: str, bucket: str, options: Mapping[str, Any], concurrency: int | None) -> AzurePlace:
    """A container as peers want it described, by what a ``BulkClient`` of it was told."""
    from mfstore.azure.credentials import default_credential
    from mfstore.azure.settings import AzureSettings

    known = {one.name for one in fields(AzureSettings)}
    given = {name: value for name, value in options.items() if name in known}
    account = AzureSettings.given(**{**given, "url": url}).account(os.environ)
    credential = account.credential
    if not (account.key or account.sas or credential or account.anonymous):
        credential = default_credential()
    return AzurePlace(
        account.origin + account.root, account.name, bucket, account.key, account.sas, credential,
        given.get("verify") if isinstance(given.get("verify"), str) else None, concurrency,
    )  # fmt: skip


def google_place(url: str, bucket: str, options: Mapping[str, Any], concurrency: int | None) -> GooglePlace:
    """A bucket, likewise."""
    from mfstore.gcs.settings import GcsSettings

    known = {one.name for one in fields(GcsSettings)}
    given = {name: value for name, value in options.items() if name in known}
    settings = GcsSettings.given(url, **given)
    place = settings.place(os.environ)
    credentials, token = settings.credentials, settings.token
    if callable(token):
        token = token()
    if credentials is None and token is None and not (settings.anonymous or place.emulated):
        credentials, _ = import_module("google.auth").default(SCOPES)
    return GooglePlace(
        place.origin, bucket, token if isinstance(token, str | None) else token[0], credentials, place.project,
        settings.verify if isinstance(settings.verify, str) else None, concurrency,
    )  # fmt: skip
