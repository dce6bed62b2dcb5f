"""Two steps that write wherever a task of a flow writes below a root: artifacts, a file that is included, what the
task puts by itself, and if it is asked for a card."""

import os
import random

from metaflow import S3, FlowSpec, IncludeFile, card, step

shown = card(type="html") if os.environ.get("GRANTED_CARD") else lambda step: step
"""A card is made by a process of its own, which takes a second."""


class Granted(FlowSpec):
    table = IncludeFile("table")

    @shown
    @step
    def start(self):
        self.big = random.Random(0).randbytes(500_000)
        with S3(run=self) as s3:
            s3.put("own", "mine")
        self.html = "<b>granted</b>"
        self.next(self.end)

    @step
    def end(self):
        self.total = len(self.big) + len(self.table)
        with S3(run=self) as s3:
            assert s3.get("own").text == "mine"


if __name__ == "__main__":
    Granted()
