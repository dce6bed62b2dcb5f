"""Ends in its middle if told to, so that it can be resumed."""

import os

from metaflow import FlowSpec, Parameter, step


class Halting(FlowSpec):
    seed = Parameter("seed", default=7)

    @step
    def start(self):
        self.items = list(range(2))
        self.data = bytes(range(256)) * 4096
        self.made_by = os.environ["METAFLOW_USER"]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.square = self.input**2 + self.seed
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(task.square for task in inputs)
        self.merge_artifacts(inputs, include=["data", "made_by"])
        self.next(self.end)

    @step
    def end(self):
        if os.environ.get("HALT"):
            raise RuntimeError("halted")
        assert self.total == 1 + 2 * self.seed and len(self.data) == 1 << 20


if __name__ == "__main__":
    Halting()
