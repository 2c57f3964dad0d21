"""``partwarden list``, ``stats`` and ``health``: what a table looks like now. They only read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click
import yaml

from . import arguments, guessing, importing, manifest, render, views
from .connection import from_dsn
from .details import human
from .engine import observe_and_plan
from .errors import InvalidSpec, PartwardenError
from .policy import Table, TableSpec
from .session import Session, session
from .views import Level, View

F = TypeVar("F", bound=Callable[..., Any])
OUTPUTS = ("table", "wide", "json", "yaml", "name")


def _options(*outputs: str) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in (
            click.option(
                "-o", "--output", type=click.Choice(outputs), default=outputs[0], help=f"Default: {outputs[0]}."
            ),
            click.option("-f", "--filename", help="The table's PartitionPolicy; without it, the table tells."),
            click.option("--table", callback=arguments.table, metavar="[SCHEMA.]NAME", help="This table only."),
            click.option(
                "--dsn", required=True, help="Connection string or URI, completed by PGHOST, PGPASSWORD and so on."
            ),
        ):
            command = option(command)
        return command

    return add


@click.command("list")
@_options(*OUTPUTS)
def list_(dsn: str, table: dict[str, str] | None, filename: str | None, output: str) -> int:
    """Partitions with their ranges, state, rows and size."""
    found = _views(dsn, table, filename)
    if output in ("json", "yaml"):
        _data([views.listed(each) for each in found], output)
        return 0
    for number, each in enumerate(found):
        if output == "name":
            click.echo("\n".join(map(render.printable, views.names(each))))
            continue
        if len(found) > 1:
            click.echo(("\n" if number else "") + render.printable(str(each.plan.parent)))
        click.echo("\n".join(line[2:] for line in render.table(views.rows(each, output == "wide"))))
    return 0


@click.command()
@_options("table", "json", "yaml")
def stats(dsn: str, table: dict[str, str] | None, filename: str | None, output: str) -> int:
    """Totals, the largest partition, skew, rows in DEFAULT by interval, runway."""
    found = [(each, views.measure(each)) for each in _views(dsn, table, filename)]
    if output != "table":
        _data([_statistics(view, measured) for view, measured in found], output)
        return 0
    for number, (view, measured) in enumerate(found):
        lines = [tuple(map(str, line)) for line in _lines(view, measured)]
        click.echo(("\n" if number else "") + render.printable(str(view.plan.parent)))
        click.echo("\n".join(render.table(lines)))
    return 0


def _statistics(view: View, measured: views.Statistics) -> dict[str, Any]:
    summary = measured.summary.model_dump(mode="json", by_alias=True, exclude_none=True)
    more = {"medianBytes": measured.median, "skew": round(measured.skew, 2), "default": measured.default or None}
    return {**views.heading(view), "summary": summary, **more}


def _lines(view: View, measured: views.Statistics) -> list[tuple[object, object]]:
    found = measured.summary
    largest = f"{found.largest.name}, {found.largest.size}" if found.largest else "-"
    runway = "for ever" if view.plan.covered_for_ever else f"{found.runway_days} days after the current interval"
    return [
        ("partitions", f"{found.partitions}, of which {found.managed} are exactly one {view.spec.interval}"),
        ("size", found.size),
        ("rows, estimated", "-" if found.rows is None else f"{found.rows:,}"),
        ("largest", largest),
        ("median", human(int(measured.median))),
        ("largest : median", f"{measured.skew:.1f}"),
        ("covered until", found.covered_until or "now is not covered"),
        ("runway", runway),
        ("in DEFAULT", measured.default or ("no rows" if view.inventory.default else "there is none")),
    ]


@click.command()
@_options("text", "json")
def health(dsn: str, table: dict[str, str] | None, filename: str | None, output: str) -> int:
    """For cron and probes: exits 0 when all is well, 1 on a warning, 2 when it is critical or nothing can be told."""
    try:
        found = [(each, views.health(each)) for each in _read(dsn, table, filename)]
    except PartwardenError as error:
        click.echo(json.dumps({"level": "CRITICAL", "error": str(error)}) if output == "json" else f"CRITICAL: {error}")
        return int(Level.CRITICAL)
    worst = max((level for _, wrong in found for level, _ in wrong), default=Level.OK)
    if output == "json":
        tables = [
            {**views.heading(view), "wrong": [{"level": level.name, "message": text} for level, text in wrong]}
            for view, wrong in found
        ]
        click.echo(json.dumps({"level": worst.name, "tables": tables}, ensure_ascii=False, indent=2))
        return int(worst)
    for view, wrong in found:
        if not wrong:
            click.echo(f"OK: {render.printable(views.summary_line(view))}")
        for level, text in wrong:
            click.echo(f"{level.name}: {render.printable(f'{view.plan.parent}: {text}')}")
    return int(worst)


def _views(dsn: str, table: dict[str, str] | None, filename: str | None) -> list[View]:
    try:
        return _read(dsn, table, filename)
    except PartwardenError as error:
        raise click.ClickException(str(error)) from None


def _read(dsn: str, table: dict[str, str] | None, filename: str | None) -> list[View]:
    """Of the policy's table, or of all that can be managed. Raises `PartwardenError`."""
    with session(from_dsn(dsn)) as connection:
        if filename is not None:
            policy = manifest.load(manifest.read(filename), filename, table=table, needs_database=False)
            return [_view(connection, policy.spec)]
        only = Table.model_validate(table) if table else None
        seen = importing.look(connection, only)
        if only and seen and seen[0].error:
            raise seen[0].error
        known = [_view(connection, guessing.spec(each.table, each.guess)) for each in seen if each.guess]
    if not known:
        raise InvalidSpec("no table here is partitioned by RANGE on one column that says when")
    return known


def _view(connection: Session, spec: TableSpec) -> View:
    inventory, plan = observe_and_plan(connection, spec)
    return View(spec, inventory, plan)


def _data(documents: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(documents, ensure_ascii=False, indent=2))
    else:
        click.echo(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True), nl=False)
