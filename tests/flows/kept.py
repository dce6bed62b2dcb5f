"""A flow with decorators of two other extensions."""

from pathlib import Path

from metaflow import FlowSpec, card, checkpoint, current, step


class Kept(FlowSpec):
    @checkpoint
    @card(type="html")
    @step
    def start(self):
        folder = Path("weights")
        folder.mkdir(exist_ok=True)
        for number in range(12):  # more than ten go another way
            (folder / f"{number}").write_bytes(b"w" * (number + 1))
        self.saved = current.checkpoint.save(str(folder), name="weights")
        self.html = "<b>kept</b>"
        self.next(self.end)

    @checkpoint
    @step
    def end(self):
        current.checkpoint.load(self.saved, path="back")
        found = sorted(Path("back").rglob("*"))
        self.total = sum(one.stat().st_size for one in found if one.is_file())


if __name__ == "__main__":
    Kept()
