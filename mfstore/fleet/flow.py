"""The flow that ``mfstore fleet`` runs. Metaflow ships this file to every machine; all else is mfstore as it is
installed there."""

from __future__ import annotations

import os
from typing import Any

from metaflow import FlowSpec, Parameter, catch, retry, step

from mfstore.errors import BackendError, Conflict, MfstoreError
from mfstore.fleet.request import decode
from mfstore.fleet.work import Done, cut, finish, work

REQUEST = "MFSTORE_FLEET_REQUEST"
"""The variable with the request of a flow that is being begun or deployed; later it is a parameter of the run."""


class MfstoreFleet(FlowSpec):
    """Maintenance of a datastore root or a store, in parts."""

    request = Parameter("request", default=os.environ.get(REQUEST, ""), help="What to do, as mfstore fleet writes it.")

    @step
    def start(self) -> None:
        """Cut the work into parts."""
        self.shards = cut(decode(self.request))
        self.next(self.shard, foreach="shards")

    @catch(var="failure", print_exception=True)
    @retry(times=3, minutes_between_retries=0)
    @step
    def shard(self) -> None:
        """Do one part. It changes nothing that another try would not."""
        self.found, self.listed = work(decode(self.request), self.input)
        self.next(self.join)

    @retry(times=3)
    @step
    def join(self, inputs: Any) -> None:
        """Put the parts together, and carry out what they say."""
        self.outcome: Any = None
        self.error: MfstoreError | None = None
        try:
            self.outcome = finish(decode(self.request), [_done(part) for part in inputs])
        except (BackendError, Conflict):
            raise  # another try may do
        except MfstoreError as error:
            self.error = error
        self.next(self.end)

    @step
    def end(self) -> None:
        """Say what became of it."""
        if self.error is not None:
            raise self.error
        print(self.outcome.found)
        if self.outcome.result is not None:
            print(self.outcome.result)
        for part, why in self.outcome.failed.items():
            print(f"{part} failed: {why}")


def _done(task: Any) -> Done:
    """What became of a part, by its task."""
    part = task.shards[task.index]
    if task.failure is not None:
        return Done(part, None, f"{task.failure.type}: {task.failure.exception}".replace("\n", " "))

    def holdings() -> Any:
        found = task.listed
        del task.listed  # it would be kept, and each part may have as many as there is memory for
        return found

    return Done(part, task.found, holdings=holdings)


if __name__ == "__main__":
    MfstoreFleet()
