"""What the status says while intervals leave the table that was converted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from partwarden.errors import StatementRejected, TableBusy
from partwarden.planner.actions import Outcome, SplitLegacy
from partwarden.planner.calendar import Range
from partwarden.planner.inventory import Inventory
from partwarden.planner.marker import ConvertedMark
from partwarden.planner.plan import make_plan
from partwarden.status.conditions import PolicyStatusUpdate, make_status, reconciled
from support.samples import NOW, inventory, spec, year

FIRST, MIDDLE, CLOSED = (datetime(*each, tzinfo=UTC) for each in ((2020, 1, 1), (2025, 7, 1), (2026, 1, 1)))
POLICY = spec(key="submitted_at", interval="Year", convert={"mode": "Attach", "split": "Background"})


def here() -> Inventory:
    """A part of 2025 has left already."""
    bounds = "FOR VALUES FROM ('{:%Y-%m-%d} 00:00:00+00') TO ('{:%Y-%m-%d} 00:00:00+00')"
    legacy: dict[str, Any] = {"range": Range(FIRST, MIDDLE), "bounds": bounds.format(FIRST, MIDDLE)}
    grown: dict[str, Any] = {"range": Range(MIDDLE, CLOSED), "bounds": bounds.format(MIDDLE, CLOSED)}
    return inventory(
        [
            replace(year(2020, oid=7, name="run_until_2025"), converted=ConvertedMark(7, 100), **legacy),
            replace(year(2025, oid=8), **grown),
            *map(year, (2026, 2027, 2028)),
        ]
    )


def verdict(*errors: TableBusy | StatementRejected) -> PolicyStatusUpdate:
    plan = make_plan(POLICY, here(), NOW)
    (split,) = (each for each in plan.actions if isinstance(each, SplitLegacy))
    return reconciled(POLICY, here(), plan, [Outcome(split, each) for each in errors])


def test_the_policy_is_ready_and_its_status_says_what_leaves() -> None:
    said = verdict()
    assert (said.ready.status, said.ready.reason, said.reconciling) == ("True", "Converged", False)
    status = make_status(said, {}, 1, NOW, "public.run")
    states = {each["name"]: each["state"] for each in status["partitions"]}
    assert (states["run_until_2025"], states["run_2025"]) == ("Legacy", "Splitting")
    assert [each["action"] for each in status["plan"]][:1] == ["SplitLegacy"]
    assert "OffGrid" not in [each["reason"] for each in status.get("findings", [])]


def test_what_keeps_it_from_leaving_is_a_warning_while_the_table_is_covered() -> None:
    for error in (TableBusy("held by another session"), StatementRejected("too many rows")):
        said = verdict(error)
        assert (said.ready.status, said.ready.reason, said.stalled) == ("True", "ConvergedWithWarnings", False)
        assert said.ready.message.startswith(str(error))
