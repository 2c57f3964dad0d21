"""A conversion in the words of a policy's plan: its steps, what becomes otherwise, and what an approval names. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime

from .calendar import iso
from .conversion_plan import ConversionPlan
from .conversion_rules import CHECK, Wanted
from .findings import Finding
from .inventory import Parent, Server
from .plain_table import Leftover
from .plan_gate import PlanGate
from .schedule import PlannedStep

CONVERT, UNDO = "ConvertTable", "UndoConversion"
"""What a policy does, as ``status.plan`` and ``status.longAction`` call it."""
WILL_CHANGE = "WillChange"
CHECK_STANDS = "CheckStands"
RESTS = "ConversionRests"


def steps_of(plan: ConversionPlan) -> tuple[PlannedStep, ...]:
    """What is still to be done, in order."""
    table, left = plan.table, [each for each in plan.steps if not each.done]
    until = f"; all before {iso(plan.until)}, else it is planned anew with a later end"
    return tuple(
        PlannedStep(
            action=CONVERT,
            verb="convert the table",
            noun="step",
            schema=table.parent.schema,
            name=table.parent.name,
            oid=table.parent.oid,
            reason=f"{each.text}; {duration(each.seconds)}; waits: {each.waits}{until if each is left[0] else ''}",
            lock=f"{each.lock} on {table}",
            rows=table.rows,
            bytes=table.bytes,
        )
        for each in left
    )


def undo_step(parent: Parent, limit: int) -> PlannedStep:
    """The way back, as one step."""
    return PlannedStep(
        action=UNDO,
        verb="make plain again",
        noun="table",
        schema=parent.schema,
        name=parent.name,
        oid=parent.oid,
        reason=f"spec.convert.mode is Undo: at most {limit:,} rows of later partitions move back into the first one, "
        "which is the table then; one transaction",
        lock=f"ACCESS EXCLUSIVE on {parent}, asked for during 50 ms, and again",
    )


def conversion_digest(plan: ConversionPlan, wanted: Wanted) -> str:
    """What an approval of it names: the same from the first step to the last, however the calendar and sizes change.

    Other keys that become wider, another table or database, and another interval are another plan.
    """
    about, spec = plan.conversion, wanted.spec
    widened = about and [(each.constraint, each.columns) for each in about.widened]
    what = (CONVERT, plan.table.parent.oid, spec.key, spec.key_encoding, spec.interval, spec.timezone)
    return _digest(plan.table.server, *what, wanted.legacy_name, widened)


def undo_digest(server: Server, parent: Parent, limit: int) -> str:
    """The same of the way back."""
    return _digest(server, UNDO, parent.oid, limit)


def _digest(server: Server, *of: object) -> str:
    return hashlib.sha256(repr((server.identity, *map(str, of))).encode()).hexdigest()[:16]


def gate_of(steps: tuple[PlannedStep, ...], digest: str, named: str) -> PlanGate:
    """The approval of them by ``mode: Approve``. ``named``: the digest that the user has approved."""
    approved = named == digest
    return PlanGate(digest="" if approved else digest, waiting=() if approved else steps, everything=True, named=named)


def changes_of(plan: ConversionPlan) -> list[Finding]:
    """What will be otherwise afterwards."""
    return [Finding(WILL_CHANGE, each.object, each.text) for each in plan.changes]


def standing(table: object, left: Leftover, why: str) -> Finding:
    """A CHECK that an interrupted conversion has left, while nothing goes on. ``why``: what keeps it so."""
    message = (
        f"CHECK {CHECK} of {table} refuses rows from {left.upper} on, and before {left.lower}: it belongs to a "
        f"conversion that did not end, and {why}; go on before then, or set spec.convert.mode: Never, which takes it "
        "away"
    )
    return Finding(CHECK_STANDS, str(table), message)


def rest(table: str, took: float, since: datetime, until: datetime) -> Finding:
    """Rows were read for ``took`` seconds, until ``since``, and that was wasted. It is tried again at ``until``."""
    message = (
        f"since {iso(since.replace(microsecond=0))} the table is not read: that took {duration(took)} and ended as "
        f"Ready says; it is tried again at {iso(until.replace(microsecond=0))}, or as soon as spec is edited or the "
        "plan approved"
    )
    return Finding(RESTS, table, message)


def duration(seconds: float) -> str:
    """How long a step is expected to take, for people."""
    if not seconds:
        return "a moment"
    if seconds < 60:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
