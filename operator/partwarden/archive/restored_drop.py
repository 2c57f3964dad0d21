"""Drop the table of a PartitionRestore again once its ``expireAfter`` is over: what the Job of `Task.DROP` does.

It goes only if nothing in it changed since it was restored, and all of it can be restored again. What is cheap to find
out comes first; all of it is found out once more under the lock:

::

    asked                                     how
    it is the table that was made             server, OID, the mark in its comment
    nothing was altered                       the digest in that mark (`restored_shape`), and nothing is tied to it
    its time is over                          by the server's clock, too
    its rows are those of the archive         the fingerprint, in the manifest of the sha256 that was restored
    the archive restores them                 read back from its destination (`verify.Archive.prove`); its manifest once
                                              more, right before the drop

Anything else keeps the table, and is said. Interrupted before the COMMIT, nothing has happened; after it, the next
attempt finds no table of that OID, and reports that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import ArchiveDamaged, ContentsChanged, StatementRejected, TableKept
from ..planner import marker
from ..planner.calendar import iso
from ..planner.findings import join_names
from ..postgres import ddl, dependents, fingerprint, table_state
from ..postgres.connection import Session, pinned, run, session
from ..postgres.conninfo import ConnectionInfo
from ..postgres.errors import message
from ..postgres.locks import Mode, Want, retry_locks
from ..postgres.settings import TEXT_SETTINGS, setting
from ..postgres.transaction import LOCK_TIMEOUT, LOCK_TIMEOUT_HEAVY, become, set_lock_timeout, translated, undo
from . import restored_once, restored_shape, restored_table, verify
from .job_order import DropOrder, Report
from .manifest import ArchiveManifest, Say
from .storage import Store
from .verify import Archive

PATIENCE = 300.0
"""Seconds to wait for the table's lock."""
FOUND = """
SELECT n.nspname AS schema, c.relname AS name, {comment} AS comment, clock_timestamp() AS now,
       pg_get_userbyid(c.relowner) AS owner, pg_get_userbyid(c.relowner) = current_user AS same,
       c.relkind = 'r' AND NOT c.relispartition
       AND NOT EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)) AS alone
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {oid}
"""
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"


@dataclass(frozen=True, slots=True)
class _Table:
    """What bears the OID now."""

    schema: str
    name: str
    owner: str | None
    """None: the role that is connected."""


def drop(order: DropOrder, info: ConnectionInfo, store: Store, say: Say) -> Report:
    """Drop the table, or find that it is gone; the report is always ``ok``. Raises what keeps it: `TableKept`,
    `ContentsChanged`, `StatementRejected` where something depends on it, `TableBusy`, what reading and proving the
    archive raises, and errors of the server; then nothing was changed."""
    subject = f"table {order.table} is kept"
    if not order.manifest_sha256:
        raise ArchiveDamaged(f"{subject}: it is not known which manifest it was restored from")
    place = verify.place_of(store, order.location)
    archived = verify.read(store, place, order.manifest_sha256).telling(say)
    with session(info) as connection, translated(connection, subject):
        # Before the archive is read, which may take hours, and without a lock.
        run(connection, "BEGIN READ ONLY", pinned("2s", "60s"), setting(TEXT_SETTINGS))
        _check_server(connection, order, subject)
        table = _check(connection, order, subject)
        # In this transaction, too, which has pinned search_path: the role's or the database's may name a stranger's.
        columns = restored_table.hashed_columns(connection, archived.manifest)
        undo(connection)
        if table is not None:
            say(f"comparing {order.table} with the archive")
            _compare(connection, archived.manifest, table, columns, subject, hurry=False)
    if table is not None:
        say(f"reading the archive back: {archived.manifest.bytes:,} bytes")
        archived.prove()
        with session(info) as connection, translated(connection, subject):
            wants = [Want(order.oid, Mode.ACCESS_EXCLUSIVE)]

            def attempt() -> None:
                _drop(connection, order, archived, lambda: verify.read(store, place, order.manifest_sha256), subject)

            retry_locks(connection, attempt, lambda: wants, subject, time.monotonic() + PATIENCE)
    say(f"{order.table} is {'dropped' if table is not None else 'gone already'}")
    return Report(
        ok=True,
        rows=archived.manifest.rows,
        oid=order.oid,
        server=order.server,
        location=order.location,
        manifest_sha256=order.manifest_sha256,
        completed=datetime.now(UTC),
    )


