"""Azurite does what other tests rely on, found out with http.client: docs/emulators.md says what it does not."""

import base64
import http.client
import re
import ssl
import threading
from urllib.parse import quote, urlsplit

import pytest

from mfstore.testing import NetworkFault
from mfstore.testing.actions import LoseResponse
from tests.servers.azurite import signed

pytestmark = pytest.mark.server
BLOB = {"x-ms-blob-type": "BlockBlob"}


@pytest.fixture
def container(azurite):
    return azurite.new_container()


def code(answer):
    return answer.status, answer.headers.get("x-ms-error-code")


def test_conditions(azurite, container):
    def put(name, body=b"data", **headers):
        return azurite.request("PUT", f"{container}/{name}", headers={**BLOB, **headers}, body=body)

    first = put("a/k%20%C3%BC", **{"If-None-Match": "*"}).headers["etag"]
    assert code(put("a/k%20%C3%BC", **{"If-None-Match": "*"})) == (409, "BlobAlreadyExists")
    assert code(put("none", **{"If-Match": first})) == (412, "ConditionNotMet")
    second = put("a/k%20%C3%BC", b"other", **{"If-Match": first}).headers["etag"]
    blob = f"{container}/a/k%20%C3%BC"
    for method in ("GET", "DELETE"):
        assert code(azurite.request(method, blob, headers={"If-Match": first})) == (412, "ConditionNotMet")
    found = azurite.request("GET", blob, headers={"If-Match": second, "Range": "bytes=1-2"})
    assert (found.status, found.body, found.headers["content-range"]) == (206, b"th", "bytes 1-2/5")
    assert azurite.request("DELETE", blob, headers={"If-Match": second}).status == 202
    assert code(azurite.request("DELETE", blob)) == (404, "BlobNotFound")
    assert code(azurite.request("GET", "nowhere/k")) == (404, "ContainerNotFound")


def test_blocks_and_checksums(azurite, container):
    blob = f"{container}/k"
    names = [base64.b64encode(b"upload-%03d" % number).decode() for number in range(2)]
    blocks = [f"comp=block&blockid={quote(name, safe='')}" for name in names]
    listed = f"<BlockList>{''.join(f'<Latest>{name}</Latest>' for name in names)}</BlockList>".encode()
    assert azurite.request("PUT", blob, blocks[0], body=b"first").status == 201
    assert code(azurite.request("PUT", blob, "comp=blocklist", body=listed)) == (400, "InvalidBlockList")
    wrong = base64.b64encode(bytes(8)).decode()
    for query, headers in ((blocks[1], {}), ("", BLOB)):
        answer = azurite.request("PUT", blob, query, {**headers, "x-ms-content-crc64": wrong}, b"second")
        assert code(answer) == (400, "Crc64Mismatch")
    right = re.search(rb"<ServerCalculatedCrc64>(.*?)<", answer.body)[1].decode()
    assert azurite.request("PUT", blob, blocks[1], {"x-ms-content-crc64": right}, b"second").status == 201
    assert code(azurite.request("GET", blob)) == (404, "BlobNotFound"), "not before the list"
    create = {"If-None-Match": "*", "x-ms-meta-some_thing": "said"}
    assert azurite.request("PUT", blob, "comp=blocklist", create, listed).status == 201
    assert code(azurite.request("PUT", blob, "comp=blocklist", create, listed)) == (409, "BlobAlreadyExists")
    found = azurite.request("GET", blob)
    assert (found.body, found.headers["x-ms-meta-some_thing"]) == (b"firstsecond", "said")


def test_races_have_one_winner(azurite, container):
    def race(method, headers):
        statuses = []

        def ask():
            body = b"" if method == "DELETE" else b"1"
            statuses.append(azurite.request(method, f"{container}/k", headers={**BLOB, **headers}, body=body).status)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(statuses)

    def here():
        return {"If-Match": azurite.request("HEAD", f"{container}/k").headers["etag"]}

    assert race("PUT", {"If-None-Match": "*"}) == [201, *[409] * 7]
    assert race("PUT", here()) == [201, *[412] * 7]
    assert race("DELETE", here()) == [202, *[412] * 7]


def test_a_wrong_key_and_none_are_refused(azurite, container):
    wrong = base64.b64encode(bytes(64)).decode()
    for answer in (
        azurite.request("GET", f"{container}/k", key=wrong),
        azurite.request("GET", f"{container}/k", headers={"Authorization": ""}),
        azurite.request("GET", f"{container}/k", headers={"Authorization": "Bearer token"}),
    ):
        assert answer.status in (401, 403)


def test_a_shared_access_signature_gives_what_it_names(azurite, container):
    def ask(permissions, method, blob, body=b"", **sas):
        headers = {**BLOB, "Authorization": ""}
        query = azurite.sas(permissions, **sas)
        return code(azurite.request(method, f"{container}/{blob}", query, headers, body))

    refused = (403, "AuthorizationPermissionMismatch")
    assert ask("c", "PUT", "k", b"data") == (201, None)
    assert ask("c", "PUT", "k", b"other") == refused
    assert [ask("r", method, "k") for method in ("GET", "PUT", "DELETE")] == [(200, None), refused, refused]
    assert [ask(permissions, "HEAD", "none") for permissions in "rw"] == [(404, "BlobNotFound"), refused]
    assert ask("r", "GET", "k", seconds=-60)[0] == 403
    assert [ask(permissions, method, "k") for permissions, method in (("w", "PUT"), ("d", "DELETE"))] == [
        (201, None), (202, None),
    ]  # fmt: skip


def test_https_takes_keys_and_tokens(azurite_tls):
    server = azurite_tls
    blob = f"{server.new_container()}/k"
    token = {"Authorization": f"Bearer {server.token()}"}
    assert server.request("PUT", blob, headers={**BLOB, **token}, body=b"data").status == 201
    assert server.request("GET", blob).body == b"data"
    old = {"Authorization": f"Bearer {server.token(seconds=-1)}"}
    assert code(server.request("GET", blob, headers=old)) == (403, "AuthenticationFailed")
    connection = http.client.HTTPSConnection("localhost", urlsplit(server.url).port, timeout=60)
    with pytest.raises(ssl.SSLCertVerificationError):  # nobody but the tests trusts it
        connection.request("GET", "/")


def test_requests_are_counted_and_broken_before_it(azurite, container, fault_proxy_of):
    proxy = fault_proxy_of(azurite, [NetworkFault(action=LoseResponse(), method="DELETE", count=1)])
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    path = f"/{azurite.account}/{container}/k"

    def ask(method, headers=(), body=b""):
        connection.request(method, path, body, signed(azurite, method, path, "", {**dict(headers)}, body))
        response = connection.getresponse()
        return response.status, response.read()

    assert ask("PUT", BLOB, b"data")[0] == 201
    assert [ask("GET") for _ in range(2)] == [(200, b"data")] * 2
    with pytest.raises(ConnectionError):
        ask("DELETE")
    connection.close()
    assert code(azurite.request("GET", f"{container}/k")) == (404, "BlobNotFound")
    assert [(entry.method, entry.connection) for entry in proxy.log] == [
        ("PUT", 1), ("GET", 1), ("GET", 1), ("DELETE", 1),
    ]  # fmt: skip
