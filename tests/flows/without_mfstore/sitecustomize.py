"""On PYTHONPATH, makes mfstore impossible to import: a container without it."""

import sys


class Refuse:
    """A finder that knows only that there is no mfstore."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "mfstore":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Refuse)
