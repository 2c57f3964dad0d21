"""Facts for maintenance: whether queries are planned on one partition alone, closed partitions, statistics.

A query for one interval is planned with the settings that the role has from the server, the database and itself, not
with those that Partwarden pins. The answer changes only with the partitions and with settings, so a good one holds for
an hour.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import PartwardenError
from ..planner import marker
from ..planner.calendar import merge, subtract
from ..planner.inventory import ClosedPartition, Inventory, Partition, Pruning, RelationKind, Statistics
from ..planner.plan import Plan
from . import ddl
from .connection import Session
from .transaction import read_only, reading

HOLDS = 3600.0
"""Seconds for which a good answer is not asked for again, while the partitions stay the same."""
REMEMBERED = 10_000
"""Tables; beyond that all are forgotten."""
LOCK_TIMEOUT, PLAN_TIMEOUT = "100ms", "5s"

SETTING = """
SELECT (SELECT reset_val = 'on' FROM pg_settings WHERE name = 'enable_partition_pruning') AS enabled,
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
    connection: Session, inventory: Inventory, plan: Plan, memory: Memory = MEMORY, *, ask: bool = True
) -> Inventory:
    """The inventory with the answer; one round trip, where nothing is to be created and no good answer is known.

    Where a partition is locked, or the role may not read the table, the last answer stands; and any last answer where
    ``ask`` is false.
    """
    table = inventory.server.identity, plan.parent.oid, inventory.server.user
    last = memory.recall(table)
    if not ask:
        return _with(inventory, last)
    if len(inventory.partitions) < 2 or plan.creations:
        return inventory
    asked = (plan.current, hash(tuple((each.oid, each.bounds, each.detach_pending) for each in inventory.partitions)))
    if last is not None and last.asked != asked:
        last = None
    stale = last is None or last.until < time.monotonic()
    if stale and (pruning := _ask(connection, inventory, plan)) is not None:
        # A bad one is asked again by each reconcile, so that it goes as soon as the cause does.
        last = _Answer(asked, pruning, time.monotonic() + HOLDS if pruning == GOOD else 0.0)
        memory.keep(table, last)
    return _with(inventory, last)


def _with(inventory: Inventory, last: _Answer | None) -> Inventory:
    if last is None or last.pruning == GOOD:
        return inventory
    return replace(inventory, facts=replace(inventory.facts, pruning=last.pruning))


def _ask(connection: Session, inventory: Inventory, plan: Plan) -> Pruning | None:
    try:
        query = sql.SQL(QUERY).format(
            table=sql.Identifier(plan.parent.schema, plan.parent.name),
            key=sql.Identifier(plan.key),
            lower=plan.codec.literal(plan.current.lower),
            upper=plan.codec.literal(plan.current.upper),
        )
        *_, (setting,), others, ((explained,),) = read_only(
            connection,
            *reading(plan.parent),
            SETTING,
            OTHERS,
            query,
            lock_timeout=LOCK_TIMEOUT,
            statement_timeout=PLAN_TIMEOUT,
        )
    except PartwardenError:
        # No key is that moment: a finding of its own where it matters.
        return None
    except psycopg.Error:
        if connection.closed:
            raise
        # Locked, not allowed to read, or too slow to plan: this is not known now, and nothing else is wrong.
        return None
    disabled_for = tuple(_setting_of(role, database) for role, database in others)
    needless = tuple(_needless(inventory, plan, explained)) if setting.enabled else ()
    return Pruning(setting.enabled, disabled_for, needless)


def _setting_of(role: str | None, database: str | None) -> str:
    named = [f"role {role!r}" if role else "", f"database {database!r}" if database else ""]
    return " in ".join(each for each in named if each) or "all roles"


def _needless(inventory: Inventory, plan: Plan, explained: Any) -> Iterator[str]:
    """Relations that are scanned without need, ascending by name."""
    wanted = [each for each in inventory.partitions if _may_hold(each, inventory, plan)]
    others = {str(each) for each in inventory.partitions} - {str(each) for each in wanted}
    # What is below a partitioned partition has names that were not read: only the others are known then.
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


# Closed partitions and statistics, where the policy or a first plan asks for them. A locked partition is judged by the
# planner's page counts, as `catalog` does with its size.

FROZEN_VERSION = 180000

CLOSED = """
SELECT c.oid, pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'USAGE') AS may_own, {empty} AS empty,
       {frozen} AS frozen,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND NOT i.indisexclusion)
         AS indexed,
       ARRAY(SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             WHERE i.indrelid = c.oid AND NOT i.indisvalid ORDER BY 1) AS invalid,
       {comment} AS comment, {length} AS length,
       ARRAY(SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             WHERE i.indrelid = c.oid AND i.indisexclusion ORDER BY 1) AS exclusive
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


def read_closed_partitions(connection: Session, inventory: Inventory, plan: Plan) -> Inventory:
    """The same inventory where nothing is asked for; a round trip for each of the two that is. Raises psycopg's."""
    facts = inventory.facts
    if plan.upkeep.closed:
        facts = replace(facts, closed=_closed(connection, sorted(plan.upkeep.closed)))
    if plan.upkeep.drifted:
        query = sql.SQL(STATISTICS).format(parent=plan.parent.oid)
        (((parent, partitions, counted),),) = read_only(connection, query, lock_timeout=LOCK_TIMEOUT)
        facts = replace(facts, statistics=Statistics(_utc(parent), _utc(partitions), counted))
    return inventory if facts is inventory.facts else replace(inventory, facts=facts)


def _closed(connection: Session, oids: list[int]) -> tuple[ClosedPartition, ...]:
    frozen = FROZEN if connection.info.server_version >= FROZEN_VERSION else sql.SQL("false")
    oid = sql.SQL("c.oid")

    def read(empty: sql.SQL) -> tuple[ClosedPartition, ...]:
        query = sql.SQL(CLOSED).format(
            empty=empty,
            frozen=frozen,
            oids=sql.SQL("{}::oid[]").format(oids),
            comment=ddl.read(oid),
            length=ddl.length(oid),
        )
        (rows,) = read_only(connection, query, lock_timeout=LOCK_TIMEOUT)
        return tuple(_closed_partition(row) for row in rows)

    try:
        return read(EMPTY)
    except pg.LockNotAvailable:
        return read(EMPTY_BY_COUNT)


def _closed_partition(row: Any) -> ClosedPartition:
    mark = marker.read_closed(row.comment, row.oid)
    # What an interrupted REINDEX has left goes with the next one.
    invalid = tuple(each for each in row.invalid if mark.reindexed or not re.search("_cc(new|old)[0-9]*$", each))
    return ClosedPartition(
        oid=row.oid,
        owner=row.owner,
        may_own=row.may_own,
        empty=row.empty,
        frozen=row.frozen,
        indexed=row.indexed,
        invalid=invalid,
        mark=mark,
        no_room=ddl.is_too_long(row.length + marker.ROOM),
        exclusive=tuple(row.exclusive),
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
