"""``mfstore doctor az://…`` and ``gs://…``: what is found in Azurite and fake-gcs-server, and what is thought of it."""

import base64
import json
import sys
from types import SimpleNamespace

import pytest

import mfstore
from mfstore.backends import open_backend
from mfstore.doctor import azure, google
from mfstore.doctor.bucket import findings_elsewhere
from mfstore.doctor.claims import claims, whose
from mfstore.doctor.findings import document
from mfstore.doctor.place import sections
from mfstore.errors import AccessDenied, Unsupported
from mfstore.gcs.credentials import Access
from mfstore.maintenance.lifecycle import PARTS
from mfstore.s3.urls import AzureContainer, GcsBucket
from mfstore.settings import resolve
from mfstore.testing import NetworkFault
from mfstore.testing.actions import Status
from tests.rigs.command_line import mfstore as command

CAN = {"load": True, "list": True, "save": True, "set-refs": True, "collect": True}


def examined(url, options, *secrets):
    """What is found, by section and name; nothing of it is a secret."""
    told = document([*sections(url, options)])
    text = json.dumps(told)
    assert not [one for one in secrets if one in text]
    return {name: {one["name"]: one for one in found} for name, found in told["sections"].items()}


def answers(found):
    return {name: one["facts"]["answer"] for name, one in found["rights"].items() if "answer" in one.get("facts", {})}


def broken(found):
    return [one for section in found.values() for one in section.values() if one["state"] == "broken"]


@pytest.fixture
def container(azurite):
    """One with a store in it; ``left`` is what lies there besides."""
    url = f"az://{azurite.new_container()}/team"
    options = {"account_name": azurite.account, "account_key": azurite.key, "endpoint_url": azurite.endpoint}
    with mfstore.open(url, **options) as store:
        store.put([1], "models/a")
    backend = open_backend(url, resolve(), **options)
    before = [info.key for info in backend.list("")]
    yield SimpleNamespace(
        url=url, options=options, left=lambda: [i.key for i in backend.list("") if i.key not in before]
    )
    backend.close()


@pytest.mark.server
def test_who_has_the_key_of_an_account(container, azurite):
    found = examined(container.url, container.options, azurite.key)
    assert set(answers(found).values()) == {"allowed"} and not broken(found)
    assert found["rights"]["you"]["facts"] == CAN
    assert found["connection"]["credentials"]["state"] == "doubtful"  # no role limits a key
    assert found["connection"]["account"]["facts"] == {"account": azurite.account}
    assert found["connection"]["clock"]["text"] == "as the service's"
    assert found["place"]["place"]["facts"]["kind"] == "store" and "index" in found["collector"]
    assert found["rights"]["checksums"]["facts"]["taken"] == ["CRC64NVME"]
    assert found["bucket"]["lifecycle"]["state"] == "absent" and "mfstore policy" in found["bucket"]["lifecycle"]["fix"]
    assert container.left() == []


@pytest.mark.server
def test_a_place_below_metaflows_root_is_reached_as_metaflow_does(container, azurite, monkeypatch):
    monkeypatch.delitem(sys.modules, "metaflow.metaflow_config", raising=False)  # which has read its own by now
    monkeypatch.setenv("METAFLOW_DATASTORE_SYSROOT_AZURE", container.url.removeprefix("az://"))
    monkeypatch.setenv("METAFLOW_AZURE_STORAGE_BLOB_SERVICE_ENDPOINT", azurite.endpoint)
    monkeypatch.setenv("AZURE_STORAGE_KEY", azurite.key)
    found = examined(container.url, {}, azurite.key)
    assert not broken(found) and found["rights"]["you"]["facts"] == CAN


@pytest.mark.server
def test_who_may_only_read(container, azurite):
    signature = azurite.sas("rl")
    options = {"account_name": azurite.account, "endpoint_url": azurite.endpoint, "sas_token": signature}
    found = examined(container.url, options, signature, signature.rpartition("sig=")[2])
    assert not broken(found)
    assert found["rights"]["you"]["facts"] == {**CAN, "save": False, "set-refs": False, "collect": False}
    assert found["rights"]["you"]["fix"] == f"mfstore policy writer {container.url} --explain"
    assert found["rights"]["put"]["facts"]["action"] == "blobs/write"
    assert "to read, list" in found["connection"]["credentials"]["text"]


