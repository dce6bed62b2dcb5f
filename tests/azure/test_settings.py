"""Which account, and who asks: URLs, arguments, the environment; and that nothing secret travels or shows."""

import pickle

import pytest

from mfstore import errors
from mfstore.azure.control import AzureControlPlane
from mfstore.azure.settings import EMULATOR_KEY, AzureSettings
from mfstore.azure.urls import check_key, locate
from mfstore.backends.azure import AzureBackend
from mfstore.s3.bulk.client import BulkClient

KEY = "c2VjcmV0LWtleQ=="
SAS = "sv=2021-12-02&se=2030-01-01T00%3A00%3A00Z&sig=secret-signature"
STRING = f"DefaultEndpointsProtocol=https;AccountName=acct;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn"


def account(environ=None, **options):
    return AzureSettings.given(**options).account(environ or {})


@pytest.mark.parametrize(("url", "found"), [
    ("az://box/a/b", ("box", "a/b", "", "")),
    ("az://box", ("box", "", "", "")),
    ("az://$root/a", ("$root", "a", "", "")),
    ("abfss://box@acct.dfs.core.windows.net/a", ("box", "a", "acct", "https://acct.blob.core.windows.net")),
    ("abfss://box@acct.dfs.core.usgovcloudapi.net/", ("box", "", "acct", "https://acct.blob.core.usgovcloudapi.net")),
    ("abfss://box@acct.z12.dfs.storage.azure.net/a", ("box", "a", "acct", "https://acct.z12.blob.storage.azure.net")),
    ("abfss://box@acct/a", ("box", "a", "acct", "")),
])  # fmt: skip
def test_urls(url, found):
    assert locate(url) == found


@pytest.mark.parametrize("url", [
    "az://", "az://ab/x", "az://Box/x", "az://a--b/x", "az://-box/x", "s3://box/x", "abfss://box@/x",
    "abfss://box@example.com/x", "az:///x",
])  # fmt: skip
def test_what_is_no_url(url):
    with pytest.raises(errors.InvalidKey):
        locate(url)


@pytest.mark.parametrize("key", ["", "a/../b", "./a", "a\\b", "a.", "x" * 1025])
def test_what_is_no_name_of_a_blob(key):
    with pytest.raises(errors.InvalidKey):
        check_key(key)


def test_the_account_is_what_argument_url_and_environment_say_in_this_order():
    assert account(account_name="acct").origin == "https://acct.blob.core.windows.net"
    assert account({"AZURE_STORAGE_ACCOUNT": "env"}).name == "env"
    assert account({"AZURE_STORAGE_ACCOUNT": "env"}, account_name="said").name == "said"
    assert account({"AZURE_STORAGE_ACCOUNT": "env"}, url="abfss://box@acct.dfs.core.windows.net/a").name == "acct"
    assert account(endpoint_url="https://acct.blob.core.windows.net").name == "acct"
    found = account(connection_string=STRING)
    assert (found.name, found.origin, found.key) == ("acct", "https://acct.blob.core.chinacloudapi.cn", KEY)
    found = account(endpoint_url="http://127.0.0.1:10000/devstoreaccount1", account_key=KEY)
    assert (found.name, found.origin, found.root) == ("devstoreaccount1", "http://127.0.0.1:10000", "/devstoreaccount1")
    assert account(endpoint_url="http://127.0.0.1:10000", account_name="acct").root == "/acct"
    assert account(endpoint_url=f"https://acct.blob.core.windows.net/?{SAS}").sas == SAS
    found = account(connection_string="UseDevelopmentStorage=true")
    assert (found.root, found.key) == ("/devstoreaccount1", EMULATOR_KEY)
    with pytest.raises(errors.InvalidKey, match="AZURE_STORAGE_ACCOUNT"):
        account()
    with pytest.raises(errors.InvalidKey, match="another account"):
        account(url="abfss://box@acct.dfs.core.windows.net/a", account_name="other")
    with pytest.raises(errors.InvalidKey, match="another account"):
        AzureBackend("abfss://box@acct.dfs.core.windows.net/a", account_name="other")


