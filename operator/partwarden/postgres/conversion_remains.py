"""Partitions that a way back leaves as children of the plain table, without rows, until no older snapshot is left.

PostgreSQL reads the catalog as it is, and rows by the snapshot of the transaction. A snapshot that was taken before the
way back, and comes to the table after it, does not see the rows that were inserted into the table: it sees them where
they were deleted. So a partition in which any snapshot may see a row is detached and becomes a plain child (INHERIT) in
the same transaction. A query of the table reads its children as well, none of which is excluded by the key, and each
snapshot sees each row exactly once: an older one in the child, a newer one in the table.

The children are dropped once all snapshots have ended that were held at some moment after COMMIT. Those that are taken
meanwhile see all rows in the table: there is no moment at which one could be overlooked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Composable, Identifier

from ..errors import StatementRejected, TableBusy
from ..planner.inventory import Relation
from ..planner.marker import ConvertedMark
from . import ddl, locks
from .connection import Session, pinned, run
from .conversion_definition import rows_of
from .conversion_obstacles import require
from .errors import message
from .locks import Mode, Want
from .settings import setting
from .transaction import LOCK_TIMEOUT_HEAVY, become, translated, undo, undone

# A table without a page has no version of a row: VACUUM takes the last one only once no snapshot sees it.
USED = "SELECT oid::int8 FROM unnest({oids}::oid[]) oid WHERE pg_relation_size(oid) > 0"
# The mark is the owner's to write: it can name nothing but empty children of the same owner.
CHILDREN = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner, current_user AS login
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = {oid} AND c.oid = ANY ({left}::oid[]) AND c.relkind = 'r' AND NOT c.relispartition
  AND c.relowner = p.relowner ORDER BY c.oid
"""


def used(connection: psycopg.Connection[Any], tables: Sequence[Relation]) -> tuple[Relation, ...]:
    """Those in which a snapshot may see a row."""
    (rows,) = rows_of(connection, USED, oids=[each.oid for each in tables])
    oids = {each.oid for each in rows}
    return tuple(each for each in tables if each.oid in oids)


def detach(parent: Identifier, tables: Sequence[Relation], others: Sequence[Relation]) -> Iterator[Composable]:
    """Take partitions off their parent, under the lock on all of them, and prove that they can be dropped later.

    ``others``: those that stay, to be dropped with it: a row that came into one of them since `used` fails here.
    """
    names = ", ".join(str(each) for each in others)
    still = SQL("NOT EXISTS ({})").format(SQL(USED).format(oids=[each.oid for each in others]))
    yield require(still, f"a row was written into one of {names} since they were read")
    for each in tables:
        yield SQL("ALTER TABLE {} DETACH PARTITION {}").format(parent, ddl.relation(each))
    if tables:
        # Safe: nothing of it is left. What depends on one of them fails here, and keeps everything as it is.
        yield SQL("SAVEPOINT droppable")
        yield SQL("DROP TABLE {} RESTRICT").format(SQL(", ").join(ddl.relation(each) for each in tables))
        yield SQL("ROLLBACK TO SAVEPOINT droppable")
        yield SQL("RELEASE SAVEPOINT droppable")


def inherit(plain: Identifier, tables: Sequence[Relation]) -> Iterator[Composable]:
    """Make them children of the table, which has its last name, columns and constraints."""
    for each in tables:
        yield SQL("ALTER TABLE {} INHERIT {}").format(ddl.relation(each), plain)


def mark(
    before: ConvertedMark, validate: tuple[tuple[str, str, str], ...], tables: Sequence[Relation]
) -> ConvertedMark | None:
    """What the table's comment says until all is done; None where nothing is left to do."""
    left = tuple(each.oid for each in tables)
    if not validate and not left:
        return None
    return ConvertedMark(before.oid, before.parent, validate=validate, undone=True, left=left)


def drop_children(connection: Session, plain: Relation, left: Sequence[int], deadline: float) -> None:
    """Drop what is left of them. It may be done again at any time. ``deadline``: as for `conversion_swap.swap`.

    Raises `TableBusy` while a snapshot is held that may be older, or a lock is not acquired, and `StatementRejected`
    where one is not empty, or something depends on it.
    """
    subject = f"cannot drop what is left of the partitions of {plain}, which is a plain table again"
    with translated(connection, subject):
        rows = rows_of(connection, CHILDREN, oid=plain.oid, left=list(left))[0] if left else []
        # The mark that named them was read before: all snapshots that are older than its COMMIT are held by now.
        if rows and (who := locks.wait_for_snapshots(connection, max(deadline, time.monotonic() + locks.SHORT))):
            names = ", ".join(f"{each.schema}.{each.name}" for each in rows)
            raise TableBusy(f"{subject}: {who} has a snapshot that may be older, and finds its rows in {names}")
        for each in rows:
            wants = [Want(each.oid, Mode.ACCESS_EXCLUSIVE), *locks.joined(connection, each.oid, Mode.ACCESS_EXCLUSIVE)]
            attempt = partial(_drop, connection, plain, each, subject)
            locks.retry_locks(connection, attempt, partial(list, wants), subject, deadline, check_first=False)


def _drop(connection: Session, plain: Relation, row: Any, subject: str) -> None:
    child = Relation(row.oid, row.schema, row.name)
    table, owner = ddl.relation(child), Identifier(row.owner)
    with undone(connection):
        *_, rows = run(
            connection,
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            pinned(f"{LOCK_TIMEOUT_HEAVY}ms", "10s"),
            setting({"row_security": "off"}),
            *([become(row.owner)] if row.owner != row.login else []),
            ddl.lock(child, "ACCESS EXCLUSIVE"),
            SQL(CHILDREN).format(oid=plain.oid, left=[child.oid]),
        )
        if [(each.schema, each.name) for each in rows] != [(child.schema, child.name)]:
            # Another session has dropped it, or made something else of it.
            undo(connection)
            return
        *_, ((empty,),) = run(
            connection,
            SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(table),
            SQL("GRANT SELECT ON {} TO {}").format(table, owner),
            SQL("SELECT NOT EXISTS (SELECT FROM ONLY {})").format(table),
        )
        if not empty:
            raise StatementRejected(
                f"{subject}: rows were written into {child} since; move them into {plain}, and do the same again"
            )
        try:
            # Safe: it is a child of the table, named by its mark, and has no row, under the lock that keeps every other
            # session out. Snapshots by which rows of it were to be seen have ended. Never CASCADE.
            run(connection, SQL("DROP TABLE {} RESTRICT").format(table), "COMMIT")
        except pg.DependentObjectsStillExist as error:
            raise StatementRejected(
                f"{subject}: other objects depend on {child}: {message(error)}; drop or change those"
            ) from None
