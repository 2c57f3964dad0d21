"""``partwarden list``, ``stats``, ``health`` and ``explain``: a table as it is now. They only read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import click
import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus

from ..api.status import PartitionStatus
from ..errors import InvalidSpec
from ..planner.findings import quoted
from ..planner.inventory import Partition
from ..postgres.connection import Session, run
from ..postgres.errors import message
from ..postgres.inspection import count_all
from ..postgres.settings import LIMITS, setting
from ..postgres.transaction import reading, undo
from ..status.details import partitions_of
from . import formats, options, policies
from .options import Target, target
from .policies import Policies, observe_target
from .tables import ObservedTable, TableView, ends
from .terminal import archives_at


@click.command("list", short_help="Partitions, with ranges, state, rows and size.")
@target(everywhere=True)
@options.archives
@formats.option()
def list_(target: Target, url: str | None, output: str) -> int:
    """Partitions with their ranges, state, rows, size and archive: of POLICY, or of all in the namespace.

    A policy is shown as the operator observed it last. Exits 0, or 1 on an error.
    """
    views = table_views(target, archives_at(target, url), listed=True)
    if formats.is_data(output):
        formats.data([each.document() for each in views], output)
    elif output == "name":
        formats.names(each.name for view in views for each in view.status.partitions)
    else:
        for number, view in enumerate(views):
            _print_heading(number, len(views), view.name)
            formats.table(view.rows(output == "wide"))
            formats.names((*view.notes, *view.dates.notes))
    return 0


@click.command(short_help="Totals, the largest, skew, DEFAULT, runway.")
@target(everywhere=True)
@click.option("--exact", is_flag=True, help="Count the rows of every partition: it reads them all.")
@formats.option()
def stats(target: Target, exact: bool, output: str) -> int:
    """Totals, the largest partition, skew, rows in DEFAULT by interval, runway; with --exact rows as they are.

    --exact asks the database, also of a policy: from here, by the policy's Secret. Exits 0, or 1 on an error.
    """
    views = observe_target(target, _count) if exact else [(each, dict[str, int]()) for each in table_views(target)]
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


def table_views(target: Target, archives: Mapping[int, str] | None = None, *, listed: bool = False) -> list[TableView]:
    """``listed``: with detached tables and the archives of policies. ``archives``: those of tables, by OID."""
    if target.dsn is not None:
        return observe_target(target, lambda _, tables: [each.view(archives) for each in tables], detached=listed)
    cluster, now = Policies(target), datetime.now(UTC)
    found = cluster.chosen()
    known = cluster.archives() if listed else []
    return [policies.view(each, now, known) for each in found]


def _count(connection: Session, tables: list[ObservedTable]) -> list[tuple[TableView, dict[str, int]]]:
    """The tables, and the rows of each partition by its name, each counted by itself."""
    counted = []
    try:
        for table in tables:
            counts: dict[str, int] = {}
            partitions = [(name, each) for name, each in table.named() if isinstance(each, Partition)]
            for number, (name, each) in enumerate(partitions, 1):
                formats.progress(f"counting {each}, {number} of {len(partitions)}")
                counts[name] = count_all(connection, each)
            counted.append((table.view(), counts))
    finally:
        formats.progress()
    return counted


def _print_heading(number: int, count: int, name: str) -> None:
    """Of one table among several, with an empty line between two."""
    if count > 1:
        click.echo(("\n" if number else "") + formats.printable(name))


# What a query reads, by PostgreSQL's plan: https://www.postgresql.org/docs/current/ddl-partitioning.html

CONDITIONS = ("Filter", "Index Cond", "Recheck Cond", "Hash Cond", "Merge Cond", "Join Filter", "TID Cond")
COMPARED = r"(?:=|<|<=|>|>=)"


@dataclass(frozen=True, slots=True)
class Reading:
    """The partitions that a query reads. ``read``: their names, as ``schema.name``; ``total``: how many the table has;
    ``removed``: how many of the plan are left out when it starts, as values of that moment say; ``conditions``: those
    on the partitions that it reads; ``why``: what keeps it from reading fewer, and what else is worth knowing."""

    read: frozenset[str]
    total: int
    removed: int
    conditions: tuple[str, ...]
    why: tuple[str, ...]

    @property
    def prunes(self) -> bool:
        """Whether some partition is left out, or there is only one."""
        return len(self.read) < self.total or self.total < 2


def judge(plan: Mapping[str, Any], tops: Mapping[str, str], default: str | None, key: str, enabled: bool) -> Reading:
    """``plan`` is that of EXPLAIN (FORMAT JSON, VERBOSE). ``tops``: every table below the partitioned one, and the
    partition that it is, or is below of, by ``schema.name``; ``default`` is the DEFAULT partition's. ``enabled``:
    whether enable_partition_pruning is on."""
    read, conditions, removed, inserts = set[str](), dict[str, None](), 0, False
    for node in _nodes(plan):
        name = f"{node.get('Schema')}.{node.get('Relation Name')}"
        removed += int(node.get("Subplans Removed", 0))
        if node["Node Type"] == "ModifyTable":
            inserts = inserts or node.get("Operation") == "Insert"
        elif name in tops:
            read.add(tops[name])
            conditions |= dict.fromkeys(_conditions(node))
    reading = Reading(frozenset(read), len(set(tops.values())), removed, tuple(conditions), ())
    inserted = ["it inserts: each row goes to the one partition that holds its key"] if inserts and not read else None
    return replace(reading, why=tuple(inserted or _why(reading, key, enabled, default)))


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)


def _conditions(node: Mapping[str, Any]) -> Iterator[str]:
    """Without the partition's alias: they differ in nothing else."""
    alias = rf'(?<![\w"]){re.escape(_quoted(node.get("Alias", "")))}\.'
    return (re.sub(alias, "", str(node[kind])) for kind in CONDITIONS if kind in node)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else quoted(name)


