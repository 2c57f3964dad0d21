"""The youngest months leave the table that was converted, as a policy with ``convert.split: Background`` does it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta

from lab.postgres import Database
from partwarden.api.policy import TableSpec
from partwarden.controller.workqueue import Backoff, result
from partwarden.planner.actions import Outcome, SplitLegacy
from partwarden.planner.plan import Plan
from partwarden.postgres import engine
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.status.conditions import reconciled

from .figures import Figure
from .waits import month, read_count

FIRST = month(-2)
"""Until the rows from here on have left: of the month that is written into, and of two that are full."""
LATER = month(2) + timedelta(hours=2)
"""As which moment it is planned: the table's last month has passed then, and before that nothing leaves it."""
FIELDS = {"table": {"name": "run"}, "key": "submitted_at", "interval": "Month", "maintenance": {"analyzeParent": False}}
KEPT, SPLIT = (
    TableSpec.model_validate(FIELDS | {"convert": {"mode": "Attach", "widenKeys": True, "split": how}})
    for how in ("Never", "Background")
)
IN_A_ROW = 8
"""Attempts that may fail, one after the other."""
ROWS = f"SELECT count(*) FROM run WHERE id < 0 AND submitted_at >= '{FIRST}'"


@dataclass
class Course:
    """How it went. ``seconds``: of the reconciles that moved rows."""

    reconciles: int = 0
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    """Why others failed."""

    def figures(self, name: str, rows: int) -> list[Figure]:
        """``rows``: how many were there to be moved."""
        note = f"{rows:,} rows; reconciles: {self.reconciles}, and {len(self.said)} that failed"
        note += "".join(f"; {each}" for each in dict.fromkeys(self.said))
        return [Figure(f"{name}: rows moved in a second", rows / self.seconds, "", note=note)]

    def add(self, outcome: Outcome) -> None:
        """What became of one action."""
        if outcome.error is None:
            self.reconciles += 1
            self.seconds += outcome.seconds
        else:
            self.said.append(str(outcome.error))


def prepare(database: Database) -> int:
    """Make what the policy would have made by `LATER`, so that nothing but the split is measured. Returns how many rows
    there are to move, but for those that are written meanwhile."""
    with session(from_dsn(database.dsn)) as connection:
        report = engine.maintain(connection, KEPT, now=LATER)
    assert not report.after.actions, f"left are {report.after.actions}"
    return read_count(database, ROWS)


def split(database: Database, course: Course, patience: float) -> None:
    """Reconcile as the operator does, with the pauses of its queue after a failure, until all from `FIRST` on has left.

    Planned anew each time, since one reconcile may move a part of a month. Raises AssertionError after ``patience``, in
    seconds, or where attempts fail `IN_A_ROW`.
    """
    pace, began, failed = Backoff(), time.monotonic(), 0
    while True:
        with session(from_dsn(database.dsn)) as connection:
            report = engine.maintain(connection, SPLIT, now=LATER)
        for each in report.outcomes:
            course.add(each)
        verdict = reconciled(SPLIT, report.inventory, report.after, report.outcomes)
        if not left(report.after):
            break
        failed = failed + 1 if verdict.errors else 0
        why = course.said[-1] if course.said else "none"
        assert failed < IN_A_ROW, f"split: no rows move any more: {why}"
        assert time.monotonic() - began < patience, f"split: not done in {patience:.0f} s; the last failure: {why}"
        if failed:
            time.sleep(pace.after(("bench", "split"), SPLIT, result(verdict.errors, verdict.reconciling), 600.0))
    (legacy,) = (each for each in report.inventory.partitions if each.converted)
    kept = read_count(database, f"{ROWS} AND tableoid = {legacy.oid}")
    assert kept == 0, f"split: {kept:,} rows from {FIRST:%Y-%m} on are left in {legacy}: {verdict.ready}"


def left(plan: Plan) -> list[SplitLegacy]:
    """What is still to leave of what is measured."""
    return [each for each in plan.actions if isinstance(each, SplitLegacy) and each.range.lower >= FIRST]
