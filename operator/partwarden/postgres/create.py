"""Makes partitions: short transactions, short locks, patience.

Why each step is safe where it stands: nothing before ATTACH touches what others can see, and PostgreSQL undoes all
of it when the transaction does not commit, be it for an error, a killed server process or a killed operator. ATTACH
itself checks overlap and the rows of DEFAULT under its own locks: a decision made on an old inventory can do no harm.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import DefaultHasRows, PartwardenError, StatementRejected, TableBusy, TableChanged
from ..planner.actions import CreateDefault, CreatePartition
from ..planner.findings import quoted
from ..planner.inventory import Grant, Inventory, Partition
from . import ddl, template
from .connection import pinned, run
from .errors import message, translate
from .locks import Blocker, blocker
from .transaction import (
    BY_NAME,
    LOCK_TIMEOUT,
    LOCK_TIMEOUT_HEAVY,
    check_opening,
    check_same,
    made_for_owner,
    opening,
    undo,
)

MARGIN, LONGEST = 300, 2000
"""Milliseconds. Autovacuum ends for whoever waits for deadlock_timeout, and else may hold its lock for hours: where it
is in the way at the end of the patience, one attempt waits so much longer than that, if that is not too long."""
SCAN_TIMEOUT = "3s"
"""How long ATTACH may read DEFAULT, which nobody else can read or write meanwhile."""
COUNT_LIMIT = 100_000
OLD = 1.0
"""Seconds. Whoever has held a lock for so long, and for longer than we may still wait, is not waited for."""
TOGETHER = 20
"""How many partitions share one transaction at most, where nobody but other DDL on the parent waits for it."""

SET_TIMEOUT = "SELECT set_config('statement_timeout', {}, true)"
NEW_ACLS = """
SELECT c.relname, CASE WHEN x.grantee <> 0 THEN pg_get_userbyid(x.grantee) END, x.privilege_type, x.is_grantable
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
     aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x
WHERE n.nspname = {} AND c.relname = ANY({})
"""

IS_PARTITION = """
SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE i.inhparent = {} AND n.nspname = {} AND c.relname = {})
"""

Making = CreatePartition | CreateDefault


def create(
    connection: psycopg.Connection[Any],
    inventory: Inventory,
    key: str,
    action: Making,
    deadline: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Create one partition, trying again while a lock is not to be had.

    ``deadline`` is a moment of `time.monotonic`; one attempt is made in any case, a short one after it. Raises
    `TableBusy` then, and before it where an old transaction is in the way; `AnotherOperator`, `TableChanged`,
    `NameTaken`, `DefaultHasRows`, `InsufficientPrivilege`, `ReadOnlyServer`, `StatementRejected`, `StatementFailed`, or
    `DatabaseUnreachable` when the connection is lost.
    """
    pause = 0.05
    # Past the deadline many may be left that wait for the same: a worker is not to be held by all of them in turn.
    timeout = _lock_timeout(inventory) if time.monotonic() < deadline else LOCK_TIMEOUT_HEAVY
    while True:
        try:
            _attempt(connection, inventory, key, [action], timeout)
            return
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            undo(connection)
            left = deadline - time.monotonic() - pause
            if (longer := _longer(connection, inventory, action, timeout, left)) is not None:
                timeout = longer
                continue
        except (pg.DuplicateTable, pg.UniqueViolation) as error:
            undo(connection)
            raise _duplicate(connection, inventory, action, error) from None
        except psycopg.Error as error:
            undo(connection)
            raise translate(error, f"partition {action}") from None
        except BaseException:
            undo(connection)
            raise
        sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - keeps two from colliding again
        pause = min(pause * 2, 1.0)


def create_together(
    connection: psycopg.Connection[Any], inventory: Inventory, key: str, actions: Sequence[CreatePartition]
) -> bool:
    """Create them all in one transaction, or none. Returns whether it was done; each may then be tried alone.

    For the sake of speed only: one commit for all. Not where DEFAULT or a foreign key makes others wait for the locks,
    and without patience. Raises `DatabaseUnreachable` when the connection is lost.
    """
    if len(actions) < 2 or len(actions) > TOGETHER or _lock_timeout(inventory) != LOCK_TIMEOUT:
        return False
    try:
        _attempt(connection, inventory, key, actions, LOCK_TIMEOUT)
    except (psycopg.Error, PartwardenError) as error:
        undo(connection)
        if connection.closed and isinstance(error, psycopg.Error):
            raise translate(error, f"partition {actions[0]}") from None
        return False
    except BaseException:
        undo(connection)
        raise
    return True


def _lock_timeout(inventory: Inventory) -> int:
    assert inventory.parent is not None
    return LOCK_TIMEOUT if inventory.default is None and not inventory.parent.related else LOCK_TIMEOUT_HEAVY


