"""Drops tables that were detached, once their grace is over. The one thing here that loses rows, and is meant to.

Everything that allowed it is asked again under a lock that keeps everybody else out: nothing can change between the
last look and the drop. What is not certain keeps the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from psycopg import errors as pg
from psycopg import sql

from ..api.archive import Fingerprint
from ..api.retention import OnLargeObjects
from ..errors import ClusterUnavailable, ContentsChanged, StatementRejected, TableChanged
from ..planner.actions import DropDetached
from ..planner.drop_preconditions import NEVER, DropCase, Recheck, Withdrawn, unmet
from ..planner.findings import pointing, refusing, used_elsewhere
from ..planner.inventory import Fate, Inventory, Tie
from . import ddl, dependents, fingerprint, large_objects
from .connection import Session, run
from .errors import message
from .locks import Mode, Want, joined, retry_locks
from .table_state import TableState, holding_to, is_ours, lock, look, set_lock_timeout
from .transaction import LOCK_TIMEOUT, LOCK_TIMEOUT_HEAVY, changing, parent_of, translated

STATEMENT_TIMEOUT = "10s"
TAKING_TIMEOUT = "24h"
"""For the fingerprint alone: it reads every row, of a table that nobody else has in hand by then, and a terabyte takes
hours. A shorter limit would keep the largest tables for ever."""
SET_STATEMENT_TIMEOUT = "SELECT pg_catalog.set_config('statement_timeout', {}, true)"


def drop(
    connection: Session,
    inventory: Inventory,
    action: DropDetached,
    deadline: float,
    recheck: Recheck = NEVER,
) -> None:
    """Drop the table, if it is the one that was detached and marked, and its grace is over by the server's clock.

    ``deadline`` is a moment of `time.monotonic`; one attempt is made in any case. Raises `TableBusy` at once where a
    transaction older than a second uses the table or one that its foreign keys refer to, `AnotherOperator`,
    `TableChanged`, `StatementRejected` where other objects depend on the table or its rows are not proven to be those
    of the partition, `ContentsChanged` where it does not hold what its archive holds, `ObjectsTied`, `LargeObjects`,
    `Withdrawn` where ``recheck`` finds that it is to be kept, `ClusterUnavailable` where that cannot be asked, or
    `DatabaseUnreachable`.
    """
    subject = f"cannot drop table {action}"
    with translated(connection, subject):
        wants = [
            Want(action.oid, Mode.ACCESS_EXCLUSIVE),
            # PostgreSQL locks the other end of a foreign key against readers, too.
            *joined(connection, action.oid, Mode.ACCESS_EXCLUSIVE),
            *(Want(each.oid, Mode.SHARE_ROW_EXCLUSIVE) for each in action.ties if each.fate is Fate.KEPT),
        ]
        retry_locks(
            connection,
            lambda: _attempt(connection, inventory, action, subject, recheck),
            lambda: wants,
            subject,
            deadline,
        )


def _attempt(connection: Session, inventory: Inventory, action: DropDetached, subject: str, recheck: Recheck) -> None:
    parent = parent_of(inventory)
    with changing(connection, parent, STATEMENT_TIMEOUT):
        # First the lock that autovacuum gives way to, and that nobody waits behind; then the one that nobody may share.
        look(connection, action, action.oid)
        run(connection, set_lock_timeout(LOCK_TIMEOUT_HEAVY), lock(action, "ACCESS EXCLUSIVE"))
        standing = look(connection, action, action.oid)
        case = _check(inventory, action, standing)
        if not holding_to(connection, action.oid, parent.key[0], action.marker.range):
            raise StatementRejected(
                f"{subject}: no CHECK holds its {parent.key[0].column} to the range of the partition that it was, so "
                "somebody may have put other rows into it: drop it by hand, or add that CHECK again"
            )
        kept = _settle_ties(connection, action)
        if action.fingerprint is not None:
            _compare(connection, action, subject, action.fingerprint)
        # To compare may have taken hours.
        _ask_again(case, subject, recheck)
        try:
            # Safe: it is the table that we detached, by OID, and marked so; no partition, and nobody's parent; the
            # policy's grace is over; every row of it is of the expired range; where there must be an archive, it holds
            # what that one was proven to hold, compared under this lock, so that nobody can have changed it since; and
            # no other session uses it. All that the policy and the annotations say was asked again just now.
            # RESTRICT: whatever depends on it keeps it. Interrupted before COMMIT, it is there as it was.
            # Of what PostgreSQL would drop with it without asking, the plan has named everything (_settle_ties). A
            # sequence is taken off it here: later than all that takes long, since nextval waits until the COMMIT, and
            # in this transaction, so that where the drop fails nothing has changed.
            disowning = (
                (set_lock_timeout(LOCK_TIMEOUT), *(ddl.disown(each.schema, each.name) for each in kept)) if kept else ()
            )
            run(connection, *disowning, ddl.drop_table(action), "COMMIT")
        except pg.DependentObjectsStillExist as error:
            raise StatementRejected(
                f"{subject}: other objects depend on it: {message(error)}; drop or change those, CASCADE is never used"
            ) from None


def _compare(connection: Session, action: DropDetached, subject: str, proven: Fingerprint) -> None:
    """Raises `ContentsChanged` unless the table, locked by now against everybody, holds what its archive holds."""
    with _reading_all(connection):
        if action.large_objects is OnLargeObjects.REFUSE and (
            columns := large_objects.columns(connection, action.oid, action.schema, action.name)
        ):
            raise pointing(f"table {action}", columns, "dropped")
        found = fingerprint.take(connection, action.schema, action.name)
    if found != proven:
        raise ContentsChanged(
            f"{subject}: it holds {found.rows} rows of fingerprint {found.content[:16]}, its archive {action.archive} "
            f"{proven.rows} of {proven.content[:16]}: it was changed since it was compared last"
        )


@contextmanager
def _reading_all(connection: Session) -> Iterator[None]:
    """Statements of the block may take as long as every row needs."""
    longest, connection.longest = connection.longest, max(connection.longest, fingerprint.LONGEST)
    try:
        run(connection, sql.SQL(SET_STATEMENT_TIMEOUT).format(TAKING_TIMEOUT))
        yield
        run(connection, sql.SQL(SET_STATEMENT_TIMEOUT).format(STATEMENT_TIMEOUT))
    finally:
        connection.longest = longest


def _settle_ties(connection: Session, action: DropDetached) -> list[Tie]:
    """The sequences that are to be kept. Raises `ObjectsTied` and `TableChanged`.

    Under the lock, which everything needs that ties an object to the table: nothing is added after this.
    """
    found = dependents.ties_now(connection, action.oid)
    if error := refusing(action, found):
        raise error
    going = [each for each in found if each.fate is Fate.GOES]
    if unnamed := [each for each in going if each not in action.ties]:
        raise TableChanged(
            f"table {action} is not dropped: something is tied to it that the plan does not name, and would go with "
            f"it: {', '.join(map(str, unnamed))}"
        )
    for each in [each for each in going if each.name]:
        with _reading_all(connection):
            used = dependents.is_used_elsewhere(connection, action.oid, ddl.relation(action), each)
        if used:
            raise used_elsewhere(action, each)
    return [each for each in found if each.fate is Fate.KEPT]


def _ask_again(case: DropCase, subject: str, recheck: Recheck) -> None:
    """Raises `Withdrawn` where something keeps the table by now, and `ClusterUnavailable`."""
    if stopped := recheck.why_stopped():
        raise Withdrawn(f"{subject}: {stopped}")
    try:
        kept = unmet(recheck.renew(case))
    except Withdrawn as withdrawn:
        raise Withdrawn(f"{subject}: {withdrawn}") from None
    except ClusterUnavailable as error:
        raise ClusterUnavailable(f"{subject}, since its policy could not be read once more: {error}") from error
    if kept is not None:
        raise Withdrawn(f"{subject}: {kept.message}")


def _check(inventory: Inventory, action: DropDetached, standing: TableState) -> DropCase:
    """What the drop is decided from, as it is now. Raises `TableChanged` unless all is as the plan had it."""
    if not standing.detached:
        raise TableChanged(f"table {action} is a partition again, or has others below it")
    # By OIDs: a copy of the comment, the same name made anew and another parent are all something else.
    if standing.mark != action.marker or not is_ours(standing, parent_of(inventory)):
        raise TableChanged(f"the mark in the comment of table {action} was changed since it was looked at")
    if standing.mark.range != action.range:
        raise TableChanged(f"table {action} is not marked as detached for the range that is to go")
    table = replace(action.case.table, marker=standing.mark)
    read_now = action.case.read_now + (standing.now - inventory.now)
    case = replace(action.case, table=table, now=standing.now, read_now=read_now)
    if (kept := unmet(case)) is not None:
        raise TableChanged(f"table {action} is not dropped: {kept.message}")
    return case
