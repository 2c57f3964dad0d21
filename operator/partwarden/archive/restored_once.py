"""Make one table for one PartitionRestore, however often and by however many processes that is tried.

The table says in its comment for which PartitionRestore it was made, by the UID: see `planner.marker`. That line comes
with the table, in one COMMIT: where it is found the whole table is, and where it is not found nothing of the table is.
Two that try at the same time take turns by an advisory lock on the UID, which ends with the transaction of its holder,
killed or not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from ..errors import AnotherOperator
from ..planner import marker
from ..planner.marker import RestoredMark
from ..postgres import table_state
from ..postgres.connection import Session, pinned, run
from . import restored_shape, table_schema
from .restored_table import LeftOff

ADVISORY_CLASS = 0x70727374
"""First half of the advisory lock's key ("prst"); 32 bits of the UID's digest are the second."""

# Of a table that another role owns nothing is believed: its owner may write anything into its comment.
MADE = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, d.description AS comment,
       pn.nspname AS parent_schema, p.relname AS parent
FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = i.inhparent
LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND c.relkind = 'r'
  AND octet_length(d.description) <= {longest} AND strpos(d.description, {uid}) > 0
  AND pg_has_role(c.relowner, 'MEMBER')
ORDER BY c.oid LIMIT 8
"""
TABLE = """
SELECT c.oid::int8 AS oid, obj_description(c.oid, 'pg_class') AS comment
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname = {}
"""


@dataclass(frozen=True, slots=True)
class Restored:
    """``attached`` is the parent; ``types`` those that were made; ``left_off`` what the rows or the database did not
    allow to be put back, and ``left_off_count`` how many that are, where the list itself is not known any more. ``oid``
    and ``server``, an `inventory.Server.identity`: only of a table that was made for a PartitionRestore."""

    schema: str
    name: str
    rows: int
    attached: str | None = None
    types: tuple[str, ...] = ()
    left_off: tuple[LeftOff, ...] = ()
    left_off_count: int = 0
    oid: int = 0
    server: str = ""


def find(connection: Session, uid: str) -> Restored | None:
    """The table that was made for the PartitionRestore, whatever it is called by now. Raises psycopg's errors."""
    if not uid:
        return None
    with connection.transaction():
        run(connection, pinned("2s", "60s"))
        return _find(connection, uid)


def claim(connection: Session, uid: str) -> Restored | None:
    """In a transaction that has pinned its settings: keep all others that would make the table for this ``uid`` from
    doing so until it ends. Returns the table where one of them has made it. Raises `AnotherOperator` where one of them
    is making it."""
    if not uid:
        return None
    lock(connection, uid)
    return _find(connection, uid)


def lock(connection: psycopg.Connection[Any], uid: str) -> None:
    """Take the advisory lock of the PartitionRestore until the transaction ends. Raises `AnotherOperator`."""
    key = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4], "big", signed=True)
    ask = sql.SQL("SELECT pg_try_advisory_xact_lock({}, {})").format(ADVISORY_CLASS, key)
    (((mine,),),) = run(connection, ask)
    if not mine:
        raise AnotherOperator("another process works for this PartitionRestore now: its advisory lock is taken")


def mark(connection: Session, restored: Restored, uid: str) -> Restored:
    """Write into the comment of the table that was just made for which PartitionRestore it is, in the caller's
    transaction. Returns it with its OID and server."""
    ((oid, comment),) = run(connection, sql.SQL(TABLE).format(restored.schema, restored.name))[0]
    left_off = len(restored.left_off)
    # Of a partition nothing is ever dropped by it.
    shape = restored_shape.digest(connection, oid, comment) if restored.attached is None else ""
    text = marker.write_restored(comment, RestoredMark(oid, uid, restored.rows, left_off, shape))
    run(connection, table_schema.comment(sql.Identifier(restored.schema, restored.name), text))
    return replace(restored, oid=oid, server=table_state.read(connection), left_off_count=left_off)


def _find(connection: psycopg.Connection[Any], uid: str) -> Restored | None:
    (found,) = run(connection, sql.SQL(MADE).format(longest=marker.LONGEST, uid=uid))
    for row in found:
        held = marker.read_restored(row.comment, row.oid)
        if held is not None and held.uid == uid:
            attached = f"{row.parent_schema}.{row.parent}" if row.parent else None
            server = table_state.read(connection)
            return Restored(row.schema, row.name, held.rows, attached, (), (), held.left_off, row.oid, server)
    return None
