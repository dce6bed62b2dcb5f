"""What an argument, the environment and a default decide."""

import inspect
import os
import re
import subprocess
import sys

import pytest

import mfstore
from mfstore import errors, settings
from mfstore.backends import said_of
from mfstore.settings import (
    EncryptionKnobs,
    PlaceKnobs,
    resolve,
    resolve_encryption,
    resolve_metaflow,
    resolve_place,
    resolve_s3,
)
from tests import ROOT


def test_the_page_of_the_store_tells_each_setting_of_it():
    table = (ROOT / "docs" / "store.md").read_text().split("\n## Settings\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")][1:]
    arguments, variables = ({cell.strip(" `") for cell in column} - {""} for column in zip(*rows, strict=True))
    assert arguments == inspect.signature(mfstore.open).parameters.keys() - {"url", "options"}
    read = "".join(
        map(inspect.getsource, (settings.resolve, settings.records, settings.resolve_encryption, settings._safe))
    )
    assert variables == set(re.findall(r'"(MFSTORE_\w+)"', read))


@pytest.mark.parametrize(
    ("given", "profile"),
    [(None, "stock"), ("", "stock"), ("stock", "stock"), ("packed", "packed"), ("native", "packed")],
)
def test_the_profile_by_its_name_and_by_its_former_one(given, profile):
    assert resolve_metaflow(given).profile == profile


def test_an_unknown_profile():
    with pytest.raises(errors.InvalidKey, match=r"METAFLOW_MFSTORE_PROFILE must be one of stock, packed .*'Packed'"):
        resolve_metaflow("Packed")


@pytest.mark.parametrize(
    ("given", "environment", "found"),
    [
        (None, None, "balanced"), (None, "small", "small"), (None, "off", "off"), ("fast", "small", "fast"),
        (True, "small", "balanced"), (False, "small", "off"), ("off", None, "off"),
    ],
)  # fmt: skip
def test_how_hard_chunks_are_compressed(monkeypatch, given, environment, found):
    monkeypatch.delenv("MFSTORE_COMPRESS", raising=False)
    if environment:
        monkeypatch.setenv("MFSTORE_COMPRESS", environment)
    assert settings.resolve(compress=given).compress == found


def test_an_unknown_compression(monkeypatch):
    with pytest.raises(errors.InvalidKey, match=r"compress must be one of fast, balanced, small, off .*'best'"):
        settings.resolve(compress="best")
    with pytest.raises(errors.InvalidKey, match=r"compress must be one of .*9"):
        settings.resolve(compress=9)
    monkeypatch.setenv("MFSTORE_COMPRESS", "1")
    with pytest.raises(errors.InvalidKey, match="MFSTORE_COMPRESS must be one of fast, balanced, small, off"):
        settings.resolve()


KMS = "aws:kms"


