"""Signed keys: who may sign, what a signature covers, and that what is not signed is not loaded."""

import json
import os
import pickle
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

import mfstore
from mfstore.backends.base import Capabilities
from mfstore.backends.memory import MemoryBackend
from mfstore.cli.exits import DAMAGE
from mfstore.errors import AccessDenied, InvalidKey, NotFound, NotSigned, WrongArgument
from mfstore.format.recipes import recipe_path
from mfstore.format.signatures import decode_signature, encode_signature, fingerprint, signature_path, statement
from mfstore.settings import resolve
from mfstore.store import Store
from mfstore.trust import public_keys
from tests.rigs import command_line
from tests.rigs.flows import aws_keys
from tests.servers import boto_client

PRIVATE = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
PUBLIC = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


class Pair:
    """A key pair in two files."""

    def __init__(self, folder, private, name="pair", encryption=None):
        self.private, self.name = private, name
        self.file, self.public = folder / f"{name}.pem", folder / f"{name}.pub"
        self.file.write_bytes(private.private_bytes(*PRIVATE, encryption or serialization.NoEncryption()))
        self.public.write_bytes(private.public_key().public_bytes(*PUBLIC))


@pytest.fixture
def pair(tmp_path):
    return Pair(tmp_path, ed25519.Ed25519PrivateKey.generate())


@pytest.fixture
def other(tmp_path):
    return Pair(tmp_path, ed25519.Ed25519PrivateKey.generate(), "other")


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "store")


class Attack:
    ran = False

    def __reduce__(self):
        return setattr, (Attack, "ran", True)


def reads(store, key, bundle):
    """Every way to what is stored under a key."""
    yield lambda: store.get(key)
    yield lambda: dict(store.get_many([key]))
    yield lambda: store[key]
    yield lambda: store.get_bytes(key)
    yield lambda: list(store.iter_bytes(key))
    yield lambda: store.view(key)
    yield lambda: store.diff(key, bundle)
    yield lambda: store.get_file(key, os.path.join(tempfile.gettempdir(), "never-written"))
    yield lambda: store.export(key, os.path.join(tempfile.gettempdir(), "never-written.pkl"))
    yield lambda: store.copy_to(mfstore.open(f"memory://{uuid.uuid4().hex}"), [key])
    yield lambda: store.load(bundle)
    yield lambda: store.load(bundle, "a")
    yield lambda: dict(store.load_many([bundle], "a"))


def test_what_nobody_has_signed_is_not_loaded(place, pair, other):
    writer = mfstore.open(place)
    key, bundle = writer.put(Attack(), "model"), writer.save({"a": Attack()})
    store = mfstore.open(place, trusted=pair.public)
    for read in reads(store, key, bundle):
        with pytest.raises(NotSigned) as caught:
            read()
        assert caught.value.key in (key, bundle) and "mfstore sign" in caught.value.hint
    assert not Attack.ran
    writer.sign("model", key=other.file)
    with pytest.raises(NotSigned):
        store.get("model")
    # What it is can be asked all the same.
    assert store.stat("model").key == key and store.exists(key)
    assert [type(found) for _, found in store.get_many([key], on_error="return")] == [NotSigned]


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_what_is_signed_is_loaded(place, pair, other, kind):
    url = place if kind == "directory" else f"memory://signed-{uuid.uuid4().hex}"
    writer = mfstore.open(url)
    keys = [writer.put(value) for value in (1, "x" * 5000, np.arange(100_000))]
    bundle = writer.save({"a": 1, "b": [2]}, "run")
    for key in keys:
        signed = writer.sign(key, key=pair.file)
        assert (signed.key, signed.signer) == (key, fingerprint(public_keys(pair.public)[0]))
    assert mfstore.sign(writer, "run", key=other.private).key == bundle
    store = mfstore.open(url, trusted=[other.public, pair.public.read_text()])
    assert store.get(keys[0]) == 1 and store.load("run", "b") == [2]
    assert [key for key, _ in store.get_many([*keys, bundle])] == [*keys, bundle]
    assert store.get_bytes(keys[1]) == writer.get_bytes(keys[1])
    if kind == "directory":
        again = pickle.loads(pickle.dumps(store))
        assert again.get(keys[2])[-1] == 99_999
        with pytest.raises(NotSigned):
            again.get(writer.put("new"))


