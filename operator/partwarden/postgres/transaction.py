"""Transactions: how one that changes a table begins, as which role it runs, and how it ends when it fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import c_int32
from typing import Any, LiteralString

import psycopg
from psycopg import errors as pg
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Composable, Composed, Identifier

from ..errors import AnotherOperator, InsufficientPrivilege, TableChanged
from ..planner.actions import LongTableAction
from ..planner.findings import quoted
from ..planner.inventory import Inventory, Parent
from .connection import Session, pinned, run
from .errors import translate
from .settings import setting

PATIENCE = 30.0  # seconds that standbys are waited for


def confirmed(connection: Session) -> bool:
    """Whether the standbys that the server's configuration demands have all that this session has committed.

    Transactions of Partwarden commit with ``synchronous_commit = local``, since a commit that waits for a standby keeps
    its locks meanwhile: here it is waited for, while no lock is held. Raises nothing: a lost connection, or standbys
    that do not answer within `PATIENCE`, confirm nothing.
    """
    # A commit waits for standbys only where it wrote something: this is of no effect, and the last thing written.
    write = """SELECT pg_catalog.pg_logical_emit_message(true, 'partwarden', 'committed')
        WHERE pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) ''"""
    try:
        with cancelled_after(connection, PATIENCE) as late:
            # Cancelled in its wait, COMMIT succeeds with a warning.
            run(connection, "BEGIN", "SET LOCAL synchronous_commit TO DEFAULT", write, "COMMIT")
    except psycopg.Error:
        return False
    return not late.is_set()


@contextmanager
def cancelled_after(connection: Session, seconds: float) -> Iterator[threading.Event]:
    """The statement in the block is cancelled when it takes longer, and the event is set; no later one is cancelled."""
    late = threading.Event()

    def cancel() -> None:
        late.set()
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=2.0)

    timer = threading.Timer(seconds, cancel)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()
        if late.is_set() and not connection.closed:
            # What comes too late for the one statement would else hit the next.
            with suppress(pg.QueryCanceled):
                run(connection, "SELECT pg_catalog.pg_sleep(0.01)")


ADVISORY_CLASS = 0x70617274
"""First half of the advisory lock's key ("part"); the OID of the parent, or of a detached table, is the second."""

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

BEGIN_READ_ONLY = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BY_NAME = """
SELECT c.oid, c.relrowsecurity, c.relforcerowsecurity
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname = {}
"""


def parent_of(inventory: Inventory) -> Parent:
    """The table of the policy, which exists wherever there is a plan."""
    assert inventory.parent is not None
    return inventory.parent


def advisory(oid: int) -> Composed:
    """Ask for the advisory lock of a table, by which operators and policies take turns, to the transaction's end."""
    # An OID has 32 bits without a sign, the lock's key with one.
    return SQL("SELECT pg_try_advisory_xact_lock({}, {})").format(ADVISORY_CLASS, c_int32(oid).value)


def opening(
    parent: Parent,
    lock_timeout: int,
    statement_timeout: str = "60s",
    *,
    alone: LongTableAction | None = None,
    as_login: bool = False,
) -> list[Composable]:
    """Begin the transaction, as the parent's owner, and ask what `check_opening` wants to know; ``lock_timeout`` is in
    milliseconds, and ``as_login`` for what runs no code of the table. ``alone``: as for `changing`.
    """
    return [
        SQL("BEGIN ISOLATION LEVEL READ COMMITTED"),
        pinned(f"{lock_timeout}ms", statement_timeout),
        advisory((alone or parent).oid),
        SQL(BY_NAME).format(parent.schema, parent.name),
        SQL("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = {}").format(parent.oid),
        *([] if as_login else as_owner(parent)),
    ]


HELD = """
SELECT objid::int8 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::int8 = {}
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 8
"""


@contextmanager
def holding_keys(connection: psycopg.Connection[Any], keys: Sequence[int]) -> Iterator[None]:
    """Hold the advisory locks of the first key with each of the others, of 32 bits without a sign, in the block.

    In the transaction that is open, to its end; else in one of its own, so that a pooler keeps the server connection.
    One that another session holds is not waited for. Raises psycopg's errors.
    """
    first, *others = (c_int32(key).value for key in keys)
    alone = connection.info.transaction_status is TransactionStatus.IDLE
    begin = [SQL("BEGIN READ ONLY"), pinned("500ms", "10s")] if alone else []
    try:
        run(connection, *begin, *(SQL("SELECT pg_try_advisory_xact_lock({}, {})").format(first, key) for key in others))
        yield
    finally:
        if alone:
            undo(connection)


def held_keys(connection: psycopg.Connection[Any], first: int) -> list[int]:
    """The second keys of the advisory locks that sessions of this database hold with the first: 8 at most.

    Every role may see them, and a standby does not have those of its primary. Raises psycopg's errors.
    """
    return [key for (key,) in read_only(connection, SQL(HELD).format(first))[0]]


def set_lock_timeout(milliseconds: int) -> Composed:
    """From here on to the end of the transaction, locks are waited for so long only."""
    return setting({"lock_timeout": f"{milliseconds}ms"})


