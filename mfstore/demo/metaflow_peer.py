"""Metaflow's stock local datastore, driven as its runtime drives it: the peer of the demo and the benchmarks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mfstore.errors import Unsupported


class MetaflowStore:
    """Saves and loads the artifacts of one task at a time through ``TaskDataStore``."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        os.environ.setdefault("METAFLOW_USER", "mfstore-demo")
        try:
            from metaflow.datastore.flow_datastore import FlowDataStore
            from metaflow.plugins.datastores.local_storage import LocalStorage
        except ImportError as error:
            raise Unsupported("the comparison needs Metaflow", hint="pip install 'mfstore[demo]'") from error
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self._flow = FlowDataStore("DemoFlow", storage_impl=LocalStorage, ds_root=str(self.root))

    def save(self, task: str, artifacts: Mapping[str, object]) -> None:
        """Persist one task's artifacts, as the runtime does at the end of a step."""
        store = self._flow.get_task_datastore("1", "step", task, attempt=0, mode="w")
        store.init_task()
        store.save_artifacts(iter(artifacts.items()), len_hint=len(artifacts))
        store.save_metadata({store.METADATA_DATA_SUFFIX: {"objects": store._objects, "info": store._info}})
        store.save_metadata({store.METADATA_DONE_SUFFIX: ""})

    def load(self, task: str, names: Iterable[str]) -> dict[str, Any]:
        """Load artifacts of a finished task."""
        store = self._flow.get_task_datastore("1", "step", task, mode="r")
        return dict(store.load_artifacts(list(names)))

    def stored(self) -> int:
        """Bytes in the datastore's content-addressed data."""
        return sum(size for _, size in self._files())

    def _files(self) -> Iterator[tuple[str, int]]:
        for directory, _, names in os.walk(self.root):
            for name in names:
                path = Path(directory, name)
                yield str(path), path.stat().st_size
