"""What an argument, the environment and a default decide."""

import pytest

from mfstore import errors, settings
from mfstore.settings import resolve_metaflow


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
