"""Split an interval off the table that was converted: its rows move into a partition of their own.

What moves the rows is `drain.Move`, so each is seen exactly once, or all is undone. Here the partition that they
leave must get narrower bounds in the same transaction, since PostgreSQL lets no two overlap: it is detached, and
attached again. ATTACH reads the whole table under the lock, unless a CHECK that was validated says the same as the
bounds. One that does cannot be validated as long as the rows are there, and once they have gone the lock is held. So
the CHECK says ``key < f()``. It is validated while others go on and ``f`` returns the bound of now; under the lock,
once the rows are deleted, ``f`` is replaced by one that returns the bound to come, and PostgreSQL reads what it returns
when it compares CHECK and bounds. https://www.postgresql.org/docs/current/ddl-constraints.html says that PostgreSQL
does not notice what that may make false: so the transaction proves it itself, by a query that finds no row beyond the
new bound, and is undone where it finds one. CHECK and function go in the same transaction.

A key that was made wider needs one more step, once. Of the partition the primary key is its old one, and ATTACH wants
that of the partitioned table: it would make another, which PostgreSQL refuses. A unique index for it is built beside
readers and writers, and becomes the primary key in the transaction that moves the first rows. Old rows are then as
unique as all others are, and no longer by the narrow key; the conversion cannot be undone, which the mark says. Until
rows have moved there is a way back.

Each step is found again in the catalog, and safe to be interrupted after: a CHECK that says what the bounds say, and a
further unique index that is weaker than the key that is there. Nothing is dropped but these and the keys that give way,
and rows only as `drain` says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from ..errors import RowsReferenced, StatementFailed, StatementRejected, TableChanged
from ..planner.actions import SplitLegacy
from ..planner.default_rows import count_of
from ..planner.inventory import Inventory, Partition, Relation
from ..planner.keys import KeyType
from ..planner.recheck import NEVER, Recheck, Withdrawn
from . import ddl, drain, drain_sql, locks, table_state, transaction
from .alone import OutOfTime, run_outside
from .connection import Session, run
from .conversion_definition import columns_of, text
from .conversion_finish import write_mark
from .conversion_obstacles import require
from .conversion_swap import UNDER_LOCK, changed, persist
from .split_leftovers import forget, function_of, name_of, ours, words
from .transaction import LOCK_TIMEOUT, LOCK_TIMEOUT_HEAVY, READ_ALL_LIMIT, READ_ALL_TIMEOUT

PATIENCE = 20.0
"""Seconds in which the locks of each step must be had, where the caller gives less: others wait 50 ms at a time, and
what was done before may have taken hours."""
VACUUM_LIMIT = 1800.0
COUNT_TIMEOUT = "60s"
BUILD_TIMEOUT = 600_000
"""Milliseconds that the build of the index waits for others' transactions, each time that it must."""

STATE = """
SELECT pg_get_expr(c.relpartbound, 0) = {bounds} AND c.relkind = 'r' AND i.inhparent = {parent} AS same,
       (SELECT k.convalidated FROM pg_constraint k WHERE k.conrelid = c.oid AND k.conname = {index}) AS validated,
       {ours} AS ours,
       (SELECT x.indisvalid FROM pg_index x JOIN pg_class o ON o.oid = x.indexrelid
        WHERE x.indrelid = c.oid AND o.relname = {index}) AS built,
       ARRAY(SELECT DISTINCT n.nspname || '.' || r.relname FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid
             JOIN pg_namespace n ON n.oid = r.relnamespace
             WHERE k.contype = 'f' AND k.confrelid IN (c.oid, {parent}) ORDER BY 1) AS referencing
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.oid = {legacy} AND n.nspname = {schema} AND c.relname = {name}
"""
# Where the parent's primary key has another index of the partition than its own primary key. That index, its columns
# and when it is checked; and whether one that goes is the replica identity.
KEYS = """
SELECT own.conname AS own, wide.conname AS wide, a.indisreplident OR b.indisreplident AS identifies,
       {columns} AS columns,
       CASE WHEN above.condeferrable THEN ' DEFERRABLE' ELSE '' END
         || CASE WHEN above.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END AS deferrable
FROM pg_constraint above JOIN pg_constraint own ON own.conrelid = {legacy} AND own.contype = 'p'
JOIN pg_inherits i ON i.inhparent = above.conindid
JOIN pg_constraint wide ON wide.conindid = i.inhrelid AND wide.conrelid = {legacy} AND wide.oid <> own.oid
JOIN pg_index a ON a.indexrelid = own.conindid JOIN pg_index b ON b.indexrelid = wide.conindid
WHERE above.conrelid = {parent} AND above.contype = 'p'
"""