def as_owner(parent: Parent) -> list[Composable]:
    """Make the rest of the transaction run as the owner of the table; no statement where that one is connected.

    CHECK constraints, index expressions, domains, generated columns and triggers call functions of those who may alter
    the table. Such a function may do what the current role may: so that must be no superuser, nor a member of others.
    PostgreSQL raises InsufficientPrivilege where the login may not become the owner.
    """
    return [become(parent.owner)] if parent.borrowed else []


def become(role: str) -> Composed:
    """SET LOCAL ROLE."""
    return SQL("SET LOCAL ROLE {}").format(Identifier(role))


def reading(parent: Parent) -> list[Composable]:
    """The same, for what only reads rows: a login that is no member of the owner reads what was granted to itself."""
    return as_owner(parent) if parent.may_own else []


READER = """
SELECT pg_get_userbyid(o.owner), o.owner = (SELECT oid FROM pg_roles WHERE rolname = current_user),
       pg_has_role(o.owner, 'USAGE'), pg_has_role(o.owner, {set_role})
FROM (SELECT CASE WHEN has_table_privilege(p.relowner, c.oid, 'SELECT') THEN p.relowner ELSE c.relowner END AS owner
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition LEFT JOIN pg_class p ON p.oid = i.inhparent
      WHERE n.nspname = {schema} AND c.relname = {name}) o
"""


def set_role_right(connection: psycopg.Connection[Any]) -> str:
    """What `pg_has_role` calls the right to SET ROLE: from 16 on a member of a role may lack it."""
    return "SET" if connection.info.server_version >= 160000 else "MEMBER"


def read_as_owner(connection: psycopg.Connection[Any], schema: str, name: str) -> str | None:
    """Make the rest of the transaction run as the owner of the table's parent, or, where there is none that may read
    it, of the table.

    Returns that role; None where it is connected already, and where the login is no member of it: such a login reads
    by rights of its own. Raises `InsufficientPrivilege` where it has the owner's rights, but may not become the owner.
    """
    query = SQL(READER).format(set_role=set_role_right(connection), schema=schema, name=name)
    for owner, same, member, may_become in run(connection, query)[0]:
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


def made_for_owner(parent: Parent, *make: Composable, give: Sequence[Composable]) -> list[Composable]:
    """Create relations in a transaction of the owner. ``make`` must call no function of the table.

    Where the owner may not create in the schema, the superuser that is connected does it, and ``give`` gives them away.
    """
    if parent.login is None or not parent.borrowed or parent.owner_creates:
        return list(make)
    return [become(parent.login), *make, *give, become(parent.owner)]


def check_opening(parent: Parent, results: list[list[tuple[Any, ...]]], alone: LongTableAction | None = None) -> None:
    """Raises `AnotherOperator` or `TableChanged`. ``results`` begin with those of `opening`."""
    _, _, locked, found, owned = results[:5]
    if not locked[0][0]:
        raise AnotherOperator(
            f"table {alone or parent} is being worked on by another session: its advisory lock is taken"
        )
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
def undone(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Roll back on any error of the block."""
    try:
        yield
    except BaseException:
        undo(connection)
        raise


@contextmanager
def translated(connection: psycopg.Connection[Any], subject: str) -> Iterator[None]:
    """Roll back on any error of the block. psycopg's are raised as `translate` makes them, about the subject."""
    try:
        with undone(connection):
            yield
    except psycopg.Error as error:
        raise translate(error, subject) from None


@contextmanager
def changing(
    connection: psycopg.Connection[Any], parent: Parent, statement_timeout: str, *, alone: LongTableAction | None = None
) -> Iterator[None]:
    """A transaction of the parent's owner that holds the advisory lock, committed at the end of the block.

    ``alone``: an action that changes nothing but its own detached table: the advisory lock of that is taken instead,
    and partitions of the parent are created meanwhile, however long it takes.
    Locks are waited for `UNHEARD` milliseconds, until `set_lock_timeout` says otherwise. Raises `AnotherOperator`,
    `TableChanged`, and psycopg's errors; whatever is raised in the block undoes it.
    """
    with undone(connection):
        check_opening(parent, run(connection, *opening(parent, UNHEARD, statement_timeout, alone=alone)), alone)
        yield
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            run(connection, "COMMIT")


def read_only(
    connection: psycopg.Connection[Any],
    *queries: Composable | LiteralString,
    lock_timeout: str = "500ms",
    statement_timeout: str = "10s",
) -> list[list[Any]]:
    """The rows of each query, of one snapshot, in a transaction of their own and one round trip."""
    with undone(connection):
        limits = pinned(lock_timeout, statement_timeout)
        _, _, *results, _ = run(connection, BEGIN_READ_ONLY, limits, *queries, "COMMIT")
    return results


@contextmanager
def reading_rows(connection: Session, schema: str, name: str) -> Iterator[None]:
    """A transaction that reads all rows of the table as `read_as_owner` does, however long that takes, or fails: a row
    that a policy hides is an error. Raises psycopg's errors, too.
    """
    try:
        with connection.patient(READ_ALL_LIMIT):
            run(connection, "BEGIN READ ONLY", pinned("10s", READ_ALL_TIMEOUT), "SET LOCAL row_security = off")
            read_as_owner(connection, schema, name)
            yield
    finally:
        undo(connection)
