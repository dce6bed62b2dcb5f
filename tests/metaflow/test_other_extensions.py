"""Beside other extensions of Metaflow: two that reach for its S3 client, its storages and its cards. `make test-newest`
installs them."""

from importlib.metadata import PackageNotFoundError, version

import pytest

from tests.rigs.flows import PACKED

OTHERS = ("metaflow-checkpoint", "metaflow-card-html")


def installed(name):
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


@pytest.mark.flow
@pytest.mark.server
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not all(map(installed, OTHERS)), reason=f"needs {' and '.join(OTHERS)}")
def test_a_flow_with_decorators_of_two_others(s3_rig):
    rig = s3_rig()
    finished = rig.run("kept.py", side=PACKED)
    assert "mfstore" not in finished.stderr, finished.stderr
    read = rig.read(f"Kept/{finished.run_id}", "start")
    assert read["successful"]
    assert read["steps"]["end"][0]["artifacts"]["total"] == str(sum(range(1, 13)))
    assert read["cards"]
