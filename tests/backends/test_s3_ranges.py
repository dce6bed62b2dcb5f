"""Long listings of S3 are cut where folders begin: all is seen once, in few requests; on a simulated S3."""

import random

import pytest

from mfstore.backends import ranges
from mfstore.backends.ranges import KeyRange, without
from mfstore.backends.s3.backend import S3Backend
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client


def backend_of(world, prefix="p"):
    class Simulated(S3Backend):
        def make_client(self, options):
            return simulated_client(world)

    return Simulated(f"s3://b/{prefix}")


def trees():
    random.seed(5)
    blobs = [f"Big/data/{n % 256:02x}/{random.randbytes(19).hex()}" for n in range(1500)]
    runs = [f"Big/{run}/{step}/1/0.{name}" for run in range(400) for step in "ab" for name in ("x", "y", "z")]
    argo = [f"Big/argo-{run}/a/1/0.x" for run in range(40)]
    yield "one flow", [*blobs, *runs, *argo]
    yield "small flows", [f"F{flow:03}/{run}/a/1/0.x" for flow in range(300) for run in range(7)]
    yield "a flat folder", [f"flat/{n:06}" for n in range(3000)] + ["Z/1/a/1/0.x"]
    yield "no folder", [f"{n:06}" for n in range(3000)]
    yield "deep", [f"a/b/c/d/e/{n // 30:03}/{n}" for n in range(3000)] + [f"a/b/{n}/x" for n in range(300)]
    yield "scripts", [f"Größe{n % 7}/{n}/x/1/0.é" for n in range(2000)]
    yield "few", ["A/1/a/1/0.x"]
    yield "nothing", []


@pytest.fixture
def small_pages(monkeypatch):
    """A page has fifty keys, so that a listing of thousands is a long one."""
    original = SimulatedS3._ListObjectsV2

    def few(self, call):
        call.params["MaxKeys"] = min(50, call.params["MaxKeys"])
        return original(self, call)

    monkeypatch.setattr(SimulatedS3, "_ListObjectsV2", few)


@pytest.mark.parametrize(("names", "prefix"), [(names, p) for _, names in trees() for p in ("p", "")], ids=[
    f"{name}, {where}" for name, _ in trees() for where in ("below a prefix", "in a bucket")
])  # fmt: skip
def test_all_is_listed_once_in_about_as_many_requests_as_it_has_pages(small_pages, names, prefix):
    world = SimulatedS3({f"{prefix}/{name}".lstrip("/"): b"x" for name in [*names, "mf.x/1", "mf.x/2", "mf.y/3"]})
    world.objects["q/beside"] = b"x"
    backend = backend_of(world, prefix)
    wanted = [*names, "mf.y/3", *([] if prefix else ["q/beside"])]
    found = [info.key for info in backend.list_ranges(without("", ["mf.x/"]))]
    assert sorted(found) == sorted(wanted)
    pages = len(names) / 50
    assert world.count <= 8 + 1.45 * pages
    assert {operation for operation, _ in world.log} <= {"ListObjectsV2"}


def test_what_is_long_is_listed_many_pages_at_a_time(small_pages):
    world = SimulatedS3({f"p/F/{run:04}/a/1/0.{n}": b"x" for run in range(500) for n in range(20)})
    assert len(list(backend_of(world).list_ranges([KeyRange()]))) == 10_000
    assert world.most >= 8 and world.count < 250


@pytest.mark.parametrize("seed", range(40))
def test_ranges_hold_what_is_between_their_ends(small_pages, monkeypatch, seed):
    generator = random.Random(seed)
    monkeypatch.setattr(ranges, "FIRST_PAGES", generator.choice([1, 2, 4]))
    monkeypatch.setattr(ranges, "MORE_PAGES", generator.choice([1, 2, 16]))

    def name():
        return "/".join(generator.choices("abcdé.", k=generator.choice([1, 2, 3, 4, 4, 5]), weights=[9, 4, 2, 2, 1, 1]))

    names = {f"{name()}{generator.randrange(40)}" for _ in range(900)}
    names = {one for one in names if not one.rpartition("/")[2].startswith(".")}
    world = SimulatedS3({f"p/{one}": b"x" for one in names})
    bounds = sorted({name() for _ in range(4)})
    wanted = [KeyRange("", after, stop) for after, stop in zip(["", *bounds], [*bounds, None], strict=True)]
    wanted = [*generator.sample(wanted, len(wanted) - 1), KeyRange("a/", generator.choice(bounds))]
    found = [info.key for info in backend_of(world).list_ranges(wanted)]
    assert sorted(found) == sorted(one for one in names for part in wanted if part.holds(one))


def test_folders_left_out():
    assert without("", []) == [KeyRange()]
    assert without("", ["b/", "a/"]) == [KeyRange("", "", "a/"), KeyRange("", "a0", "b/"), KeyRange("", "b0")]
    assert without("F/", ["F/data/"]) == [KeyRange("F/", "", "F/data/"), KeyRange("F/", "F/data0")]
