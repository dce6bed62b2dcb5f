"""The same work in several threads, and in a forked child."""

import os
import threading


def in_threads(work, arguments):
    """``work(argument)`` of each in a thread of its own, all at once; the errors they ended with."""
    failures = []

    def caught(argument):
        try:
            work(argument)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=caught, args=(argument,)) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def in_a_child(work):
    """Do it in a forked child, to the end of what it does when it exits; its exit code."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
