"""Maintenance: ANALYZE of the parent, and once VACUUM and REINDEX of a partition whose range has passed.

VACUUM and REINDEX CONCURRENTLY keep neither readers nor writers out. What was done is then written into the
partition's comment. Killed before that, it is done once more; killed within REINDEX, what is half made is found and
dropped first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from psycopg.sql import SQL, Composable, Identifier, Literal

from ..errors import StatementFailed, StatementRejected, TableBusy, TableChanged
from ..planner import marker
from ..planner.actions import AnalyzeParent, ReindexPartition, VacuumPartition
from ..planner.inventory import Inventory
from . import ddl
from .alone import OutOfTime, run_outside
from .connection import Session, run
from .locks import PINNED, Mode, Want, hidden_transaction, older_transaction, retry_locks
from .table_state import TableState, ask, parse
from .transaction import (
    BY_NAME,
    LOCK_TIMEOUT,
    check_opening,
    check_same,
    opening,
    parent_of,
    translated,
)

Marked = VacuumPartition | ReindexPartition
"""What is done once to a partition, and written into its comment."""
Maintenance = AnalyzeParent | Marked


def maintain(connection: Session, inventory: Inventory, action: Maintenance) -> None:
    """Do one action. Raises `TableBusy` where it would wait, `StatementFailed` where it takes too long,
    `StatementRejected`, `TableChanged`, and as `errors.translate`.
    """
    match action:
        case AnalyzeParent():
            _analyze(connection, inventory, action)
        case VacuumPartition():
            # What a transaction may see that began before the range had passed cannot be frozen.
            _work_and_mark(connection, inventory, action, partial(_vacuum, connection, action), Literal(action.closed))
        case ReindexPartition():
            since = SQL("now() - interval '5 seconds'")  # what is older is not waited for at all
            _work_and_mark(connection, inventory, action, partial(_reindex, connection, action), since)


ANALYZE_LIMIT = 300.0
"""Seconds. Samples are small, but up to version 17 every partition is sampled for itself as well."""


def _analyze(connection: Session, inventory: Inventory, action: AnalyzeParent) -> None:
    """ANALYZE of the parent, from 18 on of nothing but the parent: its rows are sampled through its partitions.

    Outside a transaction, so that the lock on a partition ends with that partition.
    """
    parent, only = parent_of(inventory), "ONLY " if inventory.server.version >= 180000 else ""

    def work() -> None:
        check_same(parent, run(connection, PINNED, SQL(BY_NAME).format(parent.schema, parent.name))[1])
        statement = SQL("ANALYZE {}{}").format(SQL(only), ddl.relation(action))
        run_outside(connection, _subject(action), statement, lock_timeout=LOCK_TIMEOUT, limit=ANALYZE_LIMIT)

    try:
        _once(connection, [parent.oid, *(each.oid for each in inventory.partitions)], action, work)
    except OutOfTime:
        raise StatementFailed(f"{_subject(action)}: it did not end within {ANALYZE_LIMIT:.0f} seconds") from None


def _once(connection: Session, tables: Sequence[int], action: Maintenance, work: Callable[[], None]) -> None:
    """Work without waiting for a lock holder. Raises `TableBusy` that names it, and as `errors.translate`."""
    with translated(connection, f"{action.noun} {action}"):
        wants = [Want(each, Mode.SHARE_UPDATE_EXCLUSIVE) for each in tables]
        # Behind a pooler it would wait for a lock until it is out of time.
        check_first = connection.pooled
        retry_locks(connection, work, lambda: wants, _subject(action), deadline=0.0, check_first=check_first)


def _subject(action: Maintenance) -> str:
    return f"cannot {action.verb} {action.noun} {action}"


VACUUM_LIMIT = 1800.0  # seconds that one VACUUM or REINDEX may take: a worker is not held for longer
MARKING = 5.0  # seconds that it is tried to write that it was done
WAIT_FOR_TRANSACTIONS = 10_000
"""Milliseconds that REINDEX CONCURRENTLY may wait for others' transactions, each time that it must."""

# REINDEX CONCURRENTLY gives its copies such names, and they are invalid until they take the old ones' place, as are the
# old ones after that. Ours to drop is one that is invalid, belongs to nothing, and of which the table, or its TOAST
# table, has a valid twin: same columns, same classes, same expressions.
LEFTOVERS = """
SELECT n.nspname, c.relname
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.indrelid IN ({oid}, (SELECT reltoastrelid FROM pg_class WHERE oid = {oid}))
  AND NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
  AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid)
  AND EXISTS (SELECT FROM pg_index t JOIN pg_class tc ON tc.oid = t.indexrelid
              WHERE t.indrelid = i.indrelid AND t.indexrelid <> i.indexrelid AND t.indisvalid
                AND tc.relam = c.relam AND t.indkey::text = i.indkey::text AND t.indclass::text = i.indclass::text
                AND t.indcollation::text = i.indcollation::text AND t.indoption::text = i.indoption::text
                AND t.indisunique = i.indisunique
                AND pg_get_expr(t.indexprs, t.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indexprs, i.indrelid)
                AND pg_get_expr(t.indpred, t.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indpred, i.indrelid))
"""


