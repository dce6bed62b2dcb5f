"""Credentials of Google Cloud: where they come from, when they are renewed, and what may be seen of them."""

import datetime
import os
import pickle
import threading
import time

import pytest

from mfstore.errors import AccessDenied, BackendError, InvalidKey, NotSerializable, Unsupported
from mfstore.gcs import credentials
from mfstore.gcs.control import GcsControlPlane
from mfstore.gcs.credentials import Keyring
from mfstore.gcs.settings import GcsSettings

SECRET = "ya29.s3cret"


def keyring(**given):
    return Keyring(GcsSettings.given(**given), emulated=False)


def bearer(ring):
    return dict(ring.current().headers).get("authorization")


class Clock:
    def __init__(self, monkeypatch):
        self.now = time.time()
        monkeypatch.setattr(credentials.time, "time", lambda: self.now)
        monkeypatch.setattr(credentials.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def google(token="", lifetime=3600.0, clock=None, failing=()):
    """A credentials object as google-auth has them, which counts."""
    from google.auth.credentials import Credentials

    class Counted(Credentials):
        renewed = 0

        def refresh(self, request):
            if failing:
                raise failing[0]
            self.renewed += 1
            self.token = f"{token or SECRET}-{self.renewed}"
            ends = datetime.datetime.fromtimestamp(clock.now + lifetime, datetime.UTC)
            self.expiry = ends.replace(tzinfo=None)

    return Counted()


def test_a_token_that_was_given():
    assert bearer(keyring(token=SECRET)) == f"Bearer {SECRET}"
    assert not keyring(token=SECRET).expire(), "there is no other"
    assert keyring(anonymous=True).current().headers == ()
    with pytest.raises(InvalidKey) as told:
        keyring(token="two\nlines" + SECRET).current()
    assert SECRET not in str(told.value)


def test_what_excludes_each_other_and_what_there_is_not():
    with pytest.raises(Unsupported, match="exclude"):
        GcsSettings.given(token="a", anonymous=True)
    with pytest.raises(Unsupported, match="profile_name is no option of gs://"):
        GcsSettings.given(url="gs://b", profile_name="x")


def test_a_function_is_asked_again_before_its_token_ends(clock):
    asked = []

    def token():
        asked.append(clock.now)
        return f"t{len(asked)}", clock.now + 3600

    ring = keyring(token=token)
    assert [bearer(ring), bearer(ring)] == ["Bearer t1"] * 2
    clock.now += 3600 - credentials.EARLY - 1
    assert not ring.renews() and bearer(ring) == "Bearer t1"
    clock.now += 2
    assert ring.renews() and bearer(ring) == "Bearer t2"
    ring = keyring(token=lambda: SECRET)
    assert ring.current() is ring.current()
    clock.now += credentials.ASKED_AGAIN + 1
    assert ring.renews()


def test_tokens_of_google_are_renewed_early_and_by_one_thread(clock):
    object_ = google(clock=clock)
    ring = keyring(credentials=object_)
    threads = [threading.Thread(target=ring.current) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert object_.renewed == 1 and ring.found is object_
    clock.now += 3600 - credentials.EARLY + 1
    assert bearer(ring) == f"Bearer {SECRET}-2"
    assert ring.current() is ring.current() and object_.renewed == 2


def test_a_token_that_the_service_refuses_is_renewed_once_for_all(clock):
    object_ = google(clock=clock)
    ring = keyring(credentials=object_)
    ring.current()
    clock.now += 60
    assert ring.expire() and ring.expire() and object_.renewed == 2
    clock.now += 60
    assert ring.expire() and object_.renewed == 3


def test_while_the_token_is_good_a_failure_to_renew_it_is_none(clock):
    from google.auth.exceptions import RefreshError

    failing = []
    ring = keyring(credentials=google(clock=clock, failing=failing))
    before = ring.current()
    failing.append(RefreshError("invalid_grant: expired", {"secret": SECRET}))
    clock.now += 3600 - credentials.EARLY + 1
    assert ring.current() is before
    clock.now += credentials.EARLY
    with pytest.raises(AccessDenied, match="invalid_grant") as told:
        ring.current()
    assert SECRET not in str(told.value) and "gcloud auth" in told.value.hint


def test_a_network_that_fails_is_no_refusal(clock):
    from google.auth.exceptions import TransportError

    ring = keyring(credentials=google(clock=clock, failing=[TransportError("no route")]))
    with pytest.raises(BackendError, match="could not be asked"):
        ring.current()


def test_none_are_found(monkeypatch):
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    asked = []

    def default(scopes):
        asked.append(scopes)
        raise DefaultCredentialsError("File /gone.json was not found.")

    monkeypatch.setattr(google.auth, "default", default)
    ring = keyring()
    for _ in range(3):
        with pytest.raises(AccessDenied, match="no credentials of Google Cloud") as told:
            ring.current()
    assert "GOOGLE_APPLICATION_CREDENTIALS" in told.value.hint
    assert "/gone.json" in str(told.value), "what google-auth said of it"
    assert asked == [[credentials.SCOPE]], "not again for each of many requests"


@pytest.mark.parametrize("given", ["/key.json", object()])
def test_what_is_no_object_of_google_is_said(given):
    with pytest.raises(Unsupported, match="object of google-auth") as told:
        keyring(credentials=given).current()
    assert "GOOGLE_APPLICATION_CREDENTIALS" in told.value.hint


def test_the_project_that_pays_goes_with_each_request(clock):
    object_ = google(clock=clock)
    plane = GcsControlPlane(GcsSettings.given(credentials=object_, user_project="payer"))
    headers = dict(plane.route("GetObject", "b").headers)
    assert headers["x-goog-user-project"] == "payer" and headers["authorization"].startswith("Bearer ")


def test_routes_are_out_of_date_with_their_token(clock):
    plane = GcsControlPlane(GcsSettings.given(credentials=google(clock=clock)))
    plane.credentials()
    version = plane.version
    plane.credentials()
    assert plane.version == version
    clock.now += 3500
    assert plane.renews()
    plane.credentials()
    assert plane.version == version + 1


def module_level():
    return SECRET


def test_no_secret_travels_or_shows(clock):
    settings = GcsSettings.given(token=SECRET, endpoint_url=f"https://me:{SECRET}@host")
    plane = GcsControlPlane(settings)
    plane.credentials()
    for text in (repr(settings), repr(plane.keyring.current()), plane.host(None)):
        assert SECRET not in text
    data = pickle.dumps(plane)
    assert SECRET.encode() not in data
    assert pickle.loads(data).settings.withheld == ("the password in endpoint_url", "token")
    assert pickle.loads(pickle.dumps(GcsSettings.given(token=module_level))).token is module_level
    for held in ({"credentials": google(clock=clock)}, {"token": os.PathLike}):
        with pytest.raises(NotSerializable, match="cannot be pickled"):
            pickle.dumps(GcsSettings.given(**held))


@pytest.mark.parametrize(("given", "environ", "place"), [
    (None, {}, ("https://storage.googleapis.com", False)),
    (None, {"STORAGE_EMULATOR_HOST": "localhost:9000"}, ("http://localhost:9000", True)),
    (None, {"STORAGE_EMULATOR_HOST": "https://x/"}, ("https://x", True)),
    ("https://y", {"STORAGE_EMULATOR_HOST": "https://x"}, ("https://y", False)),
])  # fmt: skip
def test_where_the_service_is(given, environ, place):
    assert GcsSettings.given(endpoint_url=given).place(environ)[:2] == place


@pytest.mark.parametrize("text", [
    "ftp://x", "http://", "http://x/storage/v1", "http://x?sig=SECRET", "http://x#f", "http://x:99999", "x:9/y",
])  # fmt: skip
def test_what_is_no_endpoint(text):
    for settings, environ in (
        (GcsSettings.given(endpoint_url=text), {}), (GcsSettings(), {"STORAGE_EMULATOR_HOST": text}),
    ):  # fmt: skip
        with pytest.raises(InvalidKey, match="no endpoint") as caught:
            settings.place(environ)
        assert "SECRET" not in str(caught.value)
