"""What a conversion does before its one transaction: unique indexes for wider keys, and a CHECK that proves the range.

Each step is of its own, found again in the catalog, and safe to be interrupted after:

- ``CREATE UNIQUE INDEX CONCURRENTLY``: a further index is of no effect on what may be written, since the constraint
  that it is for is stricter, or says the same. Interrupted, it is left invalid, and dropped and built again next time.
- ``ADD CHECK … NOT VALID``, under a lock that is asked for during 50 ms and tried again. From its commit on a write
  outside the range fails. The plan has put the range's end so far that this lasts, and a later plan moves it.
- ``VALIDATE CONSTRAINT`` reads every row while others go on, and changes nothing but a flag. It is cancelled before
  the range ends, and the CHECK is taken away then.

`abandon` takes all of it away. No row is written or deleted here, and nothing is dropped but what has a conversion's
name and its definition, on a table that is no partition.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from psycopg import errors as pg
from psycopg.sql import SQL, Composable, Identifier, Literal

from ..api.policy import Table
from ..errors import StatementFailed, StatementRejected, TableBusy, TableChanged
from ..planner.conversion import Conversion
from ..planner.conversion_plan import FOR_SWAP, ConversionPlan, validation_time
from ..planner.conversion_rules import CHECK, is_ours
from ..planner.plain_table import Index, Leftover, PlainTable
from . import ddl
from .alone import OutOfTime, run_outside
from .connection import Session, run
from .conversion_facts import ask_leftover, parse_leftover, read_table
from .locks import Mode, Want, older_transaction, retry_locks
from .transaction import (
    LOCK_TIMEOUT_HEAVY,
    READ_ALL_LIMIT,
    changing,
    set_lock_timeout,
    translated,
)

WAIT_FOR_TRANSACTIONS = 600_000
"""Milliseconds that the build of an index waits for others' transactions, each time that it must. None waits for it."""
SLACK = 60.0
"""Seconds before the range ends at which a validation is given up."""

VALIDATED = "validated the CHECK"
"""What is reported of the step that reads every row."""

Report = Callable[[str, float], None]
"""Called after each step: what was done, in how many seconds."""


def prepare(connection: Session, plan: ConversionPlan, deadline: float, report: Report) -> None:
    """Do all that is not done yet. ``deadline``: of `time.monotonic`, until which a lock is tried again.

    Raises `TableChanged` where it is to be planned anew, such as with a later end of the range, `TableBusy` with the
    holder of a lock, `StatementRejected`, and as `errors.translate`. What was done until then stays.
    """
    conversion, began = plan.conversion, time.monotonic()
    assert conversion is not None
    for key in conversion.widened:
        _build(connection, plan, key.index, key.columns, report)
    ends = began + plan.holds_for.total_seconds()
    if timedelta(seconds=ends - time.monotonic()) < validation_time(plan.table) + FOR_SWAP and not _is_proven(plan):
        raise TableChanged(
            f"the range of {plan.table} ends too soon at {conversion.upper}: the steps before took long; it is planned "
            "again"
        )
    with translated(connection, f"cannot convert {plan.table}"):
        _add_check(connection, plan, deadline, report)
        _validate(connection, plan, conversion, ends - SLACK, deadline, report)


def _is_proven(plan: ConversionPlan) -> bool:
    return plan.has_check and plan.table.leftover is not None and plan.table.leftover.validated


# Unique indexes.


def _build(connection: Session, plan: ConversionPlan, name: str, columns: tuple[str, ...], report: Report) -> None:
    table = _again(connection, plan.table)
    found, began = _index(table, name), time.monotonic()
    if found is not None and not is_ours(table, found):
        raise StatementRejected(f"cannot convert {table}: index {name} is not as a conversion makes it; rename it")
    if found is not None and found.valid:
        return
    if found is not None:
        _drop_index(connection, table, found)
    subject = f"cannot build index {name} of {table}"
    statement = SQL("CREATE UNIQUE INDEX CONCURRENTLY {} ON {} ({})").format(
        Identifier(name), ddl.relation(table.parent), SQL(", ").join(map(Identifier, columns))
    )
    with translated(connection, subject):
        _outside(connection, table, subject, statement)
    report(f"built unique index {name} ({', '.join(columns)})", time.monotonic() - began)


def _again(connection: Session, table: PlainTable) -> PlainTable:
    """The table as the catalog has it now. Raises `TableChanged` where its name is another's."""
    assert table.key is not None
    named = Table(schema_=table.parent.schema, name=table.parent.name)
    with translated(connection, f"table {table}"):
        now = read_table(connection, named, table.key.name, CHECK)
    if now.parent.oid != table.parent.oid or now.is_partition or now.kind != "r":
        raise TableChanged(f"table {table} was dropped, renamed, made anew or partitioned since it was read")
    return now


def _index(table: PlainTable, name: str) -> Index | None:
    return next((each for each in table.indexes if each.name == name), None)


def _drop_index(connection: Session, table: PlainTable, index: Index) -> None:
    """Safe here: an index holds no rows, this one is a conversion's by its name and definition, and belongs to no
    constraint. A session that still builds it holds the lock that this needs."""
    subject = f"cannot drop index {index.name} of {table}"
    drop = SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier(table.parent.schema, index.name))
    with translated(connection, subject):
        _outside(connection, table, subject, drop)


