"""How long a search lasts: in ``make soak`` many times as long as in every other run.

make soak TIMES=100
"""

import os

import pytest
from hypothesis import settings


def soaking():
    """Whether this is a soak."""
    return settings.get_current_profile_name() == "soak"


def lasting(amount):
    """So many examples or seconds; in a soak, many times as many."""
    return amount * int(os.environ.get("TIMES", "20")) if soaking() else amount


def in_soaks(test):
    """A test that takes a minute of both cores, most of it for programs to start: soaks alone have the time."""
    return pytest.mark.fuzz(pytest.mark.skipif(not soaking(), reason="takes a minute: in `make soak`")(test))
