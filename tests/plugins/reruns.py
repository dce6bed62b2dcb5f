"""Which tests may be run again (``--reruns``), and how often in one run.

A test of this process alone has no excuse: it fails at once. Of the tests with servers or flows, which share the
machine with them, up to ``LIMIT`` may fail once in a run. Each is shown with how it failed. More fail the run.
"""

import pytest

LIMIT = 2
MAY_BE_RUN_AGAIN = ("server", "flow")

_failed_once = pytest.StashKey[list]()


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # of the workers' reports the main process hears
        config.stash[_failed_once] = []
        config.pluginmanager.register(_Count(config), "count of reruns")


@pytest.hookimpl(trylast=True)  # the marks are there then
def pytest_collection_modifyitems(config, items):
    if not config.getoption("reruns", None):
        return
    for item in items:
        if not any(item.get_closest_marker(name) for name in MAY_BE_RUN_AGAIN):
            item.add_marker(pytest.mark.flaky(reruns=0))


class _Count:
    def __init__(self, config):
        self._failed_once = config.stash[_failed_once]

    def pytest_runtest_logreport(self, report):
        if report.outcome == "rerun":
            self._failed_once.append(report)

    @pytest.hookimpl(tryfirst=True)  # before the terminal's summary
    def pytest_sessionfinish(self, session):
        if len(self._failed_once) > LIMIT and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        for report in self._failed_once:
            terminalreporter.section(f"failed once: {report.nodeid}")
            terminalreporter.line(report.longreprtext)
        if self._failed_once:
            count = len(self._failed_once)
            verdict = f"more than {LIMIT}: the run has failed" if count > LIMIT else f"up to {LIMIT} are borne"
            terminalreporter.section(f"{count} failed once and were run again, {verdict}", red=count > LIMIT, bold=True)
            for report in self._failed_once:
                terminalreporter.line(report.nodeid)
