"""Stores on Azure: the contract, over http by key and over TLS by token, and what happens when things go wrong."""

import base64
import hashlib
import hmac
import json
import os
import random
import subprocess
import sys
import time
import types
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from urllib.parse import urlencode

import numpy as np
import pytest

import mfstore
from mfstore import errors
from mfstore.azure import answers, credentials
from mfstore.azure.control import AzureControlPlane
from mfstore.backends.azure import ACCOUNT, AzureBackend
from mfstore.backends.ranges import KeyRange, without
from mfstore.s3.bulk.client import BulkClient
from mfstore.s3.service import AZURE
from mfstore.s3.transfers import copies, uploads
from mfstore.testing import BackendTests, NetworkFault
from mfstore.testing.actions import FlipRequest, LoseResponse, Reset, Truncate, azure_error
from tests.rigs.gc import collect
from tests.rigs.s3_faults import Held
from tests.rigs.soak import soaking

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


if soaking():  # what differs from a key is tried below

    @pytest.mark.fuzz
    class TestByToken(AzureTests):
        server_name = "azurite_tls"

        def options(self):
            return by_token(self.server)


def by_token(server):
    """The options of whoever comes with a token, over TLS."""
    return {"endpoint_url": server.endpoint, "credential": Token(server), "verify": server.ca_file}


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.fixture
def place(azurite):
    return Place(azurite)


class Place:
    """A container, and how stores and clients are opened in it."""

    def __init__(self, server):
        self.server, self.container = server, server.new_container()
        self.url = f"az://{self.container}/some/store"
        self.options = {"endpoint_url": server.endpoint, "account_key": server.key}

    def through(self, proxy, **more):
        """The options of whoever goes through a proxy."""
        return {**self.options, "endpoint_url": f"{proxy.url}/{self.server.account}", **more}

    def open(self, proxy=None, **more):
        return mfstore.open(self.url, **(self.options if proxy is None else self.through(proxy)), **more)

    def backend(self, proxy=None, **more):
        return AzureBackend(self.url, **(self.options if proxy is None else self.through(proxy)), **more)

    def blob(self, method, key, query="", headers=(), body=b""):
        return self.server.request(method, f"{self.container}/some/store/{key}", query, headers, body)


def inject(proxy, fault):
    """Another fault than before."""
    proxy.faults = [fault]


ARRAY = np.random.default_rng(0).random(200_000)
LARGE = random.Random(2).randbytes(3 << 20)


@pytest.fixture
def short_blocks(monkeypatch):
    """Objects are large from 1 MiB on."""
    monkeypatch.setattr(uploads, "LONGEST_ELSEWHERE", 1 << 20)
    monkeypatch.setattr(uploads, "PART_BYTES", 1 << 20)


def test_few_requests_for_small_things(place, fault_proxy_of):
    proxy = fault_proxy_of(place.server)

    def counts():
        found = Counter(entry.method for entry in proxy.requests())
        proxy.clear()
        return dict(found)

    store = place.open(proxy)
    first = store.save({"the first": 1})
    assert counts()["PUT"] == 2  # the description, and the recipe
    key = store.save({"x": [1, 2]})
    assert counts() == {"GET": 1, "PUT": 1}
    other = place.open(proxy)
    assert counts() == {"GET": 1}
    assert other.load(key, ["x"]) == {"x": [1, 2]}
    assert counts() == {"GET": 1}
    store.refs["latest"] = first
    assert counts() == {"GET": 2, "PUT": 1}
    store.refs["latest"] = key
    assert counts() == {"GET": 2, "PUT": 1}  # conditions need not be tried


@pytest.mark.parametrize(
    "action",
    [
        azure_error(503, "ServerBusy", Retry_After="0"), azure_error(500, "InternalError"), Reset(), Truncate(100),
        LoseResponse(),
    ],
    ids=lambda action: f"{type(action).__name__}-{getattr(action, 'code', '')}",
)  # fmt: skip
def test_every_third_request_fails_and_nothing_is_lost(place, fault_proxy_of, action):
    proxy = fault_proxy_of(place.server, [NetworkFault(action=action, every=3)])
    store = place.open(proxy)
    key = store.save({"array": ARRAY, "text": "words " * 1000})
    store.refs["latest"] = key
    store.refs["latest"] = store.put(1)
    store.refs["latest"] = key
    proxy.faults = ()
    with place.open() as other:
        np.testing.assert_array_equal(other.load(other.refs["latest"], ["array"])["array"], ARRAY)


