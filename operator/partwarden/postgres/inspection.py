"""Facts that a first plan asks for: rows of DEFAULT, closed partitions, statistics, and the pruning of a query;
for commands all rows of one table.

Rows of the DEFAULT partition are counted by the interval that they belong to. An empty one costs one cheap query. Of
others a bounded number of rows is read, a few times, in one snapshot. Row security never hides rows from the count: it
makes the statement fail.

Whether a query for one interval is planned on one partition alone: it is planned with the settings that the role has
from the server, the database and itself, not with those that Partwarden pins. The answer changes only with the
partitions and with settings, so a good one holds for an hour.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Composable, Identifier

from ..api.policy import TableSpec
from ..api.retention import KeyEncoding
from ..errors import InsufficientPrivilege, PartwardenError, StatementRejected, TableBusy
from ..planner import marker
from ..planner.calendar import Grid, Range, merge, subtract
from ..planner.default_rows import MAX_SPANS, Cut, DefaultRows, finer_cut, first_cut, within_cells
from ..planner.findings import quoted
from ..planner.inventory import (
    ClosedPartition,
    Detached,
    Inventory,
    Parent,
    Partition,
    Pruning,
    RelationKind,
    Statistics,
)
from ..planner.keys import Bounds
from ..planner.plan import Plan
from . import ddl
from .connection import Session, pinned, run
from .errors import is_lost, message, translate
from .settings import setting
from .transaction import BEGIN_READ_ONLY, read_only, reading, reading_rows, undo

MAX_ROWS = 200_000
"""Most rows that are read; where there are more, numbers are lower limits."""
MAX_PLANNED = 20  # planned partitions whose rows are counted each by itself where there are more

# Every pass is to read the same rows.
WHOLE = setting({"row_security": "off", "synchronize_seqscans": "off"})


def count_rows(connection: Session, spec: TableSpec, inventory: Inventory, plan: Plan) -> Inventory:
    """The inventory with `DefaultRows`, where there is a DEFAULT partition. Raises when the connection is lost."""
    default = inventory.default
    if default is None:
        return inventory
    try:
        counted = _count(connection, spec, inventory, default, plan)
    except psycopg.Error as error:
        if connection.closed or is_lost(error):
            raise
        undo(connection)
        counted = DefaultRows(error=_refusal(connection, plan.parent, default, error))
    return replace(inventory, default_rows=counted)


def _count(connection: Session, spec: TableSpec, inventory: Inventory, default: Partition, plan: Plan) -> DefaultRows:
    if default.kind is RelationKind.FOREIGN:
        words = f"DEFAULT partition {default} is a foreign table: its rows are not counted, and never moved"
        return DefaultRows(error=StatementRejected(words))
    table, only = ddl.relation(default), "" if default.kind is RelationKind.PARTITIONED else "ONLY "
    source, begin = SQL("{}{}").format(SQL(only), table), (WHOLE, *reading(plan.parent))
    *_, ((occupied,),) = read_only(connection, *begin, SQL("SELECT EXISTS (SELECT FROM {})").format(source))
    if not occupied:
        return DefaultRows()
    run(connection, BEGIN_READ_ONLY, pinned("500ms", "10s"), *begin)
    grid = Grid.of(spec, aware=plan.codec.aware)
    coverage = merge(each.range for each in inventory.partitions if each.range is not None)
    cut, told_apart = first_cut(plan.codec), True
    while True:
        counts = _buckets(connection, source, plan, cut)
        groups = cut.groups(counts)
        if cut.final or not groups:
            break
        told_apart = told_apart and len(groups) <= MAX_SPANS
        cut = finer_cut(grid, plan.codec, coverage, [piece for piece, _ in groups])
    total, inside = sum(rows for _, rows in counts), within_cells(grid, groups)
    planned: tuple[tuple[Range, int], ...] = ()
    whole = total <= MAX_ROWS and told_apart
    # A UUID says more than its moment: where a neighbour has odd bits in its bounds, rows of the very millisecond
    # belong to the new partition by those bits, and to another by the calendar.
    if not whole or plan.codec.encoding is KeyEncoding.UUID_V7:
        planned = _planned(connection, source, spec, plan)
    run(connection, "COMMIT")
    return DefaultRows(inside, total - sum(rows for _, rows in inside), whole, planned)


def _buckets(connection: Session, source: Composable, plan: Plan, cut: Cut) -> list[tuple[int, int]]:
    """Numbers of ``width_bucket`` with their rows; what has none (NULL) is counted below the first moment."""
    query = SQL(
        "SELECT coalesce(width_bucket(key, {}::{}[]), 0), count(*) "
        "FROM (SELECT {} AS key FROM {} LIMIT {}) AS rows GROUP BY 1"
    ).format(list(cut.literals), SQL(plan.codec.type), Identifier(plan.key), source, MAX_ROWS + 1)
    (found,) = run(connection, query)
    return [(int(number), int(rows)) for number, rows in found]


def _planned(connection: Session, source: Composable, spec: TableSpec, plan: Plan) -> tuple[tuple[Range, int], ...]:
    """Exact up to one more than may be moved: more makes no difference to the plan."""
    wanted, limit = plan.creations[:MAX_PLANNED], spec.default_partition.drain_max_rows + 1
    ranges = (ddl.in_range(Identifier(plan.key), each.bounds) for each in wanted)
    counts = [ddl.count(SQL("{} WHERE {}").format(source, each), limit) for each in ranges]
    results = run(connection, *counts) if counts else []
    return tuple((each.range, rows) for each, ((rows,),) in zip(wanted, results, strict=True))


def _refusal(connection: Session, parent: Parent, default: Partition, error: psycopg.Error) -> PartwardenError:
    subject = f"the rows of DEFAULT partition {default} cannot be counted"
    if isinstance(error, pg.LockNotAvailable):
        return TableBusy(f"{subject}: it is locked by another session")
    if not isinstance(error, pg.InsufficientPrivilege):
        return translate(error, subject)
    user = parent.owner if parent.may_own or parent.login is None else parent.login
    active = SQL("SELECT row_security_active({}::oid)").format(default.oid)
    *_, ((hidden,),) = read_only(connection, *reading(parent), active)
    way_out = f"{message(error)}; GRANT SELECT ON {quoted(default.schema)}.{quoted(default.name)} TO {quoted(user)}"
    if hidden:
        bypass = f"ALTER ROLE {quoted(user)} BYPASSRLS"
        way_out = f"its row security hides rows from role {user!r}: {bypass}, or take FORCE away"
    return InsufficientPrivilege(f"{subject}: {way_out}")


# Pruning.

HOLDS = 3600.0  # seconds for which a good answer is not asked for again, while the partitions stay the same
REMEMBERED = 10_000
"""Tables; beyond that all are forgotten."""
LOCK_TIMEOUT = "100ms"

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

GOOD = Pruning(enabled=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was ``asked`` last about a table, and how long that holds: of `time.monotonic`."""

    asked: object
    pruning: Pruning
    until: float


