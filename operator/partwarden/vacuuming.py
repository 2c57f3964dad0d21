"""Does once, with a partition whose range has passed, what ``maintenance.onClose`` asks for.

VACUUM and REINDEX CONCURRENTLY keep neither readers nor writers out. What was done is then written into the
partition's comment. Killed before that, it is done once more; killed within REINDEX, what is half made is found and
dropped first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
from psycopg import errors as pg
from psycopg import sql

from . import comments, ddl, upkept
from .actions import Action, ReindexPartition, VacuumPartition
from .blockers import Mode, Want, blockers
from .elders import PINNED, older_than, unseen
from .errors import PartwardenError, StatementFailed, TableBusy, TableChanged
from .inventory import Inventory
from .outside import OutOfTime, run_outside
from .session import Session, run
from .sqlstate import translate
from .transaction import LOCK_TIMEOUT, check_opening, opening, undo
from .upkept import Upkept

LIMIT = 1800.0
"""Seconds that one VACUUM or REINDEX may take: a worker is not held for longer."""
LEFTOVER_LIMIT = 300.0
"""Seconds that dropping one index may take."""
WAIT_FOR_TRANSACTIONS = 10_000
"""Milliseconds that REINDEX CONCURRENTLY may wait for others' transactions, each time that it must."""
SHORT = "5 seconds"
"""What is older when REINDEX would begin is not waited for at all."""

SAME = """
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_inherits i ON i.inhrelid = c.oid AND NOT i.inhdetachpending
               WHERE c.oid = {oid} AND i.inhparent = {parent} AND n.nspname = {schema} AND c.relname = {name})
"""
COMMENT = "SELECT {comment}, {length}, to_char(clock_timestamp() AT TIME ZONE 'UTC', {form})"
MOMENT = 'YYYY-MM-DD"T"HH24:MI:SS'

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


def vacuum(connection: Session, inventory: Inventory, _key: str, action: VacuumPartition, _deadline: float) -> None:
    """VACUUM (FREEZE, ANALYZE), with nobody waited for.

    Raises `TableBusy` where a transaction is open that began before the range had passed, since what it may still see
    cannot be frozen, or where somebody holds the partition's lock; `StatementFailed` after `LIMIT`, and as `sqlstate`.
    """

    def work() -> None:
        # Without truncation: giving back pages at the end would lock everybody out for that moment.
        statement = sql.SQL("VACUUM (FREEZE, ANALYZE, TRUNCATE false) {}").format(ddl.relation(action))
        run_outside(connection, statement, lock_timeout=LOCK_TIMEOUT, limit=LIMIT)

    _look_out(connection, action, sql.Literal(action.closed), [])
    _once(connection, inventory, action, "vacuum", work)


def reindex(connection: Session, inventory: Inventory, _key: str, action: ReindexPartition, _deadline: float) -> None:
    """Drop what an interrupted REINDEX CONCURRENTLY has left, then REINDEX TABLE CONCURRENTLY. Raises as `vacuum`."""

    def work() -> None:
        _drop_leftovers(connection, action)
        statement = sql.SQL("REINDEX TABLE CONCURRENTLY {}").format(ddl.relation(action))
        try:
            run_outside(connection, statement, lock_timeout=WAIT_FOR_TRANSACTIONS, limit=LIMIT)
        except OutOfTime:
            # It is not tried again, so that nobody else would.
            _drop_leftovers(connection, action)
            raise

    _look_out(connection, action, sql.SQL("now() - {}::interval").format(SHORT), [action.oid])
    _once(connection, inventory, action, "reindex", work)


def _drop_leftovers(connection: Session, action: ReindexPartition) -> None:
    for schema, name in run(connection, PINNED, sql.SQL(LEFTOVERS).format(oid=action.oid))[1]:
        # Safe here: an index holds no rows, and this one serves no query and no constraint. Whoever is still building
        # it holds the lock that this needs.
        drop = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, name))
        run_outside(connection, drop, lock_timeout=WAIT_FOR_TRANSACTIONS, limit=LEFTOVER_LIMIT)


