"""Becomes the program named by its arguments, which then does not outlive the process that started it.

``python -S -E _child.py SIGNAL PARENT PROGRAM ARGUMENT…``; a ``preexec_fn`` would run Python between fork and exec of a
process with threads.
"""

import ctypes
import os
import resource
import sys

death, parent, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(death))  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):
        sys.exit("the parent has gone")
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
os.execvp(command[0], command)
