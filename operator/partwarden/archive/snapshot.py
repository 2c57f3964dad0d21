"""One snapshot of one partition: held, read, and compared with what an archive says that the table holds.

Two numbers are compared, and neither stands for the other: the fingerprint is of the table alone, the digest of COPY is
also that of the rows that the archive's data restores. Where both, of one snapshot, are those of a manifest whose data
was proven, the archive restores what the table holds.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import errors as pg
from psycopg.pq import ExecStatus
from psycopg.sql import SQL, Composed, Identifier

from ..api.archive import Fingerprint
from ..errors import AnotherOperator, ContentsChanged, ProofFailed, TableBusy, TableChanged, TableNotFound
from ..postgres import fingerprint
from ..postgres.connection import Session, pinned, run, session
from ..postgres.conninfo import ConnectionInfo
from ..postgres.settings import LIMITS, TEXT_SETTINGS, setting
from ..postgres.table_state import similar_tables
from ..postgres.transaction import read_as_owner, undo
from .archived_rows import Digest
from .manifest import ArchiveManifest, Column, TableName, TypeKind, UserType, stored_names
from .table_lookup import Description, describe

ADVISORY_CLASS = 0x61726368
"""First half of the advisory lock's key ("arch"); the partition's OID is the second."""
LOCK_PATIENCE = "15s"
NAP = 0.001
"""Seconds for which rows may gather once all that came were read: the server sends some twenty at a time, and to be
woken for each takes both sides more CPU than the rows themselves."""
REPORTED = 1 << 24
"""Bytes between two reports of progress."""

TABLE = """
SELECT c.oid::int8, c.relkind::text AS kind, current_setting('server_version') AS server_version,
       pg_export_snapshot() AS snapshot, greatest(c.reltuples, 0)::int8 AS estimate, pg_table_size(c.oid) AS size,
       c.relpersistence = 'u' AS unlogged
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname = {}
"""
IN_ORDER = {
    **dict.fromkeys(("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan"), "off"),
    "max_parallel_workers_per_gather": "0",
}
"""A query then reads the rows in the order in which COPY of the table does; that it did is proven by the digest."""


@dataclass(frozen=True, slots=True)
class Held:
    """A snapshot that lasts as long as the transaction of ``connection``. ``estimate``: rows, as statistics say;
    ``size``: bytes on disk, TOAST included."""

    connection: Session
    table: TableName
    snapshot: str
    server_version: str
    estimate: int
    size: int
    unlogged: bool
    role: str | None = None
    """Which reads it, where that is another than the login: see `transaction.read_as_owner`."""


@contextmanager
def holding(info: ConnectionInfo, table: TableName) -> Iterator[Held]:
    """One snapshot of the table, which no session can drop, truncate or rewrite meanwhile, nor archive a second time.
    Raises `TableNotFound`, `TableChanged`, `TableBusy`, `AnotherOperator`, and as `session.session`."""
    with session(info) as connection, holding_on(connection, table) as held:
        yield held


@contextmanager
def holding_on(connection: Session, table: TableName) -> Iterator[Held]:
    """The same, in a transaction of a connection that has none."""
    with connection.patient(fingerprint.LONGEST):
        try:
            yield _hold(connection, table)
            # Where the connection, and the lock with it, was lost meanwhile, this fails: then nothing is proven.
            run(connection, "COMMIT")
        except BaseException:
            undo(connection)
            raise


def _hold(connection: Session, table: TableName) -> Held:
    try:
        # The lock comes before the snapshot: a TRUNCATE between the two would leave a table without rows to see.
        run(
            connection,
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            setting(LIMITS | {"lock_timeout": LOCK_PATIENCE}),
            SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(Identifier(table.schema_, table.name)),
        )
    except pg.LockNotAvailable:
        raise TableBusy(
            f"cannot lock table {table} within {LOCK_PATIENCE}: another session holds ACCESS EXCLUSIVE, or waits for it"
        ) from None
    except (pg.UndefinedTable, pg.InvalidSchemaName, pg.WrongObjectType):
        undo(connection)
        meant = similar_tables(connection, table.schema_, table.name, kind="r")
        raise TableNotFound(f"table {table} does not exist, or is not a table{meant}") from None
    pins = {**TEXT_SETTINGS, "search_path": "", "row_security": "off", "synchronize_seqscans": "off"}
    *_, rows = run(connection, setting(pins), SQL(TABLE).format(table.schema_, table.name))
    (row,) = rows
    if row.kind != "r":
        raise TableNotFound(
            f"table {table} is not a plain table: an archive is made of one that holds its rows "
            "itself; name a partition below it"
        )
    if table.oid not in (0, row.oid):
        raise TableChanged(f"table {table} was made anew: its OID is {row.oid}, not {table.oid}")
    signed = row.oid - (1 << 32) if row.oid >= 1 << 31 else row.oid
    lock = SQL("SELECT pg_try_advisory_xact_lock({}, {})").format(ADVISORY_CLASS, signed)
    (((locked,),),) = run(connection, lock)
    if not locked:
        raise AnotherOperator(f"table {table} is being archived already: its advisory lock is taken")
    role = read_as_owner(connection, table.schema_, table.name)
    exact = table.model_copy(update={"oid": row.oid})
    return Held(connection, exact, row.snapshot, row.server_version, row.estimate, row.size, row.unlogged, role)


def read_rows(
    held: Held,
    columns: Sequence[Column],
    progress: Callable[[Digest], None] = lambda digest: None,
    sink: Callable[[bytes], object] | None = None,
) -> Digest:
    """Digest of the rows as ``pg_dump`` copies them: of all columns that are not generated. Raises psycopg's errors.
    ``sink`` is given each row's values of the stored generated columns, as a line in COPY's text format. Those are read
    in the same pass, so that the lines are in the order of the rows."""
    run(held.connection, setting(IN_ORDER))
    plain = [column.name for column in columns if not column.generated]
    stored = stored_names(columns) if sink is not None else ()
    table = Identifier(held.table.schema_, held.table.name)
    names = SQL(", ").join(map(Identifier, [*plain, *stored]))
    copied = SQL("(SELECT {} FROM ONLY {})") if stored else SQL("{1} ({0})")
    rows = copy_out(held.connection, SQL("COPY {} TO STDOUT").format(copied.format(names, table)))
    if sink is not None and stored:
        rows = _plain(rows, len(stored), sink)
    # Collecting rows takes more time than it saves: libpq allocates each, and what is freed at once stays in the cache.
    digest, lines, size, due = Digest(), 0, 0, REPORTED
    feed = digest.feed
    for row in rows:
        feed(row)
        lines += 1
        size += len(row)
        if size >= due:
            due = size + REPORTED
            digest.lines, digest.size = lines, size
            progress(digest)
    digest.lines, digest.size = lines, size
    return digest


def _plain(
    rows: Iterable[bytes | memoryview], stored: int, sink: Callable[[bytes], object]
) -> Iterator[bytes | memoryview]:
    """The rows without their last columns, so many as are ``stored``, which go to the sink."""
    for row in rows:
        # COPY writes a tab in a value as a backslash and t: the tabs that stand there are those between columns.
        values = bytes(row).rsplit(b"\t", stored)
        sink(b"\t".join(values[1:]))
        yield values[0] + b"\n"


def copy_out(connection: Session, statement: Composed) -> Iterator[bytes | memoryview]:
    """What COPY TO STDOUT gives, row by row, by libpq itself: a cursor's loop costs several times as much for each."""
    server = connection.pgconn
    result = server.exec_(statement.as_bytes(connection))
    if result.status != ExecStatus.COPY_OUT:
        raise pg.error_from_result(result, "utf-8")
    poll = select.poll()
    poll.register(server.socket, select.POLLIN)
    take, drained = server.get_copy_data, False
    while True:
        count, row = take(1)
        if count > 0:
            yield row
            drained = False
        elif count == 0:
            if drained:
                time.sleep(NAP)
                # Keep-alives end a connection whose server is gone; a server that is only slow is waited for.
                poll.poll(60_000)
            server.consume_input()
            drained = True
        else:
            break
    while (ended := server.get_result()) is not None:
        if ended.status != ExecStatus.COMMAND_OK:
            raise pg.error_from_result(ended, "utf-8")


