"""Whether a query for one interval is planned on its partition alone.

Asked with the settings that the role has from the server, the database and itself, not with those that Partwarden pins.
The answer changes only with the partitions and with settings, so that a good one holds for an hour.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..api.policy import TableSpec
from ..errors import PartwardenError
from ..planner import marker
from ..planner.calendar import merge, subtract
from ..planner.inventory import ClosedPartition, Inventory, Partition, Pruning, RelationKind, Statistics
from ..planner.plan import Plan
from . import ddl
from .connection import Session, pinned, run
from .transaction import reading

HOLDS = 3600.0
"""Seconds for which a good answer is not asked for again, while the partitions stay the same."""
REMEMBERED = 10_000
"""Tables; beyond that all are forgotten."""
PRUNING_LIMITS = pinned(lock_timeout="100ms", statement_timeout="5s")
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

SETTING = """
SELECT (SELECT reset_val = 'on' FROM pg_settings WHERE name = 'enable_partition_pruning'),
       set_config('enable_partition_pruning',
                  (SELECT reset_val FROM pg_settings WHERE name = 'enable_partition_pruning'), true)
"""
OTHERS = """
SELECT r.rolname, d.datname
FROM pg_db_role_setting s
LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
WHERE (s.setdatabase = 0 OR d.datname = current_database())
  AND (s.setrole = 0 OR r.rolname IS NOT NULL)
  AND EXISTS (SELECT FROM unnest(s.setconfig) c
              WHERE c ~* '^enable_partition_pruning=(of|off|f|fa|fal|fals|false|n|no|0)$')
ORDER BY 1 NULLS FIRST, 2 NULLS FIRST
"""
QUERY = "EXPLAIN (FORMAT JSON, VERBOSE, COSTS OFF) SELECT FROM {table} WHERE {key} >= {lower} AND {key} < {upper}"

GOOD = Pruning(enabled=True)


@dataclass(frozen=True, slots=True)
class _Answer:
    asked: object
    pruning: Pruning
    until: float


class Memory:
    """The last answer for each table. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[object, _Answer] = {}

    def recall(self, table: object) -> _Answer | None:
        """The last answer about that table, however old, and of whatever partitions."""
        with self._lock:
            return self._answers.get(table)

    def keep(self, table: object, answer: _Answer) -> None:
        """In place of the last one."""
        with self._lock:
            if len(self._answers) >= REMEMBERED:
                self._answers.clear()
            self._answers[table] = answer


MEMORY = Memory()
"""Of this process. What is forgotten is asked again: nothing is decided from it that cannot be seen again."""


def check_pruning(
    connection: Session, _spec: TableSpec, inventory: Inventory, plan: Plan, memory: Memory = MEMORY
) -> Inventory:
    """The inventory with the answer; one round trip, where nothing is to be created and no good answer is at hand.

    Where a partition is locked, or the role may not read the table, the last answer stands.
    """
    if len(inventory.partitions) < 2 or plan.creations:
        return inventory
    table = _table(inventory, plan)
    asked = (plan.current, hash(tuple((each.oid, each.bounds, each.detach_pending) for each in inventory.partitions)))
    last = memory.recall(table)
    if last is None or last.asked != asked or last.until < time.monotonic():
        answer = _ask(connection, inventory, plan)
        if answer is None:
            return inventory if last is None or last.asked != asked else _with(inventory, last)
        # A bad one is asked again at each look, so that it goes as soon as the cause does.
        last = _Answer(asked, answer, time.monotonic() + HOLDS if answer == GOOD else 0.0)
        memory.keep(table, last)
    return _with(inventory, last)


def recall_pruning(
    _connection: Session, _spec: TableSpec, inventory: Inventory, plan: Plan, memory: Memory = MEMORY
) -> Inventory:
    """The inventory with the last answer there was, without asking."""
    last = memory.recall(_table(inventory, plan))
    return inventory if last is None else _with(inventory, last)


def _table(inventory: Inventory, plan: Plan) -> object:
    return inventory.server.identity, plan.parent.oid, inventory.server.user


def _with(inventory: Inventory, last: _Answer) -> Inventory:
    if last.pruning == GOOD:
        return inventory
    return replace(inventory, wear=replace(inventory.wear, pruning=last.pruning))


def _ask(connection: Session, inventory: Inventory, plan: Plan) -> Pruning | None:
    try:
        query = sql.SQL(QUERY).format(
            table=sql.Identifier(plan.parent.schema, plan.parent.name),
            key=sql.Identifier(plan.key),
            lower=plan.codec.literal(plan.current.lower),
            upper=plan.codec.literal(plan.current.upper),
        )
        *_, ((enabled, _),), others, ((explained,),), _ = run(
            connection, BEGIN, PRUNING_LIMITS, *reading(plan.parent), SETTING, OTHERS, query, "COMMIT"
        )
    except PartwardenError:
        # No key is that moment: a finding of its own where it matters.
        return None
    except psycopg.Error:
        if connection.closed:
            raise
        # Locked, not allowed to read, or too slow to plan: nobody's trouble but that this is not known now.
        connection.rollback()
        return None
    disabled_for = tuple(_who(role, database) for role, database in others)
    needless = tuple(_needless(inventory, plan, explained)) if enabled else ()
    return Pruning(enabled, disabled_for, needless)


def _who(role: str | None, database: str | None) -> str:
    named = [f"role {role!r}" if role else "", f"database {database!r}" if database else ""]
    return " in ".join(each for each in named if each) or "all roles"


