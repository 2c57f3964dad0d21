"""Split an interval off the table that was converted: its rows move into a partition of their own.

`split_move` moves the rows, and says why none is lost, or seen twice. An interval of more rows than can leave in a
second leaves in several moves: the first makes its partition, each other takes what comes before it, and is as large as
the one before has shown to be possible.

A key that was made wider needs one more step, once. Of the partition the primary key is its old one, and ATTACH wants
that of the partitioned table: it would make another, which PostgreSQL refuses. A unique index for it is built beside
readers and writers, and becomes the primary key in the transaction that moves the first rows. Old rows are then as
unique as all others are, and no longer by the narrow key; the conversion cannot be undone, which the mark says. Until
rows have moved there is a way back.

Each step is found again in the catalog, and safe to be interrupted after: a CHECK that says what the bounds say, and a
further unique index that is weaker than the key that is there. Nothing is dropped but these and the keys that give way;
rows are deleted only as `split_move` says, in the transaction that inserts them elsewhere.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from ..errors import RowsReferenced, StatementFailed, StatementRejected, TableBusy, TableChanged
from ..planner.actions import SplitLegacy
from ..planner.calendar import BoundedRange
from ..planner.default_rows import count_of
from ..planner.inventory import Inventory, Partition
from ..planner.keys import Bounds, literals
from ..planner.recheck import NEVER, Recheck, Withdrawn
from ..planner.splitting import cut
from . import ddl, drain_sql, locks, transaction
from .alone import OutOfTime, run_outside
from .connection import Session, run
from .conversion_definition import text
from .conversion_swap import UNDER_LOCK, changed, persist
from .split_leftovers import forget, function_of, name_of, ours, words
from .split_move import SplitGrowth, SplitMove, ask_keys, returning
from .transaction import LOCK_TIMEOUT, LOCK_TIMEOUT_HEAVY, READ_ALL_LIMIT, READ_ALL_TIMEOUT

PATIENCE = 20.0
"""Seconds in which the locks of each step must be had, where the caller gives less: others wait 50 ms at a time, and
what was done before may have taken hours."""
VACUUM_LIMIT = 1800.0
COUNT_TIMEOUT = "60s"
BUILD_TIMEOUT = 600_000
"""Milliseconds that the build of the index waits for others' transactions, each time that it must."""
TOGETHER = 60.0
"""Seconds in which parts of an interval leave one after the other, before all is planned again."""
FIRST, LEAST = 10_000, 100
"""Rows of the first part that moves into a partition which has rows, and of the smallest that is tried."""
AIM = 0.4
"""Seconds that others should wait for a part. After each they go on for as long as they have waited."""

STATE = """
SELECT pg_get_expr(c.relpartbound, 0) = {bounds} AND c.relkind = 'r' AND i.inhparent = {parent} AS same,
       (SELECT k.convalidated AND strpos(pg_get_expr(k.conbin, c.oid), {bound}) > 0
        FROM pg_constraint k WHERE k.conrelid = c.oid AND k.conname = {index} AND k.contype = 'c') AS validated,
       {ours} AS ours,
       (SELECT x.indisvalid FROM pg_index x JOIN pg_class o ON o.oid = x.indexrelid
        WHERE x.indrelid = c.oid AND o.relname = {index}) AS built,
       ARRAY(SELECT DISTINCT n.nspname || '.' || r.relname FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid
             JOIN pg_namespace n ON n.oid = r.relnamespace
             WHERE k.contype = 'f' AND k.confrelid IN (c.oid, {parent}) ORDER BY 1) AS referencing
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.oid = {oid} AND n.nspname = {schema} AND c.relname = {name}
"""


