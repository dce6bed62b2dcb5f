"""Prints, as JSON, what the Client API says when an artifact of a task is read, and when its size is asked for."""

import json
import sys

import metaflow

metaflow.namespace(None)


def error_of(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


artifact = metaflow.Task(sys.argv[1])[sys.argv[2]]
print(json.dumps([error_of(lambda: artifact.data), error_of(lambda: artifact.size)]))
