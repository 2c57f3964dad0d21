"""Drop tables that were detached, once their grace is over: the only statement here that loses rows, and is meant to.

Everything that allowed it is checked again under a lock that keeps every other session out: nothing can change between
the last check and the drop. What is not certain keeps the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from psycopg import errors as pg
from psycopg.sql import SQL

from ..api.archive import Fingerprint
from ..api.retention import OnLargeObjects
from ..errors import ClusterUnavailable, ContentsChanged, StatementRejected, TableChanged
from ..planner.actions import DropDetached
from ..planner.drop_preconditions import DropCase, unmet
from ..planner.findings import pointing
from ..planner.inventory import Fate, Inventory, Tie
from ..planner.recheck import NEVER, Recheck, Withdrawn
from . import ddl, dependents, fingerprint, large_objects
from .connection import Session, run
from .errors import message
from .locks import Mode, Want, joined, retry_locks
from .settings import setting
from .table_state import TableState, holding_to, is_ours, look
from .transaction import (
    LOCK_TIMEOUT,
    LOCK_TIMEOUT_HEAVY,
    READ_ALL_LIMIT,
    READ_ALL_TIMEOUT,
    changing,
    parent_of,
    set_lock_timeout,
    translated,
)

STATEMENT_TIMEOUT = "10s"


def drop(
    connection: Session, inventory: Inventory, action: DropDetached, deadline: float, recheck: Recheck = NEVER
) -> None:
    """Drop the table, if it is the one that was detached and marked, and its grace is over by the server's clock.

    ``deadline`` is a moment of `time.monotonic`; one attempt is made in any case. Raises `TableBusy` at once where a
    transaction older than a second uses the table or one that its foreign keys refer to, `AnotherOperator`,
    `TableChanged`, `StatementRejected` where other objects depend on the table or its rows are not proven to be those
    of the partition, `ContentsChanged`, `ObjectsTied`, `LargeObjects`, `Withdrawn` where ``recheck`` finds that it is
    to be kept, `ClusterUnavailable` where that cannot be asked, or `DatabaseUnreachable`.
    """
    subject = f"cannot drop table {action}"
    with translated(connection, subject):
        wants = [
            Want(action.oid, Mode.ACCESS_EXCLUSIVE),
            # PostgreSQL locks the other end of a foreign key against readers, too.
            *joined(connection, action.oid, Mode.ACCESS_EXCLUSIVE),
            *(Want(each.oid, Mode.SHARE_ROW_EXCLUSIVE) for each in action.ties if each.fate is Fate.KEPT),
        ]

        def attempt() -> None:
            _drop(connection, inventory, action, subject, recheck)

        retry_locks(connection, attempt, lambda: wants, subject, deadline)


def _drop(connection: Session, inventory: Inventory, action: DropDetached, subject: str, recheck: Recheck) -> None:
    parent = parent_of(inventory)
    # The advisory lock of the table itself is enough: nothing but this table is changed. Who else may change it, to
    # attach, mark or drop it, under whatever lock, waits for the exclusive one, and then finds by OID and mark what is.
    with changing(connection, parent, STATEMENT_TIMEOUT, alone=action):
        # First the lock that autovacuum gives way to, and that no session waits behind; then the exclusive one.
        look(connection, action, action.oid)
        run(connection, set_lock_timeout(LOCK_TIMEOUT_HEAVY), ddl.lock(action, "ACCESS EXCLUSIVE"))
        state = look(connection, action, action.oid)
        case = _check(inventory, action, state)
        if not holding_to(connection, action.oid, parent.key[0], action.marker.range):
            raise StatementRejected(
                f"{subject}: no CHECK holds its {parent.key[0].column} to the range of the partition that it was, so "
                "it may hold other rows; drop it by hand, or add that CHECK again"
            )
        kept = _settle_ties(connection, action)
        if action.fingerprint is not None:
            _compare(connection, action, subject, action.fingerprint)
        # To compare may have taken hours.
        _recheck(case, subject, recheck)
        try:
            # Safe here because it is the table that we detached, by OID, and marked so; no partition, no parent; the
            # policy's grace is over; every row of it is of the expired range; where there must be an archive, it holds
            # what that one was proven to hold, compared under this lock, so that no session can have changed it since;
            # and no other session uses it. All that the policy and the annotations say was read again just now.
            # RESTRICT: whatever depends on it keeps it. Interrupted before COMMIT, it is there as it was.
            # Of what PostgreSQL would drop with it without asking, the plan has named everything (_settle_ties). A
            # sequence is taken off it here: later than all that takes long, since nextval waits until the COMMIT, and
            # in this transaction, so that where the drop fails nothing has changed.
            disown = [SQL("ALTER SEQUENCE {} OWNED BY NONE").format(ddl.relation(each)) for each in kept]
            timeout = [set_lock_timeout(LOCK_TIMEOUT)] if kept else []
            run(connection, *timeout, *disown, SQL("DROP TABLE {} RESTRICT").format(ddl.relation(action)), "COMMIT")
        except pg.DependentObjectsStillExist as error:
            raise StatementRejected(
                f"{subject}: other objects depend on it: {message(error)}; drop or change those, CASCADE is never used"
            ) from None


def _compare(connection: Session, action: DropDetached, subject: str, proven: Fingerprint) -> None:
    """The table is locked by now against all others: the sooner this is done, the better."""
    with _reading_all(connection):
        if action.large_objects is OnLargeObjects.REFUSE and (
            columns := large_objects.columns(connection, action.oid, action.schema, action.name)
        ):
            raise pointing("drop", action, columns)
        now = fingerprint.take(connection, action.schema, action.name, hurry=True)
    if now != proven:
        raise ContentsChanged(
            f"{subject}: it holds {now.rows} rows of fingerprint {now.content[:16]}, its archive {action.archive} "
            f"{proven.rows} of {proven.content[:16]}: it was changed since it was compared last"
        )


@contextmanager
def _reading_all(connection: Session) -> Iterator[None]:
    """Statements of the block may take as long as every row needs."""
    with connection.patient(READ_ALL_LIMIT):
        run(connection, setting({"statement_timeout": READ_ALL_TIMEOUT}))
        yield
        run(connection, setting({"statement_timeout": STATEMENT_TIMEOUT}))


def _settle_ties(connection: Session, action: DropDetached) -> list[Tie]:
    """The sequences that are to be kept. Raises `ObjectsTied` and `TableChanged`.

    Under the lock, which everything needs that ties an object to the table: nothing is added after this.
    """
    tied = dependents.ties(connection, [action.oid], in_transaction=True).get(action.oid, ())
    dependents.check_ties(connection, action, action.oid, tied, lambda: _reading_all(connection))
    if unnamed := [each for each in tied if each.fate is Fate.GOES and each not in action.ties]:
        raise TableChanged(
            f"cannot drop table {action}: something is tied to it that the plan does not name, and would go with it: "
            f"{', '.join(map(str, unnamed))}"
        )
    return [each for each in tied if each.fate is Fate.KEPT]


def _recheck(case: DropCase, subject: str, recheck: Recheck) -> None:
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


def _check(inventory: Inventory, action: DropDetached, state: TableState) -> DropCase:
    """What the drop is decided from, as it is now. Raises `TableChanged` unless all is as the plan had it."""
    if not state.detached:
        raise TableChanged(f"table {action} is a partition again, or has others below it")
    # By OIDs: a copy of the comment, the same name made anew and another parent are all something else.
    if state.mark != action.marker or not is_ours(state, parent_of(inventory)):
        raise TableChanged(f"the mark in the comment of table {action} was changed since it was read")
    if state.mark.range != action.range:
        raise TableChanged(f"table {action} is not marked as detached for the range that is to go")
    table = replace(action.case.table, marker=state.mark)
    read_now = action.case.read_now + (state.now - inventory.now)
    case = replace(action.case, table=table, now=state.now, read_now=read_now)
    if (kept := unmet(case)) is not None:
        raise TableChanged(f"cannot drop table {action}: {kept.message}")
    return case
