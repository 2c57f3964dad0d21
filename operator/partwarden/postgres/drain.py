"""Create a partition and move the rows of DEFAULT that belong in it, in one transaction.

Why no row is lost, doubled or out of sight. First the rows are copied into a table that no other session sees, beside
readers and writers. Then the parent is locked against all others, for as long as it takes to copy what was written
since, to delete from DEFAULT exactly what was copied, and to attach. A session that comes meanwhile waits at the
parent, before it knows anything of its partitions: a writer is then led to the new partition, and a reader, an UPDATE
or a DELETE finds the rows there. Whatever fails, on either side, PostgreSQL undoes all of it.
https://www.postgresql.org/docs/current/mvcc-caveats.html has the exception: a snapshot that was taken before and is
used after. Those that are seen to be held are waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import DefaultHasRows, RowsReferenced, StatementRejected, TableBusy, TableChanged
from ..planner.actions import DrainIntoPartition
from ..planner.default_rows import count_of
from ..planner.findings import quoted
from ..planner.inventory import Inventory
from . import ddl, drain_sql, template
from .connection import Session, run
from .create import make_tables, rights_of_tables
from .drain_sql import Move
from .errors import message, translate
from .locks import (
    Mode,
    Want,
    check_lock_holders,
    joined,
    lock_error,
    lock_holders,
    retry_locks,
    wait_for_snapshots,
    wants_of_default,
)
from .transaction import LOCK_TIMEOUT_HEAVY, check_opening, made_for_owner, opening, parent_of, translated, undo

UNDER_LOCK = 1000
"""Milliseconds that all other sessions may be kept out for; what takes longer is undone."""
IDLE = 2000
"""Milliseconds without a word from us under the lock, after which the server undoes all."""
GIVE_WAY = 2000
"""Milliseconds. Autovacuum gives way to a session that waits for deadlock_timeout; no other queues behind this lock."""
COUNT_LIMIT = 1000
"""Referencing rows that are counted."""
NOTHING = sql.SQL("SELECT")

SETTINGS = "SELECT set_config('row_security', 'off', true)"
TIMEOUTS = """
SELECT set_config('lock_timeout', {}, true), set_config('statement_timeout', {}, true),
       set_config('idle_in_transaction_session_timeout', {}, true)
"""
CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8"
REMAINING = """
SELECT set_config('statement_timeout',
                  greatest(1, {} - (extract(epoch FROM clock_timestamp()) * 1000)::int8)::text, true)
