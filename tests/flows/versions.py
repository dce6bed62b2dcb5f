"""A step whose artifact changes a little everywhere from run to run."""

import numpy as np
from metaflow import FlowSpec, Parameter, step


class Versions(FlowSpec):
    version = Parameter("version", type=int)

    @step
    def start(self):
        cells = np.random.default_rng(7).random(40_000)
        cells[self.version :: 50] = self.version
        self.made = [self.version, cells]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Versions()
