"""Objects as files to read, on a simulated S3: what is fetched."""

import pytest

from mfstore.s3.datatools.readers import FIRST_FETCH, ObjectReader
from tests.rigs.simulated_s3 import BIG, SimulatedS3, simulated_client


@pytest.mark.parametrize("size", [0, 1, FIRST_FETCH, FIRST_FETCH + 1, 900 << 10])
@pytest.mark.parametrize("at", [0, 1, FIRST_FETCH - 1, FIRST_FETCH, FIRST_FETCH + 5])
def test_nothing_is_fetched_twice(size, at):
    world = SimulatedS3({"k": BIG[:size]})
    fetched = []
    get = world._GetObject

    def counted(call):
        status, headers, body = get(call)
        fetched.append(len(body) if status < 300 else 0)
        return status, headers, body[: call.stop - call.start]

    world._GetObject = counted
    with ObjectReader(simulated_client(world), "k", "k") as reader:
        reader.seek(at)
        assert reader.readall() == BIG[at:size]
    assert sum(fetched) <= max(size, FIRST_FETCH)
