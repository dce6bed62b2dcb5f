"""A Metaflow flow as a team would write it: a model of the arrival delay for each airport, trained side by side.

Nothing in it knows of mfstore but the import of the data; it runs with any Metaflow::

    python -m mfstore.demo.train_flow run
"""

from __future__ import annotations

from typing import Any

from metaflow import FlowSpec, step

from mfstore.demo.artifacts import train
from mfstore.demo.flights import flights


class TrainFlow(FlowSpec):  # type: ignore[misc]
    """The flights table, split by origin; a model and its error of each; the best of them."""

    @step  # type: ignore[untyped-decorator]
    def start(self) -> None:
        """Load the table."""
        self.flights = flights()
        self.origins = sorted(self.flights["origin"].unique())
        self.next(self.train_one, foreach="origins")

    @step  # type: ignore[untyped-decorator]
    def train_one(self) -> None:
        """Train on the departures of one airport."""
        self.origin = self.input
        rows = self.flights["origin"] == self.origin
        self.departures = self.flights[rows].reset_index(drop=True)
        self.model = train(self.departures)
        known = self.departures.dropna(subset=["arr_delay", "dep_delay", "distance", "hour"]).tail(10_000)
        self.predicted = self.model.predict(known[["dep_delay", "distance", "hour"]].to_numpy())
        self.error = float((known["arr_delay"] - self.predicted).abs().mean())
        self.next(self.choose)

    @step  # type: ignore[untyped-decorator]
    def choose(self, inputs: Any) -> None:
        """Keep all models, name the best."""
        self.models = {task.origin: task.model for task in inputs}
        self.errors = {task.origin: round(task.error, 6) for task in inputs}
        self.merge_artifacts(inputs, include=["flights"])
        self.next(self.end)

    @step  # type: ignore[untyped-decorator]
    def end(self) -> None:
        """Sum up."""
        best = min(self.errors, key=lambda origin: self.errors[origin])
        self.summary = f"{len(self.flights)} flights; mean error in minutes {self.errors}; best for {best}"


if __name__ == "__main__":
    TrainFlow()
