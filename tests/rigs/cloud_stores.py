"""Metaflow datastores on real servers of Azure and Google Cloud, ours and stock; and flows that have theirs there."""

import json
from contextlib import closing, contextmanager, suppress
from urllib.parse import quote

from mfstore.metaflow.extension import AzureStorage, GSStorage
from mfstore.metaflow.hooks import marks
from mfstore.testing import FaultProxy
from tests import ROOT
from tests.rigs.metaflow_stores import DatastoreRig

CREDENTIALS = ROOT / "tests" / "flows" / "cloud_credentials"
"""A Metaflow extension, for PYTHONPATH: its providers hand out what the servers here take."""


class CloudRig(DatastoreRig):
    """What both have in common: Metaflow's own storages have threads, which nobody ends."""

    def __init__(self, *given):
        super().__init__(*given)
        self._stock = []

    def _ended(self, kind):
        made = self._stock

        class Ended(kind):
            def __init__(self, root=None):
                super().__init__(root)
                made.append(self)

        return Ended

    def close(self):
        """Answer what a test left under way, and end threads."""
        self.proxy.faults = []
        for _ in range(10):
            with suppress(Exception):
                marks.wait_for_marks(f"{self.storage().url}/")
        for storage in self._stock:
            storage._executor._executor.shutdown()


class AzureRig(CloudRig):
    """Stock Metaflow knows tokens alone, and those go over https alone: what it makes its clients with here is a
    signature."""

    def storage(self, stock=False):
        if not stock:
            return AzureStorage(self.root)
        from metaflow.plugins.datastores import azure_storage

        signature = self.server.sas("rwlc")

        class Signed(self._ended(azure_storage.AzureStorage)):
            @property
            def root_client(self):
                return azure_storage._AzureRootClient(self.datastore_root, shared_access_signature=signature)

        return Signed(self.root)

    def read(self, path):
        answer = self.server.request("GET", f"{self.bucket}/{quote(self.key_of(path))}")
        assert answer.status == 200, answer
        return answer.body

    def metadata(self, path):
        """What Metaflow says of a blob."""
        answer = self.server.request("HEAD", f"{self.bucket}/{quote(self.key_of(path))}")
        return json.loads(answer.headers["x-ms-meta-metaflow_user_attributes"])

    def write(self, path, data):
        headers = {"x-ms-blob-type": "BlockBlob"}
        answer = self.server.request("PUT", f"{self.bucket}/{quote(self.key_of(path))}", headers=headers, body=data)
        assert answer.status == 201, answer

    def written(self, path):
        """When, in whatever this kind of server counts that in."""
        return max(one.finished for one in self.proxy.requests("PUT", path=path))

    def key_of(self, path):
        return f"{self.root.removeprefix(f'{self.bucket}/')}/{path}"


class GoogleRig(CloudRig):
    """Whoever asks is let in."""

    def storage(self, stock=False):
        if not stock:
            return GSStorage(self.root)
        from metaflow.plugins.datastores import gs_storage

        return self._ended(gs_storage.GSStorage)(self.root)

    def read(self, path):
        answer = self.server.request("GET", f"storage/v1/b/{self.bucket}/o/{self._quoted(path)}", "alt=media")
        assert answer.status == 200, answer
        return answer.body

    def metadata(self, path):
        """What Metaflow says of a blob."""
        answer = self.server.request("GET", f"storage/v1/b/{self.bucket}/o/{self._quoted(path)}")
        return json.loads(json.loads(answer.body)["metadata"]["metaflow-user-attributes"])

    def write(self, path, data):
        query = f"uploadType=media&name={self._quoted(path)}"
        answer = self.server.request("POST", f"upload/storage/v1/b/{self.bucket}/o", query, body=data)
        assert answer.status == 200, answer

    def written(self, path):
        """When, in whatever this kind of server counts that in."""
        answer = self.server.request("GET", f"storage/v1/b/{self.bucket}/o/{self._quoted(path)}")
        return int(json.loads(answer.body)["generation"])

    def _quoted(self, path):
        return quote(self.key_of(path), safe="")

    def key_of(self, path):
        return f"{self.root.removeprefix(f'gs://{self.bucket}/')}/{path}"


@contextmanager
def azure_datastore(server, monkeypatch):
    """A root in a new container, reached through a proxy that counts and breaks requests."""
    from metaflow import metaflow_config
    from metaflow.plugins.azure import blob_service_client_factory

    container = server.new_container("mf")
    with FaultProxy(server.url) as proxy:
        endpoint = f"{proxy.url}/{server.account}"
        for module in (metaflow_config, blob_service_client_factory):
            monkeypatch.setattr(module, "AZURE_STORAGE_BLOB_SERVICE_ENDPOINT", endpoint)
        monkeypatch.setenv("AZURE_STORAGE_KEY", server.key)
        with closing(AzureRig("azure", f"{container}/root", server, container, proxy)) as rig:
            yield rig


@contextmanager
def google_datastore(server, monkeypatch):
    """Likewise in a new bucket."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage
    from metaflow.plugins.gcp import gs_storage_client_factory

    bucket = server.new_bucket("mf")
    with FaultProxy(server.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        client = storage.Client(project=server.project, credentials=AnonymousCredentials())
        monkeypatch.setattr(gs_storage_client_factory, "_get_gs_storage_client_default", lambda: client)
        with closing(GoogleRig("gs", f"gs://{bucket}/root", server, bucket, proxy)) as rig:
            yield rig
        client.close()


def azure_place(server, container, url=None):
    """The environment that puts a flow's artifacts in a container: of a server over https by a provider's token, over
    http by the account's key."""
    root = f"{container}/mf"
    place = {
        "METAFLOW_DEFAULT_DATASTORE": "azure",
        "METAFLOW_DATASTORE_SYSROOT_AZURE": root,
        "METAFLOW_AZURE_STORAGE_BLOB_SERVICE_ENDPOINT": f"{url or server.url}/{server.account}",
    }
    if server.scheme == "http":
        return {**place, "AZURE_STORAGE_KEY": server.key}
    trusted = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(server.ca_file))
    provider = {"METAFLOW_DEFAULT_AZURE_CLIENT_PROVIDER": "from-environment"}
    return {**place, **trusted, **provider, "CLOUD_CREDENTIALS_TOKEN": server.token()}


def google_place(server, bucket, url=None):
    """Likewise of a bucket."""
    return {
        "METAFLOW_DEFAULT_DATASTORE": "gs",
        "METAFLOW_DATASTORE_SYSROOT_GS": f"gs://{bucket}/mf",
        "METAFLOW_DEFAULT_GCP_CLIENT_PROVIDER": "from-environment",
        "STORAGE_EMULATOR_HOST": url or server.url,
    }
