"""How long a search lasts: in ``make soak`` many times as long as in every other run.

make soak TIMES=100
"""

import os
from itertools import count

import pytest
from hypothesis import settings


def soaking():
    """Whether this is a soak."""
    return settings.get_current_profile_name() == "soak"


def lasting(amount):
    """So many examples or seconds; in a soak, many times as many."""
    return amount * int(os.environ.get("TIMES", "20")) if soaking() else amount


def points(first, step):
    """At which calls something is stopped: every ``step``-th from ``first`` on, so that the cases of a test share the
    calls between them; in a soak each case is tried at every call. Such a test has the mark ``fuzz``."""
    return count(1) if soaking() else count(first, step)


IN_SOAKS = (pytest.mark.fuzz, pytest.mark.skipif(not soaking(), reason="takes long: in `make soak`"))
"""The marks of a test, or of one of its parameters, that takes tens of seconds of both cores, most of it for programs to
start: soaks alone have the time."""


def in_soaks(test):
    """A test with these marks."""
    for mark in IN_SOAKS:
        test = mark(test)
    return test
