"""How a table stands at the moment, read again in the transaction that is to change it, and what is written on it.

The plan was made from a look that is past. What is done to a table is decided here once more, by OIDs, under a lock
that keeps others from changing what was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from . import comments, ddl, marker
from .actions import Action
from .errors import TableChanged
from .inventory import Inventory, Parent
from .marker import Marker
from .session import run
from .transaction import check_opening, opening, undo

UNHEARD = 2000
"""Milliseconds to wait for a lock that neither readers nor writers wait behind: longer than deadlock_timeout, so that
autovacuum gives way."""
SET_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', {}, true)"
LOCK = "LOCK TABLE ONLY {} IN {} MODE"
STANDING = """
SELECT c.oid, c.relkind = 'r', c.relispartition, i.inhparent, coalesce(i.inhdetachpending, false),
       pg_get_expr(c.relpartbound, 0), {comment}, {length},
       EXISTS (SELECT FROM pg_inherits below WHERE below.inhparent = c.oid), clock_timestamp(),
       pg_get_userbyid(c.relowner)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE n.nspname = {schema} AND c.relname = {name}
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """``parent`` is the OID of what it is a partition of, or inherits from, ``bounds`` PostgreSQL's text of them.

    ``text`` is the user's own comment, None where the whole is too long to be read; ``mark`` ours beside it. ``now`` is
    the server's clock, aware.
    """

    oid: int
    plain: bool
    is_partition: bool
    parent: int | None
    pending: bool
    bounds: str | None
    text: str | None
    mark: Marker | None
    has_children: bool
    now: datetime
    owner: str

    @property
    def detached(self) -> bool:
        """Whether it is a table of its own, and nothing depends on it as on a parent."""
        return self.plain and not self.is_partition and self.parent is None and not self.has_children


@contextmanager
def changing(connection: psycopg.Connection[Any], parent: Parent, statement_timeout: str) -> Iterator[None]:
    """A transaction that holds the advisory lock of the parent, committed at the end of the block, if not in it.

    What is done in it is done as the parent's owner.

    Locks are waited for `UNHEARD` milliseconds until `hasten` says otherwise. Raises `AnotherOperator`,
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


def look(connection: psycopg.Connection[Any], action: Action, oid: int) -> Standing:
    """Lock the table against all DDL, and read how it stands. Raises `TableChanged` where the name is another's.

    The lock (SHARE UPDATE EXCLUSIVE) is in no reader's or writer's way, and lasts as long as the transaction.
    """
    *_, found = run(connection, lock(action, "SHARE UPDATE EXCLUSIVE"), _standing(action))
    if [each[0] for each in found] != [oid]:
        raise TableChanged(f"{action.noun} {action} was dropped, renamed or made anew since it was looked at")
    ((_, plain, is_partition, parent, pending, bounds, comment, length, children, now, owner),) = found
    text, mark = (None, None) if comments.is_too_long(length) else marker.read(comment)
    return Standing(oid, plain, is_partition, parent, pending, bounds, text, mark, children, now, owner)


def lock(action: Action, mode: str) -> sql.Composed:
    """Ask for the lock on the table; ``mode`` as LOCK TABLE spells it."""
    return sql.SQL(LOCK).format(sql.Identifier(action.schema, action.name), sql.SQL(mode))


def hasten(milliseconds: int) -> sql.Composed:
    """From here on to the end of the transaction, locks are waited for so long only."""
    return sql.SQL(SET_LOCK_TIMEOUT).format(f"{milliseconds}ms")


def is_ours(standing: Standing, parent: Parent) -> bool:
    """Whether the mark was written on this very table, of this very parent, whose owner owns the table.

    Another owner may write any text into the comment of a table, and have it run any function.
    """
    mark = standing.mark
    return mark is not None and (mark.oid, mark.parent, standing.owner) == (standing.oid, parent.oid, parent.owner)


def write(action: Action, text: str | None, mark: Marker | None) -> sql.Composed:
    """Put the mark beside the user's own text, or take it away. Raises `StatementRejected` where there is no room."""
    if text is None:
        raise comments.no_room(f"{action.noun} {action}")
    return ddl.comment(action, comments.check_room(f"{action.noun} {action}", marker.write(text, mark)))


def _standing(action: Action) -> sql.Composed:
    comment, length = (each(sql.SQL("c.oid")) for each in (comments.read, comments.length))
    return sql.SQL(STANDING).format(schema=action.schema, name=action.name, comment=comment, length=length)


def parent_of(inventory: Inventory) -> Parent:
    """The table of the policy, which exists wherever there is a plan."""
    assert inventory.parent is not None
    return inventory.parent
