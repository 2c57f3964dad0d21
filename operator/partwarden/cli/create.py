"""``partwarden create`` and ``auto``: partitions that are made now, and nothing else that a policy may say.

On a policy they make nothing themselves: the operator is asked, and its answer awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import click

from ..api.policy import Mode, TableSpec
from ..errors import PartwardenError
from ..planner.actions import Action, CreatePartition, DrainIntoPartition, Outcome
from ..planner.calendar import Grid, Range, iso
from ..planner.plan import Plan
from ..postgres.connection import session
from ..postgres.conninfo import from_dsn
from ..postgres.engine import Report, maintain, observe_and_plan
from . import completion, database_tables, formats, options, render
from .options import Target, target

PATIENCE = 10.0
"""Seconds in which locks must be had, all attempts together."""
MAKING = (CreatePartition, DrainIntoPartition)


@click.command(short_help="Make the partitions of a period now.")
@click.argument("period")
@target(completion.policies)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600),
    default=30.0,
    help="On a policy: seconds to wait for the operator; 0: do not. Default: 30.",
)
@formats.option()
def create(period: str, target: Target, timeout: float, output: str) -> int:
    """Make the partitions of PERIOD now: 2027, 2027-Q1, 2027-03, 2027-W05 or 2027-03-09. Those that are there stay.

    On POLICY the operator is asked through spec.ensure. Exits 0 when they are there, 1 when not.
    """
    if target.dsn is None:
        # Here, for a database needs no Kubernetes client, which takes long to load.
        from . import policy_changes

        return policy_changes.create(target, options.parse(period), timeout, output)

    def wish(spec: TableSpec) -> TableSpec:
        wanted = options.days(options.parse(period), spec.interval)
        return spec.model_copy(update={"ensure": wanted})

    def chosen(spec: TableSpec, plan: Plan) -> list[Range]:
        return _cells(spec, plan, spec.ensure)

    return _run(target, output, wish, chosen)


@click.command(short_help="Make the current partition and so many ahead.")
@click.argument("ahead", type=click.IntRange(0, 1000))
@target(completion.policies)
@formats.option()
def auto(ahead: int, target: Target, output: str) -> int:
    """Make the current partition and so many AHEAD of it now, where they are missing.

    On POLICY nothing is made: it shows spec.premake, by which the operator does that always, and what it implies.
    Exits 0 when so many are there, or kept, 1 when not.
    """
    if target.dsn is None:
        from . import policy_changes

        return policy_changes.auto(target, ahead, output)

    def wish(spec: TableSpec) -> TableSpec:
        return spec.model_copy(update={"premake": ahead, "ensure": []})

    def chosen(spec: TableSpec, plan: Plan) -> list[Range]:
        grid, cells = _grid(spec, plan), [plan.current]
        while len(cells) <= ahead:
            cells.append(grid.cell(cells[-1].upper))
        return [*cells]

    return _run(target, output, wish, chosen)


def _grid(spec: TableSpec, plan: Plan) -> Grid:
    return Grid.of(spec, aware=plan.codec.aware)


def _cells(spec: TableSpec, plan: Plan, days: list[str]) -> list[Range]:
    grid = _grid(spec, plan)
    return [grid.cell(grid.moment(options.midnight(day))) for day in days]


def _run(
    target: Target,
    output: str,
    wish: Callable[[TableSpec], TableSpec],
    chosen: Callable[[TableSpec, Plan], list[Range]],
) -> int:
    outcomes: list[Outcome] = []
    try:
        with session(from_dsn(target.dsn or "")) as connection:
            # A user who asks for a partition by hand wants it whatever mode a policy is in, and nothing retired by it.
            plain = {"mode": Mode.APPLY, "retention": None}
            spec = wish(database_tables.spec(connection, target.table, target.filename).model_copy(update=plain))
            inventory, plan = observe_and_plan(connection, spec)
            cells = chosen(spec, plan)
            actions = tuple(each for each in plan.actions if _is_for(each, cells))
            observed = inventory, replace(plan, actions=actions)
            report = maintain(connection, spec, patience=PATIENCE, observed=observed, outcomes=outcomes)
    except PartwardenError as error:
        if outcomes:
            _show(str(plan.parent), outcomes, [str(error)] if formats.is_data(output) else [], output)
        raise
    return _say(report, cells, output)


def _is_for(action: Action, cells: list[Range]) -> bool:
    held = action.range
    return isinstance(action, MAKING) and held is not None and any(held.overlaps(cell) for cell in cells)


def _say(report: Report, cells: list[Range], output: str) -> int:
    failed = any(each.error for each in report.outcomes)
    missing = [each for each in report.after.missing if any(each.overlaps(cell) for cell in cells)]
    blocked = [each for each in report.after.findings if each.error] if missing and not failed else []
    wrong = [f"{each.reason} ({each.object}): {each.message}" for each in blocked]
    if not report.outcomes and not missing and output in ("text", "wide"):
        click.echo("Nothing to do: what is asked for is there.")
    _show(str(report.after.parent), report.outcomes, wrong, output)
    return 1 if failed or missing else 0


def _show(table: str, outcomes: Sequence[Outcome], others: Sequence[str], output: str) -> None:
    """What was made, and what went wrong: the outcomes' errors and ``others``."""
    made = [each.action for each in outcomes if each.error is None]
    wrong = [*(f"{each.action}: {each.error}" for each in outcomes if each.error), *others]
    if formats.is_data(output):
        created = [
            {"name": str(each), "from": iso(each.range.lower), "to": iso(each.range.upper)}
            for each in made
            if each.range
        ]
        formats.data({"table": table, "created": created, "errors": wrong}, output)
        return
    if output == "name":
        formats.names(map(str, made))
    else:
        for each in made:
            click.echo(render.printable(f"{each.past} {each.noun} {each}" + (_range(each) if output == "wide" else "")))
    for text in wrong:
        click.echo(render.printable(text), err=True)


def _range(action: Action) -> str:
    return f", from {iso(action.range.lower)} to {iso(action.range.upper)}" if action.range else ""
