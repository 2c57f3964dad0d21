"""What a status says of the next action, and of the next drop."""

from __future__ import annotations

from datetime import datetime

from ..api.status import MAX_NEXT, NextAction
from ..planner.calendar import iso
from ..planner.plan import Plan
from ..planner.schedule import PlannedStep


def next_action(step: PlannedStep | None, plan: Plan) -> NextAction | None:
    """The step for people and programs; None where there is none."""
    if step is None:
        return None
    return NextAction(
        action=step.action,
        object=step.name if step.schema == plan.parent.schema else str(step),
        at=iso(step.not_before),
        waits_for=[str(wait.on) for wait in step.waits_for],
        text=_text(step, plan.parent.name),
        when=_when(step, plan),
    )


def next_step(step: PlannedStep, waits_for: str) -> NextAction:
    """The first step of a conversion, due but for what it ``waits_for``; empty: nothing."""
    waits = [waits_for] if waits_for else []
    text, when = _text(step, step.name), f"waits: {waits_for}" if waits else "now"
    return NextAction(action=step.action, object=step.name, waits_for=waits, text=text, when=when)


def _text(step: PlannedStep, table: str) -> str:
    """``drop run_2018``; where that is too long, without what the name shares with the table's."""
    verb = step.verb.split()[0]
    room = MAX_NEXT - len(verb) - 1
    name = step.name if len(step.name) <= room else step.name.removeprefix(table).lstrip("_")
    return f"{verb} {name if len(name) <= room else '…' + name[len(name) - room + 1 :]}"


def _when(step: PlannedStep, plan: Plan) -> str:
    """``2026-12-01``, ``2026-12-01 13:30``, ``now`` or ``waits: Archive``, by the clock of the policy's zone."""
    moment: datetime | None = step.not_before
    if moment is None:
        return f"waits: {step.waits_for[0].on}" if step.waits_for else "now"
    local = plan.upcoming.context.clock.local(moment)
    return f"{local:%Y-%m-%d}" if local.time() == datetime.min.time() else f"{local:%Y-%m-%d %H:%M}"
