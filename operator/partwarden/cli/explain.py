"""``partwarden explain``: which partitions a query reads, and why not fewer. It is planned, never executed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

import click
import psycopg
from psycopg import sql

from ..errors import InvalidSpec
from ..planner.calendar import iso
from ..planner.inventory import Partition
from ..postgres.connection import Session, run, session
from ..postgres.conninfo import from_dsn
from ..postgres.errors import message
from ..postgres.settings import LIMITS, setting
from ..postgres.transaction import reading, undo
from ..status.details import partitions_of
from . import database_tables, formats
from .database_tables import ObservedTable
from .formats import printable
from .options import Target, TargetOptions, target

# PostgreSQL's plan of a query -> the partitions that it reads, and why not fewer. Pure.
#
# https://www.postgresql.org/docs/current/ddl-partitioning.html#DDL-PARTITION-PRUNING
#

CONDITIONS = ("Filter", "Index Cond", "Recheck Cond", "Hash Cond", "Merge Cond", "Join Filter", "TID Cond")
COMPARED = r"(?:=|<|<=|>|>=)"


@dataclass(frozen=True, slots=True)
class Reading:
    """``read``: names of the table's partitions that the plan reads, as ``schema.name``; ``total``: how many there are.

    ``removed``: how many were in the plan and are left out when it starts, as values of that moment say.
    """

    read: frozenset[str]
    total: int
    removed: int
    conditions: tuple[str, ...]
    """Those on the partitions that it reads, without repetition."""
    why: tuple[str, ...]
    """What keeps it from reading fewer, and what else is worth knowing; sentences."""

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
    if inserts and not read:
        return replace(reading, why=("it inserts: each row goes to the one partition that holds its key",))
    return replace(reading, why=tuple(_why(reading, key, enabled, default)))


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)


def _conditions(node: Mapping[str, Any]) -> Iterator[str]:
    """Without the partition's alias: they differ in nothing else."""
    alias = rf'(?<![\w"]){re.escape(_quoted(node.get("Alias", "")))}\.'
    return (re.sub(alias, "", str(node[kind])) for kind in CONDITIONS if kind in node)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _why(reading: Reading, key: str, enabled: bool, default: str | None) -> Iterator[str]:
    """``own``: the key itself, compared with something; ``other``: a column of another table, a parameter, or what a
    subquery returns."""
    own, other = (
        rf'(?<![\w".]){re.escape(_quoted(key))}(?![\w"])',
        r'(?:\$\d+|(?<![\w"])[\w"]+\.[\w"]+|\(InitPlan|\(SubPlan)',
    )
    about = [each for each in reading.conditions if re.search(own, each)]
    waiting = [each for each in about if re.search(rf"{own} {COMPARED} \(?{other}|{other}\)? {COMPARED} {own}", each)]
    if not enabled:
        yield "enable_partition_pruning is off for this role: SET enable_partition_pruning = on"
    if reading.removed:
        removed = f"{reading.removed} of them are left out only when it starts"
        yield f"{removed}: the values that rule them out are known then"
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
def explain(query: str, output: str, **given: Unpack[TargetOptions]) -> int:
    """Whether a query prunes, which partitions it reads, and why not fewer. It is planned and never executed.

    Of POLICY, the database is asked from here, by the policy's Secret. -o wide shows the conditions. Exits 0 when it
    prunes, 2 when it reads every partition, 1 on an error.
    """
    target = Target.of(given)
    if target.dsn is not None:
        with session(from_dsn(target.dsn)) as connection:
            tables = database_tables.tables(connection, target.table, target.filename)
            explained = _explain(connection, query, tables)
    else:
        # Here, for a database needs no Kubernetes client, which takes long to load.
        from . import cluster_policies

        policies = cluster_policies.Policies(target.where)
        policy = policies.one(target.policy)
        with session(policies.connection(policy)) as connection:
            explained = _explain(connection, query, [database_tables.observe(connection, policies.spec(policy))])
    if formats.is_data(output):
        formats.data([_document(*each) for each in explained], output)
    elif output == "name":
        formats.names(str(each) for table, reading in explained for each in _read(table, reading))
    else:
        for each in explained:
            _print(*each, wide=output == "wide")
    return 0 if all(reading.prunes for _, reading in explained) else READS_ALL


Explained = tuple[ObservedTable, Reading]


def _explain(connection: Session, query: str, tables: list[ObservedTable]) -> list[Explained]:
    """Of each of the tables that the query uses. Raises `InvalidSpec` where PostgreSQL does not plan it, or it uses
    none of them."""
    try:
        # READ ONLY: whatever planning calls, such as functions in constants, cannot write either.
        # As the owner, where that is one: to plan calls functions of indexes and constraints, if only with constants.
        owners = {each.plan.parent.owner: reading(each.plan.parent) for each in tables}
        run(connection, "BEGIN READ ONLY", SETTING, *(next(iter(owners.values())) if len(owners) == 1 else ()))
        plan = _plan(connection, query)
        explained = [each for table in tables if (each := _judge(connection, plan, table))]
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError, psycopg.InternalError) as error:
        raise InvalidSpec(f"the query cannot be planned: {message(error)}") from None
    finally:
        undo(connection)
    if not explained:
        names = ", ".join(str(each.plan.parent) for each in tables)
        raise InvalidSpec(f"the query does not use {names}")
    return explained


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


def _judge(connection: Session, plan: Any, table: ObservedTable) -> Explained | None:
    parent = table.plan.parent
    used, below = run(connection, *(sql.SQL(each).format(parent=parent.oid) for each in (USED, BELOW)))
    ((locked, enabled),) = used
    if not locked:
        return None
    default = next((str(each) for each in table.inventory.partitions if each.range is None), None)
    return table, judge(plan, dict(below), default, table.plan.key, enabled)


def _read(table: ObservedTable, reading: Reading) -> list[Partition]:
    partitions = dict(table.named())
    ascending = [partitions[each.name] for each in partitions_of(table.inventory, table.plan)]
    return [each for each in ascending if isinstance(each, Partition) and str(each) in reading.read]


def _document(table: ObservedTable, reading: Reading) -> dict[str, Any]:
    read = [
        {"name": str(each), "from": iso(each.range.lower) if each.range else None}
        | {"to": iso(each.range.upper) if each.range else None}
        for each in _read(table, reading)
    ]
    return {
        "table": str(table.plan.parent),
        "key": table.plan.key,
        "prunes": reading.prunes,
        "partitions": reading.total,
        "read": read,
        "leftOutAtStart": reading.removed,
        "conditions": list(reading.conditions),
        "why": list(reading.why),
    }


def _print(table: ObservedTable, reading: Reading, wide: bool) -> None:
    count, total = len(reading.read), reading.total
    verb = "is" if count == 1 else "are"
    word = "prunes" if reading.prunes else "does not prune"
    line = f"{table.plan.parent} by {table.plan.key}: it {word}: {count} of {total} partitions {verb} read"
    click.echo(printable(line))
    for text in (*reading.why, *(f"condition {each}" for each in reading.conditions if wide)):
        click.echo(printable(f"  {text}"))
    rows = [("READ", "FROM", "TO")]
    for each in _read(table, reading):
        lower, upper = (iso(each.range.lower), iso(each.range.upper)) if each.range else ("DEFAULT", "")
        rows.append((str(each), lower or "MINVALUE", "MAXVALUE" if upper is None else upper))
    if len(rows) > 1:
        formats.table(rows)