"""


def drain(connection: Session, inventory: Inventory, key: str, action: DrainIntoPartition, deadline: float) -> None:
    """Make the partition and fill it. ``deadline``, of `time.monotonic`: until then locks are tried for.

    Raises `TableBusy` when they are not acquired, at once where a long transaction is in the way; `RowsReferenced`
    where other tables reference the rows; `DefaultHasRows` where there are too many; else as `create.create` does.
    """
    with translated(connection, f"partition {action}"):
        work = _Drain(connection, inventory, key, action, deadline)
        try:
            work.run()
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            undo(connection)
            raise lock_error(work.subject, lock_holders(connection, work.wants)) from None
        except (pg.CheckViolation, pg.NotNullViolation) as error:
            raise _broken(error, inventory, action) or translate(error, f"partition {action}") from None


def _broken(error: psycopg.Error, inventory: Inventory, action: DrainIntoPartition) -> StatementRejected | None:
    """Rows of DEFAULT are older than a constraint of the table (NOT VALID). None for the bounds of partitions."""
    if name := error.diag.constraint_name:
        what, way_out = f"the constraint {quoted(name)}", "drop it"
    elif column := error.diag.column_name:
        what, way_out = f"NOT NULL of column {quoted(column)}", "drop that"
    else:
        return None
    return StatementRejected(
        f"cannot create partition {action}: rows of its range in the DEFAULT partition {inventory.default} break "
        f"{what} ({message(error)}), which keeps them from being moved by hand as well: correct those rows, or "
        f"{way_out} on {inventory.parent}"
    )


class _Drain:
    def __init__(
        self, connection: Session, inventory: Inventory, key: str, action: DrainIntoPartition, deadline: float
    ) -> None:
        assert inventory.default is not None
        self._connection, self._inventory, self._action, self._deadline = connection, inventory, action, deadline
        self._parent, self._default = parent_of(inventory), inventory.default
        self._move = Move(self._parent, self._default, action, key)
        self._triggers: Sequence[Sequence[str]] = ()
        self._rights: Sequence[sql.Composable] = ()
        self._attempts = 0
        self.subject = f"cannot create partition {action} and fill it from {self._default}"
        self.wants = [
            Want(self._parent.oid, Mode.ACCESS_EXCLUSIVE),
            *wants_of_default(inventory),
            *joined(connection, self._parent.oid, Mode.SHARE_ROW_EXCLUSIVE),
        ]

    def run(self) -> None:
        check_lock_holders(self._connection, self.wants, self.subject, self._deadline)
        self._begin()
        self._copy()
        retry_locks(
            self._connection,
            self._attempt,
            lambda: self.wants,
            self.subject,
            self._deadline,
            check_first=False,
            # With the savepoint go the locks that were acquired: others go on while we wait.
            rollback=lambda it: run(it, "ROLLBACK TO SAVEPOINT unlocked; RELEASE SAVEPOINT unlocked"),
        )

    def _attempt(self) -> None:
        self._attempts += 1
        if self._attempts > 1:
            self._catch_up()
        if who := wait_for_snapshots(self._connection, self._deadline):
            raise TableBusy(f"{self.subject}: {who} has an older snapshot, by which it would miss rows that move")
        run(self._connection, "SAVEPOINT unlocked")
        self._switch()

    def _begin(self) -> None:
        """The new table, empty, and proof that this DEFAULT partition is one whose rows can be moved."""
        move = self._move
        begun = run(self._connection, *opening(self._parent, LOCK_TIMEOUT_HEAVY), SETTINGS)
        check_opening(self._parent, begun)
        # Keeps VACUUM and everything that changes triggers, rules or the place of rows away, and neither readers nor
        # writers. No other session queues behind one that waits for it.
        patient = sql.SQL("SELECT set_config('lock_timeout', {}, true)")
        _, _, _, facts, publications = run(
            self._connection,
            patient.format(f"{GIVE_WAY}ms"),
            move.lock_default("SHARE UPDATE EXCLUSIVE"),
            patient.format(f"{LOCK_TIMEOUT_HEAVY}ms"),
            drain_sql.ask(self._parent, self._default),
            drain_sql.ask_publications(self._default, self._inventory.server.version),
        )
        row: Any = next(iter(facts), None)
        drain_sql.check(self._default, self._action, self._parent.owner, row, [each.pubname for each in publications])
        self._triggers = row.triggers
        self._make(row.indexes)
        self._move = Move(self._parent, self._default, self._action, move.key, row.columns, row.all_columns)
        bounds, remember = self._move.prepare()
        run(self._connection, bounds, *made_for_owner(self._parent, remember, give=[self._move.give_map()]))

    def _make(self, indexes: bool) -> None:
        like = self._inventory.template
        *_, named, acls = run(
            self._connection,
            *make_tables(
                self._inventory,
                [self._action],
                # To make an index calls the functions of its expression: the owner alone does that.
                indexes=indexes and self._parent.owner_creates,
                # Rows that a crash leaves alone where they are must not move to where it takes them.
                unlogged=like.unlogged and like.default_unlogged,
            ),
        )
        # Not before it is filled: even the owner may lack a right then, or be shown no rows.
        self._rights = rights_of_tables(self._inventory, [self._action], named, acls)

    def _copy(self) -> None:
        """Beside readers and writers, which do not wait for this."""
        run(self._connection, self._move.copy(), self._move.statistics())
        self._check_references()
        self._check_copies()

    def _catch_up(self) -> None:
        """So that little is left to be done under the lock, where all that fails here is done again."""
        run(self._connection, "SAVEPOINT caught_up")
        try:
            run(self._connection, self._move.forget_gone(), self._move.copy())
        except (pg.IntegrityError, pg.LockNotAvailable, pg.DeadlockDetected):
            # Such as a key that moved between the two statements.
            run(self._connection, "ROLLBACK TO SAVEPOINT caught_up")
        run(self._connection, "RELEASE SAVEPOINT caught_up")

    def _switch(self) -> None:
        """The one moment at which others wait, at most `UNDER_LOCK` of it."""
        connection, move = self._connection, self._move
        timeouts = sql.SQL(TIMEOUTS).format(f"{LOCK_TIMEOUT_HEAVY}ms", f"{UNDER_LOCK}ms", f"{IDLE}ms")
        # The parent before DEFAULT, as all sessions that read or write through the parent lock them.
        *_, ((now,),) = run(connection, timeouts, move.lock_parent(), move.lock_default("ACCESS EXCLUSIVE"), CLOCK)
        remaining = sql.SQL(REMAINING).format(now + UNDER_LOCK)
        try:
            # No session can change or reference a row from here on, so what is found now stays true until COMMIT.
            run(connection, remaining, "SET CONSTRAINTS ALL IMMEDIATE", move.forget_gone(), remaining, move.copy())
            self._check_references(remaining)
            self._check_copies()
            # Safe: it deletes the very row versions that were copied, whose copies were compared with them and are
            # committed together with this or not at all; no row references them, so no foreign key deletes or changes
            # anything in turn. Triggers are for rows that go, and these do not.
            *_, ((deleted, copied, present),) = run(
                connection, *move.switch(self._triggers, on=False), remaining, move.delete()
            )
            if not deleted == copied == present:
                raise TableChanged(
                    f"cannot create partition {self._action}: of its rows in DEFAULT {copied:,} were copied, "
                    f"{present:,} of them are there, and {deleted:,} were deleted; all was undone"
                )
            # ATTACH proves that DEFAULT holds none of the range any more; a row that was left would make it fail.
            run(
                connection,
                *move.switch(self._triggers, on=True),
                *self._rights,
                remaining,
                ddl.attach(self._parent, self._action),
                *template.after_attach(self._inventory.template, self._action),
                *move.finish(),
                "COMMIT",
            )
        except pg.QueryCanceled as error:
            raise self._too_slow(error) from None

    def _check_copies(self) -> None:
        (((copied, false),),) = run(self._connection, self._move.remembered())
        if false:
            raise StatementRejected(
                f"cannot create partition {self._action}: {count_of(false)} of DEFAULT partition {self._default} "
                "would not be the same there, since a generated column holds what the table's expression does not "
                "give; move them by hand"
            )
        if copied > self._action.max_rows:
            raise DefaultHasRows(
                f"cannot create partition {self._action}: more than {count_of(self._action.max_rows)} "
                f"(spec.defaultPartition.drainMaxRows) of its range lie in the DEFAULT partition {self._default}; "
                "raise that, or move them out of it"
            )

    def _check_references(self, remaining: sql.Composable = NOTHING) -> None:
        """A foreign key would forbid the deletion, or carry it on to the rows that reference."""
        (keys,) = run(self._connection, self._move.references())
        for key in keys:
            _, ((rows,),) = run(self._connection, remaining, self._move.referencing(key, COUNT_LIMIT))
            if rows:
                raise RowsReferenced(
                    f"cannot create partition {self._action}: {count_of(rows, rows < COUNT_LIMIT)} of "
                    f"{key.schema}.{key.name} reference rows of its range in the DEFAULT partition {self._default}, "
                    "and a row that is referenced cannot be moved; take those references away, or leave that range to "
                    "DEFAULT"
                )

    def _too_slow(self, error: pg.QueryCanceled) -> StatementRejected:
        return StatementRejected(
            f"cannot create partition {self._action}: to move its rows out of {self._default} took longer than "
            f"{UNDER_LOCK} ms in which all other sessions wait, and was undone ({message(error)}); create an index on "
            "the key, and on columns that reference this table, or move the rows by hand"
        )
