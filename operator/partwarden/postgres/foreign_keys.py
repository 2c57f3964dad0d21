"""Rows that foreign keys of other tables let point to rows of a partition: PostgreSQL does not detach it then.

A key that refers to the partitioned table stands in the catalog once more for each partition. One that somebody made
to refer to a partition itself goes on to do so after the detach, and is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from ..api.policy import TableSpec
from ..planner.actions import DetachPartition
from ..planner.inventory import Inventory, Reference
from ..planner.plan import Plan
from .connection import Session, pinned, run
from .transaction import reading, undo

LIMIT = 100_000
"""Rows of one table that are counted at most."""
MOST = 50
"""Counts at most, each of one foreign key and one partition; of the rest the attempt to detach tells."""
PINNED = pinned(lock_timeout="500ms", statement_timeout="1s")

KEYS = """
SELECT k.confrelid, n.nspname, c.relname, pn.nspname, p.relname,
       ARRAY(SELECT attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, place)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY place),
       ARRAY(SELECT attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, place)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY place)
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE k.contype = 'f' AND k.conparentid <> 0 AND k.confrelid = ANY({partitions})
ORDER BY k.confrelid, n.nspname, c.relname, k.oid LIMIT {most}
"""


@dataclass(frozen=True, slots=True)
class _Key:
    """A foreign key of one table to one partition; ``columns`` refer to ``targets``."""

    partition: int
    schema: str
    name: str
    target: sql.Identifier
    columns: tuple[str, ...]
    targets: tuple[str, ...]


def examine(connection: Session, _spec: TableSpec, inventory: Inventory, plan: Plan) -> Inventory:
    """Counts the rows that would keep the planned detaches from being done. Raises psycopg's errors."""
    actions = [each for each in plan.actions if isinstance(each, DetachPartition)]
    return replace(inventory, references=found) if (found := references(connection, inventory, actions)) else inventory


def references(
    connection: psycopg.Connection[Any], inventory: Inventory, actions: Iterable[DetachPartition]
) -> Mapping[int, tuple[Reference, ...]]:
    """By OID of the partition. What cannot be counted, for want of time or of the right to read it, is left out.

    Raises psycopg's errors where the connection is lost.
    """
    by_oid = {each.oid: each for each in actions}
    if not by_oid:
        return {}
    query = sql.SQL(KEYS).format(partitions=sql.SQL("{}::oid[]").format(list(by_oid)), most=MOST)
    _, _, rows, _ = run(connection, "BEGIN READ ONLY", PINNED, query, "COMMIT")
    found: dict[int, dict[str, Reference]] = {}
    for oid, schema, name, target_schema, target, columns, targets in rows:
        key = _Key(oid, schema, name, sql.Identifier(target_schema, target), tuple(columns), tuple(targets))
        if count := _count(connection, inventory, by_oid[oid], key):
            table = f"{schema}.{name}"
            known = found.setdefault(oid, {})
            # Of two keys of one table the one with more rows is told.
            if table not in known or known[table].rows < count:
                known[table] = Reference(table, count, count == LIMIT)
    return {oid: tuple(each.values()) for oid, each in found.items()}


def _count(connection: psycopg.Connection[Any], inventory: Inventory, action: DetachPartition, key: _Key) -> int:
    """How many rows point there, up to `LIMIT`."""
    assert inventory.parent is not None
    pairs = [
        sql.SQL("f.{} = p.{}").format(sql.Identifier(column), sql.Identifier(target))
        for column, target in zip(key.columns, key.targets, strict=True)
    ]
    # The key of the partitioning is among the columns, as it is in every unique key: so an index may help.
    for column, target in zip(key.columns, key.targets, strict=True):
        if target == inventory.parent.key[0].column:
            pairs.append(sql.SQL("f.{key} >= {} AND f.{key} < {}").format(*action.bounds, key=sql.Identifier(column)))
    query = sql.SQL(
        "SELECT count(*) FROM (SELECT FROM {} f WHERE EXISTS (SELECT FROM ONLY {} p WHERE {}) LIMIT {}) AS rows"
    ).format(sql.Identifier(key.schema, key.name), key.target, sql.SQL(" AND ").join(pairs), LIMIT)
    try:
        begin: list[sql.Composable] = [sql.SQL("BEGIN READ ONLY"), PINNED, *reading(inventory.parent)]
        *_, ((count,),), _ = run(connection, *begin, query, "COMMIT")
    except psycopg.Error:
        undo(connection)
        if connection.closed:
            raise
        return 0
    return int(count)
