"""What the doctor thinks of what it finds: of values that are handed in."""

import re
from pathlib import Path

import pytest

from mfstore.doctor import aws, environment, flows, libraries, packages, program
from mfstore.doctor.findings import Finding, document, examined
from mfstore.doctor.packages import Wanted
from tests import ROOT


def states(findings):
    return {finding.name: finding.state for finding in findings}


@pytest.mark.parametrize(
    ("tags", "direct_url", "installer", "text"),
    [
        (["cp311-cp311-manylinux_2_28_x86_64"], None, "pip", "from the wheel cp311-cp311-manylinux_2_28_x86_64"),
        (["cp313-cp313-linux_x86_64"], None, "pip", "built from source (cp313-cp313-linux_x86_64)"),
        (["cp311-cp311-linux_x86_64"], {"url": "file:///m", "dir_info": {"editable": True}}, "pip",
         "built here from its source, in place"),
        (["cp311-cp311-linux_x86_64"], {"url": "file:///m", "dir_info": {}}, "pip", "built here from its source"),
        (["cp311-cp311-linux_x86_64"], {"url": "https://h/m", "vcs_info": {"commit_id": "0123456789abcdef"}}, "pip",
         "built here from 0123456789ab of its repository"),
        (["cp311-cp311-musllinux_1_2_x86_64"], {"url": "file:///m.whl", "archive_info": {}}, "uv",
         "from the wheel cp311-cp311-musllinux_1_2_x86_64"),
        (["cp311-cp311-linux_x86_64"], {"url": "file:///m.tar.gz", "archive_info": {}}, "uv",
         "built here from its source archive"),
        ([], None, "conda", "a package of conda"),
    ],
)  # fmt: skip
def test_where_mfstore_comes_from(tags, direct_url, installer, text):
    assert program.made_from(tags, direct_url, installer) == text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("libzstd.so.1: cannot open shared object file: No such file or directory", "--only-binary mfstore"),
        ("codec.so: undefined symbol: ZSTD_CCtx_refPrefix", "--no-binary mfstore"),
        ("No module named 'mfstore._core.codec'", "another Python"),
    ],
)
def test_what_to_do_about_an_extension_that_does_not_load(error, words):
    assert words in program.mending(error)


def test_every_extension_of_the_core_is_looked_for():
    named = {path.stem for path in (ROOT / "src").rglob("*.pyx")}
    assert named == set(program.CORE)


def test_where_a_library_comes_from(tmp_path):
    package = tmp_path / "mfstore"
    assert libraries.place(str(package / "_core" / "codec.so"), package) == "within mfstore"
    beside = str(tmp_path / "mfstore.libs" / "libzstd-1.so")
    assert libraries.place(beside, package) == f"in the wheel, {beside}"
    assert libraries.place("/usr/lib/libzstd.so.1", package) == "/usr/lib/libzstd.so.1"
    assert "does not tell" in libraries.place("", package)


@pytest.mark.parametrize(
    ("version", "headers", "state"),
    [
        ("1.5.7", "1.5.4", "fine"), ("1.5.4", "1.5.4", "fine"), ("1.4.0", "1.5.4", "doubtful"),
        ("8.5.0-DEV", "7.88.1", "fine"), ("3.10.0", "3.9.9", "fine"),
    ],
)  # fmt: skip
def test_a_library_that_is_older_than_its_headers(version, headers, state):
    assert libraries.compared(version, headers)[0] == state


def test_every_library_tells_its_version_and_its_file():
    found = {finding.name: finding.text for finding in libraries.libraries()}
    assert {"liblz4", "libzstd", "libxxhash", "libcurl", "libcrypto", "libssl"} <= set(found)
    for name, text in found.items():
        assert re.search(r"\d+\.\d+\.\d+", text), name
        file = text.rpartition(", ")[2]
        assert not file.startswith("/") or Path(file).exists()
        assert "does not tell" not in text


