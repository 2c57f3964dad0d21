"""The moves of a split: rows out of the table that was converted, into a new partition or one that has some already.

What moves the rows is `drain.Move`, so each is seen exactly once, or all is undone. Here the partition that they
leave must get narrower bounds in the same transaction, since PostgreSQL lets no two overlap: it is detached, and
attached again. ATTACH reads the whole table under the lock, unless a CHECK that was validated says the same as the
bounds. One that does cannot be validated as long as the rows are there, and once they have gone the lock is held. So
the CHECK says ``key < f()``. It is validated while others go on and ``f`` returns the bound of now; under the lock,
once the rows are deleted, ``f`` is replaced by one that returns the bound to come, and PostgreSQL reads what it returns
when it compares CHECK and bounds. https://www.postgresql.org/docs/current/ddl-constraints.html says that PostgreSQL
does not notice what that may make false: so the transaction proves it itself, by a query that finds no row beyond the
new bound, and is undone where it finds one. CHECK and function go with the last interval that leaves.

A partition that grows is the mirror of that: its CHECK says ``key >= g()``, and ``g`` is replaced before rows come,
which makes nothing false that was true.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from ..errors import StatementRejected, TableChanged
from ..planner.actions import SplitLegacy
from ..planner.findings import quoted
from ..planner.inventory import Inventory, Partition, Relation
from ..planner.keys import Bounds, KeyType, literals
from . import ddl, drain, drain_sql, locks, table_state, transaction
from .connection import Session, run
from .conversion_definition import columns_of, text
from .conversion_finish import write_mark
from .conversion_obstacles import require
from .split_leftovers import forget, function_of, name_of

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
# Those of the parent go with DETACH, and come again.
OWN_TRIGGERS = """
SELECT tgname FROM pg_trigger
WHERE tgrelid = {oid} AND NOT tgisinternal AND tgparentid = 0 AND tgenabled <> 'D' ORDER BY 1 LIMIT 1
"""
# One row: how many were deleted, and inserted, and the sums of the hashes of either.
MOVE = """
WITH gone AS (DELETE FROM ONLY {default} AS d WHERE {range} RETURNING {hash_from} AS hash, {aliased}),
put AS (INSERT INTO {new} AS t ({columns}) SELECT {alias} FROM gone RETURNING {hash_to} AS hash)
SELECT * FROM (SELECT count(*), sum(hash) FROM gone) AS gone(rows, hash), (SELECT count(*), sum(hash) FROM put) AS put
"""


def ask_keys(parent: Relation, legacy: Relation) -> Composed:
    """`KEYS` of the two."""
    return SQL(KEYS).format(legacy=legacy.oid, parent=parent.oid, columns=columns_of("b"))


def returning(inventory: Inventory, table: Relation, bound: str) -> list[Composable]:
    """What makes the function of the CHECK return that bound, in every session, whatever its search_path."""
    parent, name = transaction.parent_of(inventory), function_of(table)
    # Of those that a `Codec` is for, as format_type() spells it: the others are words of the grammar, and a temporary
    # table that is called like one of these is a type that comes first.
    spelled = parent.key[0].type
    kind = SQL(f"pg_catalog.{spelled}" if spelled in (KeyType.DATE, KeyType.UUID) else spelled)
    body = SQL("SELECT {}::{}").format(Literal(bound), kind).as_string()
    create = SQL("CREATE OR REPLACE FUNCTION {}() RETURNS {} LANGUAGE sql IMMUTABLE PARALLEL SAFE AS {}")
    give = SQL("ALTER FUNCTION {}() OWNER TO {}").format(name, Identifier(parent.owner))
    return transaction.made_for_owner(parent, create.format(name, kind, Literal(body)), give=[give])


class SplitMove(drain.Move):
    """The end of what the table holds moves into a new partition."""

    limit, too_many = "spec.convert.splitMaxRows", StatementRejected
    _keys: Sequence[Composable] = ()
    """The statements by which the wider key takes the place of the narrow one, and the mark says so."""

    def __init__(
        self,
        connection: Session,
        inventory: Inventory,
        key: str,
        action: SplitLegacy,
        legacy: Partition,
        deadline: float,
    ) -> None:
        """``legacy``: the table that was converted, as it is now."""
        super().__init__(connection, inventory, key, action.into, legacy, deadline, action)
        self._split = action
        if (grows := action.grows) is not None:
            self._subject = self.subject = f"cannot move rows of partition {legacy} into {grows}"
            self._locked = (*self._locked, grows)
            self.wants.append(locks.Want(grows.oid, locks.Mode.ACCESS_EXCLUSIVE))

    def _begin(self) -> None:
        super()._begin()
        # No session changes keys or the comment any more, until the end of the transaction.
        self._keys = list(self._exchange_keys())

    def _exchange_keys(self) -> Iterator[Composable]:
        """Safe: no row is changed, the key that comes is as strict as that of the partitioned table, and all of it is
        undone where the rows do not move."""
        connection, parent, legacy = self._connection, self._parent, self._source
        keys = next(iter(run(connection, ask_keys(parent, legacy))[0]), None)
        if keys is None:
            return
        comment = table_state.look(connection, self._split, legacy.oid).comment
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
        yield from self._narrow(remaining)
        yield from super()._attach(remaining)
        yield from self._forget()

    def _narrow(self, remaining: Composable) -> Iterator[Composable]:
        """The table that was converted gets its narrower bounds. The rows were deleted before; that no others are left
        between the new bound and the old one is asked once more. Beyond the old one PostgreSQL has let none in, and to
        ask there would visit every row that has left since the last VACUUM."""
        source, upper, key = self._source, self._split.rest.upper, Identifier(self._key)
        # Not EXISTS: where statistics say that many rows are there, the table is read for the first of them, from its
        # beginning, and to its end now that none is left.
        found = SQL("(SELECT count(*) FROM (SELECT FROM ONLY {} WHERE {} ORDER BY {} LIMIT 1) AS beyond)").format(
            ddl.relation(source), ddl.in_range(key, Bounds(upper, self._split.whole.upper)), key
        )
        yield remaining
        yield require(SQL("{} = 0").format(found), f"rows from {upper} on are left in {source}")
        yield from returning(self._inventory, source, upper)
        yield remaining
        yield ddl.detach(self._parent, self._split)
        yield from self._keys
        yield self._bound(source, *self._split.rest)

    def _forget(self) -> Iterator[Composable]:
        """Take the CHECK away where no more intervals leave: until then it spares the table a reading for each."""
        if self._split.last and not self._split.part:
            yield from forget(self._source)

    def _bound(self, table: Relation, lower: str, upper: str) -> Composable:
        attach = SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})")
        return attach.format(ddl.relation(self._parent), ddl.relation(table), lower, upper)


class SplitGrowth(SplitMove):
    """The end of what the table holds moves into the partition that has what comes after it.

    Nothing can be copied beforehand, since a partition takes no row from beyond its bounds. So all is done under the
    lock, of fewer rows.
    """

    @property
    def _grows(self) -> Partition:
        assert self._split.grows is not None
        return self._split.grows

    def _begin(self) -> None:
        leaves, grows, parent = self._open(), self._grows, self._parent
        _, _, _, facts, publications, triggers = run(
            self._connection,
            transaction.set_lock_timeout(transaction.UNHEARD),
            ddl.lock(grows, "SHARE UPDATE EXCLUSIVE"),
            transaction.set_lock_timeout(transaction.LOCK_TIMEOUT_HEAVY),
            *drain_sql.ask(parent, grows, self._inventory.server.version),
            SQL(OWN_TRIGGERS).format(oid=grows.oid),
        )
        published = [each.pubname for each in publications]
        row: Any = next(iter(facts), None)
        drain_sql.check(grows, self._action, parent.owner, row, published)
        if row.unlogged and not leaves.unlogged:
            raise StatementRejected(
                f"{self._subject}: that is UNLOGGED, so a crash empties it, and leaves them alone where they are; "
                f"ALTER TABLE {grows} SET LOGGED"
            )
        if triggers:
            raise StatementRejected(
                f"{self._subject}: its trigger {quoted(triggers[0].tgname)} would fire for rows that are not new; "
                "disable it for as long as the table is split, or make it one of the partitioned table"
            )
        self._keys = list(self._exchange_keys())

    def _prepare(self) -> None:
        """Read the rows, so that the disk is not waited for under the lock."""
        run(self._connection, self._say("SELECT sum({hash_from}) FROM ONLY {default} AS d WHERE {range}"))
        self._check_references()

    def _catch_up(self) -> None:
        pass

    def _transfer(self, remaining: Composable) -> None:
        connection, grows = self._connection, self._grows
        leave = SQL("ALTER TABLE {} DETACH PARTITION {}").format(ddl.relation(self._parent), ddl.relation(grows))
        run(connection, remaining, "SET CONSTRAINTS ALL IMMEDIATE", leave)
        run(connection, *returning(self._inventory, grows, self._action.bounds.lower))
        self._check_references(remaining)
        # Safe: one statement inserts the very rows that it deletes, and what was inserted is compared with them; both
        # are committed together or not at all. No row references them. No trigger fires: those of the source are off,
        # and the other table has none.
        *_, ((gone, was, put, now),) = run(connection, *self._switched(False), remaining, self._say(MOVE))
        if (gone, was) != (put, now):
            raise TableChanged(
                f"{self._subject}: {gone:,} rows were deleted, and {put:,} inserted, which are not the same; all was "
                "undone"
            )

    def _finish(self, remaining: Composable) -> Iterator[Composable]:
        yield from self._narrow(remaining)
        yield remaining
        yield self._bound(self._grows, self._action.bounds.lower, literals(self._grows.bounds).upper)
        yield from self._forget()
        if not self._split.part:
            yield from forget(self._grows)
