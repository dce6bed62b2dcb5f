"""The same work in several threads, and in a forked child."""

import faulthandler
import os
import signal
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


def in_a_child(work, seconds=90):
    """Do it in a forked child, to the end of what it does when it exits; its exit code. One that takes longer says where
    its threads are and ends by SIGALRM: the deadline of the test would show where the parent waits for it."""
    child = os.fork()
    if not child:
        code = 1
        # Not dump_traceback_later: it waits for its thread of the parent, which has one for the deadline.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=2, chain=True)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