def _vacuum(connection: Session, action: VacuumPartition) -> None:
    # Without truncation: giving back pages at the end would lock every session out for that moment.
    statement = SQL("VACUUM (FREEZE, ANALYZE, TRUNCATE false) {}").format(ddl.relation(action))
    run_outside(connection, _subject(action), statement, lock_timeout=LOCK_TIMEOUT, limit=VACUUM_LIMIT)


def _reindex(connection: Session, action: ReindexPartition) -> None:
    _drop_leftovers(connection, action)
    before = _indexes(connection, action)
    statement = SQL("REINDEX TABLE CONCURRENTLY {}").format(ddl.relation(action))
    try:
        run_outside(connection, _subject(action), statement, lock_timeout=WAIT_FOR_TRANSACTIONS, limit=VACUUM_LIMIT)
    except OutOfTime:
        # It is not tried again, so no later attempt would drop them.
        _drop_leftovers(connection, action)
        raise
    # A rebuilt one has another OID. What PostgreSQL skips it says in a WARNING, and succeeds.
    skipped = _indexes(connection, action)
    if before and before.keys() <= skipped.keys():
        raise StatementRejected(
            f"{_subject(action)}: PostgreSQL skipped {', '.join(sorted(before.values()))}; see its server's log, and "
            "REINDEX by hand"
        )


def _indexes(connection: Session, action: ReindexPartition) -> dict[int, str]:
    """Names of the partition's indexes by OID."""
    query = "SELECT i.indexrelid, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE indrelid = {}"
    return dict(run(connection, PINNED, SQL(query).format(action.oid))[1])


def _drop_leftovers(connection: Session, action: ReindexPartition) -> None:
    for schema, name in run(connection, PINNED, SQL(LEFTOVERS).format(oid=action.oid))[1]:
        # Safe here: an index holds no rows, and this one serves no query and no constraint. A session that still builds
        # it holds the lock that this needs.
        drop = SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier(schema, name))
        run_outside(connection, _subject(action), drop, lock_timeout=WAIT_FOR_TRANSACTIONS, limit=300.0)


def _work_and_mark(
    connection: Session, inventory: Inventory, action: Marked, work: Callable[[], None], since: Composable
) -> None:
    """Work, and write into the comment that it was done, or that it takes too long.

    Not where a transaction older than ``since`` would be waited for, or would make the work useless.
    """
    gave_up = False
    with translated(connection, f"partition {action}"):
        reindexed = [action.oid] if isinstance(action, ReindexPartition) else []
        who = older_transaction(connection, since, reindexed) or (reindexed and hidden_transaction(connection))
    if who:
        raise TableBusy(f"{_subject(action)}: an older transaction is open: {who}")

    def work_and_mark() -> None:
        nonlocal gave_up
        _check_same(inventory, action, run(connection, PINNED, ask(action))[1])
        try:
            work()
        except OutOfTime:
            gave_up = True
        retry_locks(
            connection,
            lambda: _mark(connection, inventory, action, gave_up),
            lambda: (),
            _subject(action),
            # What took long is not done once more for a lock that is held for a moment.
            time.monotonic() + MARKING,
        )

    _once(connection, [action.oid], action, work_and_mark)
    if gave_up:
        raise StatementFailed(
            f"{_subject(action)}: it did not end within {VACUUM_LIMIT / 60:.0f} minutes, and is not tried again"
        )


def _check_same(inventory: Inventory, action: Marked, rows: list[Any]) -> TableState:
    state = parse(rows, action, action.oid)
    if state.parent != parent_of(inventory).oid or state.pending:
        raise TableChanged(f"partition {action} was detached since it was read")
    return state


def _mark(connection: Session, inventory: Inventory, action: Marked, gave_up: bool) -> None:
    """Add to the comment what was done. COMMENT takes the lock that the work took, and for a moment only.

    Safe where it stands: the lock comes first, so that no comment written meanwhile is lost.
    """
    # As the login, since the partition may have another owner; COMMENT calls no function of a table.
    begin = opening(parent_of(inventory), LOCK_TIMEOUT, as_login=True)
    *begun, _, rows = run(connection, *begin, ddl.lock(action, "SHARE UPDATE EXCLUSIVE"), ask(action))
    check_opening(parent_of(inventory), begun)
    state = _check_same(inventory, action, rows)
    if state.text is None:
        raise ddl.no_room(action)
    mark, done = marker.read_closed(state.comment, action.oid), state.now.replace(microsecond=0)
    mark = replace(mark, vacuumed=done) if isinstance(action, VacuumPartition) else replace(mark, reindexed=done)
    if gave_up:
        mark = replace(mark, gave_up=(*mark.gave_up, action.verb))
    run(connection, ddl.comment(action, marker.write_closed(state.comment, mark)), "COMMIT")
