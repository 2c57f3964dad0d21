"""What a split makes beside the new partition: a CHECK, the function in it, and an index for the key. See
`conversion_split`.

Where a split was interrupted they stay, and the next one goes on with them. Where there is none, since the table is
detached or made plain again, they are taken away before: a function would outlast its table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from ..planner.actions import DetachPartition
from ..planner.inventory import Parent, Relation
from . import ddl, locks, table_state, transaction
from .connection import Session, run
from .conversion_definition import statements
from .locks import Mode, Want

NAME = "partwarden_split"
"""Of the CHECK; function and index have the OID of the table after it."""

# Of no other role or table: the function is the table owner's, and the index is of the table, and of no constraint.
LEFT = """
SELECT l.statement
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, LATERAL (
  SELECT 1 AS place, format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, c.relname, k.conname) AS statement
  FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conname = {name}
  UNION ALL
  SELECT 2, format('DROP FUNCTION %I.%I()', n.nspname, f.proname) FROM pg_proc f
  WHERE f.pronamespace = n.oid AND f.proname = {named} AND f.pronargs = 0 AND f.prokind = 'f'
    AND f.proowner = c.relowner
  UNION ALL
  SELECT 3, format('DROP INDEX %I.%I', n.nspname, o.relname)
  FROM pg_index x JOIN pg_class o ON o.oid = x.indexrelid
  WHERE x.indrelid = c.oid AND o.relname = {named}
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = o.oid)
    AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = o.oid)) l
WHERE c.oid = {oid} ORDER BY l.place
"""


def name_of(oid: int) -> str:
    """That of function and index."""
    return f"{NAME}_{oid}"


def function_of(legacy: Relation) -> Identifier:
    """The name of the function in the CHECK."""
    return Identifier(legacy.schema, name_of(legacy.oid))


def forget(legacy: Relation) -> Iterator[Composable]:
    """What takes the CHECK away, and the function. Safe: it says nothing that the bounds do not say."""
    yield SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(ddl.relation(legacy), Identifier(NAME))
    yield SQL("DROP FUNCTION IF EXISTS {}()").format(function_of(legacy))


def left_of(connection: psycopg.Connection[Any], oid: int) -> list[SQL]:
    """What takes all of it away that the table has now; to be run as its owner. Raises psycopg's errors.

    Safe: the CHECK says nothing that the bounds do not say, the index is weaker than the key that is there, and neither
    holds a row. Never CASCADE.
    """
    return statements(connection, LEFT, oid=oid, name=NAME, named=name_of(oid))


def take_away(connection: Session, parent: Parent, action: DetachPartition, deadline: float) -> None:
    """Take all of it off a partition that is about to be detached; ``deadline``: as for `locks.retry_locks`. It may be
    done again at any time, and does nothing where nothing is left. Raises as `locks.retry_locks`, and `TableChanged`.
    """
    left = SQL(LEFT).format(oid=action.oid, name=NAME, named=name_of(action.oid))
    if not transaction.read_only(connection, left)[0]:
        return

    def attempt() -> None:
        with transaction.changing(connection, parent, "10s"):
            table_state.look(connection, action, action.oid)
            heavy = transaction.set_lock_timeout(transaction.LOCK_TIMEOUT_HEAVY)
            lock = ddl.lock(action, "ACCESS EXCLUSIVE")
            run(connection, heavy, lock, *left_of(connection, action.oid), "COMMIT")

    wants = [Want(action.oid, Mode.ACCESS_EXCLUSIVE)]
    locks.retry_locks(connection, attempt, lambda: wants, f"cannot detach partition {action}", deadline)
