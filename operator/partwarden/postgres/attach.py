"""Attaches tables again that were detached, with all their rows.

Safe for the rows: they stay in the table, and ATTACH itself checks that each lies within the bounds, that nothing
overlaps, and that DEFAULT holds none of the range, under its own locks.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import errors as pg
from psycopg import sql

from ..errors import DefaultHasRows, StatementFailed, StatementRejected, TableChanged
from ..planner.actions import AttachDetached
from ..planner.inventory import Inventory
from . import ddl
from .connection import Session, run
from .errors import message
from .locks import Mode, Want, joined, retry_locks, translated
from .table_state import Check, changing, holding_to, is_ours, lock, look, parent_of, set_lock_timeout, write
from .transaction import LOCK_TIMEOUT, LOCK_TIMEOUT_HEAVY

VALIDATION = "60s"
"""How long the rows may be read before the table is attached: nobody waits for that."""
UNDER_LOCK = "3s"
"""How long ATTACH itself may take: with a DEFAULT partition nobody reads or writes that one meanwhile."""
COUNT_LIMIT = 100_000

BOUND = "SELECT pg_get_partition_constraintdef({}::oid)"


def attach(connection: Session, inventory: Inventory, key: str, action: AttachDetached, deadline: float) -> None:
    """Attach the table, and take the mark and the CHECK of the detach away.

    ``deadline`` is a moment of `time.monotonic`; one attempt is made in any case. Raises `TableBusy` at once where a
    transaction older than a second is in the way, `DefaultHasRows`, `AnotherOperator`, `TableChanged`,
    `StatementFailed`, `StatementRejected` where the table is not like the parent any more, or `DatabaseUnreachable`.
    """
    parent, subject = parent_of(inventory), f"table {action} is not attached again"
    default = [Want(each.oid, Mode.ACCESS_EXCLUSIVE) for each in inventory.partitions if each.range is None]
    with translated(subject):
        keys = joined(connection, parent.oid, Mode.SHARE_ROW_EXCLUSIVE)
    wants = (Want(parent.oid, Mode.SHARE_UPDATE_EXCLUSIVE), Want(action.oid, Mode.ACCESS_EXCLUSIVE), *default, *keys)
    timeout = LOCK_TIMEOUT_HEAVY if default or keys else LOCK_TIMEOUT

    def attempt() -> None:
        _validate(connection, inventory, action)
        _attempt(connection, inventory, key, action, timeout)

    retry_locks(connection, attempt, wants, subject, deadline)


def _validate(connection: Session, inventory: Inventory, action: AttachDetached) -> None:
    """Let PostgreSQL read the rows beforehand, where it did not: ATTACH need not then, and others go on meanwhile."""
    parent = parent_of(inventory)
    with changing(connection, parent, VALIDATION):
        _ours(connection, inventory, action)
        checks = holding_to(connection, action.oid, parent.key[0], action.range)
        if checks and not any(each.validated for each in checks):
            run(connection, ddl.validate_check(action, checks[0].name), "COMMIT")


def _attempt(connection: Session, inventory: Inventory, key: str, action: AttachDetached, timeout: int) -> None:
    parent, default = parent_of(inventory), inventory.default
    with changing(connection, parent, UNDER_LOCK):
        _ours(connection, inventory, action)
        if default is not None:
            # ATTACH would find such rows as well, but only after it has locked DEFAULT against everybody.
            ((rows,),) = run(connection, ddl.rows_in_default(parent, default.oid, key, action, COUNT_LIMIT))[0]
            if rows:
                many = f"{rows} or more rows" if rows == COUNT_LIMIT else f"{rows} row{'' if rows == 1 else 's'}"
                raise DefaultHasRows(
                    f"table {action} is not attached again: {many} of its range lie in the DEFAULT partition "
                    f"{default}; move them out of it"
                )
        run(connection, set_lock_timeout(timeout), lock(action, "ACCESS EXCLUSIVE"))
        text = _ours(connection, inventory, action)
        checks = holding_to(connection, action.oid, parent.key[0], action.range)
        try:
            _, ((bound,),) = run(connection, ddl.attach(parent, action), sql.SQL(BOUND).format(sql.Literal(action.oid)))
            run(connection, *_cleared(action, text, checks, bound), "COMMIT")
        except pg.CheckViolation as error:
            if error.diag.constraint_name or (error.diag.schema_name, error.diag.table_name) != (
                action.schema,
                action.name,
            ):
                raise
            raise StatementRejected(
                f"table {action} is not attached again: rows in it lie outside of its range, {action.bounds.lower} to "
                f"{action.bounds.upper}: move them out of this table"
            ) from None
        except pg.QueryCanceled as error:
            raise StatementFailed(
                f"table {action} is not attached again: PostgreSQL must read it, or the DEFAULT partition, and gave up "
                f"({message(error)}, limit {UNDER_LOCK}); with a valid CHECK for the range nothing need be read"
            ) from None


def _ours(connection: Session, inventory: Inventory, action: AttachDetached) -> str | None:
    """The user's comment on the table, if that is the one that we detached. Raises `TableChanged`."""
    standing = look(connection, action, action.oid)
    ours = standing.detached and is_ours(standing, parent_of(inventory))
    if not ours or standing.mark is None or standing.mark.range != action.range:
        raise TableChanged(f"table {action} is not one that was detached from {inventory.parent} for this range")
    return standing.text


def _cleared(action: AttachDetached, text: str | None, checks: Iterable[Check], bound: str) -> Iterable[sql.Composable]:
    """What makes it a partition like any other. The bound now says what the CHECK said, word for word."""
    yield write(action, text, None)
    for each in checks:
        # The key of a UUID may have other bits now, where it meets a new neighbour; the CHECK would stay for ever.
        if each.only or each.condition == bound:
            yield ddl.drop_check(action, each.name)