@pytest.mark.parametrize(
    ("arguments", "environment", "found"),
    [
        ({}, {}, (None, None, None)),
        ({}, {"ENCRYPTION": ""}, (None, None, None)),
        ({}, {"ENCRYPTION": "AES256"}, ("AES256", None, None)),
        ({}, {"KMS_KEY": "k"}, (KMS, "k", None)),
        ({}, {"KMS_KEY": "k", "ENCRYPTION": "aws:kms:dsse"}, ("aws:kms:dsse", "k", None)),
        ({}, {"KMS_KEY": "k", "BUCKET_KEY": "1"}, (KMS, "k", True)),
        ({}, {"ENCRYPTION": "AES256", "BUCKET_KEY": "1"}, ("AES256", None, None)),
        ({"encryption": ""}, {"ENCRYPTION": "AES256", "KMS_KEY": "k"}, (None, None, None)),
        ({"encryption": "AES256"}, {"ENCRYPTION": KMS, "KMS_KEY": "k"}, ("AES256", None, None)),
        ({"encryption": KMS}, {"KMS_KEY": "k"}, (KMS, "k", None)),
        ({"encryption": KMS, "kms_key": ""}, {"KMS_KEY": "k"}, (KMS, None, None)),
        ({"kms_key": "k"}, {"ENCRYPTION": "AES256"}, (KMS, "k", None)),
        ({"kms_key": "k", "bucket_key": False}, {"BUCKET_KEY": "1"}, (KMS, "k", False)),
    ],
)
def test_how_what_is_stored_is_encrypted(monkeypatch, arguments, environment, found):
    for name in ("ENCRYPTION", "KMS_KEY", "BUCKET_KEY"):
        monkeypatch.delenv(f"MFSTORE_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(f"MFSTORE_{name}", value)
    assert resolve_encryption(**arguments) == EncryptionKnobs(*found)


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        ({"encryption": "aes256"}, {}, "encryption must be one of , AES256, aws:kms"),
        ({}, {"ENCRYPTION": "AES"}, "MFSTORE_ENCRYPTION must be one of"),
        ({"encryption": "AES256", "kms_key": "k"}, {}, "kms_key is a key of KMS"),
        ({"encryption": "", "kms_key": "k"}, {}, "kms_key is a key of KMS"),
        ({}, {"ENCRYPTION": "AES256", "KMS_KEY": "k"}, "MFSTORE_KMS_KEY is a key of KMS"),
        ({"encryption": "AES256", "bucket_key": True}, {}, "bucket_key is of another encryption"),
        ({}, {"BUCKET_KEY": "perhaps"}, "MFSTORE_BUCKET_KEY must be 0 or 1"),
    ],
)
def test_encryption_that_makes_no_sense(monkeypatch, arguments, environment, told):
    for name, value in environment.items():
        monkeypatch.setenv(f"MFSTORE_{name}", value)
    with pytest.raises(errors.InvalidKey, match=re.escape(told)):
        resolve_encryption(**arguments)


def test_what_is_of_s3_is_refused_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MFSTORE_ENCRYPTION", "AES256")  # of all places: those that are not in S3 have nothing of it
    mfstore.open(tmp_path).put(1)
    for given in ({"encryption": "AES256"}, {"kms_key": "k"}, {"bucket_key": True}, {"single_writer": True}):
        for place in (tmp_path, "memory://x"):
            with pytest.raises(errors.InvalidKey, match=f"{next(iter(given))} is for places in S3"):
                mfstore.open(place, **given)


# ---- the configuration file -----------------------------------------------------------------

FILE = """
threads = 3
fsync = "always"
compress = "small"
s3_engine = "native"
cache = ""
encryption = "aws:kms"
kms_key = "everywhere"
store = "s3://bucket/one"

[place."s3://bucket"]
region = "eu-west-1"
endpoint_url = "http://localhost:9000"
expire_days = 30

[place."s3://bucket/one/"]
profile = "mine"
single_writer = true
kms_key = "one"
threads = 5

[place."s3://bucket/plain"]
encryption = "AES256"
kms_key = ""
"""