def test_what_the_metadata_wants():
    found = packages.wanted(
        [
            "click>=8.1", "botocore>=1.36; extra == 's3'", 'botocore>=1.36; extra == "aio"',
            "aiobotocore>=2.20; extra == 'aio'", "pytest; extra == 'test'", "typing-extensions",
            "odd (>=1,<2) ; python_version < '3.13' and extra == 's3'",
        ]
    )  # fmt: skip
    assert found == [
        Wanted("click", ">=8.1", ()), Wanted("botocore", ">=1.36", ("s3", "aio")),
        Wanted("aiobotocore", ">=2.20", ("aio",)), Wanted("typing-extensions", "", ()), Wanted("odd", ">=1,<2", ("s3",)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "have", "fits", "state", "words"),
    [
        (Wanted("click", ">=8", ()), "8.1", True, "fine", "8.1"),
        (Wanted("click", ">=8", ()), "7.0", False, "broken", ">=8 is needed"),
        (Wanted("click", ">=8", ()), None, True, "broken", "not installed"),
        (Wanted("botocore", ">=1", ("s3",)), None, True, "fine", "mfstore[s3]"),
        (Wanted("botocore", ">=1", ("s3",)), "0.9", False, "doubtful", ">=1 is needed"),
    ],
)
def test_what_to_think_of_a_package(one, have, fits, state, words):
    finding = packages.judged(one, have, fits)
    assert finding.state == state
    assert words in finding.text


def test_variables_that_nothing_reads_are_told():
    found = states(environment.variables({"MFSTORE_TREADS": "4", "MFSTORE_MEMORY": "1", "MFSTORE_STORE": "x"}))
    assert found == {"MFSTORE_TREADS": "doubtful", "MFSTORE_MEMORY": "fine", "MFSTORE_STORE": "fine"}


def test_no_password_of_a_store_is_shown():
    (found,) = environment.variables({"MFSTORE_STORE": "s3://user:secret@bucket/prefix"})
    assert "secret" not in found.text


def test_every_variable_that_is_read_is_known():
    read = set()
    for path in (ROOT / "mfstore").rglob("*.py"):
        read |= set(re.findall(r"(?<![A-Z_])MFSTORE_[A-Z0-9_]+[A-Z0-9]", path.read_text()))
    # The former is click's, for shells, the latter what Metaflow names METAFLOW_MFSTORE_PROFILE.
    assert read - {"MFSTORE_COMPLETE", "MFSTORE_PROFILE", "MFSTORE_"} == environment.KNOWN


def test_the_configuration_file_and_what_counts_before_it(monkeypatch, tmp_path):
    path = tmp_path / "config.toml"
    monkeypatch.setenv("MFSTORE_CONFIG", str(path))
    monkeypatch.setenv("MFSTORE_THREADS", "2")
    assert states(environment.configuration()) == {"configuration": "broken"}
    path.write_text('threads = 3\ncache = "x"\n[place."s3://b"]\nregion = "r"\nendpoint_url = "http://u:secret@h"\n')
    told = [(found.name.strip(), found.text) for found in environment.configuration()]
    assert told[:3] == [
        ("configuration", str(path)),
        ("threads", "3, but MFSTORE_THREADS counts before it"),
        ("cache", "x"),
    ]
    assert told[3][0] == "s3://b" and told[3][1].startswith("region r, ") and "secret" not in told[3][1]
    path.with_name("wrong.toml").write_text('[place."s3://b"]\nthreads = 9999\n')
    monkeypatch.setenv("MFSTORE_CONFIG", str(path.with_name("wrong.toml")))
    monkeypatch.delenv("MFSTORE_THREADS")
    assert [found.state for found in environment.configuration()] == ["fine", "fine", "broken"]


def test_settings_out_of_range(monkeypatch):
    monkeypatch.setenv("MFSTORE_THREADS", "many")
    assert states(environment.variables()) == {"MFSTORE_THREADS": "fine", "settings": "broken"}


