"""Who holds the lock that was not to be had, or that will not be."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import TableBusy
from ..planner.inventory import Inventory
from .connection import Session, pinned, run
from .errors import translate
from .transaction import undo

# Transactions that keep an old snapshot: what they read later, they read as of then, but by the partitions of now.
#

LONGEST = 1.0
"""Seconds that they are waited for."""
PAUSE = 0.02

# Without a transaction of its own, a statement has a snapshot only for as long as it runs. Whose a snapshot is may be
# seen by everybody, and so may the virtual transaction; not what it does.
HELD = """
SELECT l.virtualtransaction, a.pid, a.usename, nullif(a.application_name, '')
FROM pg_stat_activity a
JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted
WHERE a.datname = current_database() AND a.usesysid IS NOT NULL AND a.backend_xmin IS NOT NULL
  AND a.pid <> pg_backend_pid() AND coalesce(a.backend_type, 'client backend') = 'client backend'
ORDER BY a.pid
"""


def wait_for_snapshots(
    connection: psycopg.Connection[Any], deadline: float, sleep: Callable[[float], None]
) -> str | None:
    """Wait until no snapshot of this database is held any more that is held now; who has the first that is left.

    ``deadline``: of `time.monotonic`; it is not waited for long anyway. Raises psycopg's errors.
    """
    end = min(deadline, time.monotonic() + LONGEST)
    held = {transaction for transaction, *_ in _look(connection)}
    while left := [each for each in _look(connection) if each[0] in held]:
        if time.monotonic() >= end:
            _, pid, user, application = left[0]
            return f"process {pid} ({application or 'unnamed'}, role {user!r})"
        sleep(PAUSE)
    return None


def _look(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    # Within a transaction it is else always the same that is seen of others.
    _, found = run(connection, "SELECT pg_stat_clear_snapshot()", HELD)
    return found


# Transactions that began long ago: who would make VACUUM vain, or keep REINDEX CONCURRENTLY waiting.
#

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


def hidden_transactions(connection: psycopg.Connection[Any]) -> str | None:
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


# Waits for what passes soon, and for nothing else: long transactions are found before anything is asked for.
#
# Whoever waits for a heavy lock makes everybody wait who comes later. So it is asked for only when nobody is known to
# hold it for long, briefly, and again.
#

SHORT = 1.0
"""Seconds that a transaction may last and still be waited for."""
LOOK_AGAIN = 0.05

Sleep = Callable[[float], None]


def check_lock_holders(
    connection: psycopg.Connection[Any],
    wants: Sequence[Want],
    subject: str,
    sleep: Sleep = time.sleep,
    deadline: float = math.inf,
) -> None:
    """Return once every transaction has gone that held a conflicting lock at first; `SHORT` at most.

    After ``deadline``, a moment of `time.monotonic`, none is waited for: workers are not held where much is to be done.
    Raises `TableBusy` that names the oldest one as soon as one has lasted longer, which most often is at once, and
    psycopg's errors. Autovacuum is no obstacle: it gives way to whoever waits.
    """
    began, first = time.monotonic(), None
    while True:
        waited = time.monotonic() - began
        held = {each.transaction: each for each in blockers(connection, wants) if each.yields_after is None}
        first = set(held) if first is None else first & set(held)
        for name, each in held.items():
            # How old they are is not to be seen of everybody's transactions.
            late = waited > SHORT or time.monotonic() >= deadline
            if (each.age or 0) > SHORT or (late and name in first):
                raise TableBusy(f"{subject}: a lock that it needs is not to be had; {each.text}")
        if not first:
            return
        sleep(LOOK_AGAIN)


def retry_locks(
    connection: Session,
    attempt: Callable[[], None],
    wants: Sequence[Want],
    subject: str,
    deadline: float,
    sleep: Sleep = time.sleep,
) -> None:
    """Make the attempt, and again while a lock was not to be had and only short transactions are in the way.

    ``deadline`` is a moment of `time.monotonic`; one attempt is made in any case. ``subject`` says what is not done
    then, such as "partition public.run_2018 is not detached". Raises `TableBusy`, what the attempt raises of ours, and
    what `translate` makes of psycopg's.
    """
    pause = LOOK_AGAIN
    while True:
        try:
            check_lock_holders(connection, wants, subject, sleep, deadline)
            attempt()
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            undo(connection)
            if time.monotonic() + pause >= deadline:
                raise busy(connection, wants, subject) from None
        except psycopg.Error as error:
            undo(connection)
            raise translate(error, subject) from None
        else:
            return
        sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - keeps two from colliding again
        pause = min(pause * 2, 1.0)


def busy(connection: psycopg.Connection[Any], wants: Sequence[Want], subject: str) -> Exception:
    """The `TableBusy` of a lock that was not to be had, with the name of whoever holds it."""
    try:
        found = blockers(connection, wants)
    except psycopg.Error as lost:
        return translate(lost, subject)
    who = found[0].text if found else "whoever held it has gone meanwhile"
    return TableBusy(f"{subject}: a lock that it needs was not to be had in time; {who}")


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """psycopg's errors in the block are raised as `translate` makes them."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, subject) from None
