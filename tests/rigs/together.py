"""Processes that begin together, as the tasks of a flow on one host do."""

import os


def in_children(count, work):
    """Run ``work(number)`` in forked processes that begin together; their exit codes, 0 where it returned."""
    ready, go = os.pipe(), os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(go[1])
                os.write(ready[1], b".")
                os.read(go[0], 1)  # until nobody has the other end
                work(number)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    for _ in children:
        os.read(ready[0], 1)
    os.close(go[1])
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    for end in (*ready, go[0]):
        os.close(end)
    return codes
