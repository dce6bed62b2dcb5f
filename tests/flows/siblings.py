"""A foreach whose tasks all read what the task before them has made."""

from array import array
from random import Random

from metaflow import FlowSpec, step


class Siblings(FlowSpec):
    @step
    def start(self):
        self.data = array("B", Random(0).randbytes(3_000_000))
        self.items = [0, 1]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.sum = sum(self.data[self.input :: 1000])
        self.next(self.join)

    @step
    def join(self, inputs):
        assert [task.sum for task in inputs] == [sum(inputs[0].data[first::1000]) for first in (0, 1)]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Siblings()
