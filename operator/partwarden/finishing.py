"""Finishes detaches that were begun: the pending ones of the catalog, and the marks of tables that are detached."""

from __future__ import annotations

from dataclasses import replace

from psycopg import errors as pg
from psycopg import sql

from . import ddl
from .actions import Action, ConfirmDetached, FinalizeDetach
from .blockers import Mode, Want, joined
from .errors import TableBusy, TableChanged
from .inventory import Inventory, Parent
from .marker import Marker, Phase
from .patience import SHORT, persistently, translated
from .session import Session, pinned, run
from .standing import changing, hasten, is_ours, look, parent_of, write
from .transaction import LOCK_TIMEOUT_HEAVY, undo

LIMIT = "5s"
WAIT_FOR_SNAPSHOTS = 100
"""Milliseconds to wait for each transaction that began before a detach was interrupted."""

# Of those the end of a detach waits for, the ones that do not hold a lock: https://www.postgresql.org/docs/current/
# sql-altertable.html#SQL-ALTERTABLE-DETACH-PARTITION. Who they are everybody may see, how old they are not.
SNAPSHOTS = """
SELECT pid, coalesce(nullif(application_name, ''), 'unnamed'), usename
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND coalesce(clock_timestamp() - xact_start > make_interval(secs => {}), true)
  AND age(backend_xmin) >= age(pg_snapshot_xmin(pg_current_snapshot())::xid)
ORDER BY age(backend_xmin) DESC, pid LIMIT 1
"""


def finalize(connection: Session, inventory: Inventory, _key: str, action: FinalizeDetach, deadline: float) -> None:
    """Finish a detach that was interrupted, whoever began it. Raises as `detach` does.

    Safe for the rows: they stay in the table, and were invisible through the parent since the detach began.
    """
    parent = parent_of(inventory)
    subject = f"the detach of partition {action} is not finished"
    with translated(subject):
        keys = joined(connection, action.oid, Mode.SHARE_ROW_EXCLUSIVE)
    wants = (Want(parent.oid, Mode.SHARE_UPDATE_EXCLUSIVE), Want(action.oid, Mode.ACCESS_EXCLUSIVE), *keys)
    timeout = LOCK_TIMEOUT_HEAVY if keys else WAIT_FOR_SNAPSHOTS

    def attempt() -> None:
        with changing(connection, parent, LIMIT):
            standing = look(connection, action, action.oid)
            if not standing.pending or standing.parent != parent.oid:
                raise TableChanged(f"the detach of partition {action} was finished by somebody else")
            try:
                run(connection, hasten(timeout), ddl.detach(parent, action, "FINALIZE"), "COMMIT")
            except pg.LockNotAvailable:
                undo(connection)
                if found := _old_snapshot(connection, subject):
                    raise found from None
                raise

    persistently(connection, attempt, wants, subject, deadline)


def confirm(connection: Session, inventory: Inventory, _key: str, action: ConfirmDetached, deadline: float) -> None:
    """Write into the mark since when the table is detached. Raises as `detach` does."""
    parent, subject = parent_of(inventory), f"{action.noun} {action} is not confirmed as detached"
    persistently(
        connection, lambda: confirm_mark(connection, parent, action, action.oid, action.marker), (), subject, deadline
    )


def confirm_mark(connection: Session, parent: Parent, action: Action, oid: int, expected: Marker | None = None) -> None:
    """Phase ``Detached``, if the table really is, and the mark is ours and says ``Detaching``.

    ``expected`` is the mark as it was seen, None for any of ours. Raises `TableChanged`, and as `changing` does.
    """
    with changing(connection, parent, "10s"):
        standing = look(connection, action, oid)
        mark = standing.mark
        if not standing.detached or mark is None or not is_ours(standing, parent):
            raise TableChanged(f"table {action} is not one that was detached from {parent} and marked so")
        if mark.phase is not Phase.DETACHING or (expected is not None and mark != expected):
            raise TableChanged(f"the mark in the comment of table {action} was changed since it was looked at")
        confirmed = replace(mark, phase=Phase.DETACHED, since=standing.now)
        run(connection, write(action, standing.text, confirmed), "COMMIT")


def _old_snapshot(connection: Session, subject: str) -> TableBusy | None:
    """Who keeps the end of a detach waiting, and not for a moment only, although no lock of theirs is in the way."""
    if not (found := run(connection, pinned("1s", "10s"), sql.SQL(SNAPSHOTS).format(SHORT))[1]):
        return None
    ((pid, application, role),) = found
    return TableBusy(
        f"{subject}: it waits for every transaction that may still see its rows; process {pid} "
        f"({application}, role {role!r}) began before"
    )
