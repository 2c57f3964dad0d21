"""A conversion as the operator and the command both do it: read the table, decide, prepare, swap; and the way back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from psycopg.sql import SQL

from ..api.policy import Table
from ..errors import PartwardenError, StatementRejected, TableChanged, UserError
from ..planner import marker
from ..planner.conversion import Conversion
from ..planner.conversion_plan import ConversionPlan, key_now, plan_conversion
from ..planner.conversion_rules import CHECK, Refusal, Wanted, is_ours, refusals
from ..planner.inventory import Parent, RelationKind
from ..planner.plain_table import PlainTable, TiedKind
from . import conversion_finish, conversion_undo, ddl
from .connection import Session
from .conversion_definition import legacy_name
from .conversion_facts import read_rows, read_table, read_taken
from .conversion_obstacles import obstacles
from .conversion_prepare import Report, abandon, prepare, remove_check
from .conversion_rights import lacking
from .conversion_swap import swap
from .transaction import read_only, translated

ATTEMPTS = 3
"""Plans that are made where the table changes between a plan and its end."""


def observe_conversion(connection: Session, wanted: Wanted) -> ConversionPlan:
    """How the table would be converted, or what forbids it. Reads only; of rows as `read_rows` does.

    ``wanted.spec.key`` is named. Raises `TableNotFound`, `UnknownTimeZone`, and psycopg's errors.
    """
    spec = wanted.spec
    table = read_table(connection, spec.table, spec.key or "", CHECK)
    if not refusals(table, wanted):
        _, _, now = key_now(table, wanted)
        table = read_rows(connection, table, spec.key_encoding, now)
    plan = plan_conversion(table, wanted)
    if plan.conversion is not None:
        plan = plan_conversion(table, wanted, read_taken(connection, table, plan.names))
    # The swap asks again for what it refuses, under its lock, and PostgreSQL for rights: all is known before a step.
    about = plan.conversion
    if about is not None and (found := (*obstacles(connection, about), *lacking(connection, about))):
        return ConversionPlan(table, tuple(Refusal(str(table), *each) for each in found))
    if plan.conversion is not None and (taken := tuple(_taken_names(connection, table, plan.conversion))):
        return ConversionPlan(table, taken)
    return plan


STATISTICS = """
SELECT e.stxname AS name, EXISTS (SELECT FROM pg_statistic_ext o WHERE o.stxnamespace = e.stxnamespace
                                  AND o.stxname = n.later) AS taken, n.later
FROM pg_statistic_ext e JOIN unnest({names}::name[], {later}::name[]) n (name, later) ON n.name = e.stxname
WHERE e.stxrelid = {oid}
"""


def _taken_names(connection: Session, table: PlainTable, conversion: Conversion) -> Iterator[Refusal]:
    """Indexes and statistics of the table that cannot be called what those of its first partition are called."""
    extended = [each.name for each in table.tied if each.kind is TiedKind.STATISTICS]
    becomes = [legacy_name(conversion.table, conversion.legacy, each) for each in extended]
    asked = SQL(STATISTICS).format(oid=table.parent.oid, names=extended, later=becomes)
    for row in read_only(connection, asked)[0] if extended else ():
        if row.taken:
            why = f"they would be called {row.later} then, which is the name of others in their schema"
            yield Refusal(f"statistics {row.name}", why, "ALTER STATISTICS … RENAME one of the two, or drop it")
    named = {
        each.name: legacy_name(conversion.table, conversion.legacy, each.name)
        for each in table.indexes
        if not is_ours(table, each)
    }
    taken = read_taken(connection, table, [*named.values()])
    for name, later in named.items():
        if later in taken or [*named.values()].count(later) > 1:
            why = f"it would be called {later} then, which is another's name in schema {conversion.schema}"
            yield Refusal(f"index {name}", why, "rename one of the two")


def convert(connection: Session, wanted: Wanted, plan: ConversionPlan, patience: float, report: Report) -> None:
    """Do what the plan says; what was done is not done twice. ``patience``: seconds in which each lock must be had.

    Planned anew, up to `ATTEMPTS` times, where the table changed meanwhile. Interrupted before the last transaction,
    the table is the plain one still, and the next call goes on; after it, the next call of `finish` does. Where only a
    user can remove what is in the way, the CHECK is taken away again: it must not outlast its range. Raises
    `StatementRejected` where something forbids it, and as `conversion_prepare.prepare` and `conversion_swap.swap` do.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            conversion = plan.conversion
            if conversion is None:
                forbidden = " · ".join(map(str, plan.refusals))
                raise StatementRejected(f"cannot convert {plan.table}: {forbidden}")
            prepare(connection, plan, time.monotonic() + patience, report)
            began = time.monotonic()
            swap(connection, conversion, time.monotonic() + patience)
        except TableChanged:
            if not left:
                raise
            with translated(connection, f"cannot convert {plan.table}"):
                plan = observe_conversion(connection, wanted)
        except UserError:
            # The first error counts. A lock that is not acquired leaves the CHECK to the next call.
            with suppress(PartwardenError):
                if plan.table.key and (plan.table.leftover or plan.conversion):
                    remove_check(connection, plan.table, time.monotonic() + patience)
            raise
        else:
            report(f"{plan.table} is partitioned, its rows are {conversion.legacy}", time.monotonic() - began)
            return


def finish(connection: Session, found: Parent, patience: float, report: Report) -> bool:
    """Do what a swap, or its way back, has left: validate foreign keys of others, drop children. False where there
    is nothing. Raises as `conversion_finish.finish`."""
    began, partitioned = time.monotonic(), found.kind is RelationKind.PARTITIONED
    with translated(connection, f"table {found}"):
        partitions = SQL(conversion_undo.PARTITIONS).format(oid=found.oid, comment=ddl.COMMENT)
        (rows,) = read_only(connection, partitions) if partitioned else ([],)
        marked = [
            (row.schema, row.name)
            for row in rows
            if (mark := marker.read_converted(row.comment, row.oid)) and mark.parent == found.oid
        ]
        named = marked if partitioned else [(found.schema, found.name)]
        marks = [(place, conversion_finish.read_mark(connection, *place)[1]) for place in named]
    left = [(place, mark.undone) for place, mark in marks if mark and (mark.validate or mark.undone)]
    for (schema, name), undone in left:
        conversion_finish.finish(connection, schema, name, time.monotonic() + patience)
        what = "finished the way back of" if undone else "validated the foreign keys to"
        report(f"{what} {schema}.{name}", time.monotonic() - began)
    return bool(left)


def undo(connection: Session, table: Table, key: str | None, patience: float, limit: int, report: Report) -> None:
    """Make a table plain again, or take away what a conversion that did not end has left of it.

    ``key`` is needed for the latter alone; ``limit``: rows that may be moved back. Raises as `conversion_undo.undo` and
    `conversion_prepare.abandon`, and `StatementRejected` without the key.
    """
    with translated(connection, f"table {table}"):
        found = read_table(connection, table, key or "", CHECK)
    began = time.monotonic()
    if found.kind == "p":
        deadline = began + patience
        moved = conversion_undo.undo(connection, table.schema_, table.name, deadline, limit=limit)
        report(f"{table} is a plain table again, {moved:,} rows moved back into it", time.monotonic() - began)
    elif not finish(connection, found.parent, patience, report):
        if found.key is None:
            raise StatementRejected(
                f"table {table} is not partitioned: to take away what its conversion has made, name its key (--key)"
            )
        abandon(connection, found, began + patience, report)