SOURCE = {
    "DATASTORE_SYSROOT_S3": "s3://flows/metaflow", "DATATOOLS_SUFFIX": "data", "DEFAULT_AWS_CLIENT_PROVIDER": "boto3",
    "S3_RETRY_COUNT": 7, "S3_TRANSIENT_RETRY_COUNT": 20, "S3_WORKER_COUNT": 64, "DATATOOLS_CLIENT_PARAMS": {},
    "DATATOOLS_SESSION_VARS": {},
}  # fmt: skip
"""What Metaflow's settings say."""


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Writes a file, and puts it in force."""

    def write(text):
        path = tmp_path / f"{len([*tmp_path.iterdir()])}.toml"
        path.write_text(text)
        monkeypatch.setenv("MFSTORE_CONFIG", str(path))
        return str(path)

    for name in settings.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return write


def test_what_the_cache_of_a_host_may_take(configured, monkeypatch):
    configured("threads = 1\n")
    assert resolve().cache_size == 10 << 30
    configured("cache_size = 5\n")
    assert resolve().cache_size == 5
    monkeypatch.setenv("MFSTORE_CACHE_SIZE", "0")
    assert resolve().cache_size == 0
    with mfstore.open("memory://", cache_size=7) as store:
        assert store.handle.options.knobs.cache_size == 7


def test_what_a_file_says_holds_below_environment_and_arguments(configured, monkeypatch):
    path = configured(FILE)
    knobs = resolve()
    assert (knobs.threads, knobs.fsync, knobs.compress, knobs.cache) == (3, "always", "small", "")
    assert resolve_s3().engine == "native" and resolve_metaflow(None).fsync == "always"
    assert resolve(threads=2).threads == 2
    monkeypatch.setenv("MFSTORE_THREADS", "4")
    assert resolve().threads == 4 and resolve(place="s3://bucket/one").threads == 4
    monkeypatch.setenv("MFSTORE_ENCRYPTION", "AES256")
    assert resolve_encryption() == EncryptionKnobs("AES256")  # the file's key is of another encryption
    assert settings.default_store() == "s3://bucket/one" and settings.configuration().path == path


def test_the_longest_name_of_a_place_counts(configured):
    configured(FILE)
    near = PlaceKnobs("http://localhost:9000", "eu-west-1", "mine", True)
    for url in ("s3://bucket/one", "s3://bucket/one/", "s3://bucket/one/two"):
        assert resolve_place(url) == near
        assert resolve_encryption(place=url) == EncryptionKnobs(KMS, "one")
        assert (resolve(place=url).threads, resolve(place=url).expire_days) == (5, 30)
    for url in ("s3://bucket/one2", "s3://bucket/two", "s3://bucket"):
        assert resolve_place(url) == near._replace(profile=None, single_writer=False)
        assert resolve_encryption(place=url) == EncryptionKnobs(KMS, "everywhere")
    assert resolve_encryption(place="s3://bucket/plain/x") == EncryptionKnobs("AES256")
    for url in ("s3://bucket2/one", "/bucket/one", "memory://bucket/one"):
        assert resolve_place(url) == PlaceKnobs() and resolve(place=url).expire_days is None


def test_a_directory_by_its_path(configured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configured(f'[place."{tmp_path}/stores/"]\nfsync = "none"\n')
    for url in ("stores/a", f"{tmp_path}/stores", f"file://{tmp_path}/stores/a", f"file://localhost{tmp_path}/stores"):
        assert resolve(place=url).fsync == "none"
    assert resolve(place="stores2").fsync == "batch"


def test_a_directory_by_each_path_that_leads_there(configured, tmp_path):
    (tmp_path / "on disk").mkdir()
    (tmp_path / "link").symlink_to("on disk")
    for name in ("on disk", "link", "link/../link"):
        configured(f'[place."{tmp_path}/{name}"]\nfsync = "none"\n')
        for url in ("on disk/a", "link/a", "x/../link"):
            assert resolve(place=f"{tmp_path}/{url}").fsync == "none"
        assert resolve(place=f"file://{tmp_path}/on%20disk/a").fsync == "none"


def test_each_table_is_above_those_of_shorter_names(configured):
    configured("""
        encryption = "aws:kms"
        kms_key = "everywhere"
        [place."s3://plain"]
        encryption = "AES256"
        [place."s3://plain/secret"]
        kms_key = "one"
    """)
    assert resolve_encryption(place="s3://plain/x") == EncryptionKnobs("AES256")
    assert resolve_encryption(place="s3://plain/secret/x") == EncryptionKnobs(KMS, "one")


def test_settings_of_a_place_reach_what_works_there(configured, tmp_path):
    configured(f'''
        s3_engine = "native"
        [place."s3://slow/store"]
        s3_engine = "aiobotocore"
        s3_concurrency = 3
        s3_payload_signing = "always"
        [place."s3://flows/metaflow"]
        safe = true
        verify = false
        region = "eu-west-1"
        [place."{tmp_path}"]
        otel = true
    ''')
    said = said_of("s3://slow/store/x", {})
    assert (said["engine"], said["concurrency"], said["payload_signing"]) == ("aiobotocore", 3, "always")
    assert said_of("s3://slow/store", {"concurrency": 5})["concurrency"] == 5
    assert {"concurrency", "payload_signing"}.isdisjoint(said_of("s3://slow", {}))
    knobs = resolve_metaflow(None, root="s3://flows/metaflow")
    assert knobs.safe is not None and not knobs.verify and resolve_metaflow(None, root="s3://flows").verify
    assert settings.telemetry(str(tmp_path)) and not settings.telemetry("s3://slow")


def test_what_a_file_says_of_places_in_other_clouds(configured):
    """What is S3's alone is not handed to them."""
    configured("""
        encryption = "AES256"
        s3_engine = "aiobotocore"
        s3_concurrency = 3
        [place."az://container"]
        endpoint_url = "http://127.0.0.1:10000/account"
        account = "account"
        [place."gs://bucket/team"]
        endpoint_url = "http://127.0.0.1:4443"
    """)
    reached = {"endpoint_url": "http://127.0.0.1:10000/account", "account_name": "account", "concurrency": 3}
    assert said_of("az://container/x", {}) == reached
    assert said_of("az://container/x", {"account_name": "other"}) == {**reached, "account_name": "other"}
    assert said_of("gs://bucket/team/x", {}) == {"endpoint_url": "http://127.0.0.1:4443", "concurrency": 3}
    assert said_of("gs://bucket", {"concurrency": 9}) == {"concurrency": 9}