def test_bytes_are_compared_whatever_was_asked(place, pair):
    """A signature says what the bytes are only if these are compared with it."""
    writer = mfstore.open(place)
    key = writer.put(np.arange(200_000))
    writer.sign(key, key=pair.file)
    store = mfstore.open(place, trusted=pair.public, verify=False)
    (pack,) = [path for path in Path(place, "packs").rglob("*") if path.is_file()]
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    with pytest.raises(mfstore.errors.CorruptObject):
        store.get(key, verify=False)


@pytest.mark.parametrize(
    "make",
    [
        ed25519.Ed25519PrivateKey.generate, lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: rsa.generate_private_key(65537, 2048),
    ],
    ids=["Ed25519", "P-256", "RSA"],
)  # fmt: skip
def test_kinds_of_keys(tmp_path, place, make):
    pair = Pair(tmp_path, make())
    store = mfstore.open(place, trusted=pair.private.public_key())
    key = store.put("x")
    store.sign(key, key=pair.file)
    assert store.get(key) == "x"


def test_kinds_that_are_refused(tmp_path, place, pair):
    store = mfstore.open(place)
    key = store.put("x")
    weak = Pair(tmp_path, ec.generate_private_key(ec.SECP192R1()), "weak")
    short = Pair(tmp_path, rsa.generate_private_key(65537, 1024), "short")
    old = Pair(tmp_path, dsa.generate_private_key(1024), "old")
    locked = Pair(tmp_path, pair.private, "locked", serialization.BestAvailableEncryption(b"word"))
    for file in (weak.file, short.file, old.file, locked.file, pair.public, "arn:aws:s3:::bucket"):
        with pytest.raises(InvalidKey):
            store.sign(key, key=file)
    for file in (weak.public, short.public, old.public, pair.file, "-----BEGIN PUBLIC KEY-----"):
        with pytest.raises(InvalidKey):
            mfstore.open(place, trusted=file)
    with pytest.raises(InvalidKey):
        mfstore.open(place, trusted=[])
    with pytest.raises(NotFound):
        store.sign(key, key=tmp_path / "none")
    with pytest.raises(NotFound):
        store.sign("0" * 64, key=pair.file)
    with pytest.raises(WrongArgument):
        store.sign(key, key=3)


def test_a_signature_may_be_copied_with_what_it_is_of(tmp_path, place, pair):
    here, there = mfstore.open(place), mfstore.open(tmp_path / "there")
    key = here.put("x")
    assert there.put("x") == key
    here.sign(key, key=pair.file)
    (path,) = [info.key for info in here.backend.list("signatures/")]
    there.backend.put(path, [here.backend.get(path)])
    assert mfstore.open(tmp_path / "there", trusted=pair.public).get(key) == "x"


MADE = []
"""What a function that remembers was called with."""


def test_what_is_remembered_and_not_signed_is_made_again(place, pair):
    store = mfstore.open(place, trusted=pair.public)

    @store.cache
    def make(number):
        note_of_call(number)
        return [number]

    MADE.clear()
    assert make(1) == [1]
    with pytest.warns(mfstore.errors.MfstoreWarning, match="signed"):
        assert make(1) == [1]
    assert MADE == [1, 1]
    (ref,) = store.refs.list()
    store.sign(ref, key=pair.file)
    assert make(1) == [1] and MADE == [1, 1]


def note_of_call(number):
    MADE.append(number)


def forged(stored, /, **changes):
    document = json.loads(encode_signature(stored))
    return json.dumps({**document, **changes}).encode()


