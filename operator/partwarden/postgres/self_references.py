"""Foreign keys of a table to itself, over a conversion and its way back. No row of the table is read under a lock.

PostgreSQL makes the foreign key of a partition a part of the partitioned table's only where it is valid, and points
to that one. Before 18 a partitioned table can have none that is NOT VALID. So under the lock the first partition gets
it NOT VALID, as other tables do, and the partitions that are made with the table get it at once, being empty: no row
is written unchecked. It is validated while others go on. Then the partitioned table gets it, and takes over what its
partitions have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from ..planner.inventory import Relation
from ..planner.marker import ConvertedMark
from . import ddl, locks
from .brief_locks import UNFLUSHED, flush
from .connection import Session, pinned, run
from .conversion_definition import rows_of, text
from .locks import Mode, Want
from .settings import setting
from .transaction import LOCK_TIMEOUT_HEAVY, become, read_only, undone

# Of the table itself, or of its partitions.
SELF = """
SELECT n.nspname AS schema, o.relname AS table, o.oid, k.conname AS name, k.convalidated AS valid,
       pg_get_constraintdef(k.oid) AS definition, CASE WHEN k.convalidated THEN ' NOT VALID' ELSE '' END AS lax,
       obj_description(k.oid, 'pg_constraint') AS comment
FROM pg_constraint k JOIN pg_class o ON o.oid = k.conrelid JOIN pg_namespace n ON n.oid = o.relnamespace
WHERE k.contype = 'f' AND k.confrelid = {table} AND k.conparentid = 0
  AND (k.conrelid = {table} OR EXISTS (SELECT FROM pg_inherits WHERE inhparent = {table} AND inhrelid = k.conrelid))
ORDER BY k.conname, o.oid
"""
PARENT = """
SELECT n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner, current_user AS login
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {parent} AND c.relkind = 'p'
"""


def read(connection: psycopg.Connection[Any], table: int) -> Sequence[Any]:
    """Those of the table with that OID. Raises psycopg's errors."""
    return rows_of(connection, SELF, table=table)[0]


def take(rows: Sequence[Any]) -> Iterator[Composable]:
    """Safe: none of them holds a row, and all is undone where they are not given again."""
    for each in rows:
        drop = SQL("ALTER TABLE {} DROP CONSTRAINT {}")
        yield drop.format(Identifier(each.schema, each.table), Identifier(each.name))


def give(rows: Sequence[Any], table: Relation, *, empty: bool = False) -> Iterator[Composable]:
    """Once the name is that of the table which they are to point to. ``empty``: no row is to be validated."""
    for each in {each.name: each for each in rows}.values():
        add = SQL("ALTER TABLE {} ADD CONSTRAINT {} {}")
        definition = text(each.definition + ("" if empty else each.lax))
        yield add.format(ddl.relation(table), Identifier(each.name), definition)
        yield from _comment(each, table)


def to_validate(rows: Sequence[Any], table: Relation) -> tuple[tuple[str, str, str], ...]:
    """What the mark says of them: all were valid, or were to be validated."""
    return tuple((table.schema, table.name, name) for name in dict.fromkeys(each.name for each in rows))


def adopt(connection: Session, legacy: Relation, mark: ConvertedMark, subject: str, deadline: float) -> None:
    """Give the partitioned table those that its first partition has by the mark, and are valid. It may be done again.

    Writers wait for a moment. Raises as `locks.retry_locks`, and psycopg's errors.
    """
    ours = {name for schema, table, name in mark.validate if (schema, table) == (legacy.schema, legacy.name)}
    if not ours:
        return
    asked = [SQL(each).format(table=mark.parent, parent=mark.parent) for each in (SELF, PARENT)]
    found, parents = read_only(connection, *asked)
    for row in parents:
        parent = Relation(mark.parent, row.schema, row.name)
        for each in found:
            if each.oid == legacy.oid and each.valid and each.name in ours:
                role = [become(row.owner)] if row.owner != row.login else []
                attempt = partial(_adopt, connection, parent, each, role)
                wants = [Want(mark.parent, Mode.SHARE_ROW_EXCLUSIVE)]
                locks.retry_locks(connection, attempt, partial(list, wants), subject, deadline, check_first=False)


def _adopt(connection: Session, parent: Relation, row: Any, role: Sequence[Composable]) -> None:
    add = SQL("ALTER TABLE {} ADD CONSTRAINT {} {}")
    with undone(connection):
        # One second is enough for partitions that were made since; the others have it.
        run(
            connection,
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            pinned(f"{LOCK_TIMEOUT_HEAVY}ms", "1s"),
            setting(UNFLUSHED),
            *role,
            add.format(ddl.relation(parent), Identifier(row.name), text(row.definition)),
            *_comment(row, parent),
            "COMMIT",
        )
    flush(connection)


def _comment(row: Any, table: Relation) -> Iterator[Composable]:
    if row.comment is not None:
        comment = SQL("COMMENT ON CONSTRAINT {} ON {} IS {}")
        yield comment.format(Identifier(row.name), ddl.relation(table), row.comment)
