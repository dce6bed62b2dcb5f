"""Metaflow's stock local datastore, driven as its runtime drives it: the peer of the demo and the benchmarks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from mfstore.errors import Unsupported

FLOW = "DemoFlow"


class StockMetaflow:
    """Saves and loads the artifacts of one task at a time through ``TaskDataStore``, below ``root``. Unsupported where
    Metaflow is not installed."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        os.environ.setdefault("METAFLOW_USER", "mfstore-demo")
        try:
            from metaflow.datastore.content_addressed_store import ContentAddressedStore
            from metaflow.datastore.flow_datastore import FlowDataStore
            from metaflow.plugins.datastores.local_storage import LocalStorage
        except ImportError as error:
            raise Unsupported("the comparison needs Metaflow", hint="pip install 'mfstore[demo]'") from error
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self._flow = FlowDataStore(FLOW, storage_impl=LocalStorage, ds_root=str(self.root))
        # mfstore's extension gives every flow a content-addressed store of ours.
        self.content_store: Any = ContentAddressedStore(f"{FLOW}/data", LocalStorage(str(self.root)))
        """Metaflow's own, whatever extensions are installed."""
        self._flow.ca_store = self.content_store
        self._tasks = count()

    def save(self, artifacts: Mapping[str, object]) -> str:
        """Persist the artifacts of a new task, as the runtime does at the end of a step. Returns the task's name."""
        task = str(next(self._tasks))
        store = self._flow.get_task_datastore("1", "step", task, attempt=0, mode="w")
        store.init_task()
        store.save_artifacts(iter(artifacts.items()), len_hint=len(artifacts))
        store.done()
        return task

    def load(self, task: str) -> dict[str, Any]:
        """Load the artifacts of a finished task."""
        store = self._flow.get_task_datastore("1", "step", task, mode="r")
        return dict(store.load_artifacts(list(store)))

    def stored(self) -> int:
        """Bytes in the datastore."""
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())
