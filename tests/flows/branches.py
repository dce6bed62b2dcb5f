"""A foreach in a foreach, branches that disagree, merge_artifacts, and artifacts of every size and kind."""

import random

from metaflow import FlowSpec, step


class Branches(FlowSpec):
    @step
    def start(self):
        random.seed(1)
        self.outer = ["a", "b"]
        self.noise = random.randbytes(3 << 20)
        self.text = "all work and no play " * 200_000
        self.nothing = None
        self.next(self.split, foreach="outer")

    @step
    def split(self):
        self.letter = self.input
        self.inner = [1, 2] if self.letter == "a" else [1]
        self.next(self.work, foreach="inner")

    @step
    def work(self):
        self.product = self.letter * self.input
        self.same = "agreed"
        self.next(self.inner_join)

    @step
    def inner_join(self, inputs):
        self.merge_artifacts(inputs, include=["noise", "same", "letter"])
        self.products = sorted(task.product for task in inputs)
        self.next(self.outer_join)

    @step
    def outer_join(self, inputs):
        self.letter = "".join(sorted(task.letter for task in inputs))
        self.products = sorted(product for task in inputs for product in task.products)
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        assert self.products == ["a", "aa", "b"], self.products
        assert self.letter == "ab" and self.same == "agreed"
        assert len(self.noise) == 3 << 20 and not hasattr(self, "product")


if __name__ == "__main__":
    Branches()
