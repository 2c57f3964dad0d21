"""The steps of a plan as commands show them: a table for people, or entries of a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click

from ..api.status import PlannedAction
from ..errors import PartwardenError
from ..planner.actions import Action, Outcome, SplitLegacy
from ..planner.calendar import Range, iso
from ..planner.plan import Plan
from ..planner.schedule import PlannedStep
from ..status.details import human
from . import formats


def document(step: PlannedStep) -> dict[str, Any]:
    """One step as data."""
    return {
        "id": step.id,
        "action": step.action,
        "schema": step.schema,
        "partition": step.name,
        "from": iso(step.range.lower) if step.range else None,
        "to": iso(step.range.upper) if step.range else None,
        "reason": step.reason,
        "lock": step.lock,
        "rows": step.rows,
        "bytes": step.bytes,
        "notBefore": iso(step.not_before),
        "waitsFor": [{"on": each.on, "message": each.message} for each in step.waits_for],
    }


def dates(timezone: str, steps: Iterable[PlannedStep], *bounds: datetime | None) -> formats.Dates:
    """How bounds of the steps, and these, are written."""
    ends = (end for each in steps if each.range for end in (each.range.lower, each.range.upper))
    return formats.Dates.of(timezone, (*bounds, *ends))


def print_coming(steps: Sequence[PlannedStep], wide: bool, dates: formats.Dates, heading: str = "To come") -> None:
    """Steps with their moments. Wide: with lock, rows, size, and all of what each step waits for."""
    if not steps:
        return
    more = ("LOCK", "ROWS", "SIZE") if wide else ()
    rows = [("DO", "TABLE", "FROM", "TO", "NOT BEFORE", "WAITS FOR", *more, "WHY")]
    for each in steps:
        bounds = dates.ends(each.range.lower, each.range.upper) if each.range else ("", "")
        waits = "; ".join(f"{wait.on}: {wait.message}" if wide else wait.on for wait in each.waits_for)
        size = (each.lock, *measured(each)) if wide else ()
        moment = iso(each.not_before) or "-"
        rows.append((each.verb, str(each), *bounds, moment, waits or "-", *size, each.reason))
    click.echo(f"{heading}: {len(steps)}")
    formats.table(rows, indent=2)


def measured(step: PlannedStep) -> tuple[str, str]:
    """Rows, which are an estimate, and size of its table, for people."""
    return "-" if step.rows is None else f"~{step.rows:,}", "-" if step.bytes is None else human(step.bytes)


def sentences(name: str, plan: Iterable[PlannedAction]) -> list[str]:
    """A line for each step of a status."""
    return [
        f"PLAN: {name}: {each.action} {each.partition}"
        + (f", not before {each.not_before}" if each.not_before else "")
        + (f"; waits for {'; '.join(each.waits_for)}" if each.waits_for else "")
        for each in plan
    ]


# What is due, and what became of it.


def action_document(action: Action, outcomes: Sequence[Outcome] | None) -> dict[str, Any]:
    """One action as data, and what became of it where there are ``outcomes``."""
    entry = {
        "action": type(action).__name__,
        "schema": action.schema,
        "partition": action.name,
        **range_document(action.range or Range(None, None)),
        "reason": action.reason,
        "lock": action.lock,
    }
    if outcomes is None:
        return entry
    result, error = _result(action, outcomes)
    return entry | {"result": result, "error": formats.error(error) if error else None}


def _result(action: Action, outcomes: Sequence[Outcome]) -> tuple[str, PartwardenError | None]:
    for each in outcomes:
        if each.action == action:
            partly = isinstance(each.did, SplitLegacy) and each.did.part
            return "Failed" if each.error else "Partly" if partly else "Done", each.error
    return "NotTried", None


def range_document(piece: Range) -> dict[str, str | None]:
    """Its bounds as data."""
    return {"from": iso(piece.lower), "to": iso(piece.upper)}


def print_actions(plan: Plan, outcomes: Sequence[Outcome] | None, wide: bool, dates: formats.Dates) -> None:
    """With what became of them where there are ``outcomes``. Wide: with the lock that each takes, rows and size."""
    rows = [("DO", "TABLE", "FROM", "TO", *(("LOCK", "ROWS", "SIZE") if wide else ()), "WHY")]
    for action, step in zip(plan.actions, plan.steps, strict=False):
        bounds = dates.ends(action.range.lower, action.range.upper) if action.range else ("", "")
        rows.append(
            (action.verb, str(action), *bounds, *((action.lock, *measured(step)) if wide else ()), action.reason)
        )
    if outcomes is None:
        click.echo(f"To do: {len(plan.actions)}")
        formats.table(rows, indent=2)
        locks = dict.fromkeys(action.lock for action in plan.actions)
        formats.names(f"Heaviest lock, held for a moment each: {lock}" for lock in locks)
        return
    results = ["RESULT", *(_result(action, outcomes)[0].upper() for action in plan.actions)]
    click.echo(f"Done: {sum(not each.error for each in outcomes)} of {len(plan.actions)}")
    formats.table([(result, *row) for result, row in zip(results, rows, strict=True)], indent=2)
    formats.names(f"{each.error.reason}: {each.action}: {each.error}" for each in outcomes if each.error)
