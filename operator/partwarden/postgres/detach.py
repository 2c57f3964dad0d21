"""Detach partitions, so that no session waits and nothing is left between two states for long.

Three transactions, in an order that is safe wherever it is interrupted:

1. The mark, phase ``Detaching``, is written into the comment of the partition, under the advisory lock, where bounds
   and OIDs are still those of the plan. Interrupted after it: an attached partition with a mark, which means nothing.
2. The detach. ``CONCURRENTLY`` locks no session out, but is no transaction: it commits a state in which the partition
   is pending, waits for all who still use the table, and completes. Interrupted between: it is pending in the catalog,
   where the next reconcile finds it, and finishes it. Interrupted after: a table with a mark, and its rows.
3. The mark, phase ``Detached``, with the time. Before it the table is never dropped, and the grace begins with it.

No advisory lock is held in 2: it would have to be one of the session, which a pooler hands to the next client. It need
not be. Two at once are ordered by PostgreSQL's lock on the parent; the second is refused (the detach is pending, or
done), and completing what is not pending any more is refused as well. The name could come to mean another partition
between 1 and 2, by DDL of a user: that one is detached then with all its rows, but it has no mark, so it is never
dropped. With a DEFAULT partition 1 and 2 are one transaction under locks, and nothing of this can be.

Nor is a time limit set for 2 in the session, for the same reason: it is cancelled from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, LiteralString

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Composed

from ..errors import PartwardenError, RowsReferenced, StatementFailed, TableBusy, TableChanged
from ..planner.actions import ConfirmDetached, DetachPartition, FinalizeDetach
from ..planner.default_rows import count_of
from ..planner.inventory import Inventory, Parent, Reference
from ..planner.marker import Marker, Phase
from . import ddl, locks, split_leftovers
from .connection import Session, run
from .dependents import references
from .errors import message
from .locks import PINNED, Mode, Want, check_lock_holders, describe, joined, lock_error, lock_holders, retry_locks
from .table_state import TableState, is_ours, look, write
from .transaction import LOCK_TIMEOUT_HEAVY, cancelled_after, changing, parent_of, set_lock_timeout, translated, undo

LIMIT, LIMIT_JOINED = 5.0, 2.0
"""Seconds that a concurrent detach may take; the latter where PostgreSQL searches tables whose foreign keys refer to
the partition, which may not be written to meanwhile."""
UNDER_LOCK = "1s"  # the same for the form that keeps every session out
WAIT_FOR_SNAPSHOTS = 100  # milliseconds to wait for each transaction that began before a detach was interrupted

# To detach concurrently plans the CHECK constraints, which calls functions whose arguments are constants: of others, as
# the login. Where foreign keys refer to the partition, PostgreSQL also searches the tables that they are of: then those
# of their indexes and extended statistics, and of the partition's, are called, too. Those of a superuser, as most of an
# extension are, may be called.
CALLS = """
WITH RECURSIVE searched(oid) AS (
  SELECT conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid = {oid}
  UNION SELECT i.inhrelid FROM searched s JOIN pg_inherits i ON i.inhparent = s.oid
), planned(oid) AS (SELECT oid FROM searched UNION SELECT {oid}::oid WHERE EXISTS (SELECT FROM searched)),
parts(classid, objid) AS (
  SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k
  WHERE k.contype = 'c' AND (k.conrelid = {oid} OR k.conrelid IN (SELECT oid FROM planned))
  UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM planned p JOIN pg_index i ON i.indrelid = p.oid
  UNION ALL SELECT 'pg_statistic_ext'::regclass, e.oid FROM planned p JOIN pg_statistic_ext e ON e.stxrelid = p.oid
)
SELECT EXISTS (
  SELECT FROM parts JOIN pg_depend d ON d.classid = parts.classid AND d.objid = parts.objid
  LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
  JOIN pg_proc f ON f.oid = CASE d.refclassid WHEN 'pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
  JOIN pg_roles r ON r.oid = f.proowner WHERE NOT r.rolsuper AND r.rolname <> current_user)
