"""Rows that point to large objects: a dump of one table holds their OIDs, and none of their contents.

A value counts where it is the OID of a large object that exists: in a column of type oid, of a domain over it such as
``lo`` of the extension, of an array of those, or of a composite type that has one. A number in a column of another type
may be such an OID too, by an agreement that stands in no catalog: that is not found here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from ..api.policy import TableSpec
from ..api.retention import OnLargeObjects
from ..errors import InsufficientPrivilege
from ..planner.actions import DetachPartition, DropDetached
from ..planner.archive_gate import ArchiveRequest
from ..planner.inventory import Inventory
from ..planner.plan import Plan
from .connection import Session, run
from .transaction import read_only, reading_rows

MOST = 20
"""Tables that one plan reads; the Job that archives them reads the rest."""
SAMPLE = 10_000
"""Rows of each that a plan reads. The Job, and the drop under its lock, read all."""
TIMEOUT = "1s"
OID = 26  # of the type oid, in every release

EXIST = "SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)"

# What is computed whenever it is read is not stored, and runs functions.
COLUMNS = """
SELECT a.attrelid::pg_catalog.int8 AS oid, n.nspname AS schema, c.relname AS name, a.attname AS column,
       a.atttypid::pg_catalog.int8 AS type
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE a.attrelid = ANY ({oids}::pg_catalog.oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
ORDER BY a.attrelid, a.attnum
"""
# Types of users are made from others; PostgreSQL's own are read only where they are arrays. ``field``: NULL for what a
# domain or an array is of.
TYPES = """
WITH RECURSIVE parts(type, field, part) AS NOT MATERIALIZED (
  SELECT t.oid, NULL::pg_catalog.name, CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
  FROM pg_catalog.pg_type t WHERE t.typtype = 'd' OR (t.typelem <> 0 AND t.typlen = -1)
  UNION ALL
  SELECT t.oid, a.attname, a.atttypid FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
  WHERE t.typtype = 'c'
), used(type) AS (
  SELECT DISTINCT atttypid FROM pg_catalog.pg_attribute
  WHERE attrelid = ANY ({oids}::pg_catalog.oid[]) AND attnum > 0 AND NOT attisdropped
  UNION
  SELECT p.part FROM used u JOIN parts p ON p.type = u.type
)
SELECT t.oid::pg_catalog.int8 AS type, t.typtype::pg_catalog.text AS kind, p.field, p.part::pg_catalog.int8
FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.type JOIN parts p ON p.type = u.type
"""
FOUND = """
SELECT EXISTS (SELECT FROM {rows} t WHERE EXISTS (
  SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE {condition}))
"""


Ask = Callable[..., list[list[Any]]]


def find(connection: Session, spec: TableSpec, inventory: Inventory, plan: Plan) -> Inventory:
    """Find what points to large objects in tables that are to be archived, or dropped because they were.

    One round trip where the database has no large objects, else two, and one more for each table that has such a
    column, of which some rows are read. Raises psycopg's errors.
    """
    retention = spec.retention
    if retention is None or retention.archive is None or retention.large_objects is OnLargeObjects.LEAVE_OUT:
        return inventory
    asked = [each.oid for each in plan.requests if isinstance(each, ArchiveRequest)]
    leaving = [each.oid for each in plan.due if isinstance(each, DetachPartition | DropDetached)]
    oids = [*asked, *leaving]
    if not oids or not run(connection, EXIST)[0][0][0]:
        return inventory

    catalog = partial(read_only, connection, statement_timeout=TIMEOUT)
    found: dict[int, tuple[str, ...]] = {}
    for (oid, schema, name), conditions in islice(_candidates(catalog, oids).items(), MOST):
        rows = SQL("(SELECT * FROM ONLY {} LIMIT {})").format(Identifier(schema, name), SAMPLE)
        try:
            with reading_rows(connection, schema, name, lock_timeout="500ms", statement_timeout=TIMEOUT):
                pointing = _pointing(partial(run, connection), conditions, rows)
        except (psycopg.Error, InsufficientPrivilege):
            if connection.closed:
                raise
            continue
        if pointing:
            found[oid] = pointing
    return replace(inventory, large_objects=found) if found else inventory


def columns(connection: psycopg.Connection[Any], oid: int, schema: str, name: str) -> tuple[str, ...]:
    """The columns of the table that hold OIDs of large objects, of all its rows, in the transaction that is open.

    Reads the table where it has such a column and the database has large objects. Raises psycopg's errors.
    """
    ask = partial(run, connection)
    if not ask(EXIST)[0][0][0] or not (candidates := _candidates(ask, [oid])):
        return ()
    ((_, conditions),) = candidates.items()
    return _pointing(ask, conditions, SQL("ONLY {}").format(Identifier(schema, name)))


def _pointing(ask: Ask, conditions: Mapping[str, Composable], rows: Composable) -> tuple[str, ...]:
    answers = ask(*(SQL(FOUND).format(rows=rows, condition=each) for each in conditions.values()))
    return tuple(column for column, ((found,),) in zip(conditions, answers, strict=True) if found)


def _candidates(ask: Ask, oids: list[int]) -> Mapping[tuple[int, str, str], Mapping[str, Composable]]:
    """Columns whose type holds OIDs, by table; each with a condition over a row ``t`` and a large object ``m``."""
    columns, parts = ask(SQL(COLUMNS).format(oids=oids), SQL(TYPES).format(oids=oids))
    types: dict[int, list[Any]] = {}
    for part in parts:
        types.setdefault(part.type, []).append(part)
    found: dict[tuple[int, str, str], dict[str, Composable]] = {}
    for each in columns:
        if conditions := list(_conditions(SQL("t.{}").format(Identifier(each.column)), each.type, types)):
            found.setdefault((each.oid, each.schema, each.name), {})[each.column] = SQL(" OR ").join(conditions)
    return found


def _conditions(value: Composable, type_: int, types: Mapping[int, Sequence[Any]]) -> Iterator[Composable]:
    """When the value holds the OID of ``m``."""
    if type_ == OID:
        yield SQL("m.oid OPERATOR(pg_catalog.=) ({})::pg_catalog.oid").format(value)
        return
    for held in types.get(type_, ()):
        if held.field is not None:
            yield from _conditions(SQL("({}).{}").format(value, Identifier(held.field)), held.part, types)
        elif held.kind == "d":
            yield from _conditions(value, held.part, types)
        else:
            for condition in _conditions(SQL("e.v"), held.part, types):
                element = SQL("EXISTS (SELECT FROM (SELECT pg_catalog.unnest({}) AS v) e WHERE {})")
                yield element.format(value, condition)
