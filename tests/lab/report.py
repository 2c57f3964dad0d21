"""Makes a test run say what it really ran on and what it could not run, and fail in CI when something could not.

A pytest plugin: tests/conftest.py registers `Reporting`. Fixtures call `used` and `could_not_run`.
"""

import os
from collections import Counter
from collections.abc import Generator
from typing import NoReturn

import pytest

from lab import leftovers

IN_CI = os.environ.get("CI", "").lower() in ("true", "1")

_used: dict[str, set[str]] = {"PostgreSQL": set(), "Kubernetes": set()}
_notes: list[str] = []


def used(what: str, version: str) -> None:
    """Notes that a test ran on this, such as used("PostgreSQL", "18.4")."""
    _used.setdefault(what, set()).add(version)


def note(line: str) -> None:
    """Adds a line to the summary."""
    _notes.append(line)


def could_not_run(reason: str) -> NoReturn:
    """Skips the running test and puts the reason into the summary; with CI=true the test fails instead."""
    if IN_CI:
        pytest.fail(f"could not run, and CI=true: {reason}", pytrace=False)
    pytest.skip(reason)


class Reporting:
    """The hooks."""

    def __init__(self) -> None:
        self.mark = leftovers.mark()
        self.left: list[str] = []
        self.not_run: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Counts what did not run, and makes it a failure in CI: a skip, and a failure that was expected."""
        report = yield
        self._judge(report, report.nodeid)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """The same for whole modules."""
        report = yield
        self._judge(report, report.nodeid)
        return report

    def _judge(self, report: pytest.TestReport | pytest.CollectReport, name: str) -> None:
        if not report.skipped:
            return
        reason = str(getattr(report, "wasxfail", "")) or _reason(report)
        self.not_run[reason] += 1
        if IN_CI:
            report.outcome = "failed"
            report.longrepr = f"{name} did not run, and CI=true: {reason}"
            if isinstance(report, pytest.TestReport) and hasattr(report, "wasxfail"):
                del report.wasxfail

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Looks for processes that are left, after the last fixture has gone."""
        self.left = leftovers.find(self.mark)
        if self.left and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The section at the end."""
        terminalreporter.section("what this run stood on")
        for what, versions in _used.items():
            shown = ", ".join(sorted(versions, key=_numbers)) or "not used"
            terminalreporter.write_line(f"{what}: {shown}")
        for line in _notes:
            terminalreporter.write_line(line)
        for reason, count in sorted(self.not_run.items()):
            terminalreporter.write_line(f"could not run: {count} x {reason}", yellow=True)
        if not self.not_run:
            terminalreporter.write_line("could not run: nothing")
        for line in self.left:
            terminalreporter.write_line(f"left running (a failure): {line}", red=True)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    where = report.longrepr
    text = str(where[2]) if isinstance(where, tuple) else str(where)
    return text.removeprefix("Skipped: ")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.replace("v", "").split(" ")[0].split(".") if part.isdigit()]
