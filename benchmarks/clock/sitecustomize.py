"""On PYTHONPATH: has a process that runs a flow measure its calls of the datastore when DATASTORE_CLOCK names a
directory. A flow imports ``metaflow.cli`` after all plug-ins are in place and before its first call."""

import os
import sys


class Watch:
    """A finder that finds nothing, and starts the clock in time."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "metaflow.cli":
            sys.meta_path.remove(Watch)
            import datastore_clock

            datastore_clock.install()


if os.environ.get("DATASTORE_CLOCK"):
    sys.meta_path.insert(0, Watch)
