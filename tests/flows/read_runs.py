"""Prints, as JSON, what the Client API knows of runs, each with the cards of the steps named; long values as their
digest."""

import hashlib
import json
import sys

import metaflow
from metaflow.cards import get_cards


def described(value):
    if type(value).__module__ == "numpy":
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, bytes) and len(value) > 200:
        return f"{len(value)} bytes {hashlib.sha256(value).hexdigest()}"
    text = repr(value)
    return (
        text if len(text) <= 200 else f"{type(value).__name__} {len(text)} {hashlib.sha256(text.encode()).hexdigest()}"
    )


def artifacts(task):
    return {artifact.id: described(artifact.data) for artifact in sorted(task.artifacts, key=lambda found: found.id)}


def read_task(task):
    earlier = [metaflow.Task(task.pathspec, attempt=attempt) for attempt in range(task.current_attempt)]
    return {
        "artifacts": artifacts(task),
        "earlier attempts": [artifacts(attempt) for attempt in earlier],
        "attempt": task.current_attempt,
        "finished": task.finished,
        "successful": task.successful,
        "stdout": task.stdout,
        "stderr": task.stderr,
    }


def read_run(name, cards_of):
    run = metaflow.Run(name)
    steps = {step.id: sorted((read_task(task) for task in step), key=json.dumps) for step in run}
    tags = sorted(run.user_tags)
    cards = ["<html" in card.get() for step in cards_of for card in get_cards(run[step].task)]
    return {"cards": cards, "steps": steps, "tags": tags, "successful": run.successful, "finished": run.finished}


metaflow.namespace(None)
print(json.dumps({name: read_run(name, cards_of) for name, cards_of in json.loads(sys.argv[1]).items()}))