Memory = dict[object, Answer]
"""The last answer for each table, however old, and of whatever partitions."""
MEMORY = Memory()
"""Of this process and all its threads. What is forgotten is asked again: nothing is decided from it that cannot be seen
again."""


def check_pruning(
    connection: Session, inventory: Inventory, plan: Plan, memory: Memory = MEMORY, *, ask: bool = True
) -> Inventory:
    """The inventory with the answer; one round trip, where nothing is to be created and no good answer is known.

    Where a partition is locked, or the role may not read the table, the last answer stands; and any last answer where
    ``ask`` is false.
    """
    table = inventory.server.identity, plan.parent.oid, inventory.server.user
    last = memory.get(table)
    if ask:
        if len(inventory.partitions) < 2 or plan.creations:
            return inventory
        partitions = tuple((each.oid, each.bounds, each.detach_pending) for each in inventory.partitions)
        asked = (plan.current, hash(partitions))
        if last is not None and last.asked != asked:
            last = None
        stale = last is None or last.until < time.monotonic()
        if stale and (pruning := _ask(connection, inventory, plan)) is not None:
            # A bad one is asked again by each reconcile, so that it goes as soon as the cause does.
            last = Answer(asked, pruning, time.monotonic() + HOLDS if pruning == GOOD else 0.0)
            if len(memory) >= REMEMBERED:
                memory.clear()
            memory[table] = last
    if last is None or last.pruning == GOOD:
        return inventory
    return replace(inventory, facts=replace(inventory.facts, pruning=last.pruning))


