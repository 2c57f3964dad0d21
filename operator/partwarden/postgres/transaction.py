"""Transactions: how one that changes a table begins, as which role it runs, and how it ends when it fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from ..errors import AnotherOperator, InsufficientPrivilege, TableChanged
from ..planner.findings import quoted
from ..planner.inventory import Inventory, Parent
from .connection import Session, pinned, run
from .errors import translate

# Wait until synchronous standbys have what was committed before, while no lock is held.
#
# Transactions of Partwarden commit with ``synchronous_commit = local`` (`limits.LOCAL_COMMIT`): a commit that waits for
# a standby keeps its locks meanwhile.
#

PATIENCE = 30.0
"""Seconds that standbys are waited for."""

DEFAULT = "SET LOCAL synchronous_commit TO DEFAULT"

# A commit waits for standbys only where it wrote something: this message is of no effect, and the last thing written.
WRITE = """
SELECT pg_catalog.pg_logical_emit_message(true, 'partwarden', 'committed')
WHERE pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) ''
"""


def confirmed(connection: Session, seconds: float | None = None) -> bool:
    """Whether the standbys that the server's configuration demands have all that this session has committed.

    Raises nothing: a lost connection, or standbys that do not answer within ``seconds``, by default `PATIENCE`, confirm
    nothing.
    """
    late = threading.Event()

    def give_up() -> None:
        late.set()
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=2.0)

    timer = threading.Timer(PATIENCE if seconds is None else seconds, give_up)
    timer.start()
    try:
        # Cancelled in its wait, COMMIT succeeds with a warning.
        run(connection, "BEGIN", DEFAULT, WRITE, "COMMIT")
    except psycopg.Error:
        return False
    finally:
        timer.cancel()
        timer.join()
    return not late.is_set()


ADVISORY_CLASS = 0x70617274
"""First half of the advisory lock's key ("part"); the parent's OID is the second."""

# A session that waits for a lock makes later ones wait: briefly, and again, rather than once and long. Shorter than
# deadlock_timeout (1 s) in any case, so that it is not the other one who is sacrificed.
LOCK_TIMEOUT = 500
LOCK_TIMEOUT_HEAVY = 50
"""Milliseconds. The latter where others queue behind us: readers or writers, of the parent, of DEFAULT, or of what a
foreign key joins."""

UNHEARD = 2000
"""Milliseconds to wait for a lock that neither readers nor writers wait behind: longer than deadlock_timeout, so that
autovacuum gives way."""

READ_ALL_TIMEOUT, READ_ALL_LIMIT = "24h", 25 * 3600.0
"""What a statement that reads every row may take, on the server and, in seconds, with the way to it: a terabyte takes
hours, and a shorter limit would keep the largest tables for ever."""

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
BEGIN_READ_ONLY = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
OWNED_BY = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = {}"
BY_NAME = """
SELECT c.oid, c.relrowsecurity, c.relforcerowsecurity
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname = {}
"""


def parent_of(inventory: Inventory) -> Parent:
    """The table of the policy, which exists wherever there is a plan."""
    assert inventory.parent is not None
    return inventory.parent


def advisory(parent: Parent) -> sql.Composed:
    """Asks for the advisory lock of the table, by which operators and policies take turns.

    Ends with the transaction: right behind a pooler, and nothing to clean up after a crash.
    """
    return sql.SQL("SELECT pg_try_advisory_xact_lock({}, {})").format(ADVISORY_CLASS, _signed(parent.oid))


def opening(
    parent: Parent, lock_timeout: int, statement_timeout: str = "60s", *, as_login: bool = False
) -> list[sql.Composable]:
    """Begins the transaction and asks what `check_opening` wants to know. ``lock_timeout``: milliseconds.

    All that follows runs as the parent's owner; ``as_login`` is for what runs no code of the table.
    """
    return [
        sql.SQL(BEGIN),
        pinned(f"{lock_timeout}ms", statement_timeout),
        advisory(parent),
        sql.SQL(BY_NAME).format(parent.schema, parent.name),
        sql.SQL(OWNED_BY).format(parent.oid),
        *([] if as_login else as_owner(parent.owner, parent.login)),
    ]


def as_owner(owner: str, login: str | None) -> list[sql.Composable]:
    """Make the rest of the transaction run as the owner of the table; no statement where that one is connected.

    CHECK constraints, index expressions, domains, generated columns and triggers call functions of those who may alter
    the table. Such a function may do what the current role may: so that must be no superuser, nor a member of others.
    SET LOCAL ends with the transaction, as is right behind a pooler. Raises InsufficientPrivilege when it is executed
    by a login that may not become the owner.
    """
    return [] if login in (None, owner) else [become(owner)]


def become(role: str) -> sql.Composed:
    """SET LOCAL ROLE."""
    return sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role))


def reading(parent: Parent) -> list[sql.Composable]:
    """The same as `as_owner`, for what only reads rows.

    A login that is no member of the owner has no rights but its own, and reads with those what was granted to it.
    """
    return as_owner(parent.owner, parent.login) if parent.may_own else []


READER = """
SELECT pg_get_userbyid(o.owner), o.owner = (SELECT oid FROM pg_roles WHERE rolname = current_user),
       pg_has_role(o.owner, 'USAGE'), pg_has_role(o.owner, {set_role})
