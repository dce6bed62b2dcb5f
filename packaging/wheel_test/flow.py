"""A flow with artifacts small and large, a foreach and a join."""

from metaflow import FlowSpec, step


class Smoke(FlowSpec):
    @step
    def start(self):
        self.large = bytes(range(256)) * (4 << 10)
        self.parts = [range(500), range(500, 1000)]
        self.next(self.add, foreach="parts")

    @step
    def add(self):
        self.sum = sum(self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.sum = sum(found.sum for found in inputs)
        self.merge_artifacts(inputs, include=["large"])
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Smoke()
