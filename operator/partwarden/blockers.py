"""Who holds the lock that was not to be had, or that will not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql

from .inventory import Inventory
from .session import pinned, run


class Mode(StrEnum):
    """Kinds of locks on a table that are asked for here, by their names in ``pg_locks``."""

    SHARE_UPDATE_EXCLUSIVE = "ShareUpdateExclusiveLock"
    SHARE = "ShareLock"
    SHARE_ROW_EXCLUSIVE = "ShareRowExclusiveLock"
    ACCESS_EXCLUSIVE = "AccessExclusiveLock"


STRONG = ("ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
# https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
CONFLICTS = {
    Mode.SHARE_UPDATE_EXCLUSIVE: ("ShareUpdateExclusiveLock", "ShareLock", *STRONG),
    Mode.SHARE: ("RowExclusiveLock", "ShareUpdateExclusiveLock", *STRONG),
    Mode.SHARE_ROW_EXCLUSIVE: ("RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock", *STRONG),
    Mode.ACCESS_EXCLUSIVE: (
        *("AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock"),
        *STRONG,
    ),
}

LIMIT = 50

# A prepared transaction has no process, but holds its locks all the same.
HOLDERS = """
WITH wanted(relation, modes) AS (VALUES {wanted})
SELECT DISTINCT ON (coalesce(a.xact_start, p.prepared), l.virtualtransaction)
       l.pid, a.usename, nullif(a.application_name, ''), p.gid, l.relation, n.nspname || '.' || c.relname,
       to_char(coalesce(a.xact_start, p.prepared) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8,
       (SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout'), l.virtualtransaction
FROM pg_locks l
JOIN pg_class c ON c.oid = l.relation
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
                     AND x.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE l.granted AND l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND EXISTS (SELECT FROM wanted w WHERE w.relation = l.relation AND l.mode = ANY(w.modes))
ORDER BY coalesce(a.xact_start, p.prepared), l.virtualtransaction, l.relation LIMIT {limit}
"""

# Its partitions' keys stand beside a partitioned table's own; both ends are to be had.
JOINED = """
SELECT confrelid FROM pg_constraint WHERE conrelid = {table} AND contype = 'f'
UNION
SELECT conrelid FROM pg_constraint WHERE confrelid = {table} AND contype = 'f'
"""


@dataclass(frozen=True, slots=True)
class Want:
    """A lock that is to be had on the table with this OID."""

    table: int
    mode: Mode


@dataclass(frozen=True, slots=True)
class Blocker:
    """A transaction in the way. ``text`` is for a message, and the same for as long as the transaction lasts.

    ``yields_after``: autovacuum gives way to whoever waits for so many milliseconds; None for anybody else.
    ``age``: seconds since it began; None where the role may not see that. ``transaction`` tells it from others.
    """

    text: str
    yields_after: int | None = None
    age: float | None = None
    transaction: str = ""


def blockers(
    connection: psycopg.Connection[Any], wants: Sequence[Want], shown: int | None = None
) -> tuple[Blocker, ...]:
    """Whose locks conflict with the wanted ones, the oldest transaction first, fifty at most. Raises psycopg's errors.

    ``shown`` is the OID of the table that the message will have named already.
    """
    if not wants:
        return ()
    rows = [sql.SQL("({}::oid, {}::text[])").format(each.table, list(CONFLICTS[each.mode])) for each in wants]
    query = sql.SQL(HOLDERS).format(wanted=sql.SQL(", ").join(rows), limit=LIMIT)
    # Within a transaction it is else always the same that is seen of other sessions.
    fresh = "SELECT pg_stat_clear_snapshot()"
    *_, found = run(connection, pinned(lock_timeout="1s", statement_timeout="10s"), fresh, query)
    return tuple(_blocker(*each, shown=shown) for each in found)


def joined(connection: psycopg.Connection[Any], table: int, mode: Mode) -> tuple[Want, ...]:
    """That lock on every table which a foreign key joins with this one, whichever way it points."""
    _, found = run(
        connection, pinned(lock_timeout="1s", statement_timeout="10s"), sql.SQL(JOINED).format(table=sql.Literal(table))
    )
    return tuple(Want(other, mode) for (other,) in found)


def blocker(connection: psycopg.Connection[Any], inventory: Inventory) -> Blocker | None:
    """Who keeps a partition from being attached; None when it has gone. Raises psycopg's errors.

    ATTACH waits for its own kind of lock and stronger ones on the parent, for all on DEFAULT, and for writers on tables
    that foreign keys join with the parent.
    """
    assert inventory.parent is not None
    parent = inventory.parent.oid
    wants = [
        Want(parent, Mode.SHARE_UPDATE_EXCLUSIVE),
        *(Want(each.oid, Mode.ACCESS_EXCLUSIVE) for each in inventory.partitions if each.range is None),
        *joined(connection, parent, Mode.SHARE_ROW_EXCLUSIVE),
    ]
    return next(iter(blockers(connection, wants, parent)), None)


def _blocker(
    pid: int | None,
    user: str | None,
    application: str | None,
    prepared: str | None,
    relation: int,
    name: str,
    began: str | None,
    age: float | None,
    yields_after: int,
    transaction: str,
    *,
    shown: int | None,
) -> Blocker:
    what = "holds it" if relation == shown else f"holds one on {name}"
    # When, not how long ago: the message stays the same while the trouble lasts. Of other roles' sessions only members
    # of pg_read_all_stats see more than who they are.
    since = "" if began is None else f", in a transaction that began {began}"
    if pid is None:
        who = f"prepared transaction {prepared!r}" if prepared else "a prepared transaction"
        return Blocker(f"{who} {what}{since}: COMMIT or ROLLBACK PREPARED it", None, age, transaction)
    if user is None:
        # Of processes without a user only autovacuum locks tables.
        return Blocker(f"process {pid} (autovacuum) {what}{since}", yields_after, age, transaction)
    return Blocker(f"process {pid} ({application or 'unnamed'}, role {user!r}) {what}{since}", None, age, transaction)