def _outside(connection: Session, table: PlainTable, subject: str, statement: Composable) -> None:
    try:
        run_outside(connection, subject, statement, lock_timeout=WAIT_FOR_TRANSACTIONS, limit=READ_ALL_LIMIT)
    except OutOfTime:
        raise StatementFailed(f"{subject}: it did not end within {READ_ALL_LIMIT / 3600:.0f} hours") from None
    except pg.LockNotAvailable:
        who = older_transaction(connection, SQL("now()"), [table.parent.oid]) or "one that has ended since"
        raise TableBusy(f"{subject}: it waits for a transaction that is open for long: {who}") from None


# The CHECK.


def _add_check(connection: Session, plan: ConversionPlan, deadline: float, report: Report) -> None:
    began, table, conversion = time.monotonic(), plan.table, plan.conversion
    assert conversion is not None
    added = False

    def attempt() -> None:
        nonlocal added
        with changing(connection, table.parent, "60s"):
            left = _lock(connection, table)
            if plan.has_check and left is not None and left.condition == (table.leftover and table.leftover.condition):
                return
            condition = SQL("CHECK ({key} IS NOT NULL AND {key} >= {lower} AND {key} < {upper}) NOT VALID").format(
                key=Identifier(conversion.key), lower=Literal(conversion.lower), upper=Literal(conversion.upper)
            )
            # The one goes and the other comes in one statement: no write is judged by neither.
            gone = [SQL("DROP CONSTRAINT {}").format(Identifier(CHECK))] if left else []
            add = SQL("ADD CONSTRAINT {} {}").format(Identifier(conversion.check), condition)
            _alter(connection, table, *gone, add)
            added = True

    _retry(connection, table, attempt, deadline)
    if added:
        report(
            f"added CHECK ({conversion.key} from {conversion.lower} to {conversion.upper})", time.monotonic() - began
        )


def _lock(connection: Session, table: PlainTable) -> Leftover | None:
    """Lock the table against all sessions, and read the CHECK of a conversion. Raises `TableChanged` for another's."""
    assert table.key is not None
    question = ask_leftover(table.parent.oid, table.key.name, CHECK)
    *_, rows = run(
        connection, set_lock_timeout(LOCK_TIMEOUT_HEAVY), ddl.lock(table.parent, "ACCESS EXCLUSIVE"), question
    )
    left = parse_leftover(rows)
    if left is not None and left.lower is None:
        raise TableChanged(f"constraint {CHECK} of {table} is not a conversion's; rename it")
    return left


def _alter(connection: Session, table: PlainTable, *changes: Composable) -> None:
    run(connection, SQL("ALTER TABLE {} {}").format(ddl.relation(table.parent), SQL(", ").join(changes)))


def _retry(
    connection: Session,
    table: PlainTable,
    attempt: Callable[[], None],
    deadline: float,
    longest: float | None = None,
) -> None:
    wants = [Want(table.parent.oid, Mode.ACCESS_EXCLUSIVE)]
    retry_locks(connection, attempt, lambda: wants, f"cannot convert {table}", deadline, longest=longest)


def _validate(
    connection: Session, plan: ConversionPlan, conversion: Conversion, until: float, deadline: float, report: Report
) -> None:
    table, began = plan.table, time.monotonic()
    assert table.key is not None
    seconds = max(1.0, min(until - began, READ_ALL_LIMIT))
    try:
        with connection.patient(seconds + 30.0), changing(connection, table.parent, f"{seconds * 1000:.0f}ms"):
            (rows,) = run(connection, ask_leftover(table.parent.oid, table.key.name, CHECK))
            left = parse_leftover(rows)
            if left is None:
                raise TableChanged(f"constraint {CHECK} of {table} was dropped since it was made")
            if left.validated:
                return
            _alter(connection, table, SQL("VALIDATE CONSTRAINT {}").format(Identifier(conversion.check)))
    except pg.CheckViolation:
        raise TableChanged(
            f"cannot convert {table}: a row was written outside of {conversion.lower} to {conversion.upper} since they "
            "were read; it is planned again"
        ) from None
    except pg.QueryCanceled:
        if time.monotonic() < until:
            raise
        # It would soon refuse what is written: however long another session holds the table, it is tried until then.
        remove_check(connection, table, max(deadline, until + SLACK), longest=SLACK)
        raise StatementFailed(
            f"cannot convert {table}: the validation did not end before {conversion.upper}, the end of the range; the "
            "CHECK is taken away again"
        ) from None
    report(VALIDATED, time.monotonic() - began)


# The way back.


def remove_check(connection: Session, table: PlainTable, deadline: float, *, longest: float | None = None) -> bool:
    """Take away the CHECK of a conversion; False where there is none. ``longest``: as for `locks.check_lock_holders`.
    Raises as `prepare`.

    Safe: it has a conversion's name and says nothing but two bounds; what it forbade may be written from then on.
    """
    removed = False

    def attempt() -> None:
        nonlocal removed
        with changing(connection, table.parent, "60s"):
            if _lock(connection, table) is not None:
                _alter(connection, table, SQL("DROP CONSTRAINT {}").format(Identifier(CHECK)))
                removed = True

    with translated(connection, f"cannot take back the conversion of {table}"):
        _retry(connection, table, attempt, max(deadline, time.monotonic() + 1.0), longest)
    return removed


def abandon(connection: Session, table: PlainTable, deadline: float, report: Report) -> None:
    """Take away all that `prepare` has made of a table that was not swapped. Raises as `prepare`."""
    now, began = _again(connection, table), time.monotonic()
    if remove_check(connection, now, deadline):
        report("dropped the CHECK", time.monotonic() - began)
    for index in filter(partial(is_ours, now), now.indexes):
        began = time.monotonic()
        _drop_index(connection, now, index)
        report(f"dropped index {index.name}", time.monotonic() - began)