def test_forgeries(place, pair, other):
    """Whoever can write puts something where a signature is looked for."""
    store = mfstore.open(place)
    key, evil = store.put("good"), store.put("evil")
    trusted, name = public_keys(pair.public), fingerprint(public_keys(pair.public)[0])
    store.sign(key, key=pair.file)
    good = store.backend.get(signature_path(key, name))
    signature = decode_signature(bytes(good), "")
    store.sign(evil, key=other.file)
    theirs = store.backend.get(signature_path(evil, fingerprint(public_keys(other.public)[0])))
    another_digest = pair.private.sign(statement("sha256", evil, 1))
    without_domain = pair.private.sign(bytes.fromhex(evil))
    b64 = lambda data: __import__("base64").b64encode(data).decode()  # noqa: E731
    for data in (
        good,  # of another key
        bytes(theirs),  # of another signer
        forged(signature, time=signature.time + 1),
        forged(signature, signature=b64(another_digest), time=1),
        forged(signature, signature=b64(without_domain)),
        forged(signature, signature=""),
        forged(signature, version=2),
        forged(signature, public_key=json.loads(theirs)["public_key"]),
        b"", b"{}", b"[" * 100_000, b"null", good[:-1],
    ):  # fmt: skip
        store.backend.put(signature_path(evil, name), [data])
        with pytest.raises(NotSigned, match="not one of this key"):
            mfstore.open(place, trusted=pair.public).get(evil)
        report = store.verify_signatures(pair.public)
        assert (report.signed, report.keys, report.clean) == (1, 2, False)
        assert [(one.kind, one.key, one.signers) for one in report.findings] == [("bad", evil, (name,))]
    # Under its own name it is one of somebody unknown.
    assert trusted == public_keys([pair.public, pair.public])


def test_what_verify_tells(place, pair, other):
    store = mfstore.open(place)
    keys = [store.put(value, f"refs/{value}") for value in "abc"]
    store.sign(keys[0], key=pair.file)
    store.sign(keys[1], key=other.file)
    report = store.verify_signatures([pair.public])
    assert (report.signed, report.keys) == (1, 3)
    told = {one.key: (one.kind, one.refs) for one in report.findings}
    assert told == {keys[1]: ("unknown", ("refs/b",)), keys[2]: ("unsigned", ("refs/c",))}
    assert not store.verify().findings  # no damage, and nothing that is foreign
    store.sign(keys[2], key=pair.file)
    assert store.verify_signatures([pair.public, other.public]).clean


def test_on_the_command_line(place, pair, other):
    store = mfstore.open(place)
    key = store.put("a", "models/a")
    assert key in command_line.mfstore("sign", "--store", place, "--key", pair.file, "models/a").stdout
    verify = "verify", "--store", place, "--signatures", "--trust"
    assert "1 of 1 key signed" in command_line.mfstore(*verify, pair.public).stdout
    store.put("b", "models/b")
    told = command_line.mfstore(*verify, other.public, code=DAMAGE).stdout
    assert "models/b" in told and "only others have signed it" in told
    told = command_line.mfstore(*verify, pair.public, "--json", code=DAMAGE).stdout
    assert [one["kind"] for one in json.loads(told)["findings"]] == ["unsigned"]


def test_a_collection_removes_signatures_with_their_recipe(place, pair):
    store = mfstore.open(place)
    kept, gone = store.put("kept", "kept"), store.put("gone")
    for key in (kept, gone):
        store.sign(key, key=pair.file)
    for _ in range(2):
        store.plan_gc(grace=0).execute()
    assert not store.exists(gone)
    assert [info.key.split("/")[2] for info in store.backend.list("signatures/")] == [kept]
    assert mfstore.open(place, trusted=pair.public).get("kept") == "kept"