@dataclass(frozen=True, slots=True)
class TableContents:
    """Of one snapshot. ``copied`` counts the rows that COPY gave, ``copy_sha256`` is the digest of them."""

    columns: tuple[Column, ...]
    fingerprint: Fingerprint
    copied: int
    copy_sha256: str
    generated_sha256: str | None = None
    """Digest of the values of stored generated columns, a line for each row; None where there are none."""


def read(held: Held) -> TableContents:
    """Read the table twice, by a query and by COPY. Raises psycopg's errors."""
    columns = describe(held.connection, held.table.oid).columns
    taken = fingerprint.take(held.connection, held.table.schema_, held.table.name)
    generated = Digest()
    digest = read_rows(held, columns, sink=generated.update)
    values = generated.sha256 if stored_names(columns) else None
    return TableContents(columns, taken, digest.lines, digest.sha256, values)


NAMING = (
    *("aclitem", "regclass", "regcollation", "regconfig", "regdictionary", "regnamespace"),
    *("regoper", "regoperator", "regproc", "regprocedure", "regrole", "regtype"),
)
"""Types whose text is the names of objects."""
LABELS = """
SELECT ARRAY(SELECT l.enumlabel::text FROM pg_enum l JOIN pg_type t ON t.oid = l.enumtypid
             JOIN pg_namespace n ON n.oid = t.typnamespace
             WHERE n.nspname = {} AND t.typname = {} ORDER BY l.enumsortorder)
"""