def split(
    connection: Session,
    inventory: Inventory,
    key: str,
    action: SplitLegacy,
    deadline: float,
    recheck: Recheck = NEVER,
) -> SplitLegacy:
    """Move the rows of the interval into a partition of their own. ``deadline``: as for `drain.drain`, and `PATIENCE`.

    Returns what has left: where the interval has more rows than may leave at once, a part of it, after `TOGETHER` at
    the latest. Before the first, VACUUM gives back what the interval before has left. ``recheck`` is asked before rows
    move. Raises as `drain.drain`, `Withdrawn`, `RowsReferenced` where foreign keys point to the table, and
    `StatementFailed` where reading every row, VACUUM or the build of an index does not end in time.
    """
    legacy = next((each for each in inventory.partitions if each.oid == action.oid), None)
    if legacy is None:
        raise TableChanged(f"partition {action} was detached or dropped since it was read")
    with transaction.translated(connection, f"partition {action}"):
        return _Split(connection, inventory, key, action, legacy, deadline, recheck).run()


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

    def run(self) -> SplitLegacy:
        self._check_movable()
        state, grows = self._state(self._legacy), self._action.grows
        if grows is None:
            vacuum = SQL("VACUUM (ANALYZE) {}").format(ddl.relation(self._legacy))
            self._outside(vacuum, LOCK_TIMEOUT, VACUUM_LIMIT)
        whole = self._action.whole
        if not state.validated:
            self._hold(self._legacy, "{key} >= {bound} AND {key} < {function}()", whole.lower, whole.upper)
        if grows is not None and not self._state(grows).validated:
            lower, upper = literals(grows.bounds)
            self._hold(grows, "{key} >= {function}() AND {key} < {bound}", upper, lower)
        if (keys := self._keys()) is not None:
            self._build(keys)
        if stopped := self._recheck.why_stopped():
            raise Withdrawn(f"{self._subject}: {stopped}")
        return self._leave()

    def _leave(self) -> SplitLegacy:
        """The rows leave, all at once or in parts."""
        end, most = time.monotonic() + TOGETHER, self._action.into.max_rows
        rows, left = most if self._action.grows is None else min(most, FIRST), None
        part = self._cut(self._action, rows)
        while True:
            make = SplitMove if part.grows is None else SplitGrowth
            move = make(self._connection, self._inventory, self._key, part, self._legacy, self._until())
            try:
                move.run()
            except StatementRejected:
                transaction.undo(self._connection)
                time.sleep(move.held_in_all)
                if not move.too_much or (smaller := self._smaller(part, rows)) is None:
                    raise
                part, rows = smaller
                continue
            except TableBusy:
                if left is None:
                    raise
                transaction.undo(self._connection)
                return left
            except psycopg.Error as error:
                raise changed(error, self._subject) or error from None
            if not part.part or part.grows is None or time.monotonic() > end or self._recheck.why_stopped():
                return part
            time.sleep(move.held_in_all)
            rows = min(most, max(LEAST, int(rows * AIM / max(move.held, AIM / 2))))
            if (rest := self._left_of(part)) is None:
                return part
            part, left = self._cut(rest, rows), part

    def _smaller(self, part: SplitLegacy, rows: int) -> tuple[SplitLegacy, int] | None:
        """A part of a part that was made of so many rows, and of how many; None where there is none. Not tried for
        ever: other sessions may write rows between."""
        whole, least = self._rest(part), min(LEAST, 1 + part.into.max_rows // 4)
        while rows > least:
            rows = max(least, rows // 4)
            # What has fewer rows is no smaller then.
            if (smaller := self._cut(whole, rows)).into.bounds != part.into.bounds:
                return smaller, rows
        return None

    def _rest(self, part: SplitLegacy) -> SplitLegacy:
        """The action for all that a part was cut from."""
        beyond = part.into.range.bounded
        assert beyond is not None
        bounds = Bounds(self._action.into.bounds.lower, part.into.bounds.upper)
        into = replace(part.into, range=BoundedRange(part.range.lower, beyond.upper), bounds=bounds)
        return replace(part, into=into, part=False)

    def _cut(self, action: SplitLegacy, rows: int) -> SplitLegacy:
        """The action for so many rows of the interval, the youngest; as it is where there are no more. For more of them
        where one key has more, up to the limit of the policy. Raises `StatementRejected` where it has still more."""
        key, legacy, most = Identifier("t", self._key), self._legacy, action.into.max_rows
        # By the key: its name alone would be that of the text.
        ask = SQL(
            "SELECT {key}::text, (SELECT atttypmod FROM pg_attribute WHERE attrelid = {} AND attname = {}) "
            "FROM ONLY {} AS t WHERE {} ORDER BY {key} DESC OFFSET {} LIMIT 1"
        )
        while True:
            bounds, table = ddl.in_range(key, action.into.bounds), ddl.relation(legacy)
            found = ask.format(legacy.oid, self._key, table, bounds, rows, key=key)
            with transaction.changing(self._connection, self._parent, COUNT_TIMEOUT, alone=action):
                stays = run(self._connection, found)[0]
            if not stays:
                return action
            if (part := cut(action, *stays[0])) is not None:
                return part
            if rows >= most:
                break
            rows = min(most, rows * 2)
        raise StatementRejected(
            f"{self._subject}: more than {count_of(most)} (spec.convert.splitMaxRows) of it have the key "
            f"{stays[0][0]}, and would leave it for {action.into} together, while all other sessions wait; raise that, "
            "or leave them there: set spec.convert.split to Never"
        )

    def _left_of(self, part: SplitLegacy) -> SplitLegacy | None:
        """What is left to be done once a part has left; None where another session has changed one of the two
        partitions since, such as another operator: all is planned again then."""
        grows, left, codec = part.grows, part.into.range.bounded, part.codec
        assert grows is not None
        assert left is not None
        query = SQL("SELECT oid, pg_get_expr(relpartbound, 0) FROM pg_class WHERE oid IN ({}, {})")
        found = dict(transaction.read_only(self._connection, query.format(self._legacy.oid, grows.oid))[0])
        try:
            whole, grown = (literals(found[each.oid]) for each in (self._legacy, grows))
            meet = codec.moment(whole.upper) == left.lower == codec.moment(grown.lower)
        except (KeyError, AttributeError, ValueError):
            return None
        if not meet:
            return None
        self._legacy = replace(self._legacy, bounds=found[self._legacy.oid])
        bounds = part.into.bounds._replace(upper=whole.upper)
        into = replace(part.into, range=BoundedRange(part.range.lower, left.lower), bounds=bounds)
        return self._rest(replace(part, whole=whole, into=into, grows=replace(grows, bounds=found[grows.oid])))

    def _until(self) -> float:
        return max(self._deadline, time.monotonic() + PATIENCE)

    def _check_movable(self) -> None:
        """Before anything is prepared or copied. Raises as `drain_sql.check`."""
        parent = self._parent
        with transaction.changing(self._connection, parent, COUNT_TIMEOUT, alone=self._action):
            asked = drain_sql.ask(parent, self._legacy, self._inventory.server.version)
            facts, publications = run(self._connection, *asked)
            row: Any = next(iter(facts), None)
            drain_sql.check(self._legacy, self._action.into, parent.owner, row, [each.pubname for each in publications])
            if not row.indexes:
                raise StatementRejected(
                    f"{self._subject}: a constraint EXCLUDE, or key WITHOUT OVERLAPS, of {parent} is built once more "
                    "with each ATTACH, while all other sessions wait; drop it, or set spec.convert.split to Never"
                )

    def _state(self, table: Partition) -> Any:
        """What the catalog says of the table now. Raises `TableChanged`, and what keeps it from being split."""
        lower, upper = literals(table.bounds)
        state = SQL(STATE).format(
            bounds=table.bounds,
            # A CHECK that names another is of bounds that the user has changed since: it proves nothing to ATTACH.
            bound=lower if table.oid == self._legacy.oid else upper,
            parent=self._parent.oid,
            oid=table.oid,
            ours=ours(table),
            index=name_of(table.oid),
            schema=table.schema,
            name=table.name,
        )
        rows = transaction.read_only(self._connection, state)[0]
        if not rows or not rows[0].same:
            raise TableChanged(f"partition {table} was changed since it was read")
        if rows[0].referencing:
            # To be attached with other bounds it is detached, which PostgreSQL refuses of rows that are referenced.
            raise RowsReferenced(
                f"{self._subject}: foreign keys of {', '.join(rows[0].referencing[:5])} point to {self._parent}; drop "
                "them, or set spec.convert.split to Never"
            )
        if not rows[0].ours:
            raise StatementRejected(f"{self._subject}: {words(table)}")
        return rows[0]

    def _keys(self) -> Any | None:
        """The row of `KEYS`; None where the primary keys are one."""
        query = ask_keys(self._parent, self._legacy)
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

    def _hold(self, table: Partition, says: LiteralString, bound: str, returned: str) -> None:
        """Add the CHECK, which says what the bounds say, and validate it. ``says``: in words of SQL; ``returned``: what
        its function returns."""
        wants = [locks.Want(table.oid, locks.Mode.ACCESS_EXCLUSIVE)]
        function = function_of(table)
        names = {"key": Identifier(self._key), "bound": bound, "function": function}
        check = SQL("CHECK ({key} IS NOT NULL AND " + says + ") NOT VALID").format(**names)
        add = SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(ddl.relation(table), self._name(table), check)

        def attempt() -> None:
            with transaction.changing(self._connection, self._parent, f"{UNDER_LOCK}ms", alone=self._action):
                run(
                    self._connection,
                    transaction.set_lock_timeout(LOCK_TIMEOUT_HEAVY),
                    ddl.lock(table, "ACCESS EXCLUSIVE"),
                    *forget(table),
                    *returning(self._inventory, table, returned),
                    # Every role that writes a row calls it.
                    SQL("GRANT EXECUTE ON FUNCTION {}() TO PUBLIC").format(function),
                    add,
                    "COMMIT",
                )

        persist(self._connection, attempt, wants, self._subject, self._until())
        self._validate(table)

    def _validate(self, table: Partition) -> None:
        validate = SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(ddl.relation(table), self._name(table))
        changing = transaction.changing(self._connection, self._parent, READ_ALL_TIMEOUT, alone=self._action)
        with self._connection.patient(READ_ALL_LIMIT), changing:
            run(self._connection, validate, "COMMIT")

    def _name(self, table: Partition) -> Identifier:
        return Identifier(name_of(table.oid))

    # The primary key.

    def _build(self, keys: Any) -> None:
        """Safe to drop one that is invalid: it holds no rows, has our name, and belongs to no constraint."""
        name, built = Identifier(self._legacy.schema, name_of(self._legacy.oid)), self._state(self._legacy).built
        if built:
            return
        if built is False:
            self._outside(SQL("DROP INDEX CONCURRENTLY {}").format(name), BUILD_TIMEOUT, READ_ALL_LIMIT)
        columns = text(keys.columns)
        create = SQL("CREATE UNIQUE INDEX CONCURRENTLY {} ON {} {}")
        made = create.format(self._name(self._legacy), ddl.relation(self._legacy), columns)
        self._outside(made, BUILD_TIMEOUT, READ_ALL_LIMIT)
