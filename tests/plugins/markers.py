"""Marks each test by what it asks for: see the list of markers in pyproject.toml.

A fixture that starts a server for some of its parameters only marks these itself.
"""

import pytest

BY_FIXTURE = {
    "server": {"radosgw", "ministack", "nginx", "moto", "s3_server", "any_rig"},
    "flow": {"local_rig", "s3_rig", "make_rig"},
}


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    for item in items:
        for mark, fixtures in BY_FIXTURE.items():
            if not fixtures.isdisjoint(getattr(item, "fixturenames", ())):
                item.add_marker(mark)
