"""Two steps, and an artifact that no other run has."""

from metaflow import FlowSpec, current, step


class Own(FlowSpec):
    @step
    def start(self):
        self.x = current.run_id
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Own()
