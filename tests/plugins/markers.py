"""Marks each test by what it asks for (the markers are in pyproject.toml); beside other workers the long ones begin.

A fixture that starts a server for some of its parameters only marks these itself.
"""

import pytest

SERVERS = {"radosgw", "ministack", "nginx", "moto", "azurite", "azurite_tls", "gcs_server"}
BY_FIXTURE = {"server": {*SERVERS, "s3_server", "any_rig"}, "flow": {"local_rig", "s3_rig", "make_rig"}}
LONG = ("flow", "slow")

_running = []


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config, items):
    for item in items:
        for mark, fixtures in BY_FIXTURE.items():
            if not fixtures.isdisjoint(getattr(item, "fixturenames", ())):
                item.add_marker(mark)
    if hasattr(config, "workerinput"):
        # None of them is to begin when the other workers have nothing left to do.
        items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in LONG))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    _running[:] = [item]
    return (yield)


def pytest_fixture_setup(fixturedef):
    if fixturedef.argname in SERVERS and not _running[0].get_closest_marker("server"):
        pytest.fail(f"{_running[0].nodeid} starts {fixturedef.argname} without the mark `server`", pytrace=False)