def test_metaflow_reaches_its_root_as_the_file_says(configured, monkeypatch):
    from mfstore.s3.datatools.settings import settings as of_metaflow

    source = {**SOURCE}
    monkeypatch.setattr("mfstore.s3.datatools.settings._source", lambda: source)
    configured("""
        [place."s3://flows"]
        endpoint_url = "http://localhost:9000"
        profile = "mine"
        [place."s3://other"]
        endpoint_url = "http://localhost:9001"
    """)
    assert of_metaflow().client_params == {"endpoint_url": "http://localhost:9000", "profile_name": "mine"}
    assert of_metaflow("s3://other/x").client_params == {"endpoint_url": "http://localhost:9001"}
    source["S3_ENDPOINT_URL"] = "http://localhost:9002"  # Metaflow's own settings count before
    assert of_metaflow().client_params["endpoint_url"] == "http://localhost:9002"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        *(
            (f'[place."{name}"]\nthreads = 3', f"{{path}}: place.{name!r} is no place")
            for name in ("s3", "s3:/b", "b/c", "", "s3://", "S3://b", "~nobody-here/x", "file://localhost", "file://b")
        ),
        ('[place."s3://b"]\n[place."s3://b/"]', "{path}: place.'s3://b/' is a place that another table names already"),
        ('endpoint_ur = "x"', "{path}: endpoint_ur is no setting. Did you mean endpoint_url?"),
        ("threads = ", "{path} is not TOML"),
        (b"fsync = '\xff'", "{path} is not TOML"),
        ("thread = 3", "{path}: thread is no setting. Did you mean threads?"),
        ('region = "x"', "{path}: region is no setting. It belongs in a table [place.…]"),
        ("threads = true", "{path}: threads is a whole number"),
        ('threads = "3"', "{path}: threads is a whole number"),
        ("threads = 1000", "{path}: threads is out of range"),
        ("verify = 1", "{path}: verify is true or false"),
        ('fsync = "allways"', "{path}: fsync must be one of none, batch, always"),
        ("place = 3", "{path}: place is a table"),
        ('[place]\n"s3://b" = 3', "{path}: place.'s3://b' is a table"),
        ('[place."s3://b"]\nstore = "x"', "{path}: store in place.'s3://b' is no setting"),
        (
            '[place."az://b"]\nencryption = "AES256"',
            "{path}: encryption in place.'az://b' is no setting. It is for places",
        ),
        ('[place."gs://b"]\nregion = "x"', "{path}: region in place.'gs://b' is no setting. It is for places in S3"),
        (
            '[place."gs://b"]\naccount = "x"',
            "{path}: account in place.'gs://b' is no setting. It is for places in Azure",
        ),
        ('[place."s3://b"]\nendpoint = "x"', "{path}: endpoint in place.'s3://b' is no setting"),
        ('encryption = "AES256"\nkms_key = "k"', "{path}: kms_key is a key of KMS"),
        ('safe = "numpy"', "{path}: safe: not the name of a class or a function with its module (found 'numpy')"),
        ('safe = "a.B, os.system"', "{path}: safe: nobody can vouch for it"),
        ("safe = 3", "{path}: safe is true or false or a text in quotes"),
    ],
)
def test_what_a_file_may_not_say(configured, tmp_path, text, told):
    path = configured("")
    with open(path, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(errors.InvalidKey) as caught:
        resolve()
        resolve_encryption()
    assert str(caught.value).startswith(told.format(path=path)[:90]) or told.format(path=path) in str(caught.value)


def test_names_that_are_none_are_told_with_who_says_them(configured, monkeypatch):
    path = configured('[place."s3://b"]\nsafe = "numpy"')
    with pytest.raises(errors.InvalidKey, match=re.escape(f"{path}: safe of s3://b: not the name of a class")):
        resolve(place="s3://b/x")
    with pytest.raises(errors.InvalidKey, match="^METAFLOW_MFSTORE_SAFE: not the name of a class"):
        resolve_metaflow(None, "pandas")
    monkeypatch.setenv("MFSTORE_SAFE", "torch")
    with pytest.raises(errors.InvalidKey, match="^MFSTORE_SAFE: not the name of a class"):
        resolve(place="s3://b/x")


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MFSTORE_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(errors.NotFound, match=r"none.toml cannot be read: No such file.*MFSTORE_CONFIG= \(empty\)"):
        resolve()
    monkeypatch.setenv("MFSTORE_CONFIG", str(tmp_path))
    with pytest.raises(errors.AccessDenied, match="cannot be read: Is a directory"):
        resolve()
    monkeypatch.setenv("MFSTORE_CONFIG", "")
    assert settings.configuration().path is None


def test_where_the_file_is(tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for place, threads in ((home / ".config", 2), (elsewhere, 3)):
        (place / "mfstore").mkdir(parents=True)
        (place / "mfstore" / "config.toml").write_text(f"threads = {threads}")
    monkeypatch.delenv("MFSTORE_THREADS", raising=False)
    monkeypatch.delenv("MFSTORE_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(home))
    for directory, threads in ((None, 2), ("relative", 2), (str(elsewhere), 3)):
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        if directory:
            monkeypatch.setenv("XDG_CONFIG_HOME", directory)
        assert resolve().threads == threads
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
    assert settings.configuration() == settings.NO_CONFIGURATION
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("HOME")
    assert settings.configuration() == settings.NO_CONFIGURATION


ONE_LOOK = """
import sys
home, looked = sys.argv[1], []
sys.addaudithook(lambda event, given: event == "open" and str(given[0]).startswith(home) and looked.append(given[0]))
import mfstore.opening, mfstore.store
before = {*sys.modules}
assert not looked
for _ in range(3):
    mfstore.open(sys.argv[2])
    mfstore.settings.resolve_s3(), mfstore.settings.resolve_metaflow(None), mfstore.settings.resolve_encryption()
assert looked == [home + "/.config/mfstore/config.toml"], looked
assert not {"tomllib", "mfstore.configuration"} & ({*sys.modules} - before)
"""


def test_no_file_costs_one_look_and_no_import(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MFSTORE_", "XDG_"))}
    command = [sys.executable, "-c", ONE_LOOK, str(home), str(tmp_path / "store")]
    subprocess.run(command, check=True, env={**environment, "HOME": str(home)})


def test_every_variable_has_its_key():
    read = set(re.findall(r'"(MFSTORE_\w+)"', inspect.getsource(settings)))
    assert read - {"MFSTORE_CONFIG", "MFSTORE_STORE", "MFSTORE_"} == settings.VARIABLES.keys()
