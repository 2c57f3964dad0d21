"""Create partitions, and attach again what was detached: short transactions, short locks, another attempt.

Why each step is safe where it stands: nothing before ATTACH touches what other sessions can see, and PostgreSQL undoes
all of it when the transaction does not commit, be it for an error, a killed server process or a killed operator. ATTACH
itself checks overlap, the bounds and the rows of DEFAULT under its own locks: a decision made on an old inventory can
do no harm. A table that is attached again keeps all its rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Composable, Identifier

from ..errors import DefaultHasRows, PartwardenError, StatementFailed, StatementRejected, TableChanged
from ..planner.actions import AttachDetached, CreateDefault, CreatePartition
from ..planner.default_rows import count_of
from ..planner.findings import quoted
from ..planner.inventory import Grant, Inventory, Parent, Partition
from ..planner.keys import Bounds
from . import ddl
from .connection import Session, pinned, run
from .errors import message, translate
from .locks import SHORT, Mode, Want, retry_locks, wants_of_attach
from .settings import setting
from .table_state import Check, ask, holding_to, is_ours, look, write
from .table_state import bounds as spelled
from .transaction import (
    BY_NAME,
    LOCK_TIMEOUT,
    LOCK_TIMEOUT_HEAVY,
    changing,
    check_opening,
    check_same,
    made_for_owner,
    opening,
    parent_of,
    set_lock_timeout,
    translated,
    undo,
    undone,
)

SCAN_TIMEOUT = "3s"
"""How long ATTACH may read DEFAULT, which no other session can read or write meanwhile, or a table that comes back."""
VALIDATION = "60s"  # how long the rows of a table may be read before it is attached: no session waits for that
COUNT_LIMIT = 100_000
TOGETHER = 20  # how many partitions share one transaction at most, where only other DDL on the parent waits for it

NEW_ACLS = """
SELECT c.relname, CASE WHEN x.grantee <> 0 THEN pg_get_userbyid(x.grantee) END AS grantee, x.privilege_type,
       x.is_grantable
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
     aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x