def check_texts(held: Held, info: ConnectionInfo, table: Description, taken: Fingerprint) -> None:
    """Check, once all rows were read, that they have the texts that they had when the fingerprint was ``taken``.

    No lock of the table keeps labels of an enum, or objects that values name, from being renamed: what was read before
    that and after it differs, though it is of one snapshot. Raises `ProofFailed`, and as `connection.session`.
    """
    for name, before, now in _labels(info, table.types):
        rest = iter(now)
        # Others may have been added: no row of the snapshot has those.
        if not all(each in rest for each in before):
            raise ProofFailed(f"type {name} got other labels while rows of {held.table} were read; archive it again")
    made_from = [attribute.type for each in table.types for attribute in each.attributes]
    named = {name.removesuffix("[]") for name in (*(column.type for column in table.columns), *made_from)}
    found = sorted(named.intersection(NAMING))
    # What this session knows of a catalog may be older than that, but not older than when it gave the rows to COPY.
    if found and fingerprint.take(held.connection, held.table.schema_, held.table.name) != taken:
        raise ProofFailed(
            f"objects that values of {', '.join(found)} in {held.table} name were renamed or dropped while its rows "
            "were read; archive it again"
        )


def _labels(info: ConnectionInfo, types: Iterable[UserType]) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    """Of each enum its name, the labels that it had in the snapshot, and those that it has now, as only another session
    is sure to see. Raises as `connection.session`."""
    if not (enums := [each for each in types if each.kind is TypeKind.ENUM]):
        return
    with session(info) as connection, connection.transaction():
        run(connection, pinned("2s", "30s"))
        for each in enums:
            (((now,),),) = run(connection, SQL(LABELS).format(each.schema_, each.type_name))
            yield each.name, each.labels, now


def compare(subject: str, url: str, manifest: ArchiveManifest, contents: TableContents) -> None:
    """Whether the table ``subject`` holds what the manifest of the archive at ``url`` says: columns, number of rows,
    fingerprint and digest. Raises `ContentsChanged`."""
    if _shape(contents.columns) != _shape(manifest.columns):
        raise ContentsChanged(
            f"{subject} has the columns {_listed(contents.columns)}, the archive at {url} {_listed(manifest.columns)}: "
            "the table was altered since, or the archive is of another one; archive it again"
        )
    now, then = contents.fingerprint, manifest.fingerprint
    if (now, now.rows, contents.copied) != (then, manifest.rows, manifest.rows):
        raise ContentsChanged(
            f"{subject} holds {now.rows:,} rows that are not the {manifest.rows:,} of the archive at {url}: the table "
            "was changed since, or the archive is of another one; archive it again"
        )
    generated = manifest.generated.copy_sha256 if manifest.generated else None
    if (contents.copy_sha256, contents.generated_sha256) != (manifest.copy_sha256, generated):
        raise ContentsChanged(
            f"{subject} has the fingerprint that the archive at {url} names, but the rows of the archive are not those "
            "that COPY gives: the manifest names the fingerprint of another table, or the rows were written in another "
            "order since; archive it again"
        )


def _shape(columns: Iterable[Column]) -> list[tuple[str, str, str]]:
    """What decides which value of the archive is which of the table. Constraints do not, and may come later."""
    return [(column.name, column.type, column.generated) for column in columns]


def _listed(columns: Iterable[Column]) -> str:
    return ", ".join(" ".join(filter(None, parts)) for parts in _shape(columns))
