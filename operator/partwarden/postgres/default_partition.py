"""Counts the rows of the DEFAULT partition, grouped by the interval that they belong to.

An empty one costs one cheap query. Of others a bounded number of rows is read, a few times, in one snapshot. Row
security never hides rows from the count: it makes the statement fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.sql import SQL

from ..api.policy import TableSpec
from ..api.retention import KeyEncoding
from ..errors import InsufficientPrivilege, PartwardenError, StatementRejected, TableBusy
from ..planner.calendar import Grid, Range, merge
from ..planner.default_rows import MAX_SPANS, Cut, DefaultRows, finer_cut, first_cut, within_cells
from ..planner.findings import quoted
from ..planner.inventory import Inventory, Parent, Partition, RelationKind
from ..planner.plan import Plan
from .connection import Session, pinned, run
from .errors import is_lost, message, translate
from .transaction import BEGIN_READ_ONLY, read_only, reading, undo

MAX_ROWS = 200_000
"""Most rows that are read; where there are more, numbers are lower limits."""
MAX_PLANNED = 20
"""Planned partitions whose rows are counted each by itself where there are more."""

PINNED = pinned(lock_timeout="500ms", statement_timeout="10s")

# Every pass is to read the same rows.
WHOLE = "SELECT set_config('row_security', 'off', true), set_config('synchronize_seqscans', 'off', true)"


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
    table = sql.Identifier(default.schema, default.name)
    source = table if default.kind is RelationKind.PARTITIONED else SQL("ONLY {}").format(table)
    some = SQL("SELECT EXISTS (SELECT FROM {})").format(source)
    begin: list[sql.Composable] = [SQL(WHOLE), *reading(plan.parent)]
    *_, ((occupied,),) = read_only(connection, *begin, some)
    if not occupied:
        return DefaultRows()
    run(connection, BEGIN_READ_ONLY, PINNED, *begin)
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


def _buckets(connection: Session, source: sql.Composable, plan: Plan, cut: Cut) -> list[tuple[int, int]]:
    """Numbers of ``width_bucket`` with their rows; what has none (NULL) is counted below the first moment."""
    query = SQL(
        "SELECT coalesce(width_bucket(key, {}::{}[]), 0), count(*) "
        "FROM (SELECT {} AS key FROM {} LIMIT {}) AS rows GROUP BY 1"
    ).format(list(cut.literals), SQL(plan.codec.type), sql.Identifier(plan.key), source, MAX_ROWS + 1)
    (found,) = run(connection, query)
    return [(int(number), int(rows)) for number, rows in found]


def _planned(connection: Session, source: sql.Composable, spec: TableSpec, plan: Plan) -> tuple[tuple[Range, int], ...]:
    """Exact up to one more than may be moved: more makes no difference to the plan."""
    wanted, key = plan.creations[:MAX_PLANNED], sql.Identifier(plan.key)
    counts: Sequence[sql.Composable] = [
        SQL("SELECT count(*) FROM (SELECT FROM {} WHERE {key} >= {} AND {key} < {} LIMIT {}) AS rows").format(
            source, *each.bounds, spec.default_partition.drain_max_rows + 1, key=key
        )
        for each in wanted
    ]
    results: list[list[tuple[Any, ...]]] = run(connection, *counts) if counts else []
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
    if hidden:
        way_out = (
            f"its row security hides rows from role {user!r}: ALTER ROLE {quoted(user)} BYPASSRLS, or take FORCE away"
        )
        return InsufficientPrivilege(f"{subject}: {way_out}")
    grant = f"GRANT SELECT ON {quoted(default.schema)}.{quoted(default.name)} TO {quoted(user)}"
    return InsufficientPrivilege(f"{subject}: {message(error)}; {grant}")