WHERE n.nspname = {} AND c.relname = ANY({})
"""

Creation = CreatePartition | CreateDefault


def create(connection: Session, inventory: Inventory, key: str, action: Creation, deadline: float) -> None:
    """Create one partition. ``deadline`` is a moment of `time.monotonic`; one attempt is made in any case.

    Raises `TableBusy` after it, and before it where an old transaction is in the way; `AnotherOperator`,
    `TableChanged`, `NameTaken`, `DefaultHasRows`, `InsufficientPrivilege`, `ReadOnlyServer`, `StatementRejected`,
    `StatementFailed`, or `DatabaseUnreachable` when the connection is lost.
    """
    left = deadline - time.monotonic()

    def attempt(timeout: int) -> None:
        try:
            _create(connection, inventory, key, [action], timeout)
        except (pg.DuplicateTable, pg.UniqueViolation) as error:
            undo(connection)
            raise _duplicate(connection, inventory, action, error) from None
        except (DefaultHasRows, pg.CheckViolation) as error:
            # That they could not be counted is why they were not moved before.
            if (rows := inventory.default_rows) is None or rows.error is None:
                raise
            undo(connection)
            found = error if isinstance(error, PartwardenError) else translate(error, f"partition {action}")
            raise type(found)(f"{found}; {rows.error}") from None

    with translated(connection, f"partition {action}"):
        retry_locks(
            connection,
            # Past the deadline many may be left that wait for the same: together they must not hold a worker.
            partial(attempt, _lock_timeout(inventory) if left > 0 else LOCK_TIMEOUT_HEAVY),
            lambda: wants_of_attach(connection, inventory),
            f"cannot create partition {action}",
            deadline,
            check_first=False,
            longest=max(SHORT, left),
            last_attempt=attempt,
        )


def create_together(connection: Session, inventory: Inventory, key: str, actions: Sequence[CreatePartition]) -> bool:
    """Create them all in one transaction, or none. Returns whether it was done; each may then be tried alone.

    For the sake of speed only: one commit for all. Not where DEFAULT or a foreign key makes others wait for the locks,
    and one attempt only. Raises `DatabaseUnreachable` when the connection is lost.
    """
    if len(actions) < 2 or len(actions) > TOGETHER or _lock_timeout(inventory) != LOCK_TIMEOUT:
        return False
    try:
        with undone(connection):
            _create(connection, inventory, key, actions, LOCK_TIMEOUT)
    except (psycopg.Error, PartwardenError) as error:
        if connection.closed and isinstance(error, psycopg.Error):
            raise translate(error, f"partition {actions[0]}") from None
        return False
    return True


def _lock_timeout(inventory: Inventory) -> int:
    return LOCK_TIMEOUT_HEAVY if inventory.default is not None or parent_of(inventory).related else LOCK_TIMEOUT


def _create(connection: Session, inventory: Inventory, key: str, actions: Sequence[Creation], timeout: int) -> None:
    """One transaction in two or three round trips. ``timeout``: milliseconds to wait for each lock."""
    parent, default, first = parent_of(inventory), inventory.default, actions[0]
    begin = opening(parent, timeout)
    if default is not None and isinstance(first, CreatePartition):
        # ATTACH would find such rows as well, but only after it has locked DEFAULT against every session.
        begin.append(ddl.rows_in_default(parent, default.oid, key, first, COUNT_LIMIT))
    making = make_tables(inventory, actions, unlogged=inventory.template.unlogged)
    # Several save a round trip: whatever the opening forbids is undone with the rest.
    begun = run(connection, *begin, *(making if len(actions) > 1 else ()))
    check_opening(parent, begun)
    if default is not None and isinstance(first, CreatePartition):
        _check_default(default, f"cannot create partition {first}", begun[len(begin) - 1])
    *_, named, acls = run(connection, *making) if len(actions) == 1 else begun
    rights = rights_of_tables(inventory, actions, named, acls)
    attach = [ddl.attach(parent, each) for each in actions]
    attach += [each for action in actions for each in ddl.after_attach(inventory.template, action)]
    if default is None or not isinstance(first, CreatePartition):
        run(connection, *rights, *attach, "COMMIT")
        return
    try:
        run(connection, *rights, setting({"statement_timeout": SCAN_TIMEOUT}), *attach, "COMMIT")
    except pg.QueryCanceled as error:
        bounds, column = first.bounds, quoted(key)
        raise StatementRejected(
            f"cannot create partition {first}: to prove that none of its rows lie in {default}, PostgreSQL must read "
            f"that DEFAULT partition, locked against every session, and gave up ({message(error)}, limit "
            f"{SCAN_TIMEOUT}); with a valid constraint like CHECK ({column} < '{bounds.lower}' OR {column} >= "
            f"'{bounds.upper}') on it nothing need be read"
        ) from None


def make_tables(
    inventory: Inventory, actions: Sequence[Creation], *, unlogged: bool, indexes: bool = False
) -> list[Composable]:
    """Create tables like the parent that are no partitions yet. The last two results are for `rights_of_tables`."""
    parent = parent_of(inventory)
    return [
        # The owner first: the owner of a table has its default privileges, and those are read next.
        *made_for_owner(
            parent,
            *(ddl.create_table(parent, each, inventory.template, indexes, unlogged) for each in actions),
            give=[ddl.set_owner(parent, each) for each in actions],
        ),
        # Since LIKE the parent is locked against everything that would change what bears its name.
        SQL(BY_NAME).format(parent.schema, parent.name),
        SQL(NEW_ACLS).format(parent.schema, [each.name for each in actions]),
    ]


def rights_of_tables(
    inventory: Inventory, actions: Sequence[Creation], named: list[Any], acls: list[Any]
) -> list[Composable]:
    """What gives new tables the parent's grants, row security, and all else before ATTACH. Raises as `check_same`."""
    parent = parent_of(inventory)
    check_same(parent, named)
    ((_, secured, forced),) = named
    rights: list[Composable] = []
    for each in actions:
        present = grants([acl for acl in acls if acl.relname == each.name])
        rights += [*ddl.set_grants(parent, each, present), *ddl.set_row_security(each, secured, forced)]
        rights += ddl.before_attach(inventory.template, each)
    return rights


def grants(acls: Iterable[Any]) -> list[Grant]:
    """Privileges of new tables, from rows of `NEW_ACLS`."""
    return [Grant(acl.grantee, acl.privilege_type, acl.is_grantable) for acl in acls]


def _check_default(default: Partition, subject: str, counted: list[Any]) -> None:
    """``counted``: the result of `ddl.rows_in_default`."""
    ((rows,),) = counted
    if rows:
        many = count_of(rows, rows < COUNT_LIMIT)
        raise DefaultHasRows(
            f"{subject}: {many} of its range lie in the DEFAULT partition {default}; move them out of it"
        )


def _duplicate(connection: Session, inventory: Inventory, action: Creation, error: psycopg.Error) -> PartwardenError:
    """Where another operator was faster, the name is taken for the right purpose, which is no mistake of the user."""
    _, rows = run(connection, pinned(f"{LOCK_TIMEOUT}ms", "60s"), ask(action))
    if any(row.parent == parent_of(inventory).oid for row in rows):
        return TableChanged(f"partition {action} was created by another session since the table was read")
    return translate(error, f"partition {action}")


# A detached table that is wanted again.