@pytest.mark.server
def test_who_may_write_and_not_delete_is_told_what_stays(container, azurite):
    options = {"account_name": azurite.account, "endpoint_url": azurite.endpoint, "sas_token": azurite.sas("rlwc")}
    found = examined(container.url, options)
    assert (
        answers(found)["put"] == "allowed" and answers(found)["delete"] == answers(found)["delete-shared"] == "refused"
    )
    (left,) = container.left() or [None]
    assert left is None  # names that begin with a dot are hidden
    assert found["rights"]["left behind"]["fix"].startswith("az storage blob delete")


@pytest.mark.server
def test_by_a_token(azurite_tls):
    url = f"az://{azurite_tls.new_container()}/team"
    token = azurite_tls.token()
    options = {
        "account_name": azurite_tls.account, "endpoint_url": azurite_tls.endpoint, "verify": str(azurite_tls.ca_file),
        "credential": SimpleNamespace(get_token=lambda *_: SimpleNamespace(token=token, expires_on=4e9)),
    }  # fmt: skip
    found = examined(url, options, token)
    assert not broken(found) and found["rights"]["you"]["facts"] == {**CAN}
    assert found["connection"]["TLS"]["text"].startswith("TLSv1.")
    assert "a token by SimpleNamespace" in found["connection"]["credentials"]["text"]
    assert found["connection"]["identity"]["state"] == "fine"


@pytest.mark.server
def test_in_google_cloud(gcs_server, fault_proxy_of):
    url = f"gs://{gcs_server.new_bucket()}/team"
    options = {"endpoint_url": gcs_server.endpoint, "token": "ya29.secret"}
    found = examined(url, options, "ya29.secret", "upload_id=")
    assert not broken(found) and set(answers(found).values()) == {"allowed"}
    assert found["rights"]["you"]["facts"] == CAN
    assert found["rights"]["checksums"]["facts"] == {"taken": ["CRC32C"], "told": ["CRC32C"]}
    assert found["rights"]["put-if-match"]["facts"]["action"] == "storage.objects.delete"
    assert found["bucket"]["versioning"]["text"] == "off: what is deleted is gone"
    assert found["place"]["place"]["facts"]["kind"] == "empty"
    proxy = fault_proxy_of(gcs_server, [NetworkFault(action=Status(403), method="DELETE")])
    found = examined(url, {**options, "endpoint_url": proxy.url}, "upload_id=")
    assert answers(found)["delete"] == "refused"
    left = found["rights"]["left behind"]
    assert left["fix"] == f"gcloud storage rm {left['text']}" and left["text"].startswith(url)


def test_a_place_that_is_not_there_is_one_finding(azurite):
    options = {"account_name": azurite.account, "account_key": azurite.key, "endpoint_url": azurite.endpoint}
    found = examined("az://no-such-container/x", options)
    assert "rights" not in found and found["place"]["place"]["state"] == "broken"
    assert "no such container" in found["place"]["place"]["text"]


def test_an_account_that_nobody_names_is_said_and_nothing_asked(monkeypatch):
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    found = examined("az://container/x", {})
    assert [*found["connection"]] == ["credentials"] and "rights" not in found
    assert found["connection"]["credentials"]["state"] == found["place"]["place"]["state"] == "broken"


# ---- what is thought of it ---------------------------------------------------------------------


def jwt(**said):
    return f"head.{base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip('=')}.signature"


def test_claims_are_told_and_tokens_are_not():
    said = claims(jwt(oid="o", tid="t", upn="me@example.com"))
    assert whose(said) == "me@example.com (object o, tenant t)"
    identity = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/tasks"
    assert whose(claims(jwt(appid="a", oid="o", tid="t", xms_mirid=identity))) == (
        "a (managed identity tasks, object o, tenant t)"
    )
    assert whose(claims(jwt(oid="o", idtyp="app"))) == "o (application)"
    for token in ("opaque", "a.b.c", "a.WzFd.c", "ya29.x"):
        assert claims(token) == {}
    assert whose({}) == "somebody that the token does not name"


def test_what_a_signature_says():
    found = azure.signature("?sv=1&ss=b&srt=sco&sp=rwl&se=2026-12-01T00%3A00%3A00Z&sig=SECRET", 1796076000.0)
    assert found.text == "a shared access signature (account) to read, write, list, for 2 h more"
    assert found.state == "fine" and "SECRET" not in str(found)
    ended = azure.signature("sp=r&se=2026-11-01&sig=SECRET", 1796076000.0)
    assert ended.state == "broken" and "(service) to read, which has ended" in ended.text
    policy = azure.signature("si=mine&sig=SECRET", 0.0)
    assert "what a stored policy says" in policy.text and policy.facts["expires"] is None


