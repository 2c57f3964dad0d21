"""Transactions that began long ago: who would make VACUUM vain, or keep REINDEX CONCURRENTLY waiting."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import sql

from .session import pinned, run

# Who has a snapshot or has written holds back what VACUUM may freeze, and REINDEX CONCURRENTLY waits for it, as it does
# for everybody who has so much as read the relation. What another VACUUM holds is none of it, nor is a walsender's. Of
# other roles' sessions only members of pg_read_all_stats see more than that they are there: lock_timeout is for those
# that are not seen. A prepared transaction has no process.
ELDERS = """
SELECT pid, usename, nullif(application_name, ''), NULL::text,
       to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), xact_start
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL
       OR pid IN (SELECT pid FROM pg_locks WHERE granted AND locktype = 'relation' AND relation = ANY({locked})
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())))
  AND xact_start < {since}
  AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
UNION ALL
SELECT NULL, owner, NULL, gid, to_char(prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), prepared
FROM pg_prepared_xacts WHERE database = current_database() AND prepared < {since}
ORDER BY 6 LIMIT 1
"""

# Every transaction holds the lock of its own number, which all may see.
UNSEEN = """
SELECT l.pid, l.virtualtransaction, a.usename
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.granted AND l.virtualxid = l.virtualtransaction AND a.xact_start IS NULL
  AND a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.usename IS NOT NULL
ORDER BY 1
"""
UNSEEN_PAUSE = 1.0
"""Seconds after which a transaction of which the start cannot be seen is looked for again."""

PINNED = pinned(lock_timeout="1s", statement_timeout="10s")


def older_than(connection: psycopg.Connection[Any], since: sql.Composable, locked: list[int]) -> str | None:
    """The oldest transaction of the database that began before ``since`` (SQL, timestamptz), for a message; else None.

    It has a snapshot, has written, or has any lock on one of the relations ``locked``. Raises psycopg's errors.
    """
    listed = sql.SQL("{}::oid[]").format(locked)
    _, rows = run(connection, PINNED, sql.SQL(ELDERS).format(since=since, locked=listed))
    if not rows:
        return None
    pid, user, application, prepared, began, _ = rows[0]
    if pid is None:
        return (
            f"prepared transaction {prepared!r} (role {user!r}) is open since {began}: COMMIT or ROLLBACK PREPARED it"
        )
    return f"process {pid} ({application or 'unnamed'}, role {user!r}) is in a transaction that began {began}"


def unseen(connection: psycopg.Connection[Any]) -> str | None:
    """A transaction that is still open after `UNSEEN_PAUSE`, and whose start the role may not see; None else.

    Takes no time where the role sees all, or nobody is there. Raises psycopg's errors.
    """
    _, before = run(connection, PINNED, UNSEEN)
    if not before:
        return None
    time.sleep(UNSEEN_PAUSE)
    _, after = run(connection, PINNED, UNSEEN)
    still = sorted(set(before) & set(after))
    if not still:
        return None
    pid, _, user = still[0]
    return f"process {pid} (role {user!r}) is in a transaction that lasts; members of pg_read_all_stats see more of it"
