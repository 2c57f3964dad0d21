"""Detaches partitions, so that nobody waits and nothing is left between two states for long.

Three transactions, in an order that is safe wherever it is interrupted:

1. The mark, phase ``Detaching``, is written into the comment of the partition, under the advisory lock, where bounds
   and OIDs are still those of the plan. Interrupted after it: an attached partition with a mark, which means nothing.
2. The detach. ``CONCURRENTLY`` locks nobody out, but is no transaction: it commits a state in which the partition is
   pending, waits for everybody who still uses the table, and completes. Interrupted between: it is pending in the
   catalog, where every look sees it, and finishes it. Interrupted after: a table with a mark, and its rows.
3. The mark, phase ``Detached``, with the time. Before it nobody drops the table, and the grace begins with it.

No advisory lock is held in 2: it would have to be one of the session, which a pooler hands to the next client. It need
not be. Two at once are ordered by PostgreSQL's lock on the parent; whoever comes second is refused (the detach is
pending, or done), and completing what is not pending any more is refused as well. The name could come to mean another
partition between 1 and 2, at somebody's hands: that one is detached then with all its rows, but it has no mark, so it
is never dropped. With a DEFAULT partition 1 and 2 are one transaction under locks, and nothing of this can be.

Nor is a time limit set for 2 in the session, for the same reason: it is cancelled from here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import PartwardenError, RowsReferenced, StatementFailed, TableBusy, TableChanged
from ..planner.actions import Action, ConfirmDetached, DetachPartition, FinalizeDetach
from ..planner.inventory import Inventory, Parent, Reference
from ..planner.marker import Marker, Phase
from . import ddl
from .connection import Session, pinned, run
from .errors import message, translate
from .foreign_keys import references
from .locks import SHORT, Mode, Want, busy, check_lock_holders, joined, retry_locks, translated
from .table_state import TableState, changing, is_ours, look, parent_of, set_lock_timeout, write
from .transaction import LOCK_TIMEOUT_HEAVY, undo

# Finishes detaches that were begun: the pending ones of the catalog, and the marks of tables that are detached.
#

FINISH_LOCK_TIMEOUT = "5s"
WAIT_FOR_SNAPSHOTS = 100
"""Milliseconds to wait for each transaction that began before a detach was interrupted."""

# Of those the end of a detach waits for, the ones that do not hold a lock: https://www.postgresql.org/docs/current/
# sql-altertable.html#SQL-ALTERTABLE-DETACH-PARTITION. Who they are everybody may see, how old they are not.
SNAPSHOTS = """
SELECT pid, coalesce(nullif(application_name, ''), 'unnamed'), usename
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND coalesce(clock_timestamp() - xact_start > make_interval(secs => {}), true)
  AND age(backend_xmin) >= age(pg_snapshot_xmin(pg_current_snapshot())::xid)
