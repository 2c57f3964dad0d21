"""The summary of a test run: the parts it ran on and what it could not run, which fails the run in CI.

A pytest plugin: tests/conftest.py registers `Reporting`. Fixtures call `used` and `could_not_run`. Where pytest-xdist
shares the tests out, each worker hands what it noted to the process that began it, which alone says it.
"""

import os
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lab import leftovers

IN_CI = os.environ.get("CI", "").lower() in ("true", "1")

_used: dict[str, set[str]] = {"PostgreSQL": set(), "Kubernetes": set()}
_notes: list[str] = []
_logs: list[Path] = []

LAST = 4000
"""Bytes of a log that are shown."""


def used(what: str, version: str) -> None:
    """Notes that a test ran on this, such as used("PostgreSQL", "18.4")."""
    _used.setdefault(what, set()).add(version)


def note(line: str) -> None:
    """Add a line to the summary."""
    _notes.append(line)


@contextmanager
def log_shown(log: Path) -> Iterator[None]:
    """Show the end of this log beside the output of a failing test."""
    _logs.append(log)
    yield
    _logs.remove(log)


def could_not_run(reason: str) -> NoReturn:
    """Skip the running test and add the reason to the summary; with CI=true the test fails instead."""
    if IN_CI:
        pytest.fail(f"could not run, and CI=true: {reason}", pytrace=False)
    pytest.skip(reason)


class Reporting:
    """The hooks."""

    def __init__(self, handed: dict[str, Any] | None) -> None:
        """``handed`` is collects a worker's notes; None in the process that prints the summary."""
        self.handed = handed
        # Processes started by workers carry the mark of the main process, which checks once all workers have ended.
        self.mark = "" if handed is not None else leftovers.mark()
        self.left: list[str] = []
        self.not_run: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Count skips and expected failures, and make them failures in CI."""
        report = yield
        self._judge(report, report.nodeid)
        if report.failed:
            for log in filter(Path.exists, _logs):
                report.sections.append((f"end of {log}", log.read_bytes()[-LAST:].decode(errors="replace")))
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
        """Find processes that are left after the last fixture was torn down."""
        if self.handed is not None:
            self.handed["noted"] = {
                "used": {what: sorted(versions) for what, versions in _used.items()},
                "notes": _notes,
                "not run": dict(self.not_run),
            }
            return
        self.left = leftovers.find(self.mark)
        if self.left and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Collect a worker's notes; one that crashed has none."""
        noted = getattr(node, "workeroutput", {}).get("noted") or {"used": {}, "notes": [], "not run": {}}
        for what, versions in noted["used"].items():
            _used.setdefault(what, set()).update(versions)
        _notes.extend(noted["notes"])
        self.not_run.update(noted["not run"])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The section at the end."""
        terminalreporter.section("what this run stood on")
        for what, versions in _used.items():
            shown = ", ".join(sorted(versions, key=_numbers)) or "not used"
            terminalreporter.write_line(f"{what}: {shown}")
        for line in dict.fromkeys(_notes):
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
