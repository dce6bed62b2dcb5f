"""Python's own objects: configurations, dataclasses, records, texts."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.core.series import STEPS, Version, scaled, series


@series("nested configurations of 600 experiments; in three a value changed, one added")
def configurations(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    def experiment(number: int) -> dict:
        layers = [
            {"kind": str(rng.choice(["dense", "conv", "norm"])), "units": int(rng.integers(8, 512)), "dropout": rate}
            for rate in rng.random(12).round(3).tolist()
        ]
        schedule = {f"epoch {epoch}": float(rng.random()) for epoch in range(30)}
        return {"name": f"experiment {number}", "seed": int(rng.integers(1 << 31)), "layers": layers, "rate": schedule}

    count = scaled(600, scale)
    known = {f"experiment {number}": experiment(number) for number in range(count)}
    yield Version(known)
    for step in STEPS:
        new = experiment(count + step)
        known = {**known, new["name"]: new}
        for at in rng.choice(count, 3, replace=False).tolist():
            name = f"experiment {at}"
            known[name] = {**known[name], "seed": int(rng.integers(1 << 31))}
        yield Version(known, pickle.dumps(new, 5) + rng.bytes(12))


@dataclass
class Reading:
    """Of a station, at a time."""

    station: str
    when: int
    value: float
    quality: tuple[int, str]


def readings(rng: np.random.Generator, count: int, first: int) -> list[Reading]:
    qualities = [(grade, word) for grade, word in enumerate(("good", "fair", "poor"))]
    return [
        Reading(f"station {station:03d}", first + number, round(value, 3), qualities[station % 3])
        for number, (station, value) in enumerate(
            zip(rng.integers(0, 200, count).tolist(), rng.normal(20, 5, count).tolist(), strict=True)
        )
    ]


@series("list of 30 000 dataclasses; 10 edited, 30 appended, the first 30 dropped")
def dataclasses_edited(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    rows = readings(rng, scaled(30_000, scale, 200), 0)
    first = len(rows)
    yield Version(rows)
    for _ in STEPS:
        more = readings(rng, 30, first)
        first += 30
        rows = [*rows[30:], *more]
        for at in rng.choice(len(rows), 10, replace=False).tolist():
            old = rows[at]
            rows[at] = Reading(old.station, old.when, round(float(rng.normal(20, 5)), 3), old.quality)
        yield Version(rows, pickle.dumps(more, 5) + rng.bytes(80))


@series("list of 20 000 records (dicts), 1 % inserted anywhere")
def records_inserted(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    def record(number: int) -> dict:
        return {"id": number, "user": f"user {rng.integers(0, 3000)}", "score": float(rng.random()), "tags": ["a", "b"]}

    count = scaled(20_000, scale)
    rows = [record(number) for number in range(count)]
    yield Version(rows)
    for _ in STEPS:
        new = [record(len(rows) + number) for number in range(max(count // 100, 1))]
        rows = list(rows)
        for one in new:
            rows.insert(int(rng.integers(0, len(rows))), one)
        yield Version(rows, pickle.dumps(new, 5))


class Words:
    """Sentences of made-up words, some of them frequent."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        letters = np.array(list("aaabcdeeeeefghiiijklmnoooprssttuuvw"))
        self.known = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 11, 5000)]
        self.share = 1 / np.arange(1, 5001)
        self.share /= self.share.sum()

    def paragraph(self, words: int = 80) -> str:
        return " ".join(self.known[at] for at in self.rng.choice(5000, words, p=self.share)).capitalize() + ".\n\n"


@series("400 documents, of each tenth a paragraph rewritten")
def documents_edited(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    words, count = Words(rng), scaled(400, scale)
    parts = {f"document {number}": [words.paragraph() for _ in range(20)] for number in range(count)}
    yield Version({name: "".join(paragraphs) for name, paragraphs in parts.items()})
    for step in STEPS:
        new = b""
        for number in range(step % 10, count, 10):
            paragraph = words.paragraph()
            parts[f"document {number}"][int(rng.integers(0, 20))] = paragraph
            new += paragraph.encode()
        yield Version({name: "".join(paragraphs) for name, paragraphs in parts.items()}, new)


@series("one text of 4 MB; 5 paragraphs inserted, 5 removed, 20 words changed")
def text_edited(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    words = Words(rng)
    paragraphs = [words.paragraph() for _ in range(scaled(8000, scale, 100))]
    yield Version("".join(paragraphs))
    for _ in STEPS:
        new = [words.paragraph() for _ in range(5)]
        for paragraph in new:
            del paragraphs[int(rng.integers(0, len(paragraphs)))]
            paragraphs.insert(int(rng.integers(0, len(paragraphs))), paragraph)
        for at in rng.choice(len(paragraphs), 20, replace=False).tolist():
            rest = paragraphs[at].partition(" ")[2]
            new.append(words.known[int(rng.integers(0, 5000))])
            paragraphs[at] = f"{new[-1]} {rest}"
        yield Version("".join(paragraphs), "".join(new).encode())


@series("log of 60 000 lines, 1 % appended and the oldest dropped")
def log_rotated(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    def lines(count: int, first: int) -> list[str]:
        codes, times = rng.choice([200, 200, 200, 304, 404, 500], count), rng.exponential(30, count)
        users = rng.integers(0, 2000, count)
        return [
            f"2026-03-01T{(first + at) // 3600 % 24:02d}:{(first + at) // 60 % 60:02d}:{(first + at) % 60:02d}Z GET "
            f"/user/{user}/items {code} {time:.3f}\n"
            for at, (user, code, time) in enumerate(zip(users.tolist(), codes.tolist(), times.tolist(), strict=True))
        ]

    rows = scaled(60_000, scale)
    log, first, step = lines(rows, 0), rows, max(rows // 100, 1)
    yield Version("".join(log))
    for _ in STEPS:
        more = lines(step, first)
        first += step
        log = [*log[step:], *more]
        yield Version("".join(log), "".join(more).encode())
