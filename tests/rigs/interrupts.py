"""Ctrl-C at any place, one after the other, where the interpreter looks whether it came."""

import dis
import sys

LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD")
"""After instructions whose names begin so the interpreter looks whether a signal came."""


class Interrupt:
    """``with Interrupt(n, files):`` raises KeyboardInterrupt at the n-th such place in code of these files, in this
    thread, and swallows it. ``came`` says whether there were as many, ``at`` where it was."""

    def __init__(self, n, files):
        self.left = n
        self.files = files
        self.came = False
        self.at = None
        self._before = {}

    def __enter__(self):
        self._tracer = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # CPython 3.12 heeds it only if some frame had it before settrace
        sys.settrace(self._trace)
        return self

    def __exit__(self, kind, *_):
        sys.settrace(self._tracer)
        return kind is KeyboardInterrupt

    def _trace(self, frame, event, argument):
        if frame.f_code.co_filename not in self.files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            before = self._before.get(id(frame), "")
            self._before[id(frame)] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before.startswith(LOOKS):
                self.left -= 1
                if self.left == 0:
                    self.came = True
                    self.at = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                    raise KeyboardInterrupt
        return self._trace
