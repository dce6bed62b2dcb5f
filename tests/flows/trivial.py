"""Three steps in a row, two tiny artifacts: what a task costs when it does nothing."""

from metaflow import FlowSpec, step


class Trivial(FlowSpec):
    @step
    def start(self):
        self.x = 1
        self.next(self.middle)

    @step
    def middle(self):
        self.y = {"a": self.x}
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Trivial()
