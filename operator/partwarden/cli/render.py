"""What ``plan`` and ``apply`` print: a table for people, or one JSON document for programs.

The JSON document; fields may be added, none changes its meaning::

    {
      "policy": {"name", "namespace"},         of the manifest, or null
      "table", "key", "interval", "timezone",
      "database", "server",                    the server's version as it says it
      "now",                                   the moment that was asked about, RFC 3339
      "mode", "suspend",                       of the spec
      "partitions", "managed", "totalBytes",   counts and size of what exists
      "current": {"from", "to"},               the interval that holds now
      "coveredUntil",                          end of the coverage that holds now, "MAXVALUE", or null: now is not held
      "nextBoundary",                          when the plan changes by itself
      "blocked",                               no action can succeed until a finding is mended
      "actions": [{"action", "schema", "partition", "from", "to", "reason", "lock",
                   "result", "error"}],        only after apply: Done, Failed or NotTried; {"reason", "message"} or null
      "findings": [{"reason", "object", "message", "error"}]    error: true where somebody must act
    }

After ``apply`` all but ``actions`` describes how things stand then. Bounds are [from, to), null for MINVALUE and
MAXVALUE; those of a key without a time zone have none. Where the command fails, the document is
``{"error": {"reason", "message"}}``, with ``actions`` as above where some were tried before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.cells import cell_len, set_cell_size

from ..api.policy import Mode
from ..api.status import FOR_EVER
from ..errors import PartwardenError
from ..planner.actions import Action, Outcome
from ..planner.calendar import Range, iso
from ..planner.inventory import Inventory, Partition
from ..planner.plan import Plan
from ..status.details import human
from .manifest import Manifest


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything that is printed of one run. ``outcomes`` is None where nothing was to be executed.

    ``plan`` is what was planned, ``inventory`` and ``after`` how things stand at the end: the same for a mere plan.
    """

    manifest: Manifest
    now: datetime
    inventory: Inventory
    plan: Plan
    after: Plan
    outcomes: tuple[Outcome, ...] | None = None


def failure(error: PartwardenError, plan: Plan | None = None, outcomes: Sequence[Outcome] = ()) -> dict[str, Any]:
    """The document of a command that failed. ``plan``: where ``outcomes`` of it were there by then."""
    document: dict[str, Any] = {"error": _error(error)}
    return document | ({"actions": [_action(each, outcomes) for each in plan.actions]} if plan else {})


def results(plan: Plan, outcomes: Sequence[Outcome], look: Look) -> str:
    """What became of each action of a run that was broken off, for people."""
    return "\n".join(_results(plan, outcomes, look))


def document(shown: Shown) -> dict[str, Any]:
    """The document described above."""
    spec, plan, inventory = shown.manifest.spec, shown.after, shown.inventory
    return {
        "policy": {"name": shown.manifest.name, "namespace": shown.manifest.namespace},
        "table": str(plan.parent),
        "key": plan.key,
        "interval": spec.interval,
        "timezone": spec.timezone,
        "database": inventory.server.database,
        "server": inventory.server.version_text,
        "now": iso(shown.now),
        "mode": spec.mode,
        "suspend": spec.suspend,
        "partitions": len(inventory.partitions),
        "managed": len(plan.managed),
        "totalBytes": sum(each.bytes for each in inventory.partitions),
        "current": _range(plan.current),
        "coveredUntil": _covered(plan),
        "nextBoundary": iso(plan.next_boundary),
        "blocked": plan.blocked,
        "actions": [_action(action, shown.outcomes) for action in shown.plan.actions],
        "findings": [
            {"reason": each.reason, "object": each.object, "message": each.message, "error": each.error is not None}
            for each in plan.findings
        ],
    }


def _action(action: Action, outcomes: Sequence[Outcome] | None) -> dict[str, Any]:
    entry = {
        "action": type(action).__name__,
        "schema": action.schema,
        "partition": action.name,
        **_range(action.range or Range(None, None)),
        "reason": action.reason,
        "lock": action.lock,
    }
    if outcomes is None:
        return entry
    outcome = next((each for each in outcomes if each.action == action), None)
    error = outcome.error if outcome else None
    return entry | {"result": _result(outcome), "error": _error(error) if error else None}


def _result(outcome: Outcome | None) -> str:
    if outcome is None:
        return "NotTried"
    return "Failed" if outcome.error else "Done"


def _range(held: Range) -> dict[str, str | None]:
    return {"from": iso(held.lower), "to": iso(held.upper)}


def _covered(plan: Plan) -> str | None:
    return FOR_EVER if plan.covered_for_ever else iso(plan.covered_until)


def _error(error: PartwardenError) -> dict[str, str]:
    return {"reason": error.reason, "message": str(error)}


