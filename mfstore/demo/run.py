"""Runs the main job and measures it; says nothing about how it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mfstore.demo.artifacts import small_artifacts, train
from mfstore.demo.flights import first_versions, flights
from mfstore.demo.metaflow_peer import StockMetaflow
from mfstore.errors import MfstoreError
from mfstore.opening import open_store


@dataclass(frozen=True, slots=True)
class StoreCost:
    """What one version took in one store. Bytes and seconds."""

    stored: int
    save_wall: float
    save_cpu: float
    load_wall: float
    load_cpu: float


@dataclass(frozen=True, slots=True)
class VersionResult:
    """One version of the table, its model and its small artifacts."""

    version: str
    artifacts: int
    logical: int
    duplicate: int
    codecs: dict[str, int]
    """Bytes of the new chunks, before they were encoded, by the codec they got."""
    mfstore: StoreCost
    metaflow: StoreCost


class Different(MfstoreError):
    """An artifact read back is not the one saved."""

    code = "different"


def run(root: Path, saves: int) -> Iterator[VersionResult]:
    """Save, reload and compare so many versions in both stores below ``root``; yields one result per version.

    Every load goes through a handle that has seen nothing, so mfstore verifies every byte it reads.
    """
    store = open_store(root / "mfstore")
    peer = StockMetaflow(root / "metaflow")

    def load(key: str) -> dict[str, Any]:
        with open_store(root / "mfstore") as reader:
            return reader.load(key)

    for name, frame in first_versions(flights(), saves):
        model = train(frame)
        artifacts: dict[str, Any] = {"flights": frame, "model": model, **small_artifacts(name, frame, model)}
        before = replace(store.session, codecs=dict(store.session.codecs))
        ours = _measure(name, artifacts, store.save, load, lambda: store.session.stored)
        theirs = _measure(name, artifacts, peer.save, peer.load, peer.stored)
        yield VersionResult(
            version=name,
            artifacts=len(artifacts),
            logical=store.session.logical - before.logical,
            duplicate=store.session.duplicate - before.duplicate,
            codecs={
                codec: size - before.codecs.get(codec, 0)
                for codec, size in store.session.codecs.items()
                if size > before.codecs.get(codec, 0)
            },
            mfstore=ours,
            metaflow=theirs,
        )


def _measure(
    version: str,
    artifacts: dict[str, Any],
    save: Callable[[dict[str, Any]], Any],
    load: Callable[[Any], dict[str, Any]],
    stored: Callable[[], int],
) -> StoreCost:
    """Save, and load what saving gave a name to; Different unless the same comes back."""
    at = stored()
    key, save_wall, save_cpu = _timed(partial(save, artifacts))
    loaded, load_wall, load_cpu = _timed(partial(load, key))
    _compare(version, artifacts, loaded)
    return StoreCost(stored() - at, save_wall, save_cpu, load_wall, load_cpu)


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
