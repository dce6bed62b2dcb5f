"""Parameters, a file, user objects in S3, processes of parallel_map, a card, logs and a retry that is needed."""

import json
import os
import sys

from metaflow import S3, FlowSpec, IncludeFile, JSONType, Parameter, card, catch, current, parallel_map, retry, step


class Inputs(FlowSpec):
    alpha = Parameter("alpha", type=float, default=0.5)
    settings = Parameter("settings", type=JSONType, default='{"depth": 3}')
    table = IncludeFile("table", required=True)

    @card
    @step
    def start(self):
        print("to stdout: grüße")
        print("to stderr", file=sys.stderr)
        self.rows = self.table.splitlines()
        self.next(self.fail_once)

    @retry(times=1, minutes_between_retries=0)
    @step
    def fail_once(self):
        self.attempt = current.retry_count
        self.wrong = "of the attempt that failed" if current.retry_count == 0 else "of the one that did not"
        if current.retry_count == 0:
            raise ValueError("fails the first time")
        self.next(self.fail_always)

    @catch(var="failure")
    @retry(times=0)
    @step
    def fail_always(self):
        self.never = "stored"
        raise KeyError("fails every time")
        self.next(self.objects)

    @step
    def objects(self):
        assert "fails every time" in str(self.failure)
        del self.failure  # its traceback differs from run to run
        self.squares = parallel_map(lambda number: number * number, range(8), max_parallel=2)
        self.stored = []
        if os.environ["METAFLOW_DEFAULT_DATASTORE"] == "s3":
            with S3(run=self) as s3:
                s3.put_many([(f"object-{number}", json.dumps(number)) for number in range(20)])
                s3.put("one", b"bytes")
                self.stored = sorted(found.text for found in s3.get_all())
        self.next(self.end)

    @step
    def end(self):
        assert self.attempt == 1 and self.squares[-1] == 49
        assert self.rows == ["a,b", "1,2"] and self.settings == {"depth": 3}
        assert len(self.stored) in (0, 21)


if __name__ == "__main__":
    Inputs()
