"""Stores in the clouds that are not S3."""

from __future__ import annotations

import pytest

import mfstore


class Cloud:
    """A container or bucket of a test, and how it is reached."""

    def __init__(self, scheme, server, bucket, options):
        self.scheme, self.server, self.bucket, self.options = scheme, server, bucket, options

    def url(self, path=""):
        return f"{self.scheme}://{self.bucket}/{path}".rstrip("/")

    def open(self, path="store", **options):
        return mfstore.open(self.url(path), **self.options, **options)


@pytest.fixture(params=["az", "gs"])
def cloud(request, monkeypatch):
    if request.param == "az":
        server = request.getfixturevalue("azurite")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", server.connection_string)
        yield Cloud("az", server, server.new_container(), {})
    else:
        server = request.getfixturevalue("gcs_server")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield Cloud("gs", server, server.new_bucket(), {})
