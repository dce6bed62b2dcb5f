"""What is written to a streamed upload is what is sent, in however many pieces it comes; on a simulated S3."""

import random

import pytest

from mfstore.s3.bulk import streaming
from mfstore.s3.bulk.streaming import StreamedUpload
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

KIB = 1 << 10


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("part", [64 * KIB, 256 * KIB])
def test_all_ways_of_writing(seed, part, monkeypatch):
    monkeypatch.setattr(streaming, "PART_BYTES", part)
    monkeypatch.setattr(streaming, "SMALL", 32 * KIB)
    monkeypatch.setattr(streaming, "SHARED", 8 * KIB)
    numbers = random.Random(seed)
    world = SimulatedS3({})
    upload = StreamedUpload(simulated_client(world), "s3://bucket/a")
    whole = bytearray()
    for _ in range(numbers.choice([0, 3, 60])):
        data = numbers.randbytes(numbers.choice([0, 1, 100, 9 * KIB, 40 * KIB, 300 * KIB]))
        given = numbers.choice([bytes, bytearray])(data)
        upload.write(given)
        if isinstance(given, bytearray):  # it is the caller's again
            given[:] = bytes(len(given))
            given.clear()
        whole += data
    upload.finish()
    assert world.objects["a"] == bytes(whole)
    assert upload.written == len(whole) and upload.ended