def _attempt(
    connection: psycopg.Connection[Any],
    inventory: Inventory,
    key: str,
    actions: Sequence[Making],
    timeout: int,
) -> None:
    """One transaction in two or three round trips. ``timeout``: milliseconds to wait for each lock."""
    parent = inventory.parent
    assert parent is not None
    begin, first = opening(parent, timeout), actions[0]
    if inventory.default is not None and isinstance(first, CreatePartition):
        # ATTACH would find such rows as well, but only after it has locked DEFAULT against everybody.
        begin.append(ddl.rows_in_default(parent, inventory.default.oid, key, first, COUNT_LIMIT))
    unlogged = inventory.likeness.unlogged
    making = [
        # The owner first: whoever owns a table has its default privileges, and those are read next.
        *made_for_owner(
            parent,
            *(ddl.create_table(parent, each, inventory.likeness, unlogged=unlogged) for each in actions),
            give=[ddl.set_owner(parent, each) for each in actions],
        ),
        # Since LIKE the parent is locked against everything that would change what bears its name.
        sql.SQL(BY_NAME).format(parent.schema, parent.name),
        sql.SQL(NEW_ACLS).format(parent.schema, [each.name for each in actions]),
    ]
    if len(actions) == 1:
        _check(inventory, first, run(connection, *begin))
        *_, found, acls = run(connection, *making)
    else:
        # A round trip less; whatever the opening forbids is undone with the rest.
        *begun, found, acls = run(connection, *begin, *making)
        _check(inventory, first, begun[: len(begin)])
    check_same(parent, found)
    ((_, secured, forced),) = found
    rights: list[sql.Composable] = []
    for each in actions:
        present = [
            Grant(grantee, privilege, grantable) for name, grantee, privilege, grantable in acls if name == each.name
        ]
        rights += [*ddl.set_grants(parent, each, present), *ddl.set_row_security(each, secured, forced)]
        rights += template.before_attach(inventory.likeness, each)
    attach = [ddl.attach(parent, each) for each in actions]
    attach += [each for action in actions for each in template.after_attach(inventory.likeness, action)]
    if inventory.default is None or not isinstance(first, CreatePartition):
        run(connection, *rights, *attach, "COMMIT")
        return
    try:
        run(connection, *rights, sql.SQL(SET_TIMEOUT).format(SCAN_TIMEOUT), *attach, "COMMIT")
    except pg.QueryCanceled as error:
        raise _too_much_to_scan(inventory.default, key, first, error) from None


def _check(inventory: Inventory, action: Making, results: list[list[tuple[Any, ...]]]) -> None:
    """``results`` are those of the opening and, where there is a DEFAULT partition, of the count of its rows."""
    assert inventory.parent is not None
    check_opening(inventory.parent, results)
    if inventory.default is not None and (rows := results[-1][0][0]):
        many = f"{rows} or more rows" if rows == COUNT_LIMIT else f"{rows} row{'' if rows == 1 else 's'}"
        raise DefaultHasRows(
            f"partition {action} cannot be created: {many} of its range lie in the DEFAULT partition "
            f"{inventory.default}; move them out of it"
        )


def _duplicate(
    connection: psycopg.Connection[Any], inventory: Inventory, action: Making, error: psycopg.Error
) -> Exception:
    """Where another operator was faster, the name is taken for the right purpose, which is nobody's mistake."""
    assert inventory.parent is not None
    query = sql.SQL(IS_PARTITION).format(inventory.parent.oid, action.schema, action.name)
    try:
        _, ((attached,),) = run(connection, pinned(f"{LOCK_TIMEOUT}ms", "60s"), query)
    except psycopg.Error as lost:
        return translate(lost, f"partition {action}")
    if attached:
        return TableChanged(f"partition {action} was made by somebody else since the table was looked at")
    return translate(error, f"partition {action}")


def _too_much_to_scan(default: Partition, key: str, action: CreatePartition, error: psycopg.Error) -> StatementRejected:
    outside = f"{quoted(key)} < '{action.bounds.lower}' OR {quoted(key)} >= '{action.bounds.upper}'"
    return StatementRejected(
        f"partition {action} was not created: to prove that none of its rows lie in {default}, PostgreSQL must read "
        f"that DEFAULT partition, locked against everybody, and gave up ({message(error)}, limit {SCAN_TIMEOUT}); "
        f"with a valid constraint like CHECK ({outside}) on it nothing need be read"
    )


def _longer(
    connection: psycopg.Connection[Any], inventory: Inventory, action: Making, tried: int, left: float
) -> int | None:
    """None to try again after a pause, else how long one last attempt may wait for locks, where that will help.

    ``left``: seconds for which locks may still be waited for. Raises `TableBusy` where neither will help.
    """
    try:
        found = blocker(connection, inventory)
    except psycopg.Error as lost:
        raise translate(lost, f"partition {action}") from None
    yields = found.yields_after if found else None
    if left > 0 and (found is None or yields or (found.age or 0.0) <= max(OLD, left)):
        return None
    if yields and tried < yields + MARGIN <= LONGEST:
        return yields + MARGIN
    raise _busy(inventory, action, found)


def _busy(inventory: Inventory, action: Making, found: Blocker | None) -> TableBusy:
    who = found.text if found else "whoever held it has gone meanwhile"
    return TableBusy(
        f"partition {action} was not created: a lock on {inventory.parent} was not to be had in time; {who}"
    )