def test_a_lost_answer_to_a_conditional_write_is_no_conflict(place, fault_proxy_of):
    proxy = fault_proxy_of(place.server, [NetworkFault(action=LoseResponse(), method="PUT", count=1)])
    backend = place.backend(proxy)
    etag = backend.put_if("refs/one", b"ours", None)
    assert backend.head("refs/one").etag == etag
    inject(proxy, NetworkFault(action=LoseResponse(), method="PUT", count=1))
    assert backend.put_if("refs/one", b"ours again", etag) == backend.head("refs/one").etag
    place.blob("PUT", "refs/two", headers={"x-ms-blob-type": "BlockBlob"}, body=b"theirs")
    with pytest.raises(errors.Conflict):
        backend.put_if("refs/two", b"ours", None)


@pytest.mark.usefixtures("short_blocks")
def test_a_lost_answer_on_a_connection_that_served_before_is_no_conflict(place, fault_proxy_of):
    """On such a one a request that got no answer is made again, unseen, unless it could meet its own effect."""
    proxy = fault_proxy_of(place.server, [NetworkFault(action=LoseResponse(), query="comp=blocklist", count=1)])
    backend = place.backend(proxy)
    etag = backend.put_if("refs/large", LARGE, None)
    assert etag == backend.head("refs/large").etag
    inject(proxy, NetworkFault(action=LoseResponse(), query="comp=blocklist", count=1))
    assert backend.put_if("refs/large", LARGE[::-1], etag) == backend.head("refs/large").etag
    inject(proxy, NetworkFault(action=LoseResponse(), method="PUT", path="moved$", count=1))
    etag = backend.put_if("refs/one", b"one", None)
    assert backend.move_unchanged("refs/one", "refs/moved", etag, replace=False)
    assert backend.exists_many(["refs/one", "refs/moved"]) == [False, True]
    assert backend.get("refs/moved") == b"one"
    inject(proxy, NetworkFault(action=LoseResponse(), method="DELETE", count=1))
    with BulkClient(place.url.rpartition("/")[0], **place.through(proxy)) as client:
        key = "some/store/refs/moved"
        client.delete_many([key], if_match={key: backend.head("refs/moved").etag})
        client.put_many([(key, b"another")])
        inject(proxy, NetworkFault(action=Reset(), method="DELETE", count=1))
        with pytest.raises(errors.Conflict):
            client.delete_many([key], if_match={key: etag})


def test_names_that_azure_takes_for_others_are_not_asked_for(place, fault_proxy_of):
    proxy = fault_proxy_of(place.server)
    backend = place.backend()
    with BulkClient(f"az://{place.container}", **place.through(proxy)) as client:
        for key in ("a.", "b/../a", "./a", "a\\b", "b./a"):
            for ask in (client.get_many, client.head_many, client.delete_many):
                with pytest.raises(errors.InvalidKey):
                    [*ask([key])]
            for ask in (backend.get, backend.head, backend.delete):
                with pytest.raises((errors.InvalidKey, errors.BackendError)) as caught:
                    ask(key)
                assert not isinstance(caught.value, errors.NotFound)
    assert not proxy.requests()


def test_a_url_of_another_account_is_not_looked_for_in_this_one(place):
    with BulkClient(f"az://{place.container}", **place.options) as client:
        client.put_many([("one", b"1")])
        for account in ("other.dfs.core.windows.net", "other"):
            with pytest.raises(errors.InvalidKey, match="account"):
                client.delete_many([f"abfss://{place.container}@{account}/one"])
        assert [found.key for found in client.list("")] == ["one"]
    name = place.server.account
    with BulkClient(f"abfss://{place.container}@{name}", **place.options) as client:
        (found,) = client.get_many([f"abfss://{place.container}@{name}/one"])
        assert found.data == b"1"


@pytest.mark.usefixtures("short_blocks")
def test_large_objects_go_in_blocks_and_survive_lost_answers(place, fault_proxy_of):
    proxy = fault_proxy_of(place.server, [NetworkFault(action=LoseResponse(), query="comp=blocklist", count=1)])
    client = BulkClient(f"az://{place.container}", **place.through(proxy))
    (outcome,) = client.put_many([("large", LARGE)], content_type="text/x", metadata={"a-b": "c"})
    assert outcome.size == len(LARGE)
    stored = place.server.request("GET", f"{place.container}/large")
    assert stored.body == LARGE
    assert (stored.headers["content-type"], stored.headers["x-ms-meta-a_b"]) == ("text/x", "c")
    (got,) = client.get_many(["large"])
    assert (bytes(got.data), got.metadata["a_b"]) == (LARGE, "c")


