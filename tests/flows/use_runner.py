"""Runs a flow by Metaflow's Runner and reads it by its Client, all in the process that has just run it."""

import json
import sys

from metaflow import Flow, Runner, namespace

with Runner(sys.argv[1], pylint=False, show_output=False).run(seed=4) as running:
    run = running.run
    found = {"status": running.status, "total": run.data.total}
with Runner(sys.argv[1], pylint=False, show_output=False).resume(step_to_rerun="join", origin_run_id=run.id) as running:
    found["resumed"] = running.run.data.total
    latest = running.run.id
namespace(None)
found["latest"] = Flow("Halting").latest_run.id == latest
found["squares"] = sorted(task.data.square for task in run["work"])
print(json.dumps(found))