def split(
    connection: Session,
    inventory: Inventory,
    key: str,
    action: SplitLegacy,
    deadline: float,
    recheck: Recheck = NEVER,
) -> None:
    """Move the rows of the interval into a partition of their own. ``deadline``: as for `drain.drain`, and `PATIENCE`.

    Before it, VACUUM gives back what the interval before has left. ``recheck`` is asked before rows move. Raises as
    `drain.drain`, `Withdrawn`, `RowsReferenced` where foreign keys point to the table, and `StatementFailed` where
    reading every row, VACUUM or the build of an index does not end in time.
    """
    legacy = next((each for each in inventory.partitions if each.oid == action.oid), None)
    if legacy is None:
        raise TableChanged(f"partition {action} was detached or dropped since it was read")
    with transaction.translated(connection, f"partition {action}"):
        _Split(connection, inventory, key, action, legacy, deadline, recheck).run()


class _Split:
    def __init__(
        self,
        connection: Session,
        inventory: Inventory,
        key: str,
        action: SplitLegacy,
        legacy: Partition,
        deadline: float,
        recheck: Recheck,
    ) -> None:
        self._connection, self._inventory, self._key = connection, inventory, key
        self._action, self._legacy, self._deadline, self._recheck = action, legacy, deadline, recheck
        self._parent = transaction.parent_of(inventory)
        self._subject = f"cannot split partition {action}"
        self._check = self._index = name_of(legacy.oid)

    def run(self) -> None:
        self._check_rows()
        validated = self._state().validated
        vacuum = SQL("VACUUM (ANALYZE) {}").format(ddl.relation(self._legacy))
        self._outside(vacuum, LOCK_TIMEOUT, VACUUM_LIMIT)
        if not validated:
            wants = [locks.Want(self._legacy.oid, locks.Mode.ACCESS_EXCLUSIVE)]
            persist(self._connection, self._add_check, wants, self._subject, self._until())
            self._validate()
        if (keys := self._keys()) is not None:
            self._build(keys)
        if stopped := self._recheck.why_stopped():
            raise Withdrawn(f"{self._subject}: {stopped}")
        move = _Move(
            self._connection, self._inventory, self._key, self._action.into, self._legacy, self._until(), self._action
        )
        try:
            move.run()
        except psycopg.Error as error:
            raise changed(error, self._subject) or error from None

    def _until(self) -> float:
        return max(self._deadline, time.monotonic() + PATIENCE)

    def _check_rows(self) -> None:
        """Before anything is prepared or copied, each time anew: whether they can be moved, and how many there are.

        Raises `StatementRejected`, and as `drain_sql.check`.
        """
        into, key, parent = self._action.into, Identifier(self._key), self._parent
        source = SQL("ONLY {} WHERE {}").format(ddl.relation(self._legacy), ddl.in_range(key, into.bounds))
        with transaction.changing(self._connection, parent, COUNT_TIMEOUT, alone=self._action):
            asked = drain_sql.ask(parent, self._legacy, self._inventory.server.version)
            facts, publications = run(self._connection, *asked)
            published = [each.pubname for each in publications]
            drain_sql.check(self._legacy, into, parent.owner, next(iter(facts), None), published)
            (((rows,),),) = run(self._connection, ddl.count(source, into.max_rows + 1))
        if rows > into.max_rows:
            raise StatementRejected(
                f"{self._subject}: more than {count_of(into.max_rows)} ({_Move.limit}) would leave it for {into}, "
                "while all other sessions wait; raise that, or leave them there: set spec.convert.split to Never"
            )

    def _state(self) -> Any:
        """What the catalog says of the table now. Raises `TableChanged`, and what keeps it from being split."""
        state = SQL(STATE).format(
            bounds=self._legacy.bounds,
            parent=self._parent.oid,
            legacy=self._legacy.oid,
            ours=ours(self._legacy),
            index=self._index,
            schema=self._legacy.schema,
            name=self._legacy.name,
        )
        rows = transaction.read_only(self._connection, state)[0]
        if not rows or not rows[0].same:
            raise TableChanged(f"partition {self._legacy} was changed since it was read")
        if rows[0].referencing:
            # To be attached with other bounds it is detached, which PostgreSQL refuses of rows that are referenced.
            raise RowsReferenced(
                f"{self._subject}: foreign keys of {', '.join(rows[0].referencing[:5])} point to {self._parent}; drop "
                "them, or set spec.convert.split to Never"
            )
        if not rows[0].ours:
            raise StatementRejected(f"{self._subject}: {words(self._legacy)}")
        return rows[0]

    def _keys(self) -> Any | None:
        """The row of `KEYS`; None where the primary keys are one."""
        query = _ask_keys(self._parent, self._legacy)
        found = next(iter(transaction.read_only(self._connection, query)[0]), None)
        if found is not None and found.identifies:
            raise StatementRejected(
                f"{self._subject}: its replica identity is the index of {found.own!r} or {found.wide!r}, which go; set "
                "it to DEFAULT or FULL, on the partition"
            )
        return found

    def _outside(self, statement: Composable, lock_timeout: int, limit: float) -> None:
        try:
            run_outside(self._connection, self._subject, statement, lock_timeout=lock_timeout, limit=limit)
        except OutOfTime:
            raise StatementFailed(f"{self._subject}: a step did not end within {limit / 60:.0f} minutes") from None

    # The CHECK.

    def _add_check(self) -> None:
        legacy, key = self._legacy, Identifier(self._key)
        add = SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({key} IS NOT NULL AND {key} >= {} AND {key} < {}()) {}")
        whole, function = self._action.whole, function_of(legacy)
        with transaction.changing(self._connection, self._parent, f"{UNDER_LOCK}ms", alone=self._action):
            run(
                self._connection,
                transaction.set_lock_timeout(LOCK_TIMEOUT_HEAVY),
                ddl.lock(legacy, "ACCESS EXCLUSIVE"),
                *forget(legacy),
                *returning(self._inventory, legacy, whole.upper),
                # Every role that writes a row calls it.
                SQL("GRANT EXECUTE ON FUNCTION {}() TO PUBLIC").format(function),
                add.format(
                    ddl.relation(legacy), Identifier(self._check), whole.lower, function, SQL("NOT VALID"), key=key
                ),
                "COMMIT",
            )

    def _validate(self) -> None:
        check = Identifier(self._check)
        validate = SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(ddl.relation(self._legacy), check)
        changing = transaction.changing(self._connection, self._parent, READ_ALL_TIMEOUT, alone=self._action)
        with self._connection.patient(READ_ALL_LIMIT), changing:
            run(self._connection, validate, "COMMIT")

    # The primary key.

    def _build(self, keys: Any) -> None:
        """Safe to drop one that is invalid: it holds no rows, has our name, and belongs to no constraint."""
        name, built = Identifier(self._legacy.schema, self._index), self._state().built
        if built:
            return
        if built is False:
            self._outside(SQL("DROP INDEX CONCURRENTLY {}").format(name), BUILD_TIMEOUT, READ_ALL_LIMIT)
        columns = text(keys.columns)
        create = SQL("CREATE UNIQUE INDEX CONCURRENTLY {} ON {} {}")
        made = create.format(Identifier(self._index), ddl.relation(self._legacy), columns)
        self._outside(made, BUILD_TIMEOUT, READ_ALL_LIMIT)


