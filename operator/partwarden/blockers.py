"""Who holds the lock that was not to be had."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from .inventory import Inventory
from .session import run

# ATTACH waits for its own kind of lock and stronger ones on the parent, for all on DEFAULT, and for writers on tables
# that the parent's foreign keys refer to.
HOLDERS = """
SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type), a.usename,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::int
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE l.granted AND l.locktype = 'relation' AND a.pid <> pg_catalog.pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (l.relation = {parent} AND l.mode = ANY(ARRAY['ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
                                                    'ExclusiveLock', 'AccessExclusiveLock'])
       OR l.relation = ANY({default})
       OR l.mode <> ALL(ARRAY['AccessShareLock', 'RowShareLock'])
          AND l.relation IN (SELECT k.confrelid FROM pg_catalog.pg_constraint k
                             WHERE k.conrelid = {parent} AND k.contype = 'f'))
ORDER BY a.xact_start LIMIT 1
"""


def holder(connection: psycopg.Connection[Any], inventory: Inventory) -> str:
    """The oldest transaction in the way, for a message; empty when it has gone. Raises psycopg's errors."""
    assert inventory.parent is not None
    default = [each.oid for each in inventory.partitions if each.range is None]
    query = sql.SQL(HOLDERS).format(parent=inventory.parent.oid, default=sql.SQL("{}::oid[]").format(default))
    (rows,) = run(connection, query)
    if not rows:
        return ""
    pid, application, user, age = rows[0]
    return f"process {pid} ({application}, role {user!r}) holds it, in a transaction {age} s old"
