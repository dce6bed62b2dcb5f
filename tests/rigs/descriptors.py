"""Which files this process has open. Named, not counted: what other threads open or close meanwhile is no matter."""

import os
from contextlib import suppress


def open_files():
    """What is open: paths, or names such as ``pipe:[7]``."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # listdir's own
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(found)


def open_below(directory):
    """The open files below ``directory``, also those that were removed."""
    return [path for path in open_files() if path.startswith(f"{directory}/")]