def _why(reading: Reading, key: str, enabled: bool, default: str | None) -> Iterator[str]:
    """``own``: the key itself, compared with something; ``other``: a column of another table, a parameter, or what a
    subquery returns."""
    own = rf'(?<![\w".]){re.escape(_quoted(key))}(?![\w"])'
    other = r'(?:\$\d+|(?<![\w"])[\w"]+\.[\w"]+|\(InitPlan|\(SubPlan)'
    about = [each for each in reading.conditions if re.search(own, each)]
    waiting = [each for each in about if re.search(rf"{own} {COMPARED} \(?{other}|{other}\)? {COMPARED} {own}", each)]
    if not enabled:
        yield "enable_partition_pruning is off for this role: SET enable_partition_pruning = on"
    if reading.removed:
        moment = "when it starts: the values that rule them out are known then"
        yield f"{reading.removed} of them are left out only {moment}"
    if waiting:
        yield f"which of them are read is decided while it runs, by values of that moment: {waiting[0]}"
    if reading.prunes or not enabled:
        if default is not None and default in reading.read and len(reading.read) > 1:
            yield f"{default} is read too: it is DEFAULT, and holds whatever no other partition does"
    elif not about:
        yield f"no condition is on {key}, so any partition may hold rows that match"
    elif not any(re.search(rf"\({own} {COMPARED} |{COMPARED} {own}\)|\({own} IS ", each) for each in about):
        yield (
            f"{key} stands inside an expression, which says nothing of the bounds: {about[0]}; compare {key} itself, "
            f"as in {key} >= … AND {key} < …"
        )
    elif not waiting:
        yield f"the condition rules no partition out: {about[0]}"


READS_ALL = 2
GENERIC = 160000
"""From that version on parameters need no values to be planned."""
SETTING = setting(LIMITS | {"statement_timeout": "30s", "lock_timeout": "5s"})
OURS = setting({"search_path": "pg_catalog, pg_temp"})
"""Names in the query are found as the role finds them, those in Partwarden's own questions in no schema of users."""
BELOW = """
WITH RECURSIVE found AS (
    SELECT inhrelid AS oid, inhrelid AS top FROM pg_catalog.pg_inherits WHERE inhparent = {parent}
    UNION ALL SELECT i.inhrelid, f.top FROM pg_catalog.pg_inherits i JOIN found f ON i.inhparent = f.oid
)
SELECT n.nspname || '.' || c.relname, tn.nspname || '.' || t.relname FROM found f
JOIN pg_catalog.pg_class c ON c.oid = f.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class t ON t.oid = f.top JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
"""
USED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND relation = {parent}),
       pg_catalog.current_setting('enable_partition_pruning') = 'on'
