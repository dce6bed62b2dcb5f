"""So many splits of a list, a small result of each, and the join that reads them all."""

from metaflow import FlowSpec, Parameter, step


class Foreach(FlowSpec):
    splits = Parameter("splits", type=int, required=True)

    @step
    def start(self):
        self.items = list(range(self.splits))
        self.shared = {number: str(number) for number in range(10_000)}
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.result = {"number": self.input, "values": [self.input * 0.5 + number for number in range(1000)]}
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(task.result["number"] for task in inputs)
        self.merge_artifacts(inputs, include=["shared"])
        self.next(self.end)

    @step
    def end(self):
        assert self.total == sum(range(self.splits)) and len(self.shared) == 10_000


if __name__ == "__main__":
    Foreach()
