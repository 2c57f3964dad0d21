"""``partwarden list``, ``stats`` and ``health``: a table as it is now. They only read."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Unpack

import click

from ..errors import PartwardenError
from ..postgres.connection import Session, session
from ..postgres.conninfo import from_dsn
from . import database_tables, formats, policy_view
from .database_tables import ObservedTable
from .options import Target, TargetOptions, target
from .table_view import Level, TableView


@click.command("list", short_help="Partitions, with ranges, state, rows and size.")
@target(everywhere=True)
@click.option(
    "--archives",
    "url",
    metavar="URL",
    help="With --dsn: shows which of its partitions are archived there.",
)
@formats.option()
def list_(url: str | None, output: str, **given: Unpack[TargetOptions]) -> int:
    """Partitions with their ranges, state, rows, size and archive: of POLICY, or of all in the namespace.

    A policy is shown as the operator observed it last. Exits 0, or 1 on an error.
    """
    target = Target.of(given)
    if target.dsn is None and url is not None:
        raise click.UsageError("--archives goes with --dsn: a policy's archives are its PartitionArchives")
    if target.dsn is None:
        views = _policy_views(target, archives=True)
    else:
        archives = database_tables.archives(url) if url else None
        with closing(_observe(target, detached=True)) as tables:
            views = [each.view(archives) for _, each in tables]
    if formats.is_data(output):
        formats.data([each.document() for each in views], output)
    elif output == "name":
        formats.names(each.name for view in views for each in view.status.partitions)
    else:
        for number, view in enumerate(views):
            _print_heading(number, len(views), view.name)
            formats.table(view.rows(output == "wide"))
            for note in view.notes:
                formats.line(note)
    return 0


@click.command(short_help="Totals, the largest, skew, DEFAULT, runway.")
@target(everywhere=True)
@click.option("--exact", is_flag=True, help="Count the rows of every partition: it reads them all.")
@formats.option()
def stats(exact: bool, output: str, **given: Unpack[TargetOptions]) -> int:
    """Totals, the largest partition, skew, rows in DEFAULT by interval, runway; with --exact rows as they are.

    --exact asks the database, also of a policy: from here, by the policy's Secret. Exits 0, or 1 on an error.
    """
    target = Target.of(given)
    views = _counted(target, exact) if target.dsn or exact else [(each, {}) for each in _policy_views(target)]
    if formats.is_data(output):
        formats.data([view.statistics(counts) for view, counts in views], output)
    elif output == "name":
        formats.names(view.name for view, _ in views)
    else:
        for number, (view, counts) in enumerate(views):
            _print_heading(number, 2, view.name)
            formats.table(view.lines(counts), heading=False, indent=2)
            if counts or (output == "wide" and not view.of_policy):
                click.echo()
                formats.table(view.by_rows(counts))
    return 0


Counted = tuple[TableView, dict[str, int]]


def _counted(target: Target, exact: bool) -> list[Counted]:
    try:
        with closing(_observe(target)) as tables:
            return [
                (each.view(), database_tables.count(connection, each, formats.progress) if exact else {})
                for connection, each in tables
            ]
    finally:
        if exact:
            formats.progressed()


@click.command(short_help="An exit code for cron and probes.")
@target(everywhere=True)
@formats.option()
def health(output: str, **given: Unpack[TargetOptions]) -> int:
    """For cron and probes: exits 0 when all is well, 1 on a warning, 2 when it is critical or cannot be found out.

    The first check is whether a partition holds now. -o wide shows what is well beside what is not.
    """
    target = Target.of(given)
    try:
        if target.dsn is None:
            views = _policy_views(target)
        else:
            with closing(_observe(target)) as tables:
                views = [each.view() for _, each in tables]
    except PartwardenError as error:
        if formats.is_data(output):
            formats.data({"level": Level.CRITICAL.name, "error": str(error)}, output)
        else:
            formats.line(f"CRITICAL: {error}")
        return int(Level.CRITICAL)
    worst = max((level for view in views for level, _ in view.problems), default=Level.OK)
    if formats.is_data(output):
        about = [
            {**view.heading, "wrong": [{"level": level.name, "message": text} for level, text in view.problems]}
            for view in views
        ]
        formats.data({"level": worst.name, "tables": about}, output)
    elif output == "name":
        formats.names([worst.name])
    else:
        for view in views:
            if not view.problems or output == "wide":
                formats.line(f"OK: {view.summary_line()}")
            for level, text in view.problems:
                formats.line(f"{level.name}: {view.name}: {text}")
    return int(worst)


def _print_heading(number: int, count: int, name: str) -> None:
    """Of one table among several, with an empty line between two."""
    if count > 1:
        click.echo(("\n" if number else "") + formats.printable(name))


def _observe(target: Target, detached: bool = False) -> Generator[tuple[Session, ObservedTable]]:
    """Each table, and its connection, which is open until the next one is asked for. A policy's is by its Secret."""
    if target.dsn is not None:
        with session(from_dsn(target.dsn)) as connection:
            for table in database_tables.tables(connection, target.table, target.filename, detached):
                yield connection, table
        return
    policies, objects = _policies(target)
    for policy in objects:
        with session(policies.connection(policy)) as connection:
            yield connection, database_tables.observe(connection, policies.spec(policy))


def _policy_views(target: Target, archives: bool = False) -> list[TableView]:
    policies, objects = _policies(target)
    known, now = policies.archives() if archives else [], datetime.now(UTC)
    return [policy_view.view(each, now, known) for each in objects]


def _policies(target: Target) -> tuple[Any, list[dict[str, Any]]]:
    # Here, for a database needs no Kubernetes client, which takes long to load.
    from . import cluster_policies

    policies = cluster_policies.Policies(target.where)
    return policies, [policies.one(target.policy)] if target.policy else policies.all()