@pytest.mark.parametrize(
    ("rules", "versioning", "states"),
    [
        ([], "", {"versioning": "fine", "lifecycle": "fine", "object lock": "fine"}),
        ([{"ID": "number 1", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 3}}], "",
         {"lifecycle": "broken"}),
        ([], "Enabled", {"versioning": "doubtful"}),
        ([{"Status": "Enabled", "Filter": {"Prefix": "team/"}, "NoncurrentVersionExpiration": {"NoncurrentDays": 7}}],
         "Enabled", {"versioning": "fine", "lifecycle": "fine"}),
    ],
)  # fmt: skip
def test_how_a_bucket_of_google_is_set_up(rules, versioning, states):
    told = {
        "GetBucketVersioning": {"Status": versioning}, "GetObjectLockConfiguration": {},
        "GetBucketLifecycleConfiguration": {"Rules": rules},
    }  # fmt: skip
    found = {one.name: one for one in findings_elsewhere(GcsBucket("bucket"), "team/", PARTS, told)}
    assert {name: found[name].state for name in states} == states
    assert all("aws" not in one.fix and "s3" not in f"{one.fix}{one.hint}{one.text}".lower() for one in found.values())
    if states.get("lifecycle") == "broken":
        assert "gs://bucket/team/" in found["lifecycle"].hint
    if states["versioning" if "versioning" in states else "lifecycle"] == "doubtful":
        assert "--lifecycle --present present.json" in found["versioning"].fix


def test_what_may_not_be_asked_of_a_bucket_names_the_permission():
    refused = AccessDenied("no", hint="")
    refused.rights, refused.status = (("x", "y"),), 403
    told = dict.fromkeys(
        ("GetBucketVersioning", "GetObjectLockConfiguration", "GetBucketLifecycleConfiguration"), refused
    )
    for one in findings_elsewhere(GcsBucket("bucket"), "", PARTS, told):
        assert one.state == "refused" and one.facts == {"missing": "storage.buckets.get"}
    found = [*findings_elsewhere(AzureContainer("cont"), "", PARTS, {"GetBucketVersioning": Unsupported("no")})]
    assert [one.state for one in found] == ["absent"] * 3


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        (
            {"AZURE_STORAGE_ACCOUNT": "acct", "AZURE_STORAGE_KEY": "c2VjcmV0"},
            "the account's key (from AZURE_STORAGE_KEY)",
        ),
        ({"AZURE_STORAGE_ACCOUNT": "acct", "AZURE_STORAGE_SAS_TOKEN": "sig=c2VjcmV0"}, "a shared access signature"),
        (
            {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=acct;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net"},
            "a connection string",
        ),
    ],
)
def test_what_an_installation_has_for_azure(environ, says, monkeypatch):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = {one.name: one.text for one in azure.azure()}
    assert says in found["credentials"] and "c2VjcmV0" not in str(found)
    assert found["account"] == "acct" and found["endpoint"] == "https://acct.blob.core.windows.net"


def test_what_an_installation_has_for_google(monkeypatch, tmp_path):
    monkeypatch.setattr(google, "find_spec", lambda name: object())
    monkeypatch.setenv(google.KEY_FILE, str(tmp_path / "absent.json"))
    assert {one.name: one.state for one in google.google()} == {"endpoint": "fine", "credentials": "broken"}
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "localhost:4443")
    (found,) = google.google()
    assert found.state == "doubtful" and "http://localhost:4443" in found.text
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setattr(google, "find_spec", lambda name: None)
    (found,) = google.google()
    assert "mfstore[gcs]" in found.text


def test_whom_credentials_of_google_name():
    account = SimpleNamespace(service_account_email="tasks@project.iam.gserviceaccount.com", quota_project_id="pays")
    keyring = SimpleNamespace(current=lambda: Access((("authorization", "Bearer secret"),), 4e9), found=account)
    control = SimpleNamespace(settings=SimpleNamespace(token=None, anonymous=False), keyring=keyring)
    found = {one.name: one for one in google.identity(control)}
    assert found["identity"].facts["principal"] == "serviceAccount:tasks@project.iam.gserviceaccount.com"
    assert "paid by the project pays" in found["identity"].text and "secret" not in str(found)
    assert google.principal(SimpleNamespace(service_account_email="default")) is None


def test_the_command_takes_places_of_all_clouds(azurite, monkeypatch):
    url = f"az://{azurite.new_container()}/team"
    environ = {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
    told = json.loads(command("doctor", url, "--json", env=environ, code=(0, 1)).stdout)
    assert {"Azure", "Google Cloud", "rights", "bucket"} <= told["sections"].keys()
    assert azurite.key not in json.dumps(told)
    assert "only for places in S3" in command("doctor", url, "--region", "x", code=2).stderr
