"""How connections are made where botocore is not asked: to Azure and Google Cloud."""

import pytest

from mfstore.errors import Unsupported
from mfstore.s3.connecting import BUNDLES, transport_to

AZURE = "https://account.blob.core.windows.net"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for name in (*BUNDLES, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, None),
        ({"ALL_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.org, .windows.net"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.org"}, "http://proxy:3128"),
    ],
)
def test_the_proxy_is_that_of_the_environment(monkeypatch, environ, proxy):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert transport_to(AZURE).proxy == proxy


def test_the_bundle_is_the_argument_before_the_environment(monkeypatch, tmp_path):
    paths = [tmp_path / name for name in ("given", *BUNDLES)]
    for path in paths:
        path.touch()
    assert transport_to(AZURE).ca_file not in map(str, paths)
    for name, path in reversed([*zip(BUNDLES, paths[1:], strict=True)]):
        monkeypatch.setenv(name, str(path))
        assert transport_to(AZURE).ca_file == str(path)
    assert transport_to(AZURE, str(paths[0])).ca_file == str(paths[0])


def test_a_bundle_that_is_not_there_is_named_with_what_names_it(monkeypatch, tmp_path):
    absent = str(tmp_path / "none.pem")
    with pytest.raises(Unsupported, match="none.pem.* does not exist") as told:
        transport_to(AZURE, absent)
    assert "verify=" in told.value.hint
    monkeypatch.setenv("CURL_CA_BUNDLE", absent)
    with pytest.raises(Unsupported) as told:
        transport_to(AZURE)
    assert "CURL_CA_BUNDLE" in told.value.hint


def test_what_is_not_to_be_verified_needs_no_bundle(monkeypatch, tmp_path):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    for transport in (transport_to(AZURE, False), transport_to("http://127.0.0.1:10000/devstoreaccount1")):
        assert (transport.verify, transport.ca_file) == (False, None)
    monkeypatch.setenv("HTTP_PROXY", "https://proxy:3129")
    with pytest.raises(Unsupported):
        transport_to("http://azurite:10000")  # the way to the proxy is verified
