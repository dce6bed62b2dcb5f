"""One step makes a large array, the next one reads it."""

import numpy as np
from metaflow import FlowSpec, Parameter, step


class Array(FlowSpec):
    mib = Parameter("mib", type=int, required=True)

    @step
    def start(self):
        self.array = np.random.default_rng(0).standard_normal(self.mib << 18, dtype=np.float32)
        self.next(self.end)

    @step
    def end(self):
        assert self.array.nbytes == self.mib << 20 and abs(float(self.array[: 1 << 20].mean())) < 0.01


if __name__ == "__main__":
    Array()
