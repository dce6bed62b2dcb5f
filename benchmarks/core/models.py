"""Models: forests, boosters, state dicts and optimizer states. The networks are really trained."""

import pickle
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from benchmarks.core.series import VERSIONS, Version, scaled, series

Weights = dict[str, np.ndarray]


def regression(rng: np.random.Generator, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples and what is to be learned of them."""
    samples = rng.normal(size=(rows, columns))
    return samples, np.sin(samples[:, 0]) + samples[:, 1] * samples[:, 2] + rng.normal(0, 0.1, rows)


@series("random forest grown from 10 trees by 5", needs="sklearn")
def forest_grown(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    from sklearn.ensemble import RandomForestRegressor

    samples, target = regression(rng, scaled(2500, scale), 8)
    for step in range(VERSIONS):
        if step == 0:
            forest = RandomForestRegressor(10, warm_start=True, random_state=0).fit(samples, target)
            yield Version(forest)
        else:
            forest = pickle.loads(pickle.dumps(forest)).set_params(n_estimators=10 + 5 * step).fit(samples, target)
            yield Version(forest, trees(forest.estimators_[-5:]))


@series("gradient boosting of scikit-learn continued from 100 trees by 20", needs="sklearn")
def boosting_continued(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    from sklearn.ensemble import GradientBoostingRegressor

    samples, target = regression(rng, scaled(2000, scale), 8)
    for step in range(VERSIONS):
        if step == 0:
            model = GradientBoostingRegressor(
                n_estimators=100, max_leaf_nodes=100, max_depth=None, warm_start=True, random_state=0
            ).fit(samples, target)
            yield Version(model)
        else:
            model = pickle.loads(pickle.dumps(model)).set_params(n_estimators=100 + 20 * step).fit(samples, target)
            yield Version(model, trees([tree for row in model.estimators_[-20:] for tree in row]))


def trees(estimators: list) -> bytes:
    """Nodes and values of trees, without scikit-learn's objects around them."""
    return b"".join(
        estimator.tree_.__getstate__()[part].tobytes() for estimator in estimators for part in ("nodes", "values")
    )


@series("LightGBM continued from 60 trees by 10", needs="lightgbm")
def lightgbm_continued(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    import lightgbm

    samples, target = regression(rng, scaled(6000, scale, 200), 10)
    settings = {"num_leaves": 255, "min_data_in_leaf": 5, "num_threads": 1, "deterministic": True, "verbose": -1}
    model, text = None, ""
    for step in range(VERSIONS):
        data = lightgbm.Dataset(samples, target, params={"verbose": -1})
        model = lightgbm.train(settings, data, 10 if step else 60, init_model=model)
        earlier, text = text, model.model_to_string()
        yield Version(model, grown(text, earlier) if step else None)


def grown(text: str, earlier: str) -> bytes:
    """The trees of a model's text that an earlier one does not have."""
    known = set(earlier.split("\n\n"))
    return "\n\n".join(part for part in text.split("\n\n") if part not in known).encode()


class Checkpoint(NamedTuple):
    """A network and its optimizer after some steps."""

    weights: Weights
    first: Weights
    second: Weights
    steps: int


STEPS_BETWEEN = 100
"""Of training, from a checkpoint to the next."""


NOISE = 12
"""Divides what tells the classes apart: nearly half of the samples lie nearer to the centre of another class."""


class Network:
    """Three layers that learn to tell ten classes, trained by Adam in float32."""

    def __init__(self, rng: np.random.Generator, width: int) -> None:
        self.rng = rng
        sizes = [width // 2, width, width, 10]
        self.weights: Weights = {}
        for number, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            scale = np.sqrt(2 / fan_in)
            self.weights[f"layers.{number}.weight"] = (rng.normal(size=(fan_in, fan_out)) * scale).astype("float32")
            self.weights[f"layers.{number}.bias"] = np.zeros(fan_out, "float32")
        self.first = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.steps = 0
        self.centres = rng.normal(size=(10, sizes[0])).astype("float32")

    def train(self, steps: int, rate: float, only: str = "") -> Checkpoint:
        """Steps of Adam on batches of 64; with ``only``, of the layer of that name."""
        for _ in range(steps):
            self.steps += 1
            for name, gradient in self._gradients(*self._batch()).items():
                if name.startswith(only):
                    self._move(name, gradient, rate)
        copies = (
            {name: value.copy() for name, value in part.items()} for part in (self.weights, self.first, self.second)
        )
        return Checkpoint(*copies, self.steps)

    def _batch(self) -> tuple[np.ndarray, np.ndarray]:
        """New samples each time, and so noisy that many are told wrong: once all is learned weights hardly move."""
        labels = self.rng.integers(0, 10, 64)
        centres = self.centres[labels]
        return centres / NOISE + self.rng.standard_normal(centres.shape, "float32"), labels

    def _gradients(self, samples: np.ndarray, labels: np.ndarray) -> Weights:
        layers = [samples]
        for number in range(3):
            out = layers[-1] @ self.weights[f"layers.{number}.weight"] + self.weights[f"layers.{number}.bias"]
            layers.append(np.maximum(out, 0) if number < 2 else out)
        shares = np.exp(layers[-1] - layers[-1].max(1, keepdims=True))
        back = shares / shares.sum(1, keepdims=True)
        back[np.arange(len(labels)), labels] -= 1
        back /= len(labels)
        found: Weights = {}
        for number in (2, 1, 0):
            found[f"layers.{number}.weight"] = layers[number].T @ back
            found[f"layers.{number}.bias"] = back.sum(0)
            back = (back @ self.weights[f"layers.{number}.weight"].T) * (layers[number] > 0)
        return found

    def _move(self, name: str, gradient: np.ndarray, rate: float) -> None:
        first, second = self.first[name], self.second[name]
        first += np.float32(0.1) * (gradient - first)
        second += np.float32(0.001) * (gradient * gradient - second)
        size = np.float32(rate * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps))
        self.weights[name] -= size * first / (np.sqrt(second) + np.float32(1e-8))


@cache
def trained(rate: float, scale: float, only: str = "") -> list[Checkpoint]:
    """Ten checkpoints at a learning rate after 300 steps at 1e-3. Several series show parts of the same training."""
    network = Network(np.random.default_rng(7), scaled(768, scale, 32))
    steps = STEPS_BETWEEN if scale >= 1 else 5
    network.train(3 * steps, 1e-3)
    return [network.train(steps, rate, only) for _ in range(VERSIONS)]


def bfloat16(values: np.ndarray) -> np.ndarray:
    """As ml_dtypes rounds them."""
    import ml_dtypes

    return values.astype(ml_dtypes.bfloat16)


def all_bytes(weights: Weights) -> bytes:
    return b"".join(value.tobytes() for value in weights.values())


def differing(new: Weights, old: Weights) -> bytes:
    """The numbers that are not what they were."""
    return b"".join(new[name][new[name] != old[name]].tobytes() for name in new)


def moved(states: list[Weights]) -> Iterator[Version]:
    yield Version(states[0])
    for old, new in pairwise(states):
        yield Version(new, differing(new, old))


@series("state dict of 12 layers of which the last is trained", itemsize=4)
def backbone_frozen(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    side = scaled(400, scale)
    frozen = {f"backbone.{number}": rng.normal(0, 0.05, (side, side)).astype("float32") for number in range(11)}
    yield from moved(
        [{**frozen, "head": point.weights["layers.2.weight"]} for point in trained(1e-3, scale, "layers.2")]
    )


@series("float32 weights, 100 steps at a learning rate of 1e-3 between checkpoints", itemsize=4)
def training_float32(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    yield from moved([point.weights for point in trained(1e-3, scale)])


@series("float32 weights, 100 steps of a fine-tuning at 1e-5 between checkpoints", itemsize=4)
def finetuning_float32(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    yield from moved([point.weights for point in trained(1e-5, scale)])


def rounded(points: list[Checkpoint]) -> list[Weights]:
    return [{name: bfloat16(value) for name, value in point.weights.items()} for point in points]


@series("bfloat16 weights, 100 steps at a learning rate of 1e-3 between checkpoints", needs="ml_dtypes", itemsize=2)
def training_bfloat16(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    yield from moved(rounded(trained(1e-3, scale)))


@series("bfloat16 weights, 100 steps of a fine-tuning at 1e-5 between checkpoints", needs="ml_dtypes", itemsize=2)
def finetuning_bfloat16(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    yield from moved(rounded(trained(1e-5, scale)))


@series("weights and Adam's two moments in float32, at 1e-3")
def optimizer_training(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    yield from optimizers(trained(1e-3, scale))


@series("weights and Adam's two moments in float32, of a fine-tuning at 1e-5")
def optimizer_finetuning(rng: np.random.Generator, scale: float) -> Iterator[Version]:
    yield from optimizers(trained(1e-5, scale))


def optimizers(points: list[Checkpoint]) -> Iterator[Version]:
    for number, point in enumerate(points):
        state = {"step": point.steps, "exp_avg": point.first, "exp_avg_sq": point.second}
        earlier = points[number - 1]
        parts = ((point.weights, earlier.weights), (point.first, earlier.first), (point.second, earlier.second))
        changed = b"".join(differing(new, old) for new, old in parts) if number else None
        yield Version({"model": point.weights, "optimizer": state}, changed)