def _ask_keys(parent: Relation, legacy: Relation) -> Composed:
    return SQL(KEYS).format(legacy=legacy.oid, parent=parent.oid, columns=columns_of("b"))


def returning(inventory: Inventory, legacy: Partition, bound: str) -> list[Composable]:
    """What makes the function of the CHECK return that bound, in every session, whatever its search_path."""
    parent, name = transaction.parent_of(inventory), function_of(legacy)
    # Of those that a `Codec` is for, as format_type() spells it: the others are words of the grammar, and a temporary
    # table that is called like one of these is a type that comes first.
    spelled = parent.key[0].type
    kind = SQL(f"pg_catalog.{spelled}" if spelled in (KeyType.DATE, KeyType.UUID) else spelled)
    body = SQL("SELECT {}::{}").format(Literal(bound), kind).as_string()
    create = SQL("CREATE OR REPLACE FUNCTION {}() RETURNS {} LANGUAGE sql IMMUTABLE PARALLEL SAFE AS {}")
    give = SQL("ALTER FUNCTION {}() OWNER TO {}").format(name, Identifier(parent.owner))
    return transaction.made_for_owner(parent, create.format(name, kind, Literal(body)), give=[give])


class _Move(drain.Move):
    """The move of `drain`, with the table that was converted as its source."""

    limit, too_many = "spec.convert.splitMaxRows", StatementRejected
    _keys: Sequence[Composable] = ()
    """The statements by which the wider key takes the place of the narrow one, and the mark says so."""

    def _begin(self) -> None:
        super()._begin()
        # No session changes keys or the comment any more, until the end of the transaction.
        self._keys = list(self._exchange_keys())

    def _exchange_keys(self) -> Iterator[Composable]:
        """Safe: no row is changed, the key that comes is as strict as that of the partitioned table, and all of it is
        undone where the rows do not move."""
        connection, parent, legacy, action = self._connection, self._parent, self._source, self._alone
        keys = next(iter(run(connection, _ask_keys(parent, legacy))[0]), None)
        if keys is None or action is None:
            return
        comment = table_state.look(connection, action, legacy.oid).comment
        if (mark := table_state.converted_of(comment, legacy.oid, parent)) is None:
            raise TableChanged(f"partition {legacy} was changed since it was read")
        below, own, wide = ddl.relation(legacy), Identifier(keys.own), Identifier(keys.wide)
        for each in (own, wide):
            yield SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(below, each)
        add = SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY USING INDEX {} {}")
        yield add.format(below, own, Identifier(name_of(legacy.oid)), text(keys.deferrable))
        said = write_mark(comment, legacy.oid, replace(mark, split=True), str(legacy))
        yield SQL("COMMENT ON TABLE {} IS {}").format(below, said)

    def _attach(self, remaining: Composable) -> Iterator[Composable]:
        """Both, with bounds that meet. The rows were deleted before; that no others are left is asked once more."""
        action, source = self._alone, self._source
        assert isinstance(action, SplitLegacy)
        beyond = SQL("EXISTS (SELECT FROM ONLY {} WHERE {} >= {})")
        found = beyond.format(ddl.relation(source), Identifier(self._key), action.rest.upper)
        yield remaining
        yield require(SQL("NOT {}").format(found), f"rows from {action.rest.upper} on are left in {source}")
        yield from returning(self._inventory, source, action.rest.upper)
        yield remaining
        yield ddl.detach(self._parent, action)
        yield from self._keys
        attach = SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})")
        yield attach.format(ddl.relation(self._parent), ddl.relation(source), *action.rest)
        yield from super()._attach(remaining)
        yield from forget(source)