"""


@click.command(short_help="Whether a query prunes, and why not.")
@click.argument("query", metavar="SQL")
@target()
@formats.option()
def explain(target: Target, query: str, output: str) -> int:
    """Whether a query prunes, which partitions it reads, and why not fewer. It is planned and never executed.

    Of POLICY, the database is asked from here, by the policy's Secret. -o wide shows the conditions. Exits 0 when it
    prunes, 2 when it reads every partition, 1 on an error.
    """
    explained = observe_target(target, partial(_explain, query), only_one=True)
    if formats.is_data(output):
        formats.data([_document(*each) for each in explained], output)
    elif output == "name":
        formats.names(name for table, reading in explained for name, _ in _read(table, reading))
    else:
        for each in explained:
            _print(*each, wide=output == "wide")
    return 0 if all(reading.prunes for _, reading in explained) else READS_ALL


def _explain(query: str, connection: Session, tables: list[ObservedTable]) -> list[tuple[ObservedTable, Reading]]:
    """Those of the tables that the query uses. Raises `InvalidSpec` where PostgreSQL does not plan it, or there is
    none."""
    explained = []
    try:
        role = _role(connection, query, tables)
        # READ ONLY: whatever planning calls, such as functions in constants, cannot write either.
        run(connection, "BEGIN READ ONLY", SETTING, *role)
        plan = _plan(connection, query)
        for table in tables:
            oid, key = table.plan.parent.oid, table.plan.key
            asked = (sql.SQL(each).format(parent=oid) for each in (USED, BELOW))
            _, ((locked, enabled),), below = run(connection, OURS, *asked)
            if locked:
                default = next((str(each) for each in table.inventory.partitions if each.range is None), None)
                explained.append((table, judge(plan, dict(below), default, key, enabled)))
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError, psycopg.InternalError) as error:
        raise InvalidSpec(f"the query cannot be planned: {message(error)}") from None
    finally:
        undo(connection)
    if not explained:
        names = ", ".join(str(each.plan.parent) for each in tables)
        raise InvalidSpec(f"the query does not use {names}")
    return explained


def _role(connection: Session, query: str, tables: list[ObservedTable]) -> list[sql.Composable]:
    """Become the owner of the tables that the query uses: to plan calls functions of indexes and constraints, if only
    with constants. Raises `InvalidSpec` where they have several, and psycopg's errors of the query."""
    roles = _by_role(tables)
    if len(roles) > 1:
        run(connection, "BEGIN READ ONLY", SETTING)
        # To parse locks the tables, and calls nothing of them.
        parsed = connection.pgconn.prepare(b"", query.strip().rstrip(";").encode())
        if parsed.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(parsed, "utf-8")
        asked = [sql.SQL(USED).format(parent=each.plan.parent.oid) for each in tables]
        _, *found = run(connection, OURS, *asked)
        used = [each for each, ((locked, _),) in zip(tables, found, strict=True) if locked]
        undo(connection)
        roles = _by_role(used)
    if len(roles) > 1:
        names = ", ".join(f"{each[0].plan.parent} of {role or 'the login'!r}" for role, each in sorted(roles.items()))
        raise InvalidSpec(
            f"the query uses tables of several owners ({names}), and functions of one must not run with the rights of "
            "all: connect as a role that may read them, and is a member of none of those"
        )
    return [part for _, (first, *_) in roles.items() for part in reading(first.plan.parent)]


def _by_role(tables: Iterable[ObservedTable]) -> dict[str, list[ObservedTable]]:
    """By the role that is to be become for each, "" for none."""
    found: dict[str, list[ObservedTable]] = {}
    for each in tables:
        parent = each.plan.parent
        found.setdefault(parent.owner if reading(parent) else "", []).append(each)
    return found


def _plan(connection: Session, query: str) -> Any:
    options, parameters = "FORMAT JSON, VERBOSE, COSTS OFF", re.search(r"\$\d", query)
    statement = query.strip().rstrip(";")
    if parameters and connection.info.server_version < GENERIC:
        raise InvalidSpec(
            "the query has parameters like $1: put values in their place; only PostgreSQL 16 or later plans it without"
        )
    if parameters and ";" in statement:
        raise InvalidSpec("the query has parameters and a semicolon: give one statement")
    if parameters:
        options += ", GENERIC_PLAN"
    # Not composed by psycopg: a query may hold percent signs and braces. With a binary result it is sent in the
    # extended protocol, which takes one statement and no more, but no parameters without values.
    text = f"EXPLAIN ({options}) {statement}"
    with connection.cursor(binary=not parameters) as cursor:
        cursor.execute(text.encode())
        row = cursor.fetchone()
    assert row is not None
    return row[0][0]["Plan"]


def _read(table: ObservedTable, reading: Reading) -> list[tuple[str, PartitionStatus]]:
    """The partitions that are read, ascending, as ``schema.name``."""
    names = {name: str(each) for name, each in table.named()}
    ascending = [(names[each.name], each) for each in partitions_of(table.inventory, table.plan)]
    return [(name, each) for name, each in ascending if name in reading.read]


def _document(table: ObservedTable, reading: Reading) -> dict[str, Any]:
    return {
        "table": str(table.plan.parent),
        "key": table.plan.key,
        "prunes": reading.prunes,
        "partitions": reading.total,
        "read": [{"name": name, "from": each.from_, "to": each.to} for name, each in _read(table, reading)],
        "leftOutAtStart": reading.removed,
        "conditions": list(reading.conditions),
        "why": list(reading.why),
    }


def _print(table: ObservedTable, reading: Reading, wide: bool) -> None:
    count, word = len(reading.read), "prunes" if reading.prunes else "does not prune"
    counted = f"{count} of {reading.total} partitions {'is' if count == 1 else 'are'} read"
    conditions = [f"condition {each}" for each in reading.conditions if wide]
    formats.names([f"{table.plan.parent} by {table.plan.key}: it {word}: {counted}"])
    formats.names(f"  {text}" for text in (*reading.why, *conditions))
    if read := _read(table, reading):
        dates = table.view().dates
        formats.table([("READ", "FROM", "TO"), *((name, *ends(each, dates)) for name, each in read)])
