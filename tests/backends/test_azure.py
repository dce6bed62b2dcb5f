"""Stores on Azure: the contract, over http by key and over TLS by token, and what happens when things go wrong."""

import time
import types
from functools import cache

import pytest

from mfstore.backends.azure import AzureBackend
from mfstore.testing import BackendTests

pytestmark = pytest.mark.server


@cache
def container_of(server):
    """One for all tests of the contract, which take a prefix each."""
    return server.new_container()


class AzureTests(BackendTests):
    server_name = ""

    @pytest.fixture(autouse=True)
    def running(self, request, monkeypatch):
        self.server = request.getfixturevalue(self.server_name)
        self.container = container_of(self.server)
        # Pickled handles look for their keys where they are used.
        monkeypatch.setenv("AZURE_STORAGE_KEY", self.server.key)

    def options(self):
        return {"endpoint_url": self.server.endpoint, "account_key": self.server.key}

    def make_backend(self, tmp_path):
        return AzureBackend(f"az://{self.container}{tmp_path}", **self.options())

    def raw_set(self, backend, key, data):
        path = f"{self.container}/{backend.prefix}{key}"
        answer = self.server.request("PUT", path, headers={"x-ms-blob-type": "BlockBlob"}, body=data)
        assert answer.status == 201, answer

    def raw_get(self, backend, key):
        return self.server.request("GET", f"{self.container}/{backend.prefix}{key}").body


class TestByKey(AzureTests):
    server_name = "azurite"


class Token:
    """What azure-identity's credentials are like."""

    def __init__(self, server, seconds=3600):
        self.server, self.seconds, self.asked = server, seconds, []

    def get_token(self, *scopes, **kwargs):
        self.asked.append(scopes)
        return types.SimpleNamespace(token=self.server.token(self.seconds), expires_on=time.time() + self.seconds)


class TestByToken(AzureTests):
    server_name = "azurite_tls"

    def options(self):
        return {"endpoint_url": self.server.endpoint, "credential": Token(self.server), "verify": self.server.ca_file}
