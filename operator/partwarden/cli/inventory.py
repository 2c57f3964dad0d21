"""``partwarden list``, ``stats`` and ``health``: what a table looks like now. They only read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from ..errors import PartwardenError
from ..postgres.connection import Session, session
from ..postgres.conninfo import from_dsn
from . import completion, database_tables, formats, policy_view, render, table_view
from .options import Target, target
from .table_view import Level, View

T = TypeVar("T")


@click.command("list", short_help="Partitions, with ranges, state, rows and size.")
@target(completion.policies, everywhere=True)
@click.option(
    "--archives",
    "url",
    metavar="URL",
    help="With --dsn: shows which of its partitions are archived there.",
)
@formats.option()
def list_(target: Target, url: str | None, output: str) -> int:
    """Partitions with their ranges, state, rows, size and archive: of POLICY, or of all in the namespace.

    A policy is shown as the operator saw it last. Exits 0, or 1 on an error.
    """
    if target.dsn is None:
        if url is not None:
            raise click.UsageError("--archives goes with --dsn: of a policy, its PartitionArchives tell")
        return _list_policies(target, output)
    where = database_tables.archives(url)
    found = _of_database(target, lambda _, view: view, detached=True)
    if formats.is_data(output):
        formats.data([table_view.listed(each, where) for each in found], output)
    elif output == "name":
        formats.names(each for view in found for each in table_view.names(view))
    else:
        for number, each in enumerate(found):
            _head(number, len(found), str(each.plan.parent))
            formats.table(table_view.rows(each, output == "wide", where if url else None))
    return 0


def _list_policies(target: Target, output: str) -> int:
    policies, found = _policies(target)
    archives = policies.archives()
    if formats.is_data(output):
        formats.data([policy_view.listed(each, archives) for each in found], output)
    elif output == "name":
        formats.names(each["name"] for policy in found for each in policy_view.partitions(policy))
    else:
        for number, each in enumerate(found):
            _head(number, len(found), policy_view.name(each))
            formats.table(policy_view.rows(each, archives, output == "wide"))
            if more := policy_view.unlisted(each):
                formats.line(more)
    return 0


@click.command(short_help="Totals, the largest, skew, DEFAULT, runway.")
@target(completion.policies, everywhere=True)
@click.option("--exact", is_flag=True, help="Count the rows of every partition: it reads them all.")
@formats.option()
def stats(target: Target, exact: bool, output: str) -> int:
    """Totals, the largest partition, skew, rows in DEFAULT by interval, runway; with --exact rows as they are.

    --exact asks the database, also of a policy: from here, by the policy's Secret. Exits 0, or 1 on an error.
    """
    if target.dsn is None and not exact:
        return _policy_statistics(target, output)
    found = _counted(target, exact)
    if formats.is_data(output):
        formats.data([table_view.statistics(*each) for each in found], output)
        return 0
    if output == "name":
        formats.names(str(view.plan.parent) for view, _, _ in found)
        return 0
    for number, (view, measured, counts) in enumerate(found):
        _head(number, 2, str(view.plan.parent))
        for line in render.table(table_view.lines(view, measured, counts)):
            click.echo(line)
        if counts or output == "wide":
            click.echo()
            formats.table(table_view.by_rows(view, counts))
    return 0


Counted = tuple[View, table_view.Statistics, dict[int, int]]


def _counted(target: Target, exact: bool) -> list[Counted]:
    def look(connection: Session, view: View) -> Counted:
        counts = database_tables.count(connection, view.inventory, formats.progress) if exact else {}
        return view, table_view.measure(view), counts

    try:
        return _of_database(target, look)
    finally:
        if exact:
            formats.progressed()


def _policy_statistics(target: Target, output: str) -> int:
    _, found = _policies(target)
    if formats.is_data(output):
        formats.data([policy_view.statistics(each) for each in found], output)
    elif output == "name":
        formats.names(map(policy_view.name, found))
    else:
        for number, each in enumerate(found):
            _head(number, 2, policy_view.name(each))
            for line in render.table(policy_view.lines(each)):
                click.echo(line)
    return 0


@click.command(short_help="An exit code for cron and probes.")
@target(completion.policies, everywhere=True)
@formats.option()
def health(target: Target, output: str) -> int:
    """For cron and probes: exits 0 when all is well, 1 on a warning, 2 when it is critical or nothing can be told.

    The first check is whether a partition holds now. -o wide shows what is well beside what is not.
    """
    try:
        found = _health(target)
    except PartwardenError as error:
        if formats.is_data(output):
            formats.data({"level": Level.CRITICAL.name, "error": str(error)}, output)
        else:
            formats.line(f"CRITICAL: {error}")
        return int(Level.CRITICAL)
    worst = max((level for _, _, wrong in found for level, _ in wrong), default=Level.OK)
    if formats.is_data(output):
        told = [
            {**about, "wrong": [{"level": level.name, "message": text} for level, text in wrong]}
            for about, _, wrong in found
        ]
        formats.data({"level": worst.name, "tables": told}, output)
    elif output == "name":
        formats.names([worst.name])
    else:
        for about, line, wrong in found:
            if not wrong or output == "wide":
                formats.line(f"OK: {line}")
            for level, text in wrong:
                formats.line(f"{level.name}: {_subject(about)}: {text}")
    return int(worst)


Health = tuple[dict[str, Any], str, list[tuple[Level, str]]]
"""What it is of, a line that says how it stands, and what is wrong."""


def _health(target: Target) -> list[Health]:
    if target.dsn is not None:
        return _of_database(
            target, lambda _, view: (table_view.heading(view), table_view.summary_line(view), table_view.health(view))
        )
    now = datetime.now(UTC)
    return [
        (policy_view.heading(each), policy_view.summary_line(each), policy_view.health(each, now))
        for each in _policies(target)[1]
    ]


def _subject(about: dict[str, Any]) -> str:
    policy = about.get("policy")
    return f"{policy['namespace']}/{policy['name']}" if policy else str(about["table"])


def _head(number: int, count: int, name: str) -> None:
    """Of one table among several, with an empty line between two."""
    if count > 1:
        click.echo(("\n" if number else "") + render.printable(name))


def _of_database(target: Target, look: Callable[[Session, View], T], detached: bool = False) -> list[T]:
    """What ``look`` makes of each table, while the connection is there. Of a policy, by its Secret."""
    if target.dsn is not None:
        with session(from_dsn(target.dsn)) as connection:
            return [
                look(connection, each)
                for each in database_tables.views(connection, target.table, target.filename, detached)
            ]
    policies, found = _policies(target)
    made = []
    for policy in found:
        with session(policies.connection(policy)) as connection:
            made.append(look(connection, database_tables.view(connection, policies.spec(policy))))
    return made


def _policies(target: Target) -> tuple[Any, list[dict[str, Any]]]:
    # Here, for a database needs no Kubernetes client, which takes long to load.
    from . import cluster_policies

    policies = cluster_policies.Policies(target.where)
    return policies, [policies.one(target.policy)] if target.policy else policies.all()