def _drop(
    connection: Session, order: DropOrder, archived: Archive, reread: Callable[[], Archive], subject: str
) -> None:
    heavy = set_lock_timeout(LOCK_TIMEOUT_HEAVY)
    run(connection, BEGIN, pinned(f"{LOCK_TIMEOUT}ms", "0"), setting(TEXT_SETTINGS))
    restored_once.lock(connection, order.uid)
    _check_server(connection, order, subject)
    before = _check(connection, order, subject)
    if before is None:
        undo(connection)
        return
    if before.owner is not None:
        # Functions of the table's owner, in domains and the like, run with that role's rights and no others.
        run(connection, become(before.owner))
    # First the lock that autovacuum gives way to, and that no session waits behind; then the exclusive one.
    run(connection, ddl.lock(before, "SHARE UPDATE EXCLUSIVE"))
    run(connection, heavy, ddl.lock(before, "ACCESS EXCLUSIVE"))
    if _check(connection, order, subject) != _Table(before.schema, before.name, None):
        raise TableKept(f"{subject}: it was renamed, or given to another owner, while its lock was waited for")
    columns = restored_table.hashed_columns(connection, archived.manifest)
    _compare(connection, archived.manifest, before, columns, subject, hurry=True)
    # To compare may have taken hours; the archive was read back before that. Its manifest is the first to be deleted.
    reread()
    try:
        # Safe here because it is the very table that was made for this PartitionRestore, by server, OID and mark, and
        # as it was made; every row that it holds, compared under this lock, so that no session can have changed it
        # since, is in an archive that was read back whole and is there still; its time is over. RESTRICT: whatever
        # depends on it keeps it. Interrupted before COMMIT, it is there as it was.
        run(connection, sql.SQL("DROP TABLE {} RESTRICT").format(ddl.relation(before)), "COMMIT")
    except pg.DependentObjectsStillExist as error:
        raise StatementRejected(
            f"{subject}: other objects depend on it: {message(error)}; drop those, or the table yourself: CASCADE is "
            "never used"
        ) from None


def _check_server(connection: psycopg.Connection[Any], order: DropOrder, subject: str) -> None:
    """By which role it is asked must not matter: before any other is become. Raises `TableKept`, psycopg's errors."""
    server = table_state.read(connection)
    if order.server and server != order.server:
        raise TableKept(
            f"{subject}: it was restored on server {order.server}, and this is {server or 'one that does not say'} "
            "(system identifier, OID of the database); correct the Secret, or drop the table yourself"
        )


def _check(connection: psycopg.Connection[Any], order: DropOrder, subject: str) -> _Table | None:
    """The table, as it was made; None where it is gone. In a transaction of the caller's. Raises `TableKept`, and
    psycopg's errors."""
    query = sql.SQL(FOUND).format(comment=ddl.COMMENT, oid=sql.SQL("{}::oid").format(order.oid))
    (rows,) = run(connection, query)
    if not rows:
        return None
    (row,) = rows
    if not row.alone:
        raise TableKept(f"{subject}: it is a partition now, or another table inherits from it")
    mark = marker.read_restored(row.comment, order.oid)
    if mark is None or mark.uid != order.uid:
        raise TableKept(f"{subject}: its comment does not say any more for which PartitionRestore it was made")
    if not mark.shape or mark.shape != restored_shape.digest(connection, order.oid, row.comment):
        raise TableKept(
            f"{subject}: it was altered since it was restored: its name, owner, columns, constraints, indexes, "
            "triggers, rules, policies or comments are others"
        )
    if tied := dependents.ties(connection, [order.oid], in_transaction=True).get(order.oid):
        raise TableKept(f"{subject}: it is tied to {join_names([each.what for each in tied])}")
    if row.now < order.due:
        raise TableKept(
            f"{subject}: by the clock of the database server it is {iso(row.now)}, and it is due at {iso(order.due)}"
        )
    return _Table(row.schema, row.name, None if row.same else row.owner)


def _compare(
    connection: Session,
    manifest: ArchiveManifest,
    table: _Table,
    columns: Mapping[str, bool],
    subject: str,
    *,
    hurry: bool,
) -> None:
    """Compare all rows with the archive's. In the caller's transaction, or, where there is none, in one of its own, as
    the owner. ``columns``, ``hurry``: as for `fingerprint.take`."""
    now = fingerprint.take(connection, table.schema, table.name, columns, hurry=hurry)
    if now != manifest.fingerprint:
        raise ContentsChanged(
            f"{subject}: it holds {now.rows} rows of fingerprint {now.content[:16]}, its archive "
            f"{manifest.fingerprint.rows} of {manifest.fingerprint.content[:16]}: it was written to since it was "
            "restored"
        )
