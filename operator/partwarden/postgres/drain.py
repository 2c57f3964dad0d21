"""Create a partition and move the rows of DEFAULT that belong in it, in one transaction.

Why no row is lost, doubled or out of sight. First the rows are copied into a table that no other session sees, beside
readers and writers. Then the parent is locked against all others, for as long as it takes to copy what was written
since, to delete from DEFAULT exactly what was copied, and to attach. A session that comes meanwhile waits at the
parent, before it knows anything of its partitions: a writer is then led to the new partition, and a reader, an UPDATE
or a DELETE finds the rows there. Whatever fails, on either side, PostgreSQL undoes all of it.
https://www.postgresql.org/docs/current/mvcc-caveats.html has the exception: a snapshot that was taken before and is
used after. It sees the rows where they were deleted, but by their key PostgreSQL looks for them where they are now. No
order of statements can serve both. Snapshots that are held before the lock are waited for; and where none is held at a
moment under the lock, as on a server that is not busy, it is that moment at which all is committed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Composable, Composed, Identifier

from ..errors import DefaultHasRows, RowsReferenced, StatementRejected, TableBusy, TableChanged, UserError
from ..planner.actions import DrainIntoPartition, LongTableAction
from ..planner.default_rows import count_of
from ..planner.findings import quoted
from ..planner.inventory import Inventory, Partition, Relation
from . import ddl, drain_sql, locks, transaction
from .connection import Session, run
from .create import make_tables, rights_of_tables
from .drain_sql import COPY, DELETE, FORGET_GONE, called
from .errors import message, translate
from .settings import setting

UNDER_LOCK = 1000
"""Milliseconds that all other sessions may be kept out for; what takes longer is undone."""
IDLE = 2000  # milliseconds without a word from us under the lock, after which the server undoes all
COUNT_LIMIT = 1000  # referencing rows that are counted
QUIET_ATTEMPTS, QUIET_LEFT = 2, 0.5
"""Attempts that are undone where a snapshot is held under the lock, while so many seconds are left. On a busy server
one always is: also each statement that waits for us has one. Which of them take another one then is not to be seen."""

CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000)::int8"


def drain(connection: Session, inventory: Inventory, key: str, action: DrainIntoPartition, deadline: float) -> None:
    """Make the partition and fill it. ``deadline``, of `time.monotonic`: until then locks are tried for.

    Raises `TableBusy` when they are not acquired, at once where a long transaction is in the way; `RowsReferenced`
    where other tables reference the rows; `DefaultHasRows` where there are too many; else as `create.create` does.
    """
    with transaction.translated(connection, f"partition {action}"):
        assert inventory.default is not None
        Move(connection, inventory, key, action, inventory.default, deadline).run()


def _broken(error: psycopg.Error, subject: str, source: Partition, *where: Relation) -> StatementRejected | None:
    """Rows are older than a constraint of the table (NOT VALID). None for the bounds of partitions. ``where``: the
    tables that such a constraint may be dropped on."""
    if name := error.diag.constraint_name:
        what, way_out = f"the constraint {quoted(name)}", "drop it"
    elif column := error.diag.column_name:
        what, way_out = f"NOT NULL of column {quoted(column)}", "drop that"
    else:
        return None
    return StatementRejected(
        f"{subject}: rows of its range in the {called(source)} break {what} ({message(error)}), which keeps them from "
        f"being moved by hand as well: correct those rows, or {way_out} on {' or '.join(map(str, where))}"
    )


class Move:
    """Rows of one partition, ``source``, on their way into a new one."""

    limit = "spec.defaultPartition.drainMaxRows"
    """The field that says how many rows there may be."""
    too_many: type[UserError] = DefaultHasRows
    """What is raised where there are more."""

    def __init__(
        self,
        connection: Session,
        inventory: Inventory,
        key: str,
        action: DrainIntoPartition,
        source: Partition,
        deadline: float,
        alone: LongTableAction | None = None,
    ) -> None:
        """``alone``: as for `transaction.changing`."""
        self._connection, self._inventory, self._action, self._deadline = connection, inventory, action, deadline
        self._parent, self._source, self._alone = transaction.parent_of(inventory), source, alone
        self._key, self._names = key, dict[str, Any]()
        self._triggers: Sequence[Sequence[str]] = ()
        self._rights: Sequence[Composable] = ()
        self._attempts = 0
        self._locked: Sequence[Relation] = (self._parent, source)
        """The parent before the source, as all sessions that read or write through the parent lock them."""
        self.too_much, self.held, self.held_in_all = False, 0.0, 0.0
        """Whether it was undone since it took longer than `UNDER_LOCK`, or more rows had come than it may move; for how
        many seconds others were kept out the last time, and each time together."""
        self._subject = f"cannot create partition {action}"
        self.subject = f"{self._subject} and fill it from {source}"
        self.wants = [
            locks.Want(self._parent.oid, locks.Mode.ACCESS_EXCLUSIVE),
            locks.Want(source.oid, locks.Mode.ACCESS_EXCLUSIVE),
            *locks.wants_of_default(inventory),
            *locks.joined(connection, self._parent.oid, locks.Mode.SHARE_ROW_EXCLUSIVE),
        ]

    def _say(self, statement: LiteralString, **more: Composable) -> Composed:
        return SQL(statement).format(**self._names, **more)

    def run(self) -> None:
        """Move them. Raises as `drain`, and psycopg's errors."""
        try:
            self._run()
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            transaction.undo(self._connection)
            raise locks.lock_error(self.subject, locks.lock_holders(self._connection, self.wants)) from None
        except (pg.CheckViolation, pg.NotNullViolation) as error:
            broken = _broken(error, self._subject, self._source, self._parent, *self._locked[2:])
            raise broken or translate(error, f"partition {self._action}") from None

    def _run(self) -> None:
        locks.check_lock_holders(self._connection, self.wants, self.subject, self._deadline)
        self._begin()
        self._prepare()
        locks.retry_locks(
            self._connection,
            self._attempt,
            lambda: self.wants,
            self.subject,
            self._deadline,
            check_first=False,
            # With the savepoint go the locks that were acquired: others go on while we wait.
            rollback=lambda it: run(it, "ROLLBACK TO SAVEPOINT unlocked", "RELEASE SAVEPOINT unlocked"),
        )

    def _attempt(self) -> None:
        self._attempts += 1
        if self._attempts > 1:
            self._catch_up()
        if who := locks.wait_for_snapshots(self._connection, self._deadline):
            raise TableBusy(f"{self.subject}: {who} has an older snapshot, by which it would miss rows that move")
        run(self._connection, "SAVEPOINT unlocked")
        quiet = self._attempts <= QUIET_ATTEMPTS and time.monotonic() + QUIET_LEFT < self._deadline
        try:
            self._switch([locks.FRESH, locks.QUIET] if quiet else [])
        except pg.DivisionByZero:
            if not quiet:
                raise
            raise pg.LockNotAvailable("a snapshot is held") from None

    def _open(self) -> Any:
        """The transaction, and proof that the source is a partition whose rows can be moved; its `drain_sql.FACTS`."""
        parent, source = self._parent, self._source
        begin = transaction.opening(parent, transaction.LOCK_TIMEOUT_HEAVY, alone=self._alone)
        begun = run(self._connection, *begin, setting({"row_security": "off"}))
        transaction.check_opening(parent, begun, self._alone)
        _, _, _, facts, publications = run(
            self._connection,
            # Keeps VACUUM and everything that changes triggers, rules or the place of rows away, and neither readers
            # nor writers. No other session queues behind one that waits for it.
            transaction.set_lock_timeout(transaction.UNHEARD),
            ddl.lock(source, "SHARE UPDATE EXCLUSIVE"),
            transaction.set_lock_timeout(transaction.LOCK_TIMEOUT_HEAVY),
            *drain_sql.ask(parent, source, self._inventory.server.version),
        )
        row: Any = next(iter(facts), None)
        drain_sql.check(source, self._action, parent.owner, row, [each.pubname for each in publications])
        self._triggers, self._names = row.triggers, drain_sql.names(parent, source, self._action, self._key, row)
        return row

    def _begin(self) -> None:
        """Open the transaction, and make the new table, empty."""
        parent, like, row = self._parent, self._inventory.template, self._open()
        making = make_tables(
            self._inventory,
            [self._action],
            # To make an index calls the functions of its expression: the owner alone does that.
            indexes=row.indexes and parent.owner_creates,
            # Rows that a crash leaves alone where they are must not move to where it takes them.
            unlogged=like.unlogged and row.unlogged,
        )
        *_, named, acls = run(self._connection, *making)
        # Not before it is filled: even the owner may lack a right then, or be shown no rows.
        self._rights = rights_of_tables(self._inventory, [self._action], named, acls)
        # The new table will hold nothing but the range: ATTACH need not read it. The table of what was copied is ours.
        bound = self._say("ALTER TABLE {new} ADD CONSTRAINT {bounds} CHECK ({key} IS NOT NULL AND {in_bounds})")
        remember = self._say("CREATE UNLOGGED TABLE {map} (old tid, born xid, new tid, same boolean)")
        give = self._say("ALTER TABLE {map} OWNER TO {owner}")
        run(self._connection, bound, *transaction.made_for_owner(parent, remember, give=[give]))

    def _prepare(self) -> None:
        """What can be done beside readers and writers, which do not wait for this."""
        run(self._connection, self._say(COPY), self._say("ANALYZE {map}"))
        self._check_references()
        self._check_copies()

    def _catch_up(self) -> None:
        """So that little is left to be done under the lock, where all that fails here is done again."""
        run(self._connection, "SAVEPOINT caught_up")
        try:
            run(self._connection, self._say(FORGET_GONE), self._say(COPY))
        except (pg.IntegrityError, pg.LockNotAvailable, pg.DeadlockDetected):
            # Such as a key that moved between the two statements.
            run(self._connection, "ROLLBACK TO SAVEPOINT caught_up")
        run(self._connection, "RELEASE SAVEPOINT caught_up")

    def _switch(self, quiet: Sequence[LiteralString]) -> None:
        """The one moment at which others wait, at most `UNDER_LOCK` of it. ``quiet``: what fails where a snapshot is
        held, asked before anything is done, and as the last thing before COMMIT."""
        connection = self._connection
        timeouts = {
            "lock_timeout": f"{transaction.LOCK_TIMEOUT_HEAVY}ms",
            "statement_timeout": f"{UNDER_LOCK}ms",
            "idle_in_transaction_session_timeout": f"{IDLE}ms",
        }
        lock = (ddl.lock(each, "ACCESS EXCLUSIVE") for each in self._locked)
        *_, ((now,),) = run(connection, setting(timeouts), *lock, *quiet, "SELECT " + CLOCK)
        began = time.monotonic()
        left = SQL("SELECT set_config('statement_timeout', greatest(1, {} - " + CLOCK + ")::text, true)")
        remaining = left.format(now + UNDER_LOCK)
        try:
            # No session can change or reference a row from here on, so what is found now stays true until COMMIT.
            self._transfer(remaining)
            run(connection, *self._switched(True), *self._finish(remaining), *quiet, "COMMIT")
        except pg.QueryCanceled as error:
            self.too_much = True
            raise StatementRejected(
                f"{self._subject}: to move its rows out of {self._source} took longer than {UNDER_LOCK} ms in which "
                f"all other sessions wait, and was undone ({message(error)}); create an index on the key, and on "
                "columns that reference this table, or move the rows by hand"
            ) from None
        finally:
            self.held = time.monotonic() - began
            self.held_in_all += self.held

    def _transfer(self, remaining: Composable) -> None:
        """The rows go from one table into the other."""
        connection, say = self._connection, self._say
        run(connection, remaining, "SET CONSTRAINTS ALL IMMEDIATE", say(FORGET_GONE), remaining, say(COPY))
        self._check_references(remaining)
        self._check_copies()
        # Safe: it deletes the very row versions that were copied, whose copies were compared with them and are
        # committed together with this or not at all; no row references them, so no foreign key deletes or changes
        # anything in turn. Triggers are for rows that go, and these do not.
        *_, ((deleted, copied, present),) = run(connection, *self._switched(False), remaining, say(DELETE))
        if not deleted == copied == present:
            raise TableChanged(
                f"{self._subject}: of its rows in the {called(self._source)} {copied:,} were copied, {present:,} "
                f"of them are there, and {deleted:,} were deleted; all was undone"
            )

    def _finish(self, remaining: Composable) -> Iterator[Composable]:
        """What is left to be done once the rows have moved. ``remaining`` limits the statements after it to the time
        that is left."""
        yield from self._rights
        yield from self._attach(remaining)
        yield from ddl.after_attach(self._inventory.template, self._action)
        yield self._say("ALTER TABLE {new} DROP CONSTRAINT {bounds}")
        yield self._say("DROP TABLE {map}")

    def _attach(self, remaining: Composable) -> Iterator[Composable]:
        """The new table becomes a partition.

        ATTACH proves that DEFAULT holds none of the range any more; a row that was left would make it fail.
        """
        yield remaining
        yield ddl.attach(self._parent, self._action)

    def _switched(self, on: bool) -> Iterator[Composed]:
        """Turns triggers of the source off, or on again as they were."""
        for name, enabled in self._triggers:
            how = SQL(drain_sql.ENABLE[enabled] if on else "DISABLE")
            yield self._say("ALTER TABLE ONLY {default} {how} TRIGGER {trigger}", how=how, trigger=Identifier(name))

    def _check_copies(self) -> None:
        query = self._say("SELECT count(*), count(*) FILTER (WHERE NOT same) FROM {map}")
        (((copied, false),),) = run(self._connection, query)
        if false:
            raise StatementRejected(
                f"{self._subject}: {count_of(false)} of {called(self._source)} would not be the same there, "
                "since a generated column holds what the table's expression does not give; move them by hand"
            )
        if copied > self._action.max_rows:
            self.too_much = True
            raise self.too_many(
                f"{self._subject}: more than {count_of(self._action.max_rows)} ({self.limit}) of "
                f"its range lie in the {called(self._source)}; raise that, or move them out of it"
            )

    def _check_references(self, *remaining: Composable) -> None:
        """A foreign key would forbid the deletion, or carry it on to the rows that reference."""
        for key in run(self._connection, self._say(drain_sql.REFERENCES))[0]:
            source = self._say(
                "ONLY {default} AS d JOIN {only}{table} AS f ON {condition} WHERE {range}",
                only=SQL("" if key.partitioned else "ONLY "),
                table=ddl.relation(key),
                condition=SQL(key.condition),  # quoted by the server's format()
            )
            *_, ((rows,),) = run(self._connection, *remaining, ddl.count(source, COUNT_LIMIT))
            if rows:
                raise RowsReferenced(
                    f"{self._subject}: {count_of(rows, rows < COUNT_LIMIT)} of {key.schema}.{key.name} reference rows "
                    f"of its range in the {called(self._source)}, and a row that is referenced cannot be moved; take "
                    "those references away, or leave that range to it"
                )
