"""What holds for all tests: on CI nothing is skipped."""

import os

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run on CI that skipped something: a skip there hides what nobody will look at."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return
    if any(not _is_chosen(report) for report in reporter.stats.get("skipped", ())):
        reporter.write_line("Something was skipped, which CI does not allow.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_chosen(report: pytest.TestReport) -> bool:
    """Tell whether a test was left out by who ran it without the accelerator: another run has it."""
    return os.environ.get("POSTSEAL_NATIVE") == "0" and "not wanted" in str(report.longrepr)