def _ask(connection: Session, inventory: Inventory, plan: Plan) -> Pruning | None:
    try:
        bounds = Bounds(plan.codec.literal(plan.current.lower), plan.codec.literal(plan.current.upper))
        query = SQL("EXPLAIN (FORMAT JSON, VERBOSE, COSTS OFF) SELECT FROM {} WHERE {}").format(
            ddl.relation(plan.parent), ddl.in_range(Identifier(plan.key), bounds)
        )
        queries = (*reading(plan.parent), SQL(SETTING), SQL(OTHERS), query)
        *_, (pruned,), others, ((explained,),) = read_only(
            connection, *queries, lock_timeout=LOCK_TIMEOUT, statement_timeout="5s"
        )
    except PartwardenError:
        # No key is that moment: a finding of its own where it matters.
        return None
    except psycopg.Error:
        if connection.closed:
            raise
        # Locked, not allowed to read, or too slow to plan: this is not known now, and nothing else is wrong.
        return None
    named = ((role and f"role {role!r}", database and f"database {database!r}") for role, database in others)
    disabled_for = tuple(" in ".join(filter(None, each)) or "all roles" for each in named)
    needless = tuple(_needless(inventory, plan, explained)) if pruned.enabled else ()
    return Pruning(pruned.enabled, disabled_for, needless)


def _needless(inventory: Inventory, plan: Plan, explained: Any) -> Iterator[str]:
    """Relations that are scanned without need, ascending by name."""
    covered = merge(each.range for each in inventory.partitions if each.range is not None and not each.detach_pending)
    default = bool(subtract(plan.current, covered))
    wanted = [each for each in inventory.partitions if (each.range.overlaps(plan.current) if each.range else default)]
    allowed = {str(each) for each in wanted}
    others = {str(each) for each in inventory.partitions} - allowed
    # What is below a partitioned partition has names that were not read: only the others are known then.
    deep = any(each.kind is RelationKind.PARTITIONED for each in wanted)
    for name in sorted(set(_scanned(explained[0]["Plan"]))):
        if name in others or (not deep and name not in allowed):
            yield name


def _scanned(node: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        yield f"{node.get('Schema', '')}.{node['Relation Name']}"
    for below in node.get("Plans", []):
        yield from _scanned(below)


# Closed partitions and statistics, where the policy or a first plan asks for them. A locked partition is judged by the
# planner's page counts, as `catalog` does with its size.

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
        query = SQL(STATISTICS).format(parent=plan.parent.oid)
        (((*analyzed, counted),),) = read_only(connection, query, lock_timeout=LOCK_TIMEOUT)
        parent, partitions = (None if moment is None else moment.astimezone(UTC) for moment in analyzed)
        facts = replace(facts, statistics=Statistics(parent, partitions, counted))
    return inventory if facts is inventory.facts else replace(inventory, facts=facts)


def _closed(connection: Session, oids: list[int]) -> tuple[ClosedPartition, ...]:
    version = connection.info.server_version
    frozen = SQL("c.relpages > 0 AND c.relallfrozen >= c.relpages" if version >= 180000 else "false")
    listed = SQL("{}::oid[]").format(oids)

    def read(empty: SQL) -> tuple[ClosedPartition, ...]:
        values = {"empty": empty, "frozen": frozen, "comment": ddl.COMMENT, "length": ddl.COMMENT_LENGTH}
        (rows,) = read_only(connection, SQL(CLOSED).format(oids=listed, **values), lock_timeout=LOCK_TIMEOUT)
        return tuple(map(_closed_partition, rows))

    try:
        return read(SQL("coalesce(pg_relation_size(c.oid) = 0, true)"))
    except pg.LockNotAvailable:
        return read(SQL("c.relpages = 0"))


def _closed_partition(row: Any) -> ClosedPartition:
    about = row._asdict()
    mark = marker.read_closed(about.pop("comment"), row.oid)
    about["no_room"] = about.pop("length") + marker.ROOM > marker.LONGEST
    about["exclusive"] = tuple(row.exclusive)
    # What an interrupted REINDEX has left goes with the next one.
    left_over = () if mark.reindexed else tuple(filter(re.compile("_cc(new|old)[0-9]*$").search, row.invalid))
    about["invalid"] = tuple(each for each in row.invalid if each not in left_over)
    return ClosedPartition(**about, mark=mark)


def missing(connection: psycopg.Connection[Any], oids: Sequence[int]) -> tuple[int, ...]:
    """The OIDs that no relation of the database has. Raises psycopg's errors."""
    query = SQL("SELECT oid::int8 FROM pg_class WHERE oid = ANY({}::oid[])").format(list(oids))
    (rows,) = read_only(connection, query)
    return tuple(sorted({*oids} - {row.oid for row in rows}))


def count_all(connection: Session, table: Partition | Detached) -> int:
    """The rows of one table, counted: what others write meanwhile may be in or not. Raises as `reading_rows`."""
    query = SQL("SELECT count(*) FROM {}").format(Identifier(table.schema, table.name))
    with reading_rows(connection, table.schema, table.name):
        (((count,),),) = run(connection, query)
    return int(count)