FROM (SELECT CASE WHEN has_table_privilege(p.relowner, c.oid, 'SELECT') THEN p.relowner ELSE c.relowner END AS owner
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition LEFT JOIN pg_class p ON p.oid = i.inhparent
      WHERE n.nspname = {schema} AND c.relname = {name}) o
"""
SET_ROLE_VERSION = 160000
"""From that version on a member of a role may lack the right to SET ROLE to it."""


def read_as_owner(connection: psycopg.Connection[Any], schema: str, name: str) -> str | None:
    """Make the rest of the transaction run as the owner of the table's parent, or of the table where it has none.

    A partition that its parent's owner may not read is read as its own owner.

    Returns that role; None where it is connected already, and where the login is no member of it: such a login reads
    by rights of its own. Raises `InsufficientPrivilege` where it has the owner's rights, but may not become the owner.
    """
    set_role = "SET" if connection.info.server_version >= SET_ROLE_VERSION else "MEMBER"
    (found,) = run(connection, sql.SQL(READER).format(set_role=set_role, schema=schema, name=name))
    for owner, same, member, may_become in found:
        if same or not member:
            return None
        if not may_become:
            raise InsufficientPrivilege(
                f"{schema}.{name} is not read: role {connection.info.user!r} has the rights of its owner, {owner!r}, "
                "but may not SET ROLE to it, and functions of the owner must not run with any other rights: "
                f"GRANT {quoted(owner)} TO {quoted(connection.info.user)} WITH SET TRUE"
            )
        run(connection, become(owner))
        return str(owner)
    return None


def made_for_owner(parent: Parent, *make: sql.Composable, give: Sequence[sql.Composable]) -> list[sql.Composable]:
    """Create relations in a transaction of the owner. ``make`` must call no function of the table.

    Where the owner may not create in the schema, the superuser that is connected does it, and ``give`` gives them away.
    """
    if parent.login is None or not parent.borrowed or parent.owner_creates:
        return list(make)
    return [become(parent.login), *make, *give, become(parent.owner)]


def check_opening(parent: Parent, results: list[list[tuple[Any, ...]]]) -> None:
    """Raises `AnotherOperator` or `TableChanged`. ``results`` begin with those of `opening`."""
    _, _, locked, found, owned = results[:5]
    if not locked[0][0]:
        raise AnotherOperator(f"table {parent} is being worked on by another operator: its advisory lock is taken")
    check_same(parent, found)
    if [owner for (owner,) in owned] != [parent.owner]:
        raise TableChanged(f"table {parent} was given to another owner since it was read")


def check_same(parent: Parent, found: list[tuple[Any, ...]]) -> None:
    """Whether what bears the parent's name is still the parent. Raises `TableChanged`."""
    if [oid for oid, *_ in found] != [parent.oid]:
        raise TableChanged(f"table {parent} was dropped, renamed or made anew since it was read")


def undo(connection: psycopg.Connection[Any]) -> None:
    """Roll back, whatever state the connection is in."""
    if not connection.closed:
        try:
            connection.rollback()
        except psycopg.Error:
            # The connection is lost, and the server has undone the transaction with it; the first error counts.
            connection.close()


@contextmanager
def translated(connection: psycopg.Connection[Any], subject: str) -> Iterator[None]:
    """Roll back on any error of the block. psycopg's are raised as `translate` makes them, about the subject."""
    try:
        yield
    except psycopg.Error as error:
        undo(connection)
        raise translate(error, subject) from None
    except BaseException:
        undo(connection)
        raise


@contextmanager
def changing(connection: psycopg.Connection[Any], parent: Parent, statement_timeout: str) -> Iterator[None]:
    """A transaction of the parent's owner that holds the advisory lock, committed at the end of the block.

    Locks are waited for `UNHEARD` milliseconds, until `set_lock_timeout` says otherwise. Raises `AnotherOperator`,
    `TableChanged`, and psycopg's errors; whatever is raised in the block undoes it.
    """
    try:
        check_opening(parent, run(connection, *opening(parent, UNHEARD, statement_timeout)))
        yield
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            run(connection, "COMMIT")
    except BaseException:
        undo(connection)
        raise


def read_only(
    connection: psycopg.Connection[Any],
    *queries: sql.Composable | LiteralString,
    lock_timeout: str = "500ms",
    statement_timeout: str = "10s",
) -> list[list[Any]]:
    """The rows of each query, of one snapshot, in a transaction of their own and one round trip.

    Raises psycopg's errors; the transaction is rolled back then.
    """
    try:
        limits = pinned(lock_timeout, statement_timeout)
        _, _, *results, _ = run(connection, BEGIN_READ_ONLY, limits, *queries, "COMMIT")
    except BaseException:
        undo(connection)
        raise
    return results


@contextmanager
def reading_rows(connection: Session, schema: str, name: str) -> Iterator[None]:
    """A transaction that reads all rows of the table, as its owner, or fails: a row that a policy hides is an error.

    A statement may take as long as all rows need. Raises as `read_as_owner`, and psycopg's errors.
    """
    try:
        with connection.patient(READ_ALL_LIMIT):
            run(connection, "BEGIN READ ONLY", pinned("10s", READ_ALL_TIMEOUT), "SET LOCAL row_security = off")
            read_as_owner(connection, schema, name)
            yield
    finally:
        undo(connection)


def _signed(oid: int) -> int:
    """An OID has 32 bits without a sign, the advisory lock's key with one."""
    return oid - (1 << 32) if oid >= 1 << 31 else oid
