"""A flow whose last step has mfstore's card."""

from metaflow import FlowSpec, card, current, step


class Carded(FlowSpec):
    @step
    def start(self):
        self.rows = [f"row {number}" for number in range(2000)]
        self.next(self.end)

    @card(type="mfstore", options={"history": 2})
    @step
    def end(self):
        self.mine = current.run_id
        self.evil = "</script>"


if __name__ == "__main__":
    Carded()
