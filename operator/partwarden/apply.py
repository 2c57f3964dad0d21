"""Executes one action: one transaction, short locks, patience.

Why each step is safe where it stands: nothing before ATTACH touches what others can see, and PostgreSQL undoes all
of it when the transaction does not commit, be it for an error, a killed server process or a killed operator. ATTACH
itself checks overlap and the rows of DEFAULT under its own locks: a decision made on an old inventory can do no harm.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from . import ddl
from .blockers import holder
from .errors import AnotherOperator, DefaultHasRows, TableBusy, TableChanged
from .inventory import Grant, Inventory, Parent
from .plan import CreatePartition
from .session import pinned, run
from .sqlstate import translate

ADVISORY_CLASS = 0x70617274
"""First half of the advisory lock's key ("part"); the parent's OID is the second."""

# Who waits for a lock makes everybody wait who comes later: briefly, and again, rather than once and long. Shorter than
# deadlock_timeout (1 s) in any case, so that it is not the other one who is sacrificed.
LOCK_TIMEOUT = "500ms"
LOCK_TIMEOUT_HEAVY = "100ms"
"""Where readers or writers queue behind us: DEFAULT is locked exclusively, what a foreign key joins against writers."""
SCAN_TIMEOUT = "3s"
"""How long ATTACH may read DEFAULT, which nobody else can read or write meanwhile."""
COUNT_LIMIT = 100_000

SAME_TABLE = """
SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {schema} AND c.relname = {name}
"""

MAY_READ = """
SELECT has_schema_privilege(c.relnamespace, 'USAGE') AND has_column_privilege(c.oid, {key}, 'SELECT')
FROM pg_class c WHERE c.oid = {oid}
"""

NEW_ACL = """
SELECT CASE WHEN x.grantee <> 0 THEN pg_get_userbyid(x.grantee) END, x.privilege_type, x.is_grantable
FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x
WHERE c.oid = (SELECT c2.oid FROM pg_class c2 JOIN pg_namespace n ON n.oid = c2.relnamespace
               WHERE n.nspname = {schema} AND c2.relname = {name})
"""

IS_PARTITION = """
SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = {parent} AND n.nspname = {schema} AND c.relname = {name}
"""


def create(
    connection: psycopg.Connection[Any],
    inventory: Inventory,
    key: str,
    action: CreatePartition,
    deadline: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Create one partition, trying again while a lock is not to be had.

    ``deadline`` is a moment of `time.monotonic`; one attempt is made in any case. Raises `TableBusy` after it,
    `AnotherOperator`, `TableChanged`, `NameTaken`, `DefaultHasRows`, `InsufficientPrivilege`, `ReadOnlyServer`,
    `StatementRejected`, or `DatabaseUnreachable` when the connection is lost.
    """
    pause = 0.05
    while True:
        try:
            _attempt(connection, inventory, key, action)
            return
        except (pg.LockNotAvailable, pg.DeadlockDetected) as error:
            _undo(connection)
            if time.monotonic() + pause >= deadline:
                raise _busy(connection, inventory, action, error) from None
        except (pg.DuplicateTable, pg.UniqueViolation) as error:
            _undo(connection)
            raise _duplicate(connection, inventory, action, error) from None
        except psycopg.Error as error:
            _undo(connection)
            raise translate(error, f"partition {action}") from None
        except BaseException:
            _undo(connection)
            raise
        sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - keeps two from colliding again
        pause = min(pause * 2, 1.0)


def _attempt(connection: psycopg.Connection[Any], inventory: Inventory, key: str, action: CreatePartition) -> None:
    """One transaction in three round trips."""
    parent, default = inventory.parent, inventory.default
    assert parent is not None
    _begin(connection, parent, default, key, action)
    *counted, _, _, found, acl = run(
        connection,
        # ATTACH would find such rows as well, but only after it has locked DEFAULT against everybody.
        *([ddl.rows_in_range(default.schema, default.name, key, action, COUNT_LIMIT)] if readable else []),
        ddl.create_table(parent, action),
        # The owner first: whoever owns a table has its default privileges, and those are read next.
        ddl.set_owner(parent, action),
        sql.SQL(NEW_ACL).format(schema=action.schema, name=action.name),
    )
def _signed(oid: int) -> int:
    """An OID has 32 bits without a sign, the advisory lock's key with one."""
    return oid - (1 << 32) if oid >= 1 << 31 else oid


def _undo(connection: psycopg.Connection[Any]) -> None:
    if not connection.closed:
        try:
            connection.rollback()
        except psycopg.Error:
            # The connection is lost, and the server has undone the transaction with it; the first error tells.
            connection.close()


def _busy(
    connection: psycopg.Connection[Any], inventory: Inventory, action: CreatePartition, error: psycopg.Error
) -> TableBusy | Exception:
    try:
        who = holder(connection, inventory)
    except psycopg.Error as lost:
        return translate(lost, f"partition {action}")
    reason = who or "whoever held it has gone meanwhile"
    return TableBusy(
        f"partition {action} was not created: a lock on {inventory.parent} was not to be had in time; {reason}; "
        "tried again"
    )