"""
OTHERS = """
SELECT n.nspname || '.' || c.relname FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = {} AND i.inhdetachpending
"""
# Of the transactions that the end of a detach waits for, those that hold no lock. Every role sees whose they are, but
# not how old: https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-DETACH-PARTITION
SNAPSHOTS = """
SELECT pid, usename, nullif(application_name, '')
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND coalesce(clock_timestamp() - xact_start > make_interval(secs => {}), true)
  AND age(backend_xmin) >= age(pg_snapshot_xmin(pg_current_snapshot())::xid)
ORDER BY age(backend_xmin) DESC, pid LIMIT 1
"""


def detach(connection: Session, inventory: Inventory, action: DetachPartition, deadline: float) -> None:
    """Mark the partition, detach it, and confirm the mark.

    ``deadline`` is a moment of `time.monotonic` until which the form that needs heavy locks is tried again. Raises
    `TableBusy` at once where a transaction older than a second would be waited for, `RowsReferenced`,
    `AnotherOperator`, `TableChanged`, `StatementFailed`, or `DatabaseUnreachable` when the connection is lost.
    """
    parent, subject = parent_of(inventory), f"cannot detach partition {action}"
    with translated(connection, subject):
        try:
            wants = [
                Want(parent.oid, Mode.ACCESS_EXCLUSIVE),
                Want(action.oid, Mode.ACCESS_EXCLUSIVE),
                *locks.wants_of_default(inventory),
                *joined(connection, action.oid, Mode.SHARE_ROW_EXCLUSIVE),
            ]
            split_leftovers.take_away(connection, inventory, action, deadline)
            # There is no SET LOCAL ROLE outside a transaction, and SET ROLE would bind the next client of a pooler.
            calls_others = action.concurrently and parent.borrowed and _ask(connection, CALLS, oid=action.oid)[0][0]
            if not action.concurrently or calls_others:
                attempt = partial(_at_once, connection, inventory, action)
                retry_locks(connection, attempt, lambda: wants, subject, deadline)
            else:
                _concurrently(connection, inventory, action, wants, deadline)
        except RowsReferenced as error:
            raise _referenced(connection, inventory, action) from error
    subject = f"partition {action} is detached, but that is not confirmed"
    with translated(connection, subject):
        retry_locks(connection, lambda: _confirm(connection, parent, action), lambda: (), subject, deadline)


def finalize(connection: Session, inventory: Inventory, action: FinalizeDetach, deadline: float) -> None:
    """Finish a detach that was interrupted, of whatever session. Raises as `detach` does.

    Safe for the rows: they stay in the table, and were invisible through the parent since the detach began.
    """
    parent, subject = parent_of(inventory), f"cannot finish the detach of partition {action}"
    with translated(connection, subject):
        keys = joined(connection, action.oid, Mode.SHARE_ROW_EXCLUSIVE)
        wants = [Want(parent.oid, Mode.SHARE_UPDATE_EXCLUSIVE), Want(action.oid, Mode.ACCESS_EXCLUSIVE), *keys]
        timeout = LOCK_TIMEOUT_HEAVY if keys else WAIT_FOR_SNAPSHOTS

        def attempt() -> None:
            with changing(connection, parent, "5s"):
                state = look(connection, action, action.oid)
                if not state.pending or state.parent != parent.oid:
                    raise TableChanged(f"the detach of partition {action} was finished by another session")
                try:
                    run(connection, set_lock_timeout(timeout), ddl.detach(parent, action, "FINALIZE"), "COMMIT")
                except pg.LockNotAvailable:
                    undo(connection)
                    if not (old := _ask(connection, SNAPSHOTS, locks.SHORT)):
                        raise
                    raise TableBusy(
                        f"{subject}: it waits for every transaction that may still see its rows; {describe(*old[0])} "
                        "began before"
                    ) from None

        retry_locks(connection, attempt, lambda: wants, subject, deadline)


def confirm(connection: Session, inventory: Inventory, action: ConfirmDetached, deadline: float) -> None:
    """Write into the mark since when the table is detached. Raises as `detach` does."""
    parent, subject = parent_of(inventory), f"cannot confirm the detach of table {action}"
    with translated(connection, subject):
        retry_locks(connection, lambda: _confirm(connection, parent, action), lambda: (), subject, deadline)


def _confirm(connection: Session, parent: Parent, action: DetachPartition | ConfirmDetached) -> None:
    """Phase ``Detached``, if the table really is, and the mark is ours, says ``Detaching``, and is the planned one."""
    with changing(connection, parent, "10s"):
        state = look(connection, action, action.oid)
        mark = state.mark
        if not state.detached or mark is None or not is_ours(state, parent):
            raise TableChanged(f"table {action} is not one that was detached from {parent} and marked so")
        planned = action.marker if isinstance(action, ConfirmDetached) else mark
        if mark.phase is not Phase.DETACHING or mark != planned:
            raise TableChanged(f"the mark in the comment of table {action} was changed since it was read")
        run(connection, write(action, state.text, replace(mark, phase=Phase.DETACHED, since=state.now)), "COMMIT")


def _ask(connection: Session, query: LiteralString, *values: object, **named: object) -> list[Any]:
    return run(connection, PINNED, SQL(query).format(*values, **named))[1]


def _attached(connection: Session, inventory: Inventory, action: DetachPartition) -> TableState:
    """The state of the partition, if it is the one that was planned for, with the same bounds."""
    parent, state = parent_of(inventory), look(connection, action, action.oid)
    planned = next((each for each in inventory.partitions if each.oid == action.oid), None)
    if (
        planned is None
        or planned.range != action.range
        or not state.plain
        or not state.is_partition
        or state.pending
        or (state.parent, state.bounds) != (parent.oid, planned.bounds)
    ):
        raise TableChanged(f"partition {action} is no longer attached as it was when it was read")
    if is_ours(state, parent) and state.mark is not None and state.mark.phase is not Phase.DETACHING:
        raise TableChanged(f"partition {action} was attached again by another session, or restored from an archive")
    return state


def _mark(parent: Parent, action: DetachPartition, state: TableState) -> Composed:
    mark = Marker(state.oid, parent.oid, str(parent), action.range, Phase.DETACHING, state.now)
    return write(action, state.text, mark)


def _concurrently(
    connection: Session, inventory: Inventory, action: DetachPartition, wants: Sequence[Want], deadline: float
) -> None:
    parent, subject = parent_of(inventory), f"cannot detach partition {action}"
    # PostgreSQL detaches one partition of a table at a time so, and would refuse after the mark is written.
    if others := _ask(connection, OTHERS, parent.oid):
        raise TableBusy(f"{subject}: the detach of {others[0][0]} has begun before, and must end first")

    def mark() -> None:
        """No session waits for the lock that COMMENT takes, and it changes nothing but the comment."""
        with changing(connection, parent, "10s"):
            run(connection, _mark(parent, action, _attached(connection, inventory, action)), "COMMIT")

    retry_locks(connection, mark, lambda: wants, subject, deadline)
    try:
        _detach_marked(connection, parent, action, wants, deadline)
    except BaseException:
        # Where nothing is detached nothing shall say so. Only for tidiness: on a partition the mark means nothing.
        with suppress(psycopg.Error, PartwardenError):
            _unmark(connection, inventory, action)
        raise


def _detach_marked(
    connection: Session, parent: Parent, action: DetachPartition, wants: Sequence[Want], deadline: float
) -> None:
    """Safe for the rows: they stay in the table, and a transaction that began before goes on seeing them."""
    subject, joined_too = f"cannot detach partition {action}", len(wants) > 2
    limit = LIMIT_JOINED if joined_too else LIMIT
    # As close before it as can be: a transaction that begins right after it may yet be a long one.
    check_lock_holders(connection, wants, subject, deadline)
    try:
        with cancelled_after(connection, limit):
            run(connection, ddl.detach(parent, action, "CONCURRENTLY"))
    except (pg.QueryCanceled, pg.LockNotAvailable, pg.DeadlockDetected) as error:
        pending = "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = {} AND inhparent = {}"
        rows = _ask(connection, pending, action.oid, parent.oid)
        if not rows:
            return  # Too late to be cancelled: it was done.
        busy = lock_error(subject, lock_holders(connection, wants))
        if rows[0][0]:
            raise TableBusy(f"{busy}; the detach has begun, and is finished later") from None
        if isinstance(error, pg.QueryCanceled) and joined_too:
            raise _too_much_to_search(subject, f"{limit:.0f} s") from None
        raise busy from None
    except pg.ObjectNotInPrerequisiteState as error:
        raise TableChanged(f"{subject}: {message(error)}") from None
    except pg.ForeignKeyViolation as error:
        raise RowsReferenced(message(error)) from None


def _at_once(connection: Session, inventory: Inventory, action: DetachPartition) -> None:
    """The form that keeps every session out, but for an instant: what it needs to know is asked before its locks.

    Safe for the rows: they stay in the table, with a mark, and with a CHECK that keeps others out: both are there when
    the detach is, or none of it is.
    """
    parent, default = parent_of(inventory), inventory.default
    with changing(connection, parent, UNDER_LOCK):
        state = _attached(connection, inventory, action)
        if default is not None:
            # Autovacuum gives way now, while no session waits behind us.
            run(connection, ddl.lock(default, "SHARE UPDATE EXCLUSIVE"))
        ((condition,),) = run(connection, ddl.PARTITION_CONSTRAINT.format(action.oid))[0]
        ddl.check_text(f"cannot detach partition {action}: what its bounds and those above it say", condition)
        try:
            run(
                connection,
                set_lock_timeout(LOCK_TIMEOUT_HEAVY),
                _mark(parent, action, state),
                ddl.detach(parent, action),
                # Each new row fulfils the condition; those there are not read.
                SQL("ALTER TABLE {} ADD CHECK ({}) NOT VALID").format(ddl.relation(action), SQL(condition)),
                "COMMIT",
            )
        except pg.QueryCanceled:
            raise _too_much_to_search(f"cannot detach partition {action}", UNDER_LOCK) from None
        except pg.ForeignKeyViolation as error:
            raise RowsReferenced(message(error)) from None


def _unmark(connection: Session, inventory: Inventory, action: DetachPartition) -> None:
    if not connection.closed:
        with changing(connection, parent_of(inventory), "10s"):
            state = _attached(connection, inventory, action)
            if is_ours(state, parent_of(inventory)):
                run(connection, write(action, state.text, None), "COMMIT")


def _too_much_to_search(subject: str, limit: str) -> StatementFailed:
    return StatementFailed(
        f"{subject}: PostgreSQL needs more than {limit} to make sure that no row refers to it, and keeps writers "
        "waiting meanwhile; create an index on the referring columns, or detach it by hand in a quiet hour"
    )


def _referenced(connection: Session, inventory: Inventory, action: DetachPartition) -> RowsReferenced:
    """Rows that others refer to keep a partition attached, also where their key says ON DELETE CASCADE."""
    counted: tuple[Reference, ...] = ()
    with suppress(psycopg.Error):
        counted = references(connection, inventory, [action]).get(action.oid, ())
    rows = ", ".join(f"{count_of(each.rows, not each.at_least)} of {each.table}" for each in counted)
    return RowsReferenced(
        f"cannot detach partition {action}: {rows or 'rows of another table'} refer to its rows by a foreign key; "
        "delete those, or name the partition in spec.holds to keep it"
    )
