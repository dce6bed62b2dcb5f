"""Runs the main job and measures it; says nothing about how it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mfstore.demo.flights import flights, small_artifacts, train, versions
from mfstore.demo.metaflow_peer import MetaflowStore
from mfstore.errors import MfstoreError
from mfstore.store import open_store


@dataclass(frozen=True, slots=True)
class Side:
    """One store's result for one version. Bytes and seconds."""

    stored: int
    save_wall: float
    save_cpu: float
    load_wall: float
    load_cpu: float


@dataclass(frozen=True, slots=True)
class Row:
    """One version of the table, its model and its small artifacts."""

    version: str
    artifacts: int
    logical: int
    duplicate: int
    codecs: dict[str, int] = field(default_factory=dict)
    mfstore: Side = field(default_factory=lambda: Side(0, 0, 0, 0, 0))
    metaflow: Side = field(default_factory=lambda: Side(0, 0, 0, 0, 0))


class Different(MfstoreError):
    """An artifact read back is not the one saved."""

    code = "different"


def run(root: Path) -> Iterator[Row]:
    """Save, reload and compare every version in both stores below ``root``; yields one row per version.

    Every load goes through a handle that has seen nothing, so mfstore verifies every byte it reads.
    """
    store = open_store(root / "mfstore")
    peer = MetaflowStore(root / "metaflow")
    for number, (name, frame) in enumerate(versions(flights())):
        model = train(frame)
        artifacts: dict[str, Any] = {"flights": frame, "model": model, **small_artifacts(name, frame, model)}
        before = (store.session.logical, store.session.duplicate, store.session.stored, dict(store.session.codecs))
        key, save_wall, save_cpu = _timed(partial(store.save, artifacts))
        with open_store(root / "mfstore") as reader:
            loaded, load_wall, load_cpu = _timed(partial(reader.load, key))
        _compare(name, artifacts, loaded)
        del loaded
        ours = Side(store.session.stored - before[2], save_wall, save_cpu, load_wall, load_cpu)
        at = peer.stored()
        _, save_wall, save_cpu = _timed(partial(peer.save, str(number), artifacts))
        loaded, load_wall, load_cpu = _timed(partial(peer.load, str(number), artifacts))
        _compare(name, artifacts, loaded)
        yield Row(
            version=name,
            artifacts=len(artifacts),
            logical=store.session.logical - before[0],
            duplicate=store.session.duplicate - before[1],
            codecs={
                codec: size - before[3].get(codec, 0)
                for codec, size in store.session.codecs.items()
                if size > before[3].get(codec, 0)
            },
            mfstore=ours,
            metaflow=Side(peer.stored() - at, save_wall, save_cpu, load_wall, load_cpu),
        )


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def _compare(version: str, saved: dict[str, Any], loaded: dict[str, Any]) -> None:
    if set(saved) != set(loaded):
        raise Different(f"version {version!r}: other artifacts came back", expected=sorted(saved), found=sorted(loaded))
    for name, value in saved.items():
        if not _equal(value, loaded[name]):
            raise Different(f"version {version!r}: artifact {name!r} came back different")


def _equal(saved: Any, loaded: Any) -> bool:
    import numpy as np
    import pandas as pd
    from sklearn.base import BaseEstimator

    if type(saved) is not type(loaded):
        return False
    if isinstance(saved, pd.DataFrame):
        pd.testing.assert_frame_equal(saved, loaded)
        return True
    if isinstance(saved, np.ndarray):
        return saved.dtype == loaded.dtype and np.array_equal(saved, loaded)
    if isinstance(saved, BaseEstimator):
        probe = np.random.default_rng(1).random((500, saved.n_features_in_)) * 1000
        return saved.get_params() == loaded.get_params() and np.array_equal(saved.predict(probe), loaded.predict(probe))
    return bool(saved == loaded)
