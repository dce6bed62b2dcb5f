"""Which attempt of a task is read: as Metaflow's own datastore chooses on the same files."""

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore.metaflow.extension import LocalStorage
from mfstore.metaflow.roots.attempts import attempts_of, readable
from tests.rigs.soak import lasting

marks = st.dictionaries(
    st.tuples(st.sampled_from(["1", "2", "10"]), st.integers(0, 5)),
    st.sets(st.sampled_from(["attempt.json", "DONE.lock", "data.json", "task_begin"]), min_size=1),
    max_size=8,
)


@settings(deadline=None, max_examples=lasting(150))
@given(marks, st.one_of(st.none(), st.integers(0, 6)), st.booleans(), st.booleans(), st.booleans())
def test_the_attempts_chosen_are_those_metaflow_chooses(found, attempt, allow_not_done, include_prior, by_pathspec):
    from metaflow.datastore.flow_datastore import FlowDataStore

    listing = [(f"F/r/s/{task}/{number}.{name}", "e", 0.0) for (task, number), names in found.items() for name in names]
    with tempfile.TemporaryDirectory() as root:
        for path, _, _ in listing:
            os.makedirs(f"{root}/{os.path.dirname(path)}", exist_ok=True)
            Path(root, path).write_text('{"objects": {}, "info": {}}')
        os.makedirs(f"{root}/F/r/s", exist_ok=True)
        flow = FlowDataStore("F", storage_impl=LocalStorage, ds_root=root)
        asked = {"pathspecs": [f"r/s/{task}" for task in ("10", "1", "2")]} if by_pathspec else {"run_id": "r"}
        chosen = []
        flow.get_task_datastore = lambda run, step, task, number, *rest: chosen.append((f"F/r/s/{task}", number))
        flow.get_task_datastores(**asked, attempt=attempt, allow_not_done=allow_not_done, include_prior=include_prior)
    tasks = attempts_of(listing)
    among = range(6)
    if attempt is not None and attempt <= 5:
        among = range(attempt + 1) if include_prior else range(attempt, attempt + 1)
    wanted = dict.fromkeys(tasks, among)
    assert sorted(readable(tasks, wanted, allow_not_done, include_prior)) == sorted(chosen)
