"""Reads what upkeep is decided from, where the policy or a first plan asks for it: closed partitions, and statistics.

A partition that somebody has locked is judged by the planner's page counts, as `catalog` does with its size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from . import comments, upkept
from .inventory import Inventory
from .plan import Plan
from .policy import TableSpec
from .session import Session, pinned, run
from .wear import Closed, Statistics

FROZEN_VERSION = 180000
PINNED = pinned(lock_timeout="100ms", statement_timeout="10s")
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

CLOSED = """
SELECT c.oid, pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'), {empty}, {frozen}, c.relhasindex,
       ARRAY(SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             WHERE i.indrelid = c.oid AND NOT i.indisvalid ORDER BY 1),
       {comment}, {length}
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


def examine(connection: Session, _spec: TableSpec, inventory: Inventory, plan: Plan) -> Inventory:
    """The same inventory where nothing is asked for; a round trip for each of the two that is. Raises psycopg's."""
    wear = inventory.wear
    if plan.upkeep.closed:
        wear = replace(wear, closed=_closed(connection, sorted(plan.upkeep.closed)))
    if plan.upkeep.drifted:
        wear = replace(wear, statistics=_statistics(connection, inventory))
    return inventory if wear is inventory.wear else replace(inventory, wear=wear)


def _closed(connection: Session, oids: list[int]) -> tuple[Closed, ...]:
    frozen = FROZEN if connection.info.server_version >= FROZEN_VERSION else sql.SQL("false")
    listed = sql.SQL("{}::oid[]").format(oids)

    def read(empty: sql.SQL) -> list[tuple[Any, ...]]:
        comment, length = (each(sql.SQL("c.oid")) for each in (comments.read, comments.length))
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
) -> Closed:
    mark = upkept.read(comment, oid)
    # What an interrupted REINDEX has left goes with the next one.
    left = [each for each in invalid if mark.reindexed or not re.search("_cc(new|old)[0-9]*$", each)]
    return Closed(
        oid, owner, may_own, empty, frozen, indexed, tuple(left), mark, comments.is_too_long(length + upkept.ROOM)
    )


def _statistics(connection: Session, inventory: Inventory) -> Statistics:
    assert inventory.parent is not None
    ((parent, partitions, counted),) = _read(connection, sql.SQL(STATISTICS).format(parent=inventory.parent.oid))
    return Statistics(_utc(parent), _utc(partitions), counted)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)


def _read(connection: Session, query: sql.Composable) -> list[tuple[Any, ...]]:
    try:
        _, _, rows, _ = run(connection, BEGIN, PINNED, query, "COMMIT")
    except psycopg.Error:
        if not connection.closed:
            connection.rollback()
        raise
    return rows