@pytest.mark.usefixtures("short_blocks")
def test_blocks_that_another_writer_swept_away_are_sent_again(place, fault_proxy_of):
    """Whoever writes a blob drops the blocks that others have sent for it."""
    held = Held()
    proxy = fault_proxy_of(place.server, [NetworkFault(action=held, query="comp=blocklist", count=1)])
    client = BulkClient(f"az://{place.container}", **place.through(proxy))
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(lambda: list(client.put_many([("large", LARGE)])))
        assert held.seen.wait(60)
        other = BulkClient(f"az://{place.container}", **place.options)
        list(other.put_many([("large", LARGE[::-1])]))
        held.go.set()
        (outcome,) = putting.result()
    assert outcome.error is None
    assert place.server.request("GET", f"{place.container}/large").body == LARGE


def test_bytes_that_change_on_their_way_are_refused_by_azure(place, fault_proxy_of):
    proxy = fault_proxy_of(place.server, [NetworkFault(action=FlipRequest(), method="PUT", count=1)])
    client = BulkClient(f"az://{place.container}", **place.through(proxy))
    (outcome,) = client.put_many([("one", b"x" * 5000)])
    assert (outcome.error, outcome.attempts) == (None, 2)
    assert place.server.request("GET", f"{place.container}/one").body == b"x" * 5000


def test_a_refusal_is_never_absence(place, fault_proxy_of):
    key = place.open().put([1, 2])
    for action in (
        azure_error(403, "AuthorizationPermissionMismatch"), azure_error(403, "AuthorizationFailure"),
        azure_error(404, "ResourceNotFound"), azure_error(409, "PublicAccessNotPermitted"),
    ):  # fmt: skip
        proxy = fault_proxy_of(place.server)
        store = place.open(proxy)
        inject(proxy, NetworkFault(action=action))
        with pytest.raises(errors.AccessDenied):
            store.get(key)
        with pytest.raises(errors.AccessDenied):
            store.exists(key)
        with pytest.raises(errors.AccessDenied):
            list(store.keys())
        with pytest.raises(errors.AccessDenied):
            store.put([3])


def test_what_is_missing_is_named(place):
    missing = AzureBackend("az://no-such-container/x", **place.options)
    with pytest.raises(errors.NotFound, match=r"no such container.*devstoreaccount1.*ContainerNotFound"):
        missing.put("packs/ab/one", [b"x"])
    with pytest.raises(errors.NotFound, match="ContainerNotFound"):
        missing.put_if("refs/one", b"x", "0x1")
    reader = AzureBackend(place.url, endpoint_url=place.server.endpoint, sas_token=place.server.sas("rl"))
    with pytest.raises(errors.AccessDenied, match=r"sp=.*write"):
        reader.put("packs/ab/one", [b"x"])
    assert list(reader.list("")) == []
    wrong = AzureBackend(place.url, endpoint_url=place.server.endpoint, account_key="d3Jvbmc=")
    with pytest.raises(errors.AccessDenied, match="devstoreaccount1"):
        wrong.get("packs/ab/one")
    ended = AzureBackend(place.url, endpoint_url=place.server.endpoint, sas_token=place.server.sas("rl", -60))
    with pytest.raises(errors.AccessDenied) as caught:
        ended.get("packs/ab/one")
    assert "sig=" not in str(caught.value)


def test_leases_keep_blobs(place):
    backend = place.backend()
    backend.put("packs/ab/one", [b"1"])
    backend.put("packs/ab/two", [b"2"])
    etags = {info.key: info.etag for info in backend.list("packs/")}
    lease = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1"}
    assert place.blob("PUT", "packs/ab/one", "comp=lease", lease).status == 201
    with pytest.raises(errors.Locked, match="lease") as caught:
        backend.delete_unchanged(etags)
    assert [*caught.value.locks] == ["packs/ab/one"]
    assert [info.key for info in backend.list("packs/")] == ["packs/ab/one"]
    with pytest.raises(errors.AccessDenied, match="lease"):
        backend.put("packs/ab/one", [b"2"])