def test_a_collection_removes_what_another_left_that_was_stopped(place, pair):
    store = mfstore.open(place)
    kept, left, young = store.put("kept", "kept"), store.put("left"), store.put("young")
    for key in (kept, left, young):
        store.sign(key, key=pair.file)
    long_ago = time.time() - 8 * 24 * 3600
    for info in store.backend.list("signatures/"):
        if young not in info.key:
            os.utime(Path(place, info.key), (long_ago, long_ago))
    store.backend.delete(recipe_path(left))
    store.backend.delete(recipe_path(young))
    store.put("gone")
    for _ in range(2):
        done = store.plan_gc(grace=0).execute()
    assert done.deleted.recipes == 1
    assert {info.key.split("/")[2] for info in store.backend.list("signatures/")} == {kept, young}


def test_who_may_not_read_signatures_is_told(place, pair, monkeypatch):
    store = mfstore.open(place, trusted=pair.public)
    key = store.put("x")
    store.sign(key, key=pair.file)
    original = type(store.backend).get_many

    def refusing(self, paths):
        for path, data in original(self, paths):
            yield path, AccessDenied("no", key=path) if path.startswith("signatures/") else data

    monkeypatch.setattr(type(store.backend), "get_many", refusing)
    with pytest.raises(AccessDenied):
        store.get(key)


class Asked(MemoryBackend):
    """Asked as S3 is, for everything together. Notes which signatures it is asked for, and refuses some."""

    capabilities = Capabilities(remote=True)

    def __init__(self):
        super().__init__("memory://")
        self.signatures, self.refused = [], ()

    def get_many(self, paths):
        paths = list(paths)
        if paths and paths[0].startswith("signatures/"):
            self.signatures.append([path.split("/")[2] for path in paths])
        for path, data in super().get_many(paths):
            yield path, AccessDenied("no", key=path) if path.startswith(self.refused) else data


def test_signatures_of_many_are_asked_for_together_whichever_are_missing(pair):
    writer = Store("far", backend := Asked(), resolve(), create=True, algorithm="blake3")
    keys = [writer.put(value) for value in range(6)]
    for key in keys[1:5]:
        writer.sign(key, key=pair.file)
    backend.refused = (signature_path(keys[2], ""),)
    outcomes = [NotSigned, 1, AccessDenied, 3, 4, NotSigned]
    for first in (0, 2):
        backend.signatures.clear()
        store = Store("far", backend, resolve(), trusted=public_keys(pair.public))
        found = store.get_many(keys[first:], on_error="return")
        assert [value if type(value) is int else type(value) for _, value in found] == outcomes[first:]
        assert backend.signatures == [keys[first:]]


@pytest.fixture
def kms(moto, monkeypatch):
    """KMS as moto has it, in a process of its own: within this one it would hang its handlers into botocore for good."""
    for name, value in aws_keys(moto).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", moto.url)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return boto_client(moto, "kms")


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "RSA_2048"])
def test_keys_of_kms(place, tmp_path, kms, spec):
    made = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec=spec)["KeyMetadata"]
    arn = made["Arn"]
    store = mfstore.open(place)
    key = store.put("x", "x")
    store.sign("x", key=arn)
    public = serialization.load_der_public_key(kms.get_public_key(KeyId=arn)["PublicKey"])
    # Verified without asking KMS: by the file alone.
    kms.disable_key(KeyId=made["KeyId"])
    file = tmp_path / "kms.pub"
    file.write_bytes(public.public_bytes(*PUBLIC))
    assert mfstore.open(place, trusted=file).get(key) == "x"


def test_keys_of_kms_that_do_not_sign(place, kms):
    store = mfstore.open(place)
    key = store.put("x")
    for spec in ("ECC_NIST_P384", "ECC_SECG_P256K1"):
        with pytest.raises(InvalidKey):
            store.sign(key, key=kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec=spec)["KeyMetadata"]["Arn"])
    with pytest.raises(InvalidKey):
        store.sign(key, key=kms.create_key()["KeyMetadata"]["Arn"])
    with pytest.raises(NotFound):
        store.sign(key, key="arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000")
