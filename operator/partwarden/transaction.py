"""What every transaction that changes something begins with, and how it ends when it fails."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from .errors import AnotherOperator, TableChanged
from .inventory import Parent
from .session import pinned

ADVISORY_CLASS = 0x70617274
"""First half of the advisory lock's key ("part"); the parent's OID is the second."""

# Who waits for a lock makes everybody wait who comes later: briefly, and again, rather than once and long. Shorter than
# deadlock_timeout (1 s) in any case, so that it is not the other one who is sacrificed.
LOCK_TIMEOUT = 500
LOCK_TIMEOUT_HEAVY = 50
"""Milliseconds. The latter where others queue behind us: readers or writers, of the parent, of DEFAULT, or of what a
foreign key joins."""

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
BY_NAME = """
SELECT c.oid, c.relrowsecurity, c.relforcerowsecurity
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname = {}
"""


def advisory(parent: Parent) -> sql.Composed:
    """Asks for the advisory lock of the table, by which operators and policies take turns.

    Ends with the transaction: right behind a pooler, and nothing to clean up after a crash.
    """
    return sql.SQL("SELECT pg_try_advisory_xact_lock({}, {})").format(ADVISORY_CLASS, _signed(parent.oid))


def opening(parent: Parent, lock_timeout: int, statement_timeout: str = "60s") -> list[sql.Composable]:
    """Begins the transaction and asks what `check_opening` wants to know. ``lock_timeout``: milliseconds."""
    return [
        sql.SQL(BEGIN),
        pinned(f"{lock_timeout}ms", statement_timeout),
        advisory(parent),
        sql.SQL(BY_NAME).format(parent.schema, parent.name),
    ]


def check_opening(parent: Parent, results: list[list[tuple[Any, ...]]]) -> None:
    """Raises `AnotherOperator` or `TableChanged`. ``results`` begin with those of `opening`."""
    _, _, locked, found = results[:4]
    if not locked[0][0]:
        raise AnotherOperator(f"table {parent} is being worked on by another operator: its advisory lock is taken")
    check_same(parent, found)


def check_same(parent: Parent, found: list[tuple[Any, ...]]) -> None:
    """Whether what bears the parent's name is still the parent. Raises `TableChanged`."""
    if [oid for oid, *_ in found] != [parent.oid]:
        raise TableChanged(f"table {parent} was dropped, renamed or made anew since it was looked at")


def undo(connection: psycopg.Connection[Any]) -> None:
    """Roll back, whatever state the connection is in."""
    if not connection.closed:
        try:
            connection.rollback()
        except psycopg.Error:
            # The connection is lost, and the server has undone the transaction with it; the first error tells.
            connection.close()


def _signed(oid: int) -> int:
    """An OID has 32 bits without a sign, the advisory lock's key with one."""
    return oid - (1 << 32) if oid >= 1 << 31 else oid