@dataclass(frozen=True, slots=True)
class Look:
    """``wide``: with the lock that each action takes. ``width``: columns of the terminal, at which the rows of tables
    are cut; None for none."""

    wide: bool = False
    width: int | None = None


PLAIN = Look()


def text(shown: Shown, look: Look = PLAIN) -> str:
    """The same for people: aligned columns, one line for each thing, no colour."""
    return "\n".join(_lines(shown, look))


def _lines(shown: Shown, look: Look) -> Iterator[str]:
    spec, plan, inventory = shown.manifest.spec, shown.after, shown.inventory
    size = human(sum(each.bytes for each in inventory.partitions))
    yield printable(
        f"{plan.parent} in database {inventory.server.database} (PostgreSQL {inventory.server.version_text})"
    )
    yield printable(f"by {spec.interval} of {spec.timezone} on {plan.key}; now is {iso(shown.now)}")
    yield f"{len(inventory.partitions)} partitions, {size}, {_coverage(plan, inventory.default)}"
    yield ""
    if shown.outcomes is None:
        yield from _planned(shown, look)
    else:
        yield from _done(shown, shown.outcomes, look)
    yield from _findings(plan)


def _coverage(plan: Plan, default: Partition | None) -> str:
    if plan.covered_for_ever:
        return "now is covered, with no end"
    if plan.covered_until:
        return f"covered until {iso(plan.covered_until)}"
    return f"NOW IS NOT COVERED: {f'rows go into {default}' if default else 'inserts fail'}"


def _planned(shown: Shown, look: Look) -> Iterator[str]:
    actions = shown.plan.actions
    if not actions:
        yield "Nothing to do."
        return
    yield f"To do: {len(actions)}"
    yield from table([_heading(look), *(_row(action, look) for action in actions)], look.width)
    for lock in dict.fromkeys(action.lock for action in actions):
        yield printable(f"Heaviest lock, held for a moment each: {lock}")
    if why := _why_not(shown):
        yield why


def _done(shown: Shown, outcomes: tuple[Outcome, ...], look: Look) -> Iterator[str]:
    if not shown.plan.actions:
        yield "Nothing to do."
        return
    if (why := _why_not(shown)) and not outcomes:
        yield from _planned(shown, look)
        return
    yield from _results(shown.plan, outcomes, look)
    if why:
        yield why


def _results(plan: Plan, outcomes: Sequence[Outcome], look: Look) -> Iterator[str]:
    tried = {each.action: each for each in outcomes}
    rows = [(_result(tried.get(action)).upper(), *_row(action, look)) for action in plan.actions]
    made = sum(not each.error for each in outcomes)
    yield f"Done: {made} of {len(plan.actions)}"
    yield from table([("RESULT", *_heading(look)), *rows], look.width)
    for each in outcomes:
        if each.error:
            yield printable(f"{each.error.reason}: {each.action}: {each.error}")


def _heading(look: Look) -> tuple[str, ...]:
    return ("DO", "TABLE", "FROM", "TO", *(("LOCK",) if look.wide else ()), "WHY")


def _row(action: Action, look: Look) -> tuple[str, ...]:
    ends = ("", "")
    if action.range is not None:
        ends = iso(action.range.lower) or "MINVALUE", iso(action.range.upper) or "MAXVALUE"
    return (action.verb, str(action), *ends, *((action.lock,) if look.wide else ()), action.reason)


def _why_not(shown: Shown) -> str:
    if shown.manifest.spec.suspend:
        return "spec.suspend is true: apply does nothing."
    if shown.manifest.spec.mode is Mode.PLAN:
        return "spec.mode is Plan: apply does nothing."
    return "Blocked by what is found below: apply does nothing." if shown.plan.blocked else ""


def _findings(plan: Plan) -> Iterator[str]:
    if plan.findings:
        yield ""
        yield f"Found: {len(plan.findings)}"
        for each in sorted(plan.findings, key=lambda each: each.error is None):
            yield printable(f"  {'ERROR ' if each.error else ''}{each.reason} ({each.object}): {each.message}")


def table(rows: Sequence[tuple[str, ...]], width: int | None = None) -> Iterator[str]:
    """Rows in aligned columns, indented; wide characters count as what a terminal gives them. What is beyond ``width``
    columns is cut, and ends in an ellipsis."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        padded = (cell + " " * (size - cell_len(cell)) for cell, size in zip(row, widths, strict=True))
        line = "  " + "  ".join(padded).rstrip()
        yield set_cell_size(line, width - 1) + "…" if width and cell_len(line) > width else line


def printable(line: str) -> str:
    """One line whatever names hold: line ends and terminal codes are escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