def test_directories_are_no_blobs(place):
    backend = place.backend()
    backend.put("packs/ab/one", [b"1"])
    place.blob("PUT", "packs/ab", headers={"x-ms-blob-type": "BlockBlob", "x-ms-meta-hdi_isfolder": "true"})
    assert [info.key for info in backend.list("")] == ["packs/ab/one"]


@pytest.mark.parametrize("told", ["flat", "hierarchical", "not told"])
def test_ranges_of_a_listing_in_any_order(place, monkeypatch, told):
    """In an account with a hierarchical namespace names come in another order: there no listing is cut by keys."""
    backend = place.backend()
    keys = [f"{folder}/{number}" for folder in ("a", "a-b", "b", "c") for number in range(5)]
    backend.put_all([(key, [b"x"]) for key in keys])
    if told != "flat":
        flat = {"HierarchicalNamespace": True} if told == "hierarchical" else {}
        real = answers.output
        monkeypatch.setattr(
            answers, "output", lambda call, reply: flat if call.operation == ACCOUNT else real(call, reply)
        )
    found = [info.key for info in backend.list_ranges(without("", ["a/"]))]
    assert sorted(found) == [key for key in keys if not key.startswith("a/")]
    assert sorted(info.key for info in backend.list_ranges([KeyRange("b/", "b/1", "b/4")])) == ["b/2", "b/3"]


def test_copies_keep_what_is_said_of_a_blob(place):
    backend = place.backend()
    backend.put("packs/ab/one", [b"12345"])
    backend.copy("packs/ab/one", "packs/ab/two")
    assert backend.vouch(["packs/ab/two"]) == {"packs/ab/two": 5}
    etag = backend.head("packs/ab/one").etag
    backend.aging.add("packs/ab/one")
    backend.refresh(["packs/ab/one"])
    assert backend.head("packs/ab/one").etag != etag  # written again
    assert backend.vouch(["packs/ab/one"]) == {"packs/ab/one": 5}


def container_sas(server, container):
    """A signature for one container: Azurite knows no signature of an account that lets blocks be copied."""
    end, version = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)), "2020-12-06"
    path = f"/blob/{server.account}/{container}"
    text = "\n".join(["rwdl", "", end, path, "", "", "", version, "c", "", "", "", "", "", "", ""])
    made = hmac.new(base64.b64decode(server.key), text.encode(), hashlib.sha256).digest()
    return urlencode({"sv": version, "se": end, "sr": "c", "sp": "rwdl", "sig": base64.b64encode(made).decode()})


@pytest.mark.usefixtures("short_blocks")
def test_long_copies_go_in_blocks_inside_the_service(place, fault_proxy_of, monkeypatch):
    proxy = fault_proxy_of(place.server)
    options = {**place.through(proxy), "sas_token": container_sas(place.server, place.container)}
    del options["account_key"]
    backend = AzureBackend(place.url, **options)
    backend.put("packs/ab/one", [LARGE])
    monkeypatch.setattr(copies, "COPIED_PART", 1 << 20)
    monkeypatch.setattr(AzureControlPlane, "service", replace(AZURE, largest_copy=1 << 20))
    proxy.clear()
    backend.copy("packs/ab/one", "packs/ab/two")
    assert len(proxy.requests("PUT", query="comp=block&")) == 1 + 3  # one byte first
    assert not proxy.requests("GET")
    assert backend.get("packs/ab/two") == LARGE
    assert backend.vouch(["packs/ab/two"]) == {"packs/ab/two": len(LARGE)}


# ---- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_blocks")
def test_by_a_token(azurite_tls):
    """All that says who asks in another way than by a signature: each kind of request."""
    backend = AzureBackend(f"az://{azurite_tls.new_container()}/x", **by_token(azurite_tls))
    backend.put("packs/ab/one", [LARGE])
    assert backend.get("packs/ab/one") == LARGE
    backend.copy("packs/ab/one", "packs/ab/two")
    assert {*backend.vouch(["packs/ab/one", "packs/ab/two"]).values()} == {len(LARGE)}
    etag = backend.put_if("refs/one", b"1", None)
    with pytest.raises(errors.Conflict):
        backend.put_if("refs/one", b"2", "0x1")
    assert backend.move_unchanged("packs/ab/two", "quarantine/two", backend.head("packs/ab/two").etag, replace=False)
    found = {info.key: info.etag for info in backend.list("")}
    assert found["refs/one"] == etag
    assert sorted(found) == ["packs/ab/one", "quarantine/two", "refs/one"]
    assert backend.delete_unchanged({**found, "refs/one": "0x1"}) == [key != "refs/one" for key in found]
    assert [info.key for info in backend.list("")] == ["refs/one"]


