"""What a production scheduler runs: a parameter, a foreach, a retry, a card, and a join."""

from metaflow import FlowSpec, Parameter, card, retry, step


class Scheduled(FlowSpec):
    alpha = Parameter("alpha", type=int, default=3)

    @step
    def start(self):
        self.items = [1, 2]
        self.data = bytes(range(256)) * 4096
        self.next(self.work, foreach="items")

    @retry(times=1)
    @step
    def work(self):
        self.square = self.input**2
        self.next(self.join)

    @card
    @step
    def join(self, inputs):
        self.total = sum(task.square for task in inputs) + self.alpha
        self.merge_artifacts(inputs, include=["data"])
        self.next(self.end)

    @step
    def end(self):
        print("total", self.total)


if __name__ == "__main__":
    Scheduled()
