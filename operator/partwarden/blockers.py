"""Who holds the lock that was not to be had."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from .inventory import Inventory
from .session import pinned, run

# ATTACH waits for its own kind of lock and stronger ones on the parent, for all on DEFAULT, and for writers on tables
# that the parent's foreign keys refer to. A prepared transaction has no process, but holds its locks all the same.
HOLDERS = """
SELECT l.pid, coalesce(nullif(a.application_name, ''), a.backend_type, 'unnamed'), a.usename,
       extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::int, p.gid
FROM pg_locks l
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
          AND l.relation IN (SELECT k.confrelid FROM pg_constraint k WHERE k.conrelid = {parent} AND k.contype = 'f'))
ORDER BY coalesce(a.xact_start, p.prepared) LIMIT 1
"""


def holder(connection: psycopg.Connection[Any], inventory: Inventory) -> str:
    """The oldest transaction in the way, for a message; empty when it has gone. Raises psycopg's errors."""
    assert inventory.parent is not None
    default = [each.oid for each in inventory.partitions if each.range is None]
    query = sql.SQL(HOLDERS).format(parent=inventory.parent.oid, default=sql.SQL("{}::oid[]").format(default))
    _, rows = run(connection, pinned(lock_timeout="1s", statement_timeout="10s"), query)
    if not rows:
        return ""
    pid, application, user, age, prepared = rows[0]
    if pid is None:
        who = f"prepared transaction {prepared!r}" if prepared else "a prepared transaction"
        return f"{who} holds it" + (f", for {age} s" if age is not None else "") + ": COMMIT or ROLLBACK PREPARED it"
    # Of other roles' sessions only members of pg_read_all_stats see more than who they are.
    return f"process {pid} ({application}, role {user!r}) holds it" + (
        f", in a transaction {age} s old" if age is not None else ""
    )
