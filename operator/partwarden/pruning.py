"""Whether a query for one interval is planned on its partition alone.

Asked with the settings that the role has from the server, the database and itself, not with those that Partwarden pins.
The answer changes only with the partitions and with settings, so that a good one holds for an hour.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from .errors import PartwardenError
from .interval import merge, subtract
from .inventory import Inventory, Partition, RelationKind
from .plan import Plan
from .policy import TableSpec
from .session import Session, pinned, run
from .transaction import reading
from .wear import Pruning

HOLDS = 3600.0
"""Seconds for which a good answer is not asked for again, while the partitions stay the same."""
REMEMBERED = 10_000
"""Tables; beyond that all are forgotten."""
PINNED = pinned(lock_timeout="100ms", statement_timeout="5s")
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


def examine(
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


def recall(
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
    assert plan.current.lower is not None
    assert plan.current.upper is not None
    try:
        query = sql.SQL(QUERY).format(
            table=sql.Identifier(plan.parent.schema, plan.parent.name),
            key=sql.Identifier(plan.key),
            lower=plan.codec.literal(plan.current.lower),
            upper=plan.codec.literal(plan.current.upper),
        )
        *_, ((enabled, _),), others, ((explained,),), _ = run(
            connection, BEGIN, PINNED, *reading(plan.parent), SETTING, OTHERS, query, "COMMIT"
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
