"""Stores in Google Cloud Storage: the contract, on fake-gcs-server behind a front that keeps to Google's word."""

import json
from urllib.parse import quote

import pytest

from mfstore.backends.gcs import GcsBackend
from mfstore.testing import BackendTests

pytestmark = pytest.mark.server


class TestGcs(BackendTests):
    @pytest.fixture(autouse=True)
    def running(self, gcs_server, monkeypatch):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
        self.server = gcs_server
        self.bucket = gcs_server.new_bucket()

    def make_backend(self, tmp_path):
        return GcsBackend(f"gs://{self.bucket}/a store")

    def raw_set(self, backend, key, data):
        head = json.dumps({"name": backend.prefix + key}).encode()
        body = b"--x\r\nContent-Type: application/json\r\n\r\n" + head
        body += b"\r\n--x\r\nContent-Type: application/octet-stream\r\n\r\n" + data + b"\r\n--x--"
        headers = {"Content-Type": "multipart/related; boundary=x"}
        path = f"upload/storage/v1/b/{self.bucket}/o"
        answer = self.server.request("POST", path, "uploadType=multipart", headers, body)
        assert answer.status == 200, answer

    def raw_get(self, backend, key):
        path = f"storage/v1/b/{self.bucket}/o/{quote(backend.prefix + key, safe='')}"
        answer = self.server.request("GET", path, "alt=media")
        assert answer.status == 200, answer
        return answer.body
