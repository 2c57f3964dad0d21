"""Locks on tables: who holds them, which transactions are worth waiting for, and the loop that tries again.

A session that waits for a heavy lock makes every session wait that comes after it. So such a lock is asked for only
while no long transaction is known to hold it, with a short lock_timeout, and again.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Composable

from ..errors import AnotherOperator, PartwardenError, TableBusy
from ..planner.inventory import Inventory
from .connection import Session, pinned, run
from .transaction import parent_of, undo

SHORT = 1.0  # seconds that a transaction may last and still be waited for
PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between two attempts, at first and at most
MARGIN, LONGEST_LAST_ATTEMPT = 300, 2000
"""Milliseconds. Autovacuum ends for a session that waits for deadlock_timeout, and else may hold its lock for hours."""
PINNED = pinned(lock_timeout="1s", statement_timeout="10s")
LOCK_ERRORS: tuple[type[Exception], ...] = (pg.LockNotAvailable, pg.DeadlockDetected)
RETRIED: tuple[type[Exception], ...] = (*LOCK_ERRORS, AnotherOperator)
# Within a transaction the server shows the other sessions as they were at its first question, but for this.
FRESH = "SELECT pg_stat_clear_snapshot()"


class Mode(StrEnum):
    """Modes of locks on a table, by their names in ``pg_locks``."""

    SHARE_UPDATE_EXCLUSIVE = "ShareUpdateExclusiveLock"
    SHARE_ROW_EXCLUSIVE = "ShareRowExclusiveLock"
    ACCESS_EXCLUSIVE = "AccessExclusiveLock"


# https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
STRONG = ("ShareUpdateExclusiveLock", "ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
CONFLICTS = {
    Mode.SHARE_UPDATE_EXCLUSIVE: STRONG,
    Mode.SHARE_ROW_EXCLUSIVE: ("RowExclusiveLock", *STRONG),
    Mode.ACCESS_EXCLUSIVE: ("AccessShareLock", "RowShareLock", "RowExclusiveLock", *STRONG),
}


class Want(NamedTuple):
    """A lock to acquire on the table with this OID."""

    table: int
    mode: Mode


Wants = Callable[[], Sequence[Want]]
"""Asked only once a lock was not acquired, or before it is asked for: to find out may take a round trip."""


def joined(connection: psycopg.Connection[Any], table: int, mode: Mode) -> tuple[Want, ...]:
    """That lock on every table which a foreign key joins with this one, whichever way it points."""
    # Of foreign keys between partitioned tables both ends are locked. Its partitions' keys stand beside a table's own.
    query = """SELECT confrelid FROM pg_constraint WHERE conrelid = {table} AND contype = 'f'
        UNION SELECT conrelid FROM pg_constraint WHERE confrelid = {table} AND contype = 'f'"""
    _, others = run(connection, PINNED, SQL(query).format(table=table))
    return tuple(Want(other, mode) for (other,) in others)


def wants_of_attach(connection: psycopg.Connection[Any], inventory: Inventory) -> list[Want]:
    """What ATTACH PARTITION locks beside the new partition: the parent first, for which no reader or writer waits, then
    DEFAULT, and what foreign keys join. Raises psycopg's errors.
    """
    parent = parent_of(inventory).oid
    others = joined(connection, parent, Mode.SHARE_ROW_EXCLUSIVE)
    return [Want(parent, Mode.SHARE_UPDATE_EXCLUSIVE), *wants_of_default(inventory), *others]


def wants_of_default(inventory: Inventory) -> list[Want]:
    """The lock that ATTACH and DETACH take on the DEFAULT partition; none where there is none."""
    return [Want(inventory.default.oid, Mode.ACCESS_EXCLUSIVE)] if inventory.default else []


# A prepared transaction has no process, but holds its locks all the same.
HOLDERS = """
WITH wanted(relation, modes) AS (VALUES {wanted})
SELECT DISTINCT ON (coalesce(a.xact_start, p.prepared), l.virtualtransaction)
       l.pid, coalesce(a.usename, p.owner) AS user, nullif(a.application_name, '') AS application, p.gid AS prepared,
       to_char(coalesce(a.xact_start, p.prepared) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS began,
       n.nspname || '.' || c.relname AS table,
       extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8 AS age,
       (SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout') AS deadlock_timeout,
       l.virtualtransaction AS transaction
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
                     AND x.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE l.granted AND l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND EXISTS (SELECT FROM wanted w WHERE w.relation = l.relation AND l.mode = ANY(w.modes))
ORDER BY coalesce(a.xact_start, p.prepared), l.virtualtransaction, l.relation LIMIT 50
"""


class LockHolder(NamedTuple):
    """One row of `HOLDERS`: a transaction that holds a conflicting lock on ``table``. ``transaction`` names it.

    ``began`` and ``age`` (seconds) are None where the role may not see them: only members of pg_read_all_stats see of
    other roles' sessions more than that they are there.
    """

    pid: int | None
    user: str | None
    application: str | None
    prepared: str | None
    began: str | None
    table: str
    age: float | None
    deadlock_timeout: int
    transaction: str

    @property
    def is_autovacuum(self) -> bool:
        """Whether it gives way to a session that waits. Of processes without a user only autovacuum locks tables."""
        return self.pid is not None and self.user is None


def describe(
    pid: int | None, user: str | None, application: str | None, prepared: str | None = None, began: str | None = None
) -> str:
    """A transaction for a message, such as ``pid 4711 (psql, role "bob") in a transaction since 2026-11-29T10:02:31Z``,
    which stays the same for as long as it lasts.
    """
    role, since = f'role "{user}"' if user else "autovacuum", f" since {began}" if began else ""
    if pid is None:
        name = f"prepared transaction {prepared!r} ({role})" if prepared else "a prepared transaction"
        return f"{name}{since}; COMMIT PREPARED or ROLLBACK PREPARED it"
    return f"pid {pid} ({f'{application}, ' if application else ''}{role}){since and f' in a transaction{since}'}"


def lock_holders(connection: psycopg.Connection[Any], wants: Sequence[Want]) -> list[LockHolder]:
    """Transactions whose locks conflict with the wanted ones, the oldest first, 50 at most. Raises psycopg's errors."""
    if not wants:
        return []
    wanted = [SQL("({}::oid, {}::text[])").format(each.table, list(CONFLICTS[each.mode])) for each in wants]
    query = SQL(HOLDERS).format(wanted=SQL(", ").join(wanted))
    return [LockHolder(**row._asdict()) for row in run(connection, PINNED, FRESH, query)[-1]]


def lock_error(subject: str, holders: Sequence[LockHolder]) -> TableBusy:
    """The error for a lock that was not acquired. ``subject``: what cannot be done, as ``cannot drop table a.b``."""
    if not holders:
        return TableBusy(f"{subject}: a lock was not acquired in time, and its holder has ended since")
    first = holders[0]
    return TableBusy(f"{subject}: cannot lock {first.table}: held by {describe(*first[:5])}")


def check_lock_holders(
    connection: Session, wants: Sequence[Want], subject: str, deadline: float, longest: float | None = None
) -> None:
    """Return once every transaction has ended that held a conflicting lock at first. Autovacuum gives way by itself.

    Raises `TableBusy` that names the oldest one as soon as one has lasted for ``longest`` seconds, `SHORT` where that
    is None, or was waited for so long, or ``deadline``, of `time.monotonic`, has passed; and psycopg's errors.
    """
    longest, began, first = SHORT if longest is None else longest, time.monotonic(), None
    while True:
        now = time.monotonic()
        holders = [each for each in lock_holders(connection, wants) if not each.is_autovacuum]
        transactions = {each.transaction for each in holders}
        first = transactions if first is None else first & transactions
        # Their age is not to be seen of every transaction.
        late = now - began > longest or now >= deadline
        if old := [each for each in holders if (each.age or 0) > longest or (late and each.transaction in first)]:
            raise lock_error(subject, old)
        if not first:
            return
        time.sleep(PAUSE)


def retry_locks(
    connection: Session,
    attempt: Callable[[], None],
    wants: Wants,
    subject: str,
    deadline: float,
    *,
    check_first: bool = True,
    longest: float | None = None,
    last_attempt: Callable[[int], None] | None = None,
    rollback: Callable[[Session], object] = undo,
) -> None:
    """Attempt something, and again while a lock is not acquired and only short transactions hold it.

    ``wants``: the locks that it needs. Before each attempt, or before each but the first, `check_lock_holders` waits
    or raises; ``longest`` is for it. ``deadline``: as there; one attempt is made in any case.
    ``last_attempt`` is made after it, with a lock_timeout in milliseconds, where autovacuum holds a lock, which it
    gives up only for a session that waits longer than deadlock_timeout. ``rollback`` gives back the locks of a failed
    attempt. An advisory lock that another session holds (`AnotherOperator`) is waited for in the same way.

    Raises `TableBusy` with the lock holder, and whatever else the attempt raises.
    """
    pause = PAUSE
    while True:
        try:
            if check_first:
                check_lock_holders(connection, wants(), subject, deadline, longest)
            attempt()
            return
        except RETRIED as error:
            rollback(connection)
            # The holder of an advisory lock is of this program, and is not named by what else it locks.
            check_first = not isinstance(error, AnotherOperator)
            if time.monotonic() + pause >= deadline:
                if isinstance(error, PartwardenError):
                    raise
                holders = lock_holders(connection, wants())
                wait = holders[0].deadlock_timeout + MARGIN if holders and holders[0].is_autovacuum else math.inf
                if last_attempt is None or wait > LONGEST_LAST_ATTEMPT:
                    raise lock_error(subject, holders) from None
                attempt, last_attempt = partial(last_attempt, int(wait)), None
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - keeps two from colliding again
        pause = min(pause * 2, LONGEST_PAUSE)


# Transactions that keep an old snapshot: what they read later, they read as of then, but by the partitions of now.
# Without a transaction of its own, a statement has a snapshot only while it runs. Every role sees whose a snapshot is,
# and its virtual transaction; not what it does. Walsenders that are connected to the database (the first copy of a
# subscription) and background workers (a scheduler) read tables as clients do; autovacuum, which has no user, does not.
SNAPSHOTS = """
SELECT l.virtualtransaction, a.pid, a.usename, nullif(a.application_name, '')
FROM pg_stat_activity a
JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted
WHERE a.datname = current_database() AND a.usesysid IS NOT NULL AND a.backend_xmin IS NOT NULL
  AND a.pid <> pg_backend_pid()
ORDER BY a.pid
"""

QUIET = f"SELECT 1 / (NOT EXISTS ({SNAPSHOTS}))::int4"
"""Fails with `psycopg.errors.DivisionByZero` where a snapshot of this database is held. After `FRESH`."""


def wait_for_snapshots(connection: psycopg.Connection[Any], deadline: float) -> str | None:
    """Wait until no snapshot of this database is left that is held now; describe the first that is left after `SHORT`,
    or ``deadline``, of `time.monotonic`. Raises psycopg's errors.
    """
    end = min(deadline, time.monotonic() + SHORT)
    held = {transaction for transaction, *_ in run(connection, FRESH, SNAPSHOTS)[1]}
    while left := [row for row in run(connection, FRESH, SNAPSHOTS)[1] if row[0] in held]:
        if time.monotonic() >= end:
            return describe(*left[0][1:])
        time.sleep(0.02)
    return None


# A transaction with a snapshot, or that has written, holds back what VACUUM may freeze, and REINDEX CONCURRENTLY waits
# for it, as it does for each that has so much as read the relation. What another VACUUM holds is none of it, nor is a
# walsender's. Sessions whose state the role may not see are left to lock_timeout and `hidden_transaction`.
OLDER = """
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
# Every transaction holds the lock of its own number, which every role may see.
HIDDEN = """
SELECT l.pid, l.virtualtransaction, a.usename
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.granted AND l.virtualxid = l.virtualtransaction AND a.xact_start IS NULL
  AND a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.usename IS NOT NULL
ORDER BY 1
"""


def older_transaction(connection: psycopg.Connection[Any], since: Composable, locked: list[int]) -> str | None:
    """Describe the oldest transaction that began before ``since`` (SQL), and has a snapshot, has written, or has any
    lock on one of the relations ``locked``; None without one. Raises psycopg's errors.
    """
    _, rows = run(connection, PINNED, SQL(OLDER).format(since=since, locked=SQL("{}::oid[]").format(locked)))
    return describe(*rows[0][:5]) if rows else None


def hidden_transaction(connection: psycopg.Connection[Any]) -> str | None:
    """Describe a transaction whose start the role may not see, and that is open still after a second, or None."""
    if still := set(run(connection, PINNED, HIDDEN)[1]):
        time.sleep(1.0)
        still.intersection_update(run(connection, PINNED, HIDDEN)[1])
    for pid, _, user in sorted(still):
        return f"{describe(pid, user, None)}; members of pg_read_all_stats see when it began"
    return None