def attach(connection: Session, inventory: Inventory, key: str, action: AttachDetached, deadline: float) -> None:
    """Attach the table, and take the mark and the CHECK of the detach away.

    ``deadline`` as for `create`. Raises `TableBusy` at once where a transaction older than a second is in the way,
    `DefaultHasRows`, `AnotherOperator`, `TableChanged`, `StatementFailed`, `StatementRejected` where the table is not
    like the parent any more, or `DatabaseUnreachable`.
    """
    subject = f"cannot attach table {action} again"
    with translated(connection, subject):
        others = wants_of_attach(connection, inventory)
        wants = [Want(action.oid, Mode.ACCESS_EXCLUSIVE), *others]
        timeout = LOCK_TIMEOUT_HEAVY if len(others) > 1 else LOCK_TIMEOUT

        def attempt() -> None:
            _validate(connection, inventory, action)
            _attach(connection, inventory, key, action, timeout)

        retry_locks(connection, attempt, lambda: wants, subject, deadline)


def _validate(connection: Session, inventory: Inventory, action: AttachDetached) -> None:
    """Let PostgreSQL read the rows beforehand, where it did not: ATTACH need not then, and others go on meanwhile."""
    parent = parent_of(inventory)
    with changing(connection, parent, VALIDATION, alone=action):
        _own_comment(connection, inventory, action)
        checks = holding_to(connection, action.oid, parent.key[0], action.range)
        if checks and not any(each.validated for each in checks):
            validate = SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}")
            run(connection, validate.format(ddl.relation(action), Identifier(checks[0].name)), "COMMIT")


def _attach(connection: Session, inventory: Inventory, key: str, action: AttachDetached, timeout: int) -> None:
    parent, default, subject = parent_of(inventory), inventory.default, f"cannot attach table {action} again"
    with changing(connection, parent, SCAN_TIMEOUT):
        _own_comment(connection, inventory, action)
        action = _exact(connection, parent, action)
        if default is not None:
            # ATTACH would find such rows as well, but only after it has locked DEFAULT against every session.
            count = ddl.rows_in_default(parent, default.oid, key, action, COUNT_LIMIT)
            _check_default(default, subject, run(connection, count)[0])
        run(connection, set_lock_timeout(timeout), ddl.lock(action, "ACCESS EXCLUSIVE"))
        comment = _own_comment(connection, inventory, action)
        checks = holding_to(connection, action.oid, parent.key[0], action.range)
        try:
            constraint = ddl.PARTITION_CONSTRAINT.format(action.oid)
            _, ((bound,),) = run(connection, ddl.attach(parent, action), constraint)
            run(connection, *_clear(action, comment, checks, bound), "COMMIT")
        except pg.CheckViolation as error:
            # Of this table, and not by a constraint with a name: by its bounds.
            where = (error.diag.schema_name, error.diag.table_name)
            if error.diag.constraint_name or where != (action.schema, action.name):
                raise
            raise StatementRejected(
                f"{subject}: rows in it lie outside of its range, {action.bounds.lower} to {action.bounds.upper}; "
                "move them out of this table"
            ) from None
        except pg.QueryCanceled as error:
            raise StatementFailed(
                f"{subject}: PostgreSQL must read it, or the DEFAULT partition, and gave up ({message(error)}, limit "
                f"{SCAN_TIMEOUT}); with a valid CHECK for the range nothing need be read"
            ) from None


def _exact(connection: Session, parent: Parent, action: AttachDetached) -> AttachDetached:
    """With bounds to the last bit where they divide a millisecond of a UUID, as the CHECK of the detach spells them.

    The mark has moments, which do not tell those bits: rows could lie outside, or the next table that returns overlap.
    """
    odd = [end.microsecond % 1000 != 0 for end in (action.range.lower, action.range.upper)]
    own = spelled(connection, action.oid, parent.key[0], action.range) if any(odd) else None
    if own is None:
        return action
    mine = zip(odd, own, action.bounds, strict=True)
    return replace(action, bounds=Bounds(*(exact if is_odd else planned for is_odd, exact, planned in mine)))


def _own_comment(connection: Session, inventory: Inventory, action: AttachDetached) -> str | None:
    """The user's comment on the table, if that is the one that we detached. Raises `TableChanged`."""
    state = look(connection, action, action.oid)
    ours = state.detached and is_ours(state, parent_of(inventory))
    if not ours or state.mark is None or state.mark.range != action.range:
        raise TableChanged(f"table {action} is not one that was detached from {inventory.parent} for this range")
    return state.text


def _clear(action: AttachDetached, comment: str | None, checks: Iterable[Check], bound: str) -> Iterable[Composable]:
    """What makes it a partition like any other. The bound now says what the CHECK said, word for word."""
    yield write(action, comment, None)
    for each in checks:
        # The key of a UUID may have other bits now, where it meets a new neighbour; the CHECK would stay for ever.
        if each.only or each.condition == bound:
            yield SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(ddl.relation(action), Identifier(each.name))
