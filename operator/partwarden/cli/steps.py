"""The steps of a plan as commands show them: a table for people, or entries of a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from ..api.status import PlannedAction
from ..planner.calendar import iso
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


def print_coming(steps: Sequence[PlannedStep], wide: bool) -> None:
    """What comes after what is due. Wide: with lock, rows, size, and all of what each step waits for."""
    if not steps:
        return
    more = ("LOCK", "ROWS", "SIZE") if wide else ()
    rows = [("DO", "TABLE", "FROM", "TO", "NOT BEFORE", "WAITS FOR", *more, "WHY")]
    for each in steps:
        lower, upper = (iso(each.range.lower), iso(each.range.upper)) if each.range else ("", "")
        waits = "; ".join(f"{wait.on}: {wait.message}" if wide else wait.on for wait in each.waits_for)
        size = (each.lock, *measured(each)) if wide else ()
        rows.append(
            (
                each.verb,
                str(each),
                lower or "",
                upper or "",
                iso(each.not_before) or "-",
                waits or "-",
                *size,
                each.reason,
            )
        )
    click.echo(f"To come: {len(steps)}")
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
