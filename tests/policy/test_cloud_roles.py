"""Who has the roles that ``mfstore policy`` prints for Azure and for Google does his whole job there, and is refused what
is another's: with the documents enforced before the emulators, which enforce none."""

import json
from contextlib import ExitStack

import pytest

import mfstore
from mfstore.backends.azure import AzureBackend
from mfstore.backends.gcs import GcsBackend
from mfstore.errors import AccessDenied
from mfstore.policy import azure, google
from mfstore.policy.places import place
from tests.policy import jobs
from tests.rigs.cloud_gates import AzureGate, google_user
from tests.rigs.command_line import mfstore as mfstore_command

pytestmark = pytest.mark.server
PREFIX = "team/mf"
SCOPE = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/team"
MEMBER = "serviceAccount:tasks@project.iam.gserviceaccount.com"


class CloudRig:
    """A place of the owner's, and a user who comes by a proxy."""

    def __init__(self, url, proxy):
        self.url, self.proxy, self.place = url, proxy, place(url)

    def open(self, **more):
        return mfstore.open(self.url, **self.options(), **more)

    def owner(self):
        return mfstore.open(self.url, **self.owners())

    def backend(self):
        return self.kind(self.url, **self.options())


class AzureRig(CloudRig):
    kind = AzureBackend
    part = "comp=block&"

    def __init__(self, server, gate, proxy):
        super().__init__(f"az://{server.new_container()}/{PREFIX}", proxy)
        self.server, self.gate = server, gate
        gate.become()

    def become(self, role):
        self.gate.become(azure.role_definition(role, self.place, SCOPE), azure.condition(role, self.place))
        return self.gate.refused

    def owners(self):
        return {"endpoint_url": self.server.endpoint, "account_key": self.server.key}

    def options(self):
        return {**self.owners(), "endpoint_url": f"{self.proxy.url}/{self.server.account}"}

    def goes_on_without(self, role, asked):
        """As tests/policy/test_roles.py says of S3: fragments that nobody may delete are marked as merged."""
        return role == "writer" and asked.right == "delete" and asked.name.startswith(f"{PREFIX}/index/")

    def environment(self):
        text = self.server.connection_string.replace(self.server.url, self.proxy.url)
        return {"AZURE_STORAGE_CONNECTION_STRING": text}


class GoogleRig(CloudRig):
    kind = GcsBackend
    part = "upload_id="

    def __init__(self, server, stack, proxy):
        super().__init__(f"gs://{server.new_bucket()}/{PREFIX}", proxy)
        self.server, self.stack = server, stack

    def become(self, role):
        """The user is who sends no token."""
        roles, policy = google.custom_roles(role, self.place), google.bindings(role, self.place, "project", [MEMBER])
        return self.stack.enter_context(google_user(self.server, "", roles, policy))

    def owners(self):
        return {"endpoint_url": self.server.url, "token": "owner"}

    def options(self):
        return {"endpoint_url": self.proxy.url, "anonymous": True}

    def goes_on_without(self, role, asked):
        """Nothing: who may write may delete there."""
        return False

    def environment(self):
        return {"STORAGE_EMULATOR_HOST": self.proxy.url}


@pytest.fixture
def azure_rig(azurite, fault_proxy_of):
    gate = AzureGate(azurite)
    with gate.proxy:
        yield AzureRig(azurite, gate, fault_proxy_of(gate.proxy))


@pytest.fixture
def google_rig(gcs_server, fault_proxy_of):
    with ExitStack() as stack:
        yield GoogleRig(gcs_server, stack, fault_proxy_of(gcs_server))


@pytest.fixture(params=["azure_rig", "google_rig"])
def rig(request):
    return request.getfixturevalue(request.param)


JOBS = {"writer": jobs.write, "reader": jobs.read, "signer": jobs.sign, "collector": jobs.collect}


@pytest.mark.parametrize("role", JOBS)
def test_each_does_its_job(rig, role):
    jobs.fill(rig)
    refused = rig.become(role)
    JOBS[role](rig)
    assert [one for one in refused if not rig.goes_on_without(role, one)] == []


def test_each_is_refused_what_is_anothers(rig):
    with rig.owner() as store:
        store.put([1], "models/a")
    rig.become("reader")
    with rig.open() as store:
        assert store["models/a"] == [1]
        with pytest.raises(AccessDenied):
            store.put([2], "models/a")
    with rig.owner() as store:
        assert store["models/a"] == [1]


def test_an_auditor_changes_nothing_and_sees_all(rig):
    """What he is refused is what the doctor tries, and to note how far verification came."""
    jobs.fill(rig)
    refused = rig.become("auditor")
    with rig.open() as store:
        for level in ("list", "headers", "full"):
            assert store.verify(level).clean
    usage = mfstore_command("du", "-s", rig.url, "--by", "user", "--json", env=rig.environment())
    assert json.loads(usage.stdout)
    found = jobs.examined(rig)
    assert [one["name"] for one in found["bucket"] if one["state"] == "refused"] == []
    (you,) = (one for one in found["rights"] if one["name"] == "you")
    assert {may for may, answer in you["facts"].items() if answer} == {"load", "list"}
    refused = [one for one in refused if one != "HEAD /?"]  # whether anybody is there, asked without credentials
    keys = {one[1] if isinstance(one, tuple) else one.name for one in refused}
    assert all(".mfstore-probe-" in key or key == f"{PREFIX}/verify/progress" for key in keys), keys


def test_a_benchmark_measures_in_a_folder_of_its_own(rig):
    refused = rig.become("benchmark")
    arguments = ["-y", "--json", "--size", "4KiB", "--count", "4", "--operation", "put,get,list,delete"]
    told = mfstore_command("bench", rig.url, *arguments, env=rig.environment())
    assert json.loads(told.stdout) and refused == []