def _look_out(
    connection: Session, action: VacuumPartition | ReindexPartition, since: sql.Composable, locked: list[int]
) -> None:
    """Raises `TableBusy` where somebody is in the way who would be waited for, or would make the work vain."""
    try:
        who = older_than(connection, since, locked) or (unseen(connection) if locked else None)
    except psycopg.Error as error:
        raise translate(error, f"partition {action}") from None
    if who is not None:
        raise TableBusy(f"partition {action} was not {action.past}: {who}")


def _once(
    connection: Session,
    inventory: Inventory,
    action: VacuumPartition | ReindexPartition,
    what: str,
    work: Callable[[], None],
) -> None:
    """Work, and write down that it was done, or that it takes too long."""
    try:
        _check_same(connection, inventory, action)
        gave_up = _in_time(work)
        _mark(connection, inventory, action, what, gave_up)
    except (pg.LockNotAvailable, pg.DeadlockDetected):
        undo(connection)
        raise _busy(connection, action) from None
    except psycopg.Error as error:
        undo(connection)
        raise translate(error, f"partition {action}") from None
    except PartwardenError:
        undo(connection)
        raise
    if gave_up:
        raise StatementFailed(
            f"partition {action} was not {action.past}: it did not end within {LIMIT / 60:.0f} minutes, and is not "
            "tried again"
        )


def _in_time(work: Callable[[], None]) -> bool:
    """Whether the work had to be given up."""
    try:
        work()
    except OutOfTime:
        return True
    return False


def _check_same(connection: Session, inventory: Inventory, action: VacuumPartition | ReindexPartition) -> None:
    assert inventory.parent is not None
    query = sql.SQL(SAME).format(oid=action.oid, parent=inventory.parent.oid, schema=action.schema, name=action.name)
    if not run(connection, PINNED, query)[1][0][0]:
        raise TableChanged(f"partition {action} was detached, renamed or made anew since it was looked at")


def _mark(
    connection: Session, inventory: Inventory, action: VacuumPartition | ReindexPartition, what: str, gave_up: bool
) -> None:
    """Add to the comment what was done. COMMENT takes the lock that the work took, and for a moment only.

    Safe where it stands: the lock comes first, so that no comment written meanwhile is lost.
    """
    assert inventory.parent is not None
    # As the login, since the partition may have another owner; COMMENT calls no function of a table.
    begin = opening(inventory.parent, LOCK_TIMEOUT, as_login=True)
    lock = sql.SQL("LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE").format(ddl.relation(action))
    held, length = (each(sql.Literal(action.oid)) for each in (comments.read, comments.length))
    read = sql.SQL(COMMENT).format(comment=held, length=length, form=MOMENT)
    *begun, _, ((comment, size, now),) = run(connection, *begin, lock, read)
    check_opening(inventory.parent, begun)
    _check_same(connection, inventory, action)
    if comments.is_too_long(size):
        raise comments.no_room(f"partition {action}")
    mark = _add(upkept.read(comment, action.oid), what, datetime.fromisoformat(now).replace(tzinfo=UTC), gave_up)
    text = comments.check_room(f"partition {action}", upkept.write(comment, mark))
    run(connection, ddl.comment(action, text), "COMMIT")


def _add(mark: Upkept, what: str, now: datetime, gave_up: bool) -> Upkept:
    done = replace(mark, vacuumed=now) if what == "vacuum" else replace(mark, reindexed=now)
    return replace(done, gave_up=(*done.gave_up, what)) if gave_up else done


def _busy(connection: Session, action: Action) -> PartwardenError:
    assert isinstance(action, VacuumPartition | ReindexPartition)
    try:
        found = blockers(connection, [Want(action.oid, Mode.SHARE_UPDATE_EXCLUSIVE)], action.oid)
    except psycopg.Error as lost:
        return translate(lost, f"partition {action}")
    who = found[0].text if found else "whoever held it has gone meanwhile"
    return TableBusy(f"partition {action} was not {action.past}: a lock on it was not to be had in time; {who}")