def test_a_token_that_ended_is_replaced(azurite_tls, monkeypatch):
    """One that Azure takes for ended is asked for anew, and the request sent again."""
    options = by_token(azurite_tls)
    source, ended = options["credential"], [azurite_tls.token(-60)]
    source.get_token = lambda *scopes, fresh=source.get_token: (
        types.SimpleNamespace(token=ended.pop(), expires_on=time.time() + 3600) if ended else fresh(*scopes)
    )
    monkeypatch.setattr(credentials, "AGAIN_SECONDS", -1.0)  # no token is taken for one that was just renewed
    backend = AzureBackend(f"az://{azurite_tls.new_container()}/x", **options)
    assert source.asked == []  # nobody is asked before somebody has to be
    backend.put("packs/ab/one", [b"1"])
    assert backend.get("packs/ab/one") == b"1"
    backend.close()
    assert ended == []
    assert len(source.asked) == 1


# ---- processes -------------------------------------------------------------------------------------------------------

WRITER = """
import json, sys
import mfstore, numpy as np
from mfstore.s3.service import AZURE
from mfstore.s3.transfers import copies, uploads

uploads.LONGEST_ELSEWHERE = uploads.PART_BYTES = 1 << 20  # in blocks
store = mfstore.open(sys.argv[1], **json.loads(sys.argv[2]))
for number in range(1000):
    print(store.put({"array": np.random.default_rng(number).random(100_000)}), flush=True)
    print(store.put(np.random.default_rng(number).random(1_000_000)), flush=True)
"""


def test_killed_in_the_middle_of_a_save(place):
    command = [sys.executable, "-c", WRITER, place.url, json.dumps(place.options)]
    for acknowledged_before in (1, 2):
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        keys = [writer.stdout.readline().strip() for _ in range(acknowledged_before)]
        time.sleep(0.05)  # into the large save, or the small one after it
        writer.kill()
        keys += writer.communicate()[0].split()
        store = place.open()
        for number, key in enumerate(keys[:2]):
            found = store.get(key)
            size = 100_000 if number == 0 else 1_000_000
            np.testing.assert_array_equal(
                found["array"] if number == 0 else found, np.random.default_rng(0).random(size)
            )
        for key in store.keys():
            store.get(key)  # visible means whole


def test_handles_work_after_a_fork(place):
    store = place.open()
    key = store.put({"array": ARRAY})
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if len(store.get(key)["array"]) == len(ARRAY) and store.put([1, 2]) else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get(store.put([1, 2])) == [1, 2]


def test_a_collection(place):
    store = place.open()
    kept = store.save({"array": ARRAY})
    store.refs["kept"] = kept
    gone = store.save({"array": ARRAY + 1})
    collect(place.open())
    with place.open() as other:
        np.testing.assert_array_equal(other.load(kept)["array"], ARRAY)
        with pytest.raises(errors.NotFound):
            other.load(gone)


def test_a_url_of_another_account_is_refused(place):
    client = BulkClient(place.url, **place.options)
    host = "dfs.core.windows.net"
    ours, theirs = (f"abfss://{place.container}@{name}.{host}/one" for name in (place.server.account, "other"))
    list(client.put_many([("one", b"1")]))
    assert [outcome.data for outcome in client.get_many(["one", ours, f"az://{place.container}/one"])] == [b"1"] * 3
    for ask in (client.get_many, client.head_many, client.delete_many):
        with pytest.raises(errors.InvalidKey, match="another account"):
            list(ask([theirs]))
    with pytest.raises(errors.InvalidKey, match="another account"):
        client.put_many([(theirs, b"2")])
    assert [outcome.data for outcome in client.get_many(["one"])] == [b"1"]


def test_whether_versions_are_kept(place, fault_proxy_of):
    proxy = fault_proxy_of(place.server)
    backend = place.backend(proxy)
    backend.put("packs/ab/one", [b"1"])
    assert backend.versioning() == ""
    proxy.faults = [NetworkFault(action=azure_error(409, "FeatureNotYetSupportedForHierarchicalNamespaceAccounts"))]
    assert backend.versioning() == ""
    proxy.faults = [NetworkFault(action=azure_error(403, "AuthorizationPermissionMismatch"))]
    with pytest.raises(errors.AccessDenied, match="list"):
        backend.versioning()
    assert backend.lifecycle_rules() is None
