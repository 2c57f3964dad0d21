"""Who holds the lock that was not to be had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from .inventory import Inventory
from .session import pinned, run

# ATTACH waits for its own kind of lock and stronger ones on the parent, for all on DEFAULT, and for writers on tables
# that foreign keys join with the parent. A prepared transaction has no process, but holds its locks all the same.
HOLDERS = """
SELECT l.pid, a.usename, nullif(a.application_name, ''), p.gid,
       l.relation <> {parent}, n.nspname || '.' || c.relname,
       to_char(coalesce(a.xact_start, p.prepared) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       (SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout')
FROM pg_locks l
JOIN pg_class c ON c.oid = l.relation
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
                     AND x.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE l.granted AND l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.relation = {parent} AND l.mode = ANY(ARRAY['ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
                                                    'ExclusiveLock', 'AccessExclusiveLock'])
       OR l.relation = ANY({default})
       OR l.mode <> ALL(ARRAY['AccessShareLock', 'RowShareLock'])
          AND l.relation IN (SELECT confrelid FROM pg_constraint WHERE conrelid = {parent} AND contype = 'f' UNION ALL
                             SELECT conrelid FROM pg_constraint WHERE confrelid = {parent} AND contype = 'f'))
ORDER BY coalesce(a.xact_start, p.prepared) LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Blocker:
    """The oldest transaction in the way. ``text`` is for a message.

    ``yields_after``: autovacuum gives way to whoever waits for so many milliseconds; None for anybody else.
    """

    text: str
    yields_after: int | None = None


def blocker(connection: psycopg.Connection[Any], inventory: Inventory) -> Blocker | None:
    """Who is in the way; None when it has gone. Raises psycopg's errors."""
    assert inventory.parent is not None
    default = [each.oid for each in inventory.partitions if each.range is None]
    query = sql.SQL(HOLDERS).format(parent=inventory.parent.oid, default=sql.SQL("{}::oid[]").format(default))
    _, rows = run(connection, pinned(lock_timeout="1s", statement_timeout="10s"), query)
    if not rows:
        return None
    pid, user, application, prepared, elsewhere, relation, began, yields_after = rows[0]
    what = f"holds one on {relation}" if elsewhere else "holds it"
    # When, not how long ago: the message stays the same while the trouble lasts. Of other roles' sessions only members
    # of pg_read_all_stats see more than who they are.
    since = "" if began is None else f", in a transaction that began {began}"
    if pid is None:
        name = f"prepared transaction {prepared!r}" if prepared else "a prepared transaction"
        return Blocker(f"{name} {what}{since}: COMMIT or ROLLBACK PREPARED it")
    if user is None:
        # Of processes without a user only autovacuum locks tables.
        return Blocker(f"process {pid} (autovacuum) {what}{since}", yields_after)
    return Blocker(f"process {pid} ({application or 'unnamed'}, role {user!r}) {what}{since}")