def test_who_asks_is_what_the_arguments_say_else_the_environment():
    environ = {"AZURE_STORAGE_ACCOUNT": "acct", "AZURE_STORAGE_KEY": KEY}
    assert account(environ).key == KEY
    assert account({**environ, "AZURE_STORAGE_CONNECTION_STRING": STRING}, account_name="third").name == "third"
    found = account(environ, sas_token=f"?{SAS}")
    assert (found.key, found.sas) == (None, SAS)
    given = object()
    found = account(environ, credential=given)
    assert (found.key, found.credential) == (None, given)
    found = account(environ, anonymous=True)
    assert (found.key, found.sas, found.anonymous) == (None, None, True)
    assert account({"AZURE_STORAGE_CONNECTION_STRING": STRING}, anonymous=True).origin.endswith(".chinacloudapi.cn")


def test_what_is_wrong_is_told_without_secrets():
    with pytest.raises(errors.InvalidKey) as caught:
        account(connection_string=f"nonsense {KEY}")
    assert KEY not in str(caught.value)
    with pytest.raises(errors.InvalidKey) as caught:
        account(endpoint_url=f"ftp://acct/?{SAS}")
    assert "secret" not in str(caught.value)
    with pytest.raises(errors.Unsupported, match="region"):
        AzureSettings.given(region="eu-west-1")
    with pytest.raises(TypeError):
        AzureSettings.given(acount_name="typo")
    with pytest.raises(errors.Unsupported, match="encryption"):
        BulkClient("az://box", account_name="acct", encryption="AES256")


def test_nothing_secret_shows_or_travels():
    secrets = {
        "account_key": KEY, "sas_token": SAS, "connection_string": STRING, "endpoint_url": f"https://h.example/?{SAS}",
    }  # fmt: skip
    for name, value in secrets.items():
        options = {"account_name": "acct", name: value}
        for found in (
            AzureSettings.given(**options), AzureControlPlane(AzureSettings.given(**options)),
            BulkClient("az://box", **options), AzureBackend("az://box/x", **options),
        ):  # fmt: skip
            for shown in (repr(found), str(pickle.dumps(found))):
                assert KEY not in shown
                assert "secret-signature" not in shown
    held = AzureSettings.given(account_name="acct", credential=lambda: None)
    found = pickle.loads(pickle.dumps(held))
    assert (found.account_name, found.credential, found.withheld) == ("acct", None, ("credential",))
    assert "credential" not in repr(held.account({}))


def test_a_backend_travels_with_its_account():
    backend = AzureBackend("abfss://box@acct.dfs.core.usgovcloudapi.net/some/store", account_key=KEY)
    assert backend.url == "az://box/some/store"
    found = pickle.loads(pickle.dumps(backend))
    assert found.url == backend.url
    settings = found.client.options.connection
    assert settings.account({}).origin == "https://acct.blob.core.usgovcloudapi.net"
    assert settings.withheld == ("account_key",)
    assert pickle.loads(pickle.dumps(found)).client.options.connection.withheld == ("account_key",)


def test_a_key_needs_an_account_to_sign_for():
    given = AzureSettings.given(url="az://box", account_key="a2V5", endpoint_url="http://127.0.0.1:10000")
    with pytest.raises(errors.InvalidKey, match="which storage account"):
        given.account({})
    assert given.account({"AZURE_STORAGE_ACCOUNT": "acct"}).root == "/acct"


def test_what_azure_takes_is_told_to_who_gives_what_is_of_s3():
    with pytest.raises(errors.Unsupported, match="region_name") as told:
        AzureSettings.given(region_name="x")
    assert "account_key" in told.value.hint and "withheld" not in told.value.hint