@pytest.mark.parametrize(
    ("variables", "profile", "words"),
    [
        ({}, {"credential_process": "/usr/bin/keys"}, "program"),
        ({}, {"role_arn": "arn", "credential_source": "Ec2InstanceMetadata"}, "role"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/"}, {}, "container"),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, {}, "public buckets"),
        ({}, {}, "metadata service"),
    ],
)
def test_where_credentials_may_come_from(variables, profile, words):
    assert words in aws.elsewhere(variables, profile)


OURS = {"local": "mfstore.metaflow.hooks.storages", "s3": "mfstore.metaflow.hooks.storages"}
STOCK = {"local": "metaflow.plugins.datastores.local_storage", "s3": "metaflow.plugins.datastores.s3_storage"}
TOLD = {"profile": None, "datastore": "local", "root": None, "metadata": "local", "switched_off": False, "warning": ""}


@pytest.mark.parametrize(
    ("told", "state", "words"),
    [
        ({"storages": OURS}, "fine", "active: local, s3"),
        ({"storages": STOCK, "switched_off": True}, "doubtful", "METAFLOW_MFSTORE"),
        ({"storages": {**OURS, "s3": "other.S3"}}, "broken", "s3 by other.S3"),
        ({"storages": STOCK, "warning": "mfstore cannot be loaded (no isal)"}, "broken", "not active"),
    ],
)
def test_what_to_think_of_the_extension(told, state, words):
    found = {finding.name: finding for finding in flows.judged({**TOLD, **told})}
    assert found["extension"].state == state
    assert words in found["extension"].text
    assert found["extension"].hint.startswith(told.get("warning", ""))


@pytest.mark.parametrize(("profile", "state"), [("packed", "fine"), ("native", "fine"), ("Packed", "broken")])
def test_the_profile(profile, state):
    assert states(flows.judged({**TOLD, "storages": OURS, "profile": profile}))["profile"] == state


def test_what_mfstore_says_of_a_release_is_a_finding():
    assert "release" not in states(flows.judged({**TOLD, "storages": OURS, "note": ""}))
    assert (
        states(flows.judged({**TOLD, "storages": OURS, "note": "mfstore: it was tried with …"}))["release"]
        == "doubtful"
    )


@pytest.mark.parametrize(
    ("installed", "asked_for"), [((), ["metaflow"]), (("ob-metaflow",), ["ob-metaflow"]), (("metaflow",), ["metaflow"])]
)
def test_one_metaflow_is_enough(installed, asked_for, monkeypatch):
    def version(name):
        if name not in installed:
            raise packages.PackageNotFoundError(name)
        return "2.19"

    monkeypatch.setattr(packages, "version", version)
    monkeypatch.setattr(packages, "requires", lambda _: [f"{name}; extra == '{name}'" for name in packages.METAFLOWS])
    assert [finding.name for finding in packages.packages()] == asked_for


def test_metaflow_that_cannot_be_imported():
    (found,) = flows.judged({"error": "ValueError: Cannot locate datastore plugin 's3'"})
    assert found.state == "broken"


def test_an_import_of_metaflow_that_does_not_end_is_a_finding(monkeypatch):
    monkeypatch.setattr(flows, "PATIENCE", 0.001)
    (finding,) = flows.judged(flows.ask())
    assert (finding.name, finding.state) == ("import metaflow", "broken")
    assert finding.text == "it takes longer than 0.001 seconds"


def test_an_examination_that_fails_is_a_finding_and_the_others_go_on():
    def bad_one():
        raise RuntimeError("odd")
        yield

    section = examined("x", bad_one, lambda: [Finding("a", "b")])
    assert [(one.name, one.state) for one in section.findings] == [("bad one", "broken"), ("a", "fine")]
    told = document([section])
    assert (told["broken"], told["doubtful"]) == (1, 0)
    assert [one["name"] for one in told["sections"]["x"]] == ["bad one", "a"]
