"""``partwarden create`` and ``auto``: partitions that are made now, and nothing else that a policy may say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import click

from . import arguments, guessing, importing, manifest, periods, render
from .actions import Action, CreatePartition, DrainIntoPartition
from .connection import from_dsn
from .engine import Report, maintain, observe_and_plan
from .errors import InvalidSpec, PartwardenError
from .interval import Grid, Range, load_zone
from .plan import Plan
from .policy import Mode, Table, TableSpec
from .session import Session, session

PATIENCE = 10.0
"""Seconds in which locks must be had, all attempts together."""
MAKING = (CreatePartition, DrainIntoPartition)

dsn_option = click.option(
    "--dsn", required=True, help="Connection string or URI, completed by PGHOST, PGPASSWORD and so on."
)
table_option = click.option(
    "--table", callback=arguments.table, metavar="[SCHEMA.]NAME", help="Needed where there are several."
)
file_option = click.option("-f", "--filename", help="The table's PartitionPolicy; without it, the table tells.")


@click.command()
@click.argument("period")
@dsn_option
@table_option
@file_option
def create(period: str, dsn: str, table: dict[str, str] | None, filename: str | None) -> int:
    """Make the partitions of PERIOD now: 2027, 2027-Q1, 2027-03, 2027-W05 or 2027-03-09. Those that are there stay."""

    def wish(spec: TableSpec) -> TableSpec:
        wanted = periods.days(periods.parse(period), spec.interval)
        return spec.model_copy(update={"ensure": wanted})

    def chosen(spec: TableSpec, plan: Plan) -> list[Range]:
        return _cells(spec, plan, spec.ensure)

    return _run(dsn, table, filename, wish, chosen)


@click.command()
@click.argument("ahead", type=click.IntRange(0, 1000))
@dsn_option
@table_option
@file_option
def auto(ahead: int, dsn: str, table: dict[str, str] | None, filename: str | None) -> int:
    """Make the current partition and so many AHEAD of it now, where they are missing."""

    def wish(spec: TableSpec) -> TableSpec:
        return spec.model_copy(update={"premake": ahead, "ensure": []})

    def chosen(spec: TableSpec, plan: Plan) -> list[Range]:
        grid, cells = _grid(spec, plan), [plan.current]
        while len(cells) <= ahead:
            assert cells[-1].upper is not None
            cells.append(grid.cell(cells[-1].upper))
        return cells

    return _run(dsn, table, filename, wish, chosen)


def _grid(spec: TableSpec, plan: Plan) -> Grid:
    return Grid(spec.interval, load_zone(spec.timezone) if plan.codec.aware else None)


def _cells(spec: TableSpec, plan: Plan, days: list[str]) -> list[Range]:
    grid = _grid(spec, plan)
    return [grid.cell(grid.moment(periods.midnight(day))) for day in days]


def _run(
    dsn: str,
    table: dict[str, str] | None,
    filename: str | None,
    wish: Callable[[TableSpec], TableSpec],
    chosen: Callable[[TableSpec, Plan], list[Range]],
) -> int:
    try:
        with session(from_dsn(dsn)) as connection:
            # Whoever asks for a partition by hand wants it whatever mode a policy is in, and nothing retired by it.
            plain = {"mode": Mode.APPLY, "retention": None}
            spec = wish(_spec(connection, table, filename).model_copy(update=plain))
            inventory, plan = observe_and_plan(connection, spec)
            cells = chosen(spec, plan)
            actions = tuple(each for each in plan.actions if _is_for(each, cells))
            report = maintain(connection, spec, patience=PATIENCE, observed=(inventory, replace(plan, actions=actions)))
    except PartwardenError as error:
        raise click.ClickException(str(error)) from None
    return _say(report, cells)


def _is_for(action: Action, cells: list[Range]) -> bool:
    held = action.range
    return isinstance(action, MAKING) and held is not None and any(held.overlaps(cell) for cell in cells)


def _spec(connection: Session, table: dict[str, str] | None, filename: str | None) -> TableSpec:
    if filename is not None:
        return manifest.load(manifest.read(filename), filename, table=table, needs_database=False).spec
    found = importing.look(connection, Table.model_validate(table) if table else None)
    if len(found) == 1 and found[0].error:
        raise found[0].error
    known = [each for each in found if each.guess]
    if len(known) != 1:
        names = ", ".join(str(each.table) for each in known[:10])
        raise InvalidSpec(f"there are {len(known)} tables that can be managed: name one by --table ({names or 'none'})")
    assert known[0].guess is not None
    return guessing.spec(known[0].table, known[0].guess)


def _say(report: Report, cells: list[Range]) -> int:
    for each in report.outcomes:
        if each.error is None:
            click.echo(render.printable(f"{each.action.past} {each.action.noun} {each.action}"))
    failed = [each for each in report.outcomes if each.error]
    for each in failed:
        click.echo(render.printable(f"{each.action}: {each.error}"), err=True)
    missing = [each for each in report.after.missing if any(each.overlaps(cell) for cell in cells)]
    blocked = [each for each in report.after.findings if each.error] if missing and not failed else []
    for found in blocked:
        click.echo(render.printable(f"{found.reason} ({found.object}): {found.message}"), err=True)
    if not report.outcomes and not missing:
        click.echo("Nothing to do: what is asked for is there.")
    return 1 if failed or missing else 0