ORDER BY age(backend_xmin) DESC, pid LIMIT 1
"""


def finalize(connection: Session, inventory: Inventory, _key: str, action: FinalizeDetach, deadline: float) -> None:
    """Finish a detach that was interrupted, whoever began it. Raises as `detach` does.

    Safe for the rows: they stay in the table, and were invisible through the parent since the detach began.
    """
    parent = parent_of(inventory)
    subject = f"the detach of partition {action} is not finished"
    with translated(subject):
        keys = joined(connection, action.oid, Mode.SHARE_ROW_EXCLUSIVE)
    wants = (Want(parent.oid, Mode.SHARE_UPDATE_EXCLUSIVE), Want(action.oid, Mode.ACCESS_EXCLUSIVE), *keys)
    timeout = LOCK_TIMEOUT_HEAVY if keys else WAIT_FOR_SNAPSHOTS

    def attempt() -> None:
        with changing(connection, parent, FINISH_LOCK_TIMEOUT):
            standing = look(connection, action, action.oid)
            if not standing.pending or standing.parent != parent.oid:
                raise TableChanged(f"the detach of partition {action} was finished by somebody else")
            try:
                run(connection, set_lock_timeout(timeout), ddl.detach(parent, action, "FINALIZE"), "COMMIT")
            except pg.LockNotAvailable:
                undo(connection)
                if found := _old_snapshot(connection, subject):
                    raise found from None
                raise

    retry_locks(connection, attempt, wants, subject, deadline)


def confirm(connection: Session, inventory: Inventory, _key: str, action: ConfirmDetached, deadline: float) -> None:
    """Write into the mark since when the table is detached. Raises as `detach` does."""
    parent, subject = parent_of(inventory), f"{action.noun} {action} is not confirmed as detached"
    retry_locks(
        connection, lambda: confirm_mark(connection, parent, action, action.oid, action.marker), (), subject, deadline
    )


def confirm_mark(connection: Session, parent: Parent, action: Action, oid: int, expected: Marker | None = None) -> None:
    """Phase ``Detached``, if the table really is, and the mark is ours and says ``Detaching``.

    ``expected`` is the mark as it was seen, None for any of ours. Raises `TableChanged`, and as `changing` does.
    """
    with changing(connection, parent, "10s"):
        standing = look(connection, action, oid)
        mark = standing.mark
        if not standing.detached or mark is None or not is_ours(standing, parent):
            raise TableChanged(f"table {action} is not one that was detached from {parent} and marked so")
        if mark.phase is not Phase.DETACHING or (expected is not None and mark != expected):
            raise TableChanged(f"the mark in the comment of table {action} was changed since it was looked at")
        confirmed = replace(mark, phase=Phase.DETACHED, since=standing.now)
        run(connection, write(action, standing.text, confirmed), "COMMIT")


def _old_snapshot(connection: Session, subject: str) -> TableBusy | None:
    """Who keeps the end of a detach waiting, and not for a moment only, although no lock of theirs is in the way."""
    if not (found := run(connection, pinned("1s", "10s"), sql.SQL(SNAPSHOTS).format(SHORT))[1]):
        return None
    ((pid, application, role),) = found
    return TableBusy(
        f"{subject}: it waits for every transaction that may still see its rows; process {pid} "
        f"({application}, role {role!r}) began before"
    )


LIMIT, LIMIT_JOINED = 5.0, 2.0
"""Seconds that a concurrent detach may take; the latter where PostgreSQL searches tables whose foreign keys refer to
the partition, which may not be written to meanwhile."""
UNDER_LOCK = "1s"
"""The same for the form that keeps everybody out."""

PENDING = "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = {} AND inhparent = {}"
OTHERS = """
SELECT n.nspname || '.' || c.relname FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = {} AND i.inhdetachpending
"""
PINNED = pinned(lock_timeout="500ms", statement_timeout="10s")

# To detach concurrently plans the CHECK constraints, which calls functions whose arguments are constants. Those of a
# superuser, as most of an extension are, may be called.
CALLS = """
SELECT EXISTS (
  SELECT FROM pg_constraint k
  JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
  LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
  JOIN pg_proc f ON f.oid = CASE d.refclassid WHEN 'pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
  JOIN pg_roles r ON r.oid = f.proowner
  WHERE k.conrelid = {} AND k.contype = 'c' AND NOT r.rolsuper AND r.rolname <> current_user)
