"""What an argument, the environment and a default decide."""

import pytest

from mfstore import errors
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
