"""Rows that point to large objects: a dump of one table holds their OIDs, and none of their contents.

A value counts where it is the OID of a large object that exists: in a column of type oid, of a domain over it such as
``lo`` of the extension, of an array of those, or of a composite type that has one. A number in a column of another type
may be such an OID too, by an agreement that stands in no catalog: that is not found here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from ..api.policy import TableSpec
from ..api.retention import OnLargeObjects
from ..planner.actions import DetachPartition, DropDetached
from ..planner.archive_gate import ArchiveRequest
from ..planner.inventory import Inventory
from ..planner.plan import Plan
from .connection import run
from .transaction import read_only

MOST = 20
"""Tables that one plan reads; the Job that archives them reads the rest."""
SAMPLE = 10_000
"""Rows of each that a plan reads. The Job, and the drop under its lock, read all."""
TIMEOUT = "1s"
OID = 26
"""Of the type oid, in every release."""

NO_POLICIES = "SET LOCAL row_security = off"
"""A row that a policy hides is an error then."""
EXIST = "SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)"

# What is computed whenever it is read is not stored, and runs functions.
COLUMNS = """
SELECT a.attrelid::pg_catalog.int8, n.nspname, c.relname, a.attname, a.atttypid::pg_catalog.int8
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE a.attrelid = ANY ({oids}::pg_catalog.oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
ORDER BY a.attrelid, a.attnum
"""

# Types of users are made from others; PostgreSQL's own are read only where they are arrays.
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
SELECT t.oid::pg_catalog.int8, t.typtype::pg_catalog.text, p.field, p.part::pg_catalog.int8
FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.type JOIN parts p ON p.type = u.type
"""
FOUND = """
SELECT EXISTS (SELECT FROM {rows} t WHERE EXISTS (
  SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE {condition}))
"""


@dataclass(frozen=True, slots=True)
class _Type:
    """``parts``: by the name of the field, None for what a domain or an array is of."""

    kind: str
    parts: Mapping[str | None, int]


@dataclass(frozen=True, slots=True)
class _Column:
    table: int
    relation: Identifier
    name: str
    condition: Composable
    """Over a row ``t`` of the table and a large object ``m``."""


def find(connection: psycopg.Connection[Any], spec: TableSpec, inventory: Inventory, plan: Plan) -> Inventory:
    """Find what points to large objects in tables that are to be archived, or dropped because they were.

    One round trip where the database has no large objects, else two, and one more for each table that has such a
    column, of which some rows are read. Raises psycopg's errors.
    """
    retention = spec.retention
    if retention is None or retention.archive is None or retention.large_objects is OnLargeObjects.LEAVE_OUT:
        return inventory
    asked = [each.oid for each in plan.retired.gate.requests if isinstance(each, ArchiveRequest)]
    leaving = [each.oid for each in plan.actions if isinstance(each, DetachPartition | DropDetached)]
    oids = [*asked, *leaving]
    if not oids or not run(connection, EXIST)[0][0][0]:
        return inventory
    candidates = _candidates(*read_only(connection, *_questions(oids), statement_timeout=TIMEOUT))
    found: dict[int, tuple[str, ...]] = {}
    for oid in list(dict.fromkeys(each.table for each in candidates))[:MOST]:
        of_table = [each for each in candidates if each.table == oid]
        rows = SQL("(SELECT * FROM ONLY {} LIMIT {})").format(of_table[0].relation, SAMPLE)
        try:
            _, *answers = read_only(connection, NO_POLICIES, *_queries(of_table, rows), statement_timeout=TIMEOUT)
        except psycopg.Error:
            if connection.closed:
                raise
            continue
        if pointing := _pointing(of_table, answers):
            found[oid] = pointing
    return replace(inventory, large_objects=found) if found else inventory


def columns(connection: psycopg.Connection[Any], oid: int, schema: str, name: str) -> tuple[str, ...]:
    """The columns of the table that hold OIDs of large objects, of all its rows, in the transaction that is open.

    Reads the table where it has such a column and the database has large objects. Raises psycopg's errors.
    """
    if not run(connection, EXIST)[0][0][0] or not (candidates := _candidates(*run(connection, *_questions([oid])))):
        return ()
    rows = SQL("ONLY {}").format(Identifier(schema, name))
    return _pointing(candidates, run(connection, *_queries(candidates, rows)))


def _questions(oids: list[int]) -> tuple[Composable, ...]:
    return SQL(COLUMNS).format(oids=oids), SQL(TYPES).format(oids=oids)


def _queries(candidates: list[_Column], rows: Composable) -> list[Composable]:
    return [SQL(FOUND).format(rows=rows, condition=each.condition) for each in candidates]


def _pointing(candidates: list[_Column], answers: list[list[tuple[Any, ...]]]) -> tuple[str, ...]:
    return tuple(each.name for each, ((found,),) in zip(candidates, answers, strict=True) if found)


def _candidates(names: list[tuple[Any, ...]], parts: list[tuple[Any, ...]]) -> list[_Column]:
    """Columns whose type holds OIDs."""
    types: dict[int, _Type] = {}
    for oid, kind, field, part in parts:
        known = types.get(oid)
        types[oid] = _Type(kind, {**(known.parts if known else {}), field: part})
    found = []
    for table, schema, relation, name, type_ in names:
        if conditions := list(_conditions(SQL("t.{}").format(Identifier(name)), type_, types)):
            found.append(_Column(table, Identifier(schema, relation), name, SQL(" OR ").join(conditions)))
    return found


def _conditions(value: Composable, type_: int, types: Mapping[int, _Type]) -> Iterator[Composable]:
    """When the value holds the OID of ``m``."""
    if type_ == OID:
        yield SQL("m.oid OPERATOR(pg_catalog.=) ({})::pg_catalog.oid").format(value)
        return
    held = types.get(type_)
    if held is None:
        return
    for field, part in held.parts.items():
        if field is not None:
            yield from _conditions(SQL("({}).{}").format(value, Identifier(field)), part, types)
        elif held.kind == "d":
            yield from _conditions(value, part, types)
        else:
            element = SQL("e.v")
            for condition in _conditions(element, part, types):
                each = SQL("EXISTS (SELECT FROM (SELECT pg_catalog.unnest({}) AS v) e WHERE {})")
                yield each.format(value, condition)
