"""``mfstore doctor`` as it is run."""

import json
import os
import subprocess
import sys

import pytest

from tests.rigs.command_line import mfstore
from tests.servers.base import boto_client


def doctor(*arguments, before="", **variables):
    """Exit code and document, after the lines ``before`` in that process."""
    code = f"import sys\n{before}\nfrom mfstore.cli import main\nmain(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json", *arguments],
        capture_output=True, text=True, env={**os.environ, **variables},
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def found(document, section, state=None):
    return {one["name"]: one["text"] for one in document["sections"][section] if state in (None, one["state"])}


def test_all_is_well(s3_env):
    code, document = doctor()
    assert document["broken"] == code == 0, document
    assert found(document, "Metaflow")["extension"].startswith("active: ")
    assert found(document, "S3")["credentials"].startswith("from the environment")
    assert "secret" not in json.dumps(document)


def test_where_the_core_does_not_load_and_a_profile_does_not_exist(s3_env):
    """Neither keeps the other from being told."""
    code, document = doctor(before="sys.modules['mfstore._core.memory'] = None", AWS_PROFILE="nobody")
    assert code == 1
    assert "_core.memory" in found(document, "installation", "broken")
    assert {"liblz4", "libcurl"} <= set(found(document, "libraries"))
    assert "nobody" in found(document, "S3", "broken")["configuration"]


def test_what_is_wrong_is_told(s3_env, tmp_path):
    code, document = doctor(
        AWS_CA_BUNDLE="/nowhere", METAFLOW_MFSTORE="0", MFSTORE_FSYNC="sometimes", TMPDIR=str(tmp_path)
    )
    assert code == 1
    assert "AWS_CA_BUNDLE names it" in found(document, "S3", "broken")["CA bundle"]
    assert "METAFLOW_MFSTORE" in found(document, "Metaflow", "doubtful")["extension"]
    assert "sometimes" in found(document, "environment", "broken")["settings"]
    assert str(tmp_path) in found(document, "environment")["TMPDIR"]


def test_a_terminal_shows_it(s3_env):
    done = subprocess.run([sys.executable, "-m", "mfstore", "doctor"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "LIBRARIES\n" in done.stdout and "Nothing is wrong" in done.stdout


@pytest.fixture
def place(s3_env, radosgw, monkeypatch):
    """A prefix that the environment leads to, and what lies in its bucket."""
    bucket = radosgw.create_bucket(f"doctor-{os.urandom(8).hex()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", radosgw.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", radosgw.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", radosgw.region)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", radosgw.url)

    def keys():
        return [one["Key"] for one in boto_client(radosgw).list_objects_v2(Bucket=bucket).get("Contents", ())]

    return f"s3://{bucket}/some/prefix", keys


def test_a_place_in_s3_that_can_be_used(place):
    url, keys = place
    code, document = doctor(url)
    assert code == 0, document
    tried = {one["name"]: one["facts"]["answer"] for one in document["sections"]["rights"] if "action" in one["facts"]}
    assert tried["put"] == tried["get"] == tried["multipart-complete"] == tried["delete-many"] == "allowed"
    assert found(document, "rights")["you"] == "you can load, list, save, set refs and collect"
    assert "put-bucket-lifecycle-configuration" in json.dumps(document["sections"]["bucket"])
    assert keys() == []


def test_what_a_terminal_shows_of_a_place(place):
    shown = mfstore("doctor", "--s3", place[0]).stdout
    assert "\nRIGHTS\n  list " in shown and "\nBUCKET\n" in shown and "\nCONTAINER\n" in shown
    assert "\n? abandoned uploads " in shown and "   aws s3api put-bucket-lifecycle-configuration --bucket" in shown


@pytest.mark.parametrize("url", ["s3://there-is-none-such/prefix", "gs://bucket/prefix", "s3:/typo"])
def test_what_is_no_place(place, url):
    shown = mfstore("doctor", url, "--json", code=1).stdout
    (broken,) = [one for one in json.loads(shown)["sections"]["place"] if one["state"] == "broken"]
    assert broken["hint"]