def _needless(inventory: Inventory, plan: Plan, explained: Any) -> Iterator[str]:
    """Relations that are scanned without need, ascending by name."""
    wanted = [each for each in inventory.partitions if _may_hold(each, inventory, plan)]
    others = {str(each) for each in inventory.partitions} - {str(each) for each in wanted}
    # What is below a partitioned partition has names that nobody has read: only the others can be told then.
    deep = any(each.kind is RelationKind.PARTITIONED for each in wanted)
    allowed = {str(each) for each in wanted}
    for name in sorted(set(_scanned(explained[0]["Plan"]))):
        if name in others or (not deep and name not in allowed):
            yield name


def _may_hold(each: Partition, inventory: Inventory, plan: Plan) -> bool:
    if each.range is not None:
        return each.range.overlaps(plan.current)
    held = [other for other in inventory.partitions if not other.detach_pending]
    covered = merge(other.range for other in held if other.range is not None)
    return bool(subtract(plan.current, covered))


def _scanned(node: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        yield f"{node.get('Schema', '')}.{node['Relation Name']}"
    for below in node.get("Plans", []):
        yield from _scanned(below)


# Reads what upkeep is decided from, where the policy or a first plan asks for it: closed partitions, and statistics.
#
# A partition that somebody has locked is judged by the planner's page counts, as `catalog` does with its size.
#

FROZEN_VERSION = 180000
CLOSED_LIMITS = pinned(lock_timeout="100ms", statement_timeout="10s")

CLOSED = """
SELECT c.oid, pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'), {empty}, {frozen},
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND NOT i.indisexclusion),
       ARRAY(SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             WHERE i.indrelid = c.oid AND NOT i.indisvalid ORDER BY 1),
       {comment}, {length},
       ARRAY(SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             WHERE i.indrelid = c.oid AND i.indisexclusion ORDER BY 1)
FROM pg_class c WHERE c.oid = ANY({oids}) ORDER BY c.oid
"""
EMPTY = sql.SQL("coalesce(pg_relation_size(c.oid) = 0, true)")
EMPTY_BY_COUNT = sql.SQL("c.relpages = 0")
FROZEN = sql.SQL("c.relpages > 0 AND c.relallfrozen >= c.relpages")

# Recursive by hand: pg_partition_tree would lock every partition.
STATISTICS = """
WITH RECURSIVE below AS (
  SELECT inhrelid FROM pg_inherits WHERE inhparent = {parent}
  UNION ALL SELECT i.inhrelid FROM below JOIN pg_inherits i ON i.inhparent = below.inhrelid)
SELECT greatest(pg_stat_get_last_analyze_time({parent}), pg_stat_get_last_autoanalyze_time({parent})),
       (SELECT max(greatest(pg_stat_get_last_analyze_time(inhrelid), pg_stat_get_last_autoanalyze_time(inhrelid)))
        FROM below),
       current_setting('track_counts')::bool
"""


def read_closed_partitions(connection: Session, _spec: TableSpec, inventory: Inventory, plan: Plan) -> Inventory:
    """The same inventory where nothing is asked for; a round trip for each of the two that is. Raises psycopg's."""
    wear = inventory.wear
    if plan.upkeep.closed:
        wear = replace(wear, closed=_closed(connection, sorted(plan.upkeep.closed)))
    if plan.upkeep.drifted:
        wear = replace(wear, statistics=_statistics(connection, inventory))
    return inventory if wear is inventory.wear else replace(inventory, wear=wear)


def _closed(connection: Session, oids: list[int]) -> tuple[ClosedPartition, ...]:
    frozen = FROZEN if connection.info.server_version >= FROZEN_VERSION else sql.SQL("false")
    listed = sql.SQL("{}::oid[]").format(oids)

    def read(empty: sql.SQL) -> list[tuple[Any, ...]]:
        comment, length = (each(sql.SQL("c.oid")) for each in (ddl.read, ddl.length))
        query = sql.SQL(CLOSED).format(empty=empty, frozen=frozen, oids=listed, comment=comment, length=length)
        return _read(connection, query)

    return tuple(_fact(*row) for row in _unless_locked(connection, read))


def _unless_locked(connection: Session, read: Callable[[sql.SQL], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    try:
        return read(EMPTY)
    except pg.LockNotAvailable:
        return read(EMPTY_BY_COUNT)


def _fact(
    oid: int,
    owner: str,
    may_own: bool,
    empty: bool,
    frozen: bool,
    indexed: bool,
    invalid: list[str],
    comment: str | None,
    length: int,
    exclusive: list[str],
) -> ClosedPartition:
    mark = marker.read_closed(comment, oid)
    # What an interrupted REINDEX has left goes with the next one.
    left = [each for each in invalid if mark.reindexed or not re.search("_cc(new|old)[0-9]*$", each)]
    no_room = ddl.is_too_long(length + marker.ROOM)
    return ClosedPartition(oid, owner, may_own, empty, frozen, indexed, tuple(left), mark, no_room, tuple(exclusive))


def _statistics(connection: Session, inventory: Inventory) -> Statistics:
    assert inventory.parent is not None
    ((parent, partitions, counted),) = _read(connection, sql.SQL(STATISTICS).format(parent=inventory.parent.oid))
    return Statistics(_utc(parent), _utc(partitions), counted)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)


def _read(connection: Session, query: sql.Composable) -> list[tuple[Any, ...]]:
    try:
        _, _, rows, _ = run(connection, BEGIN, CLOSED_LIMITS, query, "COMMIT")
    except psycopg.Error:
        if not connection.closed:
            connection.rollback()
        raise
    return rows
