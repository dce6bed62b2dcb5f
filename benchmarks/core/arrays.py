"""Arrays: vectors, matrices, images, embeddings, records, and many small ones."""

from collections.abc import Iterator

import numpy as np

from benchmarks.core.series import STEPS, Version, scaled, series


@series("8 MB float64, one value inserted in the middle")
def value_inserted(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    values = rng.normal(size=scaled(1_000_000, scale))
    yield Version(values)
    for step in STEPS:
        new = rng.normal()
        values = np.insert(values, len(values) // 2 + step * 100, new)
        yield Version(values, np.float64(new).tobytes())


@series("matrix of 120 000 x 10 float64, the window slides by 1 %")
def window_matrix(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    matrix = rng.normal(size=(scaled(120_000, scale), 10))
    step = max(len(matrix) // 100, 1)
    yield Version(matrix)
    for _ in STEPS:
        more = rng.normal(size=(step, 10))
        matrix = np.concatenate([matrix[step:], more])
        yield Version(matrix, more.tobytes())


@series("mask of 4 000 x 2 000 booleans, 20 rows inserted")
def mask_rows_inserted(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    columns = scaled(2000, scale)
    mask = rng.random((scaled(4000, scale), columns)) < 0.03
    yield Version(mask)
    for _ in STEPS:
        more, at = rng.random((20, columns)) < 0.03, rng.integers(0, len(mask))
        mask = np.concatenate([mask[:at], more, mask[at:]])
        yield Version(mask, np.packbits(more).tobytes())


RECORD = np.dtype(
    [("id", "u4"), ("kind", "u1"), ("value", "f8"), ("flag", "?"), ("weight", "f4"), ("count", "i2")], align=True
)


def records(rng: np.random.Generator, rows: int, first: int) -> np.ndarray:
    made = np.zeros(rows, RECORD)
    made["id"] = np.arange(first, first + rows)
    made["kind"], made["flag"] = rng.integers(0, 5, rows), rng.random(rows) < 0.5
    made["value"], made["weight"] = rng.normal(size=rows), rng.random(rows)
    made["count"] = rng.integers(0, 100, rows)
    return made


def packed(rows: np.ndarray) -> bytes:
    """The fields without the padding."""
    return b"".join(rows[name].tobytes() for name in rows.dtype.names)


@series("records of 32 bytes, 12 of them padding; the window slides by 1 %")
def records_window(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    rows = records(rng, scaled(250_000, scale), 0)
    step, first = max(len(rows) // 100, 1), len(rows)
    yield Version(rows)
    for _ in STEPS:
        more = records(rng, step, first)
        first += step
        rows = np.concatenate([rows[step:], more])
        yield Version(rows, packed(more))


@series("the same records computed anew: 1 % appended, and the padding is what was in the memory before")
def records_padding(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    rows, changed = records(rng, scaled(120_000, scale), 0), None
    step = max(len(rows) // 100, 1)
    for number in range(len(STEPS) + 1):
        if number:
            more = records(rng, step, len(rows))
            rows, changed = np.concatenate([rows, more]), packed(more)
        yield Version(with_stale_padding(rng, rows), changed)


def with_stale_padding(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    stale = rng.integers(0, 256, rows.nbytes, np.uint8).view(rows.dtype)
    for name in rows.dtype.names:
        stale[name] = rows[name]
    return stale


@series("20 000 embeddings of 128 float32 in a matrix, 1 % replaced")
def embeddings_matrix(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    matrix = rng.normal(size=(scaled(20_000, scale), 128)).astype("float32")
    yield Version(matrix)
    for _ in STEPS:
        matrix = matrix.copy()
        rows = rng.choice(len(matrix), max(len(matrix) // 100, 1), replace=False)
        matrix[rows] = rng.normal(size=(len(rows), 128))
        yield Version(matrix, matrix[rows].tobytes())


@series("10 000 embeddings of 128 float32 in a dict of arrays, 1 % replaced")
def embeddings_dict(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    vectors = {f"word {number}": rng.normal(size=128).astype("float32") for number in range(scaled(10_000, scale))}
    words = list(vectors)
    yield Version(vectors)
    for _ in STEPS:
        chosen = rng.choice(len(words), max(len(words) // 100, 1), replace=False)
        new = {words[at]: rng.normal(size=128).astype("float32") for at in chosen}
        vectors = {**vectors, **new}
        yield Version(vectors, b"".join(vector.tobytes() for vector in new.values()))


def images(rng: np.random.Generator, count: int) -> np.ndarray:
    """Each a slope of light with grain: 64 x 64 x 3."""
    rows, columns = np.mgrid[0:64, 0:64]
    slope = rng.uniform(-1, 1, (count, 2, 1, 1, 1))
    light = 120 + slope[:, 0] * rows[None, :, :, None] + slope[:, 1] * columns[None, :, :, None]
    return (light + rng.normal(0, 6, (count, 64, 64, 3))).clip(0, 255).astype("uint8")


@series("1 000 images, the first dropped")
def image_dropped(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    stack = images(rng, scaled(1000, scale))
    yield Version(stack)
    for _ in STEPS:
        stack = stack[1:].copy()
        yield Version(stack, b"")


@series("700 images, 20 appended")
def images_appended(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    stack = images(rng, scaled(700, scale))
    yield Version(stack)
    for _ in STEPS:
        more = images(rng, 20)
        stack = np.concatenate([stack, more])
        yield Version(stack, more.tobytes())


@series("10 000 small arrays in a dict, 100 replaced and 20 added")
def small_arrays(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    def points() -> np.ndarray:
        return rng.normal(size=int(rng.integers(5, 60)))

    curves = {f"curve {number}": points() for number in range(scaled(10_000, scale, 200))}
    yield Version(curves)
    for _ in STEPS:
        names = list(curves)
        new = {names[at]: points() for at in rng.choice(len(names), 100, replace=False)}
        new |= {f"curve {len(names) + number}": points() for number in range(20)}
        curves = {**curves, **new}
        yield Version(curves, b"".join(curve.tobytes() for curve in new.values()))


@series("sparse matrix of 25 000 rows of word counts, 1 % rows appended", needs="scipy")
def sparse_appended(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    from scipy import sparse

    def counts(rows: int) -> "sparse.csr_matrix":
        filled = rng.integers(5, 40, rows)
        words = np.concatenate([np.sort(rng.choice(20_000, count, replace=False)) for count in filled]).astype("int32")
        starts = np.concatenate([[0], np.cumsum(filled)]).astype("int32")
        return sparse.csr_matrix((rng.geometric(0.6, len(words)).astype("float64"), words, starts), (rows, 20_000))

    rows = scaled(25_000, scale)
    matrix = counts(rows)
    yield Version(matrix)
    for _ in STEPS:
        more = counts(max(rows // 100, 1))
        matrix = sparse.vstack([matrix, more], format="csr")
        yield Version(matrix, more.data.tobytes() + more.indices.tobytes() + more.indptr.tobytes())