"""
CONDITION = "SELECT pg_get_partition_constraintdef({}::oid)"


def detach(connection: Session, inventory: Inventory, _key: str, action: DetachPartition, deadline: float) -> None:
    """Mark the partition, detach it, and confirm the mark.

    ``deadline`` is a moment of `time.monotonic` until which the form that needs heavy locks is tried again. Raises
    `TableBusy` at once where a transaction older than a second would be waited for, `RowsReferenced`,
    `AnotherOperator`, `TableChanged`, `StatementFailed`, or `DatabaseUnreachable` when the connection is lost.
    """
    parent = parent_of(inventory)
    subject = f"partition {action} is not detached"
    default = [Want(each.oid, Mode.ACCESS_EXCLUSIVE) for each in inventory.partitions if each.range is None]
    with translated(subject):
        keys = joined(connection, action.oid, Mode.SHARE_ROW_EXCLUSIVE)
    wants = (Want(parent.oid, Mode.ACCESS_EXCLUSIVE), Want(action.oid, Mode.ACCESS_EXCLUSIVE), *default, *keys)
    with _referenced(connection, inventory, action):
        if action.concurrently and not _calls_others(connection, parent, action, subject):
            _check_alone(connection, parent, subject)
            retry_locks(connection, lambda: _mark(connection, inventory, action), wants, subject, deadline)
            try:
                _concurrently(connection, parent, action, wants, deadline)
            except BaseException:
                _unmark(connection, inventory, action)
                raise
        else:
            retry_locks(connection, lambda: _at_once(connection, inventory, action), wants, subject, deadline)
        with translated(f"partition {action} is detached, but that is not confirmed"):
            confirm_mark(connection, parent, action, action.oid)


def _calls_others(connection: Session, parent: Parent, action: DetachPartition, subject: str) -> bool:
    """Whether to detach it concurrently would call functions of others as the login.

    There is no SET LOCAL ROLE outside a transaction, and SET ROLE would bind the next client of a pooler.
    """
    if not parent.borrowed:
        return False
    with translated(subject):
        return bool(run(connection, PINNED, sql.SQL(CALLS).format(action.oid))[1][0][0])


def _check_alone(connection: Session, parent: Parent, subject: str) -> None:
    """PostgreSQL detaches one partition of a table at a time so, and would refuse after the mark is written."""
    with translated(subject):
        if found := run(connection, PINNED, sql.SQL(OTHERS).format(parent.oid))[1]:
            raise TableBusy(f"{subject}: the detach of {found[0][0]} has begun before, and must end first")


def _mark(connection: Session, inventory: Inventory, action: DetachPartition) -> None:
    """Nobody waits for the lock that COMMENT takes, and it changes nothing but the comment."""
    parent = parent_of(inventory)
    with changing(connection, parent, "10s"):
        standing = _attached(connection, inventory, action)
        run(connection, write(action, standing.text, _marker(parent, action, standing)), "COMMIT")


def _attached(connection: Session, inventory: Inventory, action: DetachPartition) -> TableState:
    """How the partition stands, if it is the one that was seen, with the bounds that were seen."""
    parent, standing = parent_of(inventory), look(connection, action, action.oid)
    seen = next((each for each in inventory.partitions if each.oid == action.oid), None)
    if (
        seen is None
        or seen.range != action.range
        or not standing.plain
        or not standing.is_partition
        or standing.pending
        or (standing.parent, standing.bounds) != (parent.oid, seen.bounds)
    ):
        raise TableChanged(f"partition {action} is no longer attached as it was when it was looked at")
    if is_ours(standing, parent) and standing.mark is not None and standing.mark.phase is not Phase.DETACHING:
        raise TableChanged(f"partition {action} was attached again by somebody, or restored from an archive")
    return standing


def _marker(parent: Parent, action: DetachPartition, standing: TableState) -> Marker:
    return Marker(standing.oid, parent.oid, str(parent), action.range, Phase.DETACHING, standing.now)


def _concurrently(
    connection: Session, parent: Parent, action: DetachPartition, wants: Sequence[Want], deadline: float
) -> None:
    """Safe for the rows: they stay in the table, and whoever began before goes on seeing them through the parent."""
    subject, joined_too = f"partition {action} is not detached", len(wants) > 2
    limit = LIMIT_JOINED if joined_too else LIMIT
    # As close before it as can be: a transaction that begins right after it may yet be a long one.
    with translated(subject):
        check_lock_holders(connection, wants, subject, deadline=deadline)
    try:
        with _cancelled_after(connection, limit):
            run(connection, ddl.detach(parent, action, "CONCURRENTLY"))
    except (pg.QueryCanceled, pg.LockNotAvailable, pg.DeadlockDetected) as error:
        with translated(subject):
            found = run(connection, PINNED, sql.SQL(PENDING).format(action.oid, parent.oid))[1]
        if not found:
            return  # Too late to be cancelled: it was done.
        who = busy(connection, wants, subject)
        if found[0][0]:
            raise TableBusy(f"{who}; the detach has begun, and is finished later") from None
        if isinstance(error, pg.QueryCanceled) and joined_too:
            raise _too_much_to_search(subject, f"{limit:.0f} s") from None
        raise who from None
    except pg.ObjectNotInPrerequisiteState as error:
        raise TableChanged(f"{subject}: {message(error)}") from None
    except pg.ForeignKeyViolation as error:
        raise RowsReferenced(message(error)) from None
    except psycopg.Error as error:
        raise translate(error, subject) from None


def _at_once(connection: Session, inventory: Inventory, action: DetachPartition) -> None:
    """The form that keeps everybody out, but for an instant: what it needs to know is asked before its locks.

    Safe for the rows: they stay in the table, with a mark, and with a CHECK that keeps others out: both are there when
    the detach is, or none of it is.
    """
    parent, default = parent_of(inventory), inventory.default
    with changing(connection, parent, UNDER_LOCK):
        standing = _attached(connection, inventory, action)
        if default is not None:
            # Autovacuum gives way now, while nobody waits behind us.
            lock = "LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE"
            run(connection, sql.SQL(lock).format(sql.Identifier(default.schema, default.name)))
        ((condition,),) = run(connection, sql.SQL(CONDITION).format(action.oid))[0]
        try:
            run(
                connection,
                set_lock_timeout(LOCK_TIMEOUT_HEAVY),
                write(action, standing.text, _marker(parent, action, standing)),
                ddl.detach(parent, action),
                ddl.add_check(action, condition),
                "COMMIT",
            )
        except pg.QueryCanceled:
            raise _too_much_to_search(f"partition {action} is not detached", UNDER_LOCK) from None
        except pg.ForeignKeyViolation as error:
            raise RowsReferenced(message(error)) from None


def _unmark(connection: Session, inventory: Inventory, action: DetachPartition) -> None:
    """Where nothing is detached nothing shall say so. Only for tidiness: on a partition the mark means nothing."""
    if connection.closed:
        return
    parent = parent_of(inventory)
    with suppress(psycopg.Error, PartwardenError), changing(connection, parent, "10s"):
        standing = _attached(connection, inventory, action)
        if is_ours(standing, parent):
            run(connection, write(action, standing.text, None), "COMMIT")


def _too_much_to_search(subject: str, limit: str) -> StatementFailed:
    return StatementFailed(
        f"{subject}: PostgreSQL needs more than {limit} to make sure that no row refers to it, and keeps writers "
        "waiting meanwhile: an index on the referring columns helps; or detach it by hand in a quiet hour"
    )


@contextmanager
def _referenced(connection: Session, inventory: Inventory, action: DetachPartition) -> Iterator[None]:
    """Rows that others refer to keep a partition attached, also where their key says ON DELETE CASCADE."""
    try:
        yield
    except RowsReferenced as error:
        found: tuple[Reference, ...] = ()
        with suppress(psycopg.Error):
            found = references(connection, inventory, [action]).get(action.oid, ())
        said = ", ".join(
            f"{each.rows}{' or more' if each.at_least else ''} row{'' if each.rows == 1 else 's'} of {each.table}"
            for each in found
        )
        raise RowsReferenced(
            f"partition {action} is not detached: {said or 'rows of another table'} refer to its rows by a foreign "
            "key; delete those, or keep the partition with the annotation partwarden.dev/hold"
        ) from error


@contextmanager
def _cancelled_after(connection: Session, seconds: float) -> Iterator[None]:
    """The statement in the block is cancelled when it takes longer; no later one is."""
    fired = threading.Event()

    def cancel() -> None:
        fired.set()
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=2.0)

    timer = threading.Timer(seconds, cancel)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if fired.is_set() and not connection.closed:
            # What comes too late for the one statement would else hit the next.
            with suppress(pg.QueryCanceled):
                run(connection, "SELECT pg_catalog.pg_sleep(0.01)")
