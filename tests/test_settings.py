"""What an argument, the environment and a default decide."""

import inspect
import re

import pytest

import mfstore
from mfstore import errors, settings
from mfstore.settings import resolve_metaflow
from tests import ROOT


def test_the_page_of_the_store_tells_each_setting_of_it():
    table = (ROOT / "docs" / "store.md").read_text().split("\n## Settings\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")][1:]
    arguments, variables = ({cell.strip(" `") for cell in column} - {""} for column in zip(*rows, strict=True))
    assert arguments == inspect.signature(mfstore.open).parameters.keys() - {"url", "options"}
    read = inspect.getsource(settings.resolve) + inspect.getsource(settings.records)
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


@pytest.mark.parametrize(("text", "cpus"), [("150000 100000", 2), ("max 100000", 1 << 16), ("nonsense", 1 << 16)])
def test_threads_follow_the_quota_of_a_container(tmp_path, text, cpus):
    (tmp_path / "a" / "b").mkdir(parents=True)
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    (tmp_path / "a" / "cpu.max").write_text(text + "\n")
    assert settings._quota.__wrapped__(str(own), str(tmp_path)) == cpus
    assert settings._quota.__wrapped__(str(tmp_path / "none"), str(tmp_path / "none")) == 1 << 16


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
