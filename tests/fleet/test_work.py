"""What the steps of a fleet do, one after the other in one process: the same as the command without a fleet."""

from mfstore.fleet.request import decode, encode
from mfstore.fleet.work import Done, cut, finish, work
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy

POLICY = RunPolicy(last=1, grace=0.0, tags=("a", "b"), group_by=("flow", "user"))


def done(request, failing=()):
    """All parts, but those of these numbers."""
    request = decode(encode(request))
    parts = cut(request)
    found = []
    for shard in parts:
        if shard.number in failing:
            found.append(Done(shard, None, "killed"))
            continue
        result, listed = work(request, shard)
        found.append(Done(shard, result, holdings=lambda listed=listed: listed))
    return finish(request, found)
