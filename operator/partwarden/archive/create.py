"""Make an archive of a partition and prove it, or prove one again. Nothing here changes a database.

In one snapshot: the fingerprint, the dump, which goes to the destination as it is made, and a digest of the rows as
COPY writes them. Then the dump is read back from the destination, and what it restores must have that very digest. The
manifest is written after that: where there is none, nothing was proven. Interrupted at any moment, what is left is
never taken for an archive, and never written over.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL

from .. import __version__, errors
from ..api.archive import Fingerprint
from ..api.retention import Format, KeyEncoding, OnLargeObjects
from ..planner import keys
from ..planner.findings import pointing, quoted
from ..postgres import fingerprint, large_objects, table_state
from ..postgres.connection import run
from ..postgres.conninfo import ConnectionInfo
from ..postgres.errors import message
from ..postgres.settings import TEXT_SETTINGS
from . import compression, folder_names, pgdump, snapshot, table_lookup, verify
from .archived_rows import Digest
from .compression import Dumper
from .generated_values import GeneratedWriter
from .job_order import JobSpec, Report, TableToArchive
from .manifest import (
    DATA,
    GENERATED,
    MANIFEST,
    ArchiveManifest,
    Column,
    GeneratedData,
    Say,
    serialize,
    stored_names,
)
from .parquet import request
from .snapshot import Held, TableContents
from .storage import Store
from .table_lookup import Target
from .verify import Archive, Progress

EXTENSION = """
SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
WHERE d.classid = 'pg_class'::regclass AND d.objid = {} AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
"""
MOST = 100
"""Attempts at one archive that may fail, and leave a dump each, before no more are made."""


def archive(wanted: TableToArchive, info: ConnectionInfo, store: Store, say: Say) -> Report:
    """Make the archive, or find that it was made already. Its report is always ``ok``. Raises a `PartwardenError`, or
    psycopg's errors as `connection.session` translates them: then nothing is proven."""
    started = datetime.now(UTC)
    dumper = compression.choose(wanted.compression, wanted.compression_level)
    if dumper.why_not:
        say(f"compressed by {dumper.compression.value.lower()}: {dumper.why_not}")
    request.check(wanted)
    pgdump.find("pg_restore")
    pgdump.check(info)
    with snapshot.holding(info, wanted.partition) as held:
        server = table_state.read(held.connection, wanted.server)
        pgdump.check_version(dumper.version, held.server_version)
        encodings = keys.TYPES if wanted.encoding is KeyEncoding.NATIVE else [wanted.encoding]
        origin = table_lookup.find_origin(held.connection, held.table, encodings)
        _check(wanted, held, origin, say)
        home = folder_names.folder(held.connection.info.dbname, wanted.parent or origin.parent, held.table)
        if known := _find_proven(store, home, wanted, held, say):
            return _report(known, server=server)
        # A folder of this attempt's own: an upload that was taken for dead, and that comes to its end after all, must
        # not write over what another attempt has proven meanwhile. Not every store can refuse that.
        place = f"{home}/{wanted.id}-{secrets.token_hex(4)}"
        say(f"archiving {held.table} ({held.estimate:,} rows or so) to {store.url(place)}")
        manifest = _write(wanted, held, info, store, place, origin, dumper, started, say)
        _prove(verify.at(store, place, manifest), say)
        text = serialize(manifest)
        # Nothing proves an archive but this. The connection answers: its locks were held, and the snapshot, to the end.
        run(held.connection, "SELECT 1")
        store.put(f"{place}/{MANIFEST}", [text])
    return _report(verify.read(store, place, hashlib.sha256(text).hexdigest()), server=server)


def check(order: JobSpec, info: ConnectionInfo | None, store: Store) -> Report:
    """Read an archive again, and its table where ``info`` says how to reach it: fingerprint and COPY in one snapshot.
    Raises `ArchiveDamaged` where it is not what the order says was proven, `ProofFailed` or `DumpFailed` where that
    cannot be restored, `ContentsChanged` where the table holds something else, and what `archive` raises."""
    archived = verify.read(store, verify.place_of(store, order.location), order.manifest_sha256 or None)
    manifest = archived.manifest
    if order.sha256 and manifest.sha256 != order.sha256:
        raise errors.ArchiveDamaged(f"{archived.url} has the sha256 {manifest.sha256}, but {order.sha256} was proven")
    if order.partition.oid not in (0, manifest.partition.oid) or manifest.id != order.id:
        raise errors.ArchiveDamaged(f"{archived.url} is archive {manifest.id} of {manifest.partition}, not {order.id}")
    archived.prove()
    server, completed = "", datetime.now(UTC)
    if info is not None:
        pgdump.check(info)
        with snapshot.holding(info, order.partition) as held:
            server = table_state.read(held.connection, order.server)
            now = snapshot.read(held)
            # By the clock of the server, as all ages are: how old this reading may become is judged by it.
            ((completed,),) = run(held.connection, "SELECT clock_timestamp()")[0]
        snapshot.compare(f"table {order.partition}", archived.url, manifest, now)
    return _report(archived, server=server, completed=completed.astimezone(UTC))


def _check(wanted: TableToArchive, held: Held, origin: Target, say: Say) -> None:
    """Check the parent, that ``pg_dump`` writes the rows, and for large objects all of them, in the snapshot that is
    archived. Raises `TableChanged`, `StatementRejected`, `LargeObjects`."""
    table, parent = held.table, origin.parent
    for (extension,) in run(held.connection, SQL(EXTENSION).format(table.oid))[0]:
        raise errors.StatementRejected(
            f"cannot archive {table}: it belongs to extension {extension!r}, and pg_dump leaves out rows of such; "
            f"ALTER EXTENSION {quoted(extension)} DROP TABLE {quoted(table.schema_)}.{quoted(table.name)} first"
        )
    if parent and wanted.parent and (parent.schema_, parent.name) != (wanted.parent.schema_, wanted.parent.name):
        raise errors.TableChanged(f"{wanted.partition} is a partition of {parent}, not of {wanted.parent}")
    columns = large_objects.columns(held.connection, table.oid, table.schema_, table.name)
    if columns and wanted.large_objects is OnLargeObjects.REFUSE:
        raise pointing("archive", table, columns)
    if columns:
        say(f"large objects that column {', '.join(columns)} points to are left out, as was asked for")


def _find_proven(store: Store, home: str, wanted: TableToArchive, held: Held, say: Say) -> Archive | None:
    """The archive of that identifier which is there already, proves, and is equal to the table now. Raises
    `ObjectExists`."""
    now: TableContents | None = None
    for key in _keys_below(store, home, wanted.id, MANIFEST):
        place = key.rpartition("/")[0]
        try:
            archived = verify.read(store, place)
            if archived.manifest.id != wanted.id:
                continue
            if (oid := archived.manifest.partition.oid) != held.table.oid:
                raise errors.ArchiveDamaged(f"{archived.url} is of the table with OID {oid}")
            _prove(archived, say)
            if now is None:
                say(f"reading {held.table} to compare it with {archived.url}")
                now = snapshot.read(held)
            snapshot.compare(f"table {held.table}", archived.url, archived.manifest, now)
        except (errors.ArchiveDamaged, errors.ContentsChanged, errors.ProofFailed, errors.DumpFailed) as error:
            say(f"an earlier archive cannot be used, and is left as it is: {error}")
            continue
        say(f"{archived.url} is there already, and proven")
        return archived
    if len(_keys_below(store, home, wanted.id, DATA)) >= MOST:
        raise errors.ObjectExists(
            f"{store.url(home)}/{wanted.id} and {MOST - 1} more like it came to nothing: remove those"
        )
    return None


def _keys_below(store: Store, home: str, id_: str, name: str) -> list[str]:
    """The keys of that name in folders whose names begin with the identifier, sorted."""
    try:
        return sorted(key for key in store.below(home, name) if key.removeprefix(f"{home}/").startswith(id_))
    except errors.DestinationNotFound:
        # Whether there is no archive yet, or no such place at all, is found out by writing.
        return []


def _write(
    wanted: TableToArchive,
    held: Held,
    info: ConnectionInfo,
    store: Store,
    place: str,
    origin: Target,
    dumper: Dumper,
    started: datetime,
    say: Say,
) -> ArchiveManifest:
    """Write all of the archive but the manifest, which is returned."""
    description, dump = table_lookup.describe(held.connection, held.table.oid), Digest()
    if all(column.generated for column in description.columns):
        raise errors.StatementRejected(
            f"cannot archive {held.table}: it has no column that is not generated, so that a dump has nothing to write "
            "of a row; keep the table"
        )
    taken, rows, generated = _take(held, info, store, place, description.columns, dumper, dump, say)
    parquet = request.write(wanted, held, store, place, origin, description.columns, taken, say)
    snapshot.check_texts(held, info, description, taken)
    parent = origin.parent
    ddl = pgdump.definition(info, parent.schema_, parent.name, held.snapshot, held.role) if parent else ""
    return ArchiveManifest(
        id=wanted.id,
        database=held.connection.info.dbname,
        parent=parent or wanted.parent,
        partition=held.table,
        bounds=origin.bounds,
        key=origin.key,
        columns=description.columns,
        types=description.types,
        parent_ddl=ddl,
        rows=taken.rows,
        bytes=dump.size,
        sha256=dump.sha256,
        copy_sha256=rows.sha256,
        generated=generated,
        parquet=parquet,
        unlogged=held.unlogged,
        settings=TEXT_SETTINGS,
        fingerprint=taken,
        snapshot=held.snapshot,
        server_version=held.server_version,
        client_version=dumper.version,
        compression=dumper.compression,
        reader=compression.reader(dumper.version, dumper.compression),
        partwarden_version=__version__,
        started=started,
        completed=datetime.now(UTC),
    )


def _take(
    held: Held,
    info: ConnectionInfo,
    store: Store,
    place: str,
    columns: tuple[Column, ...],
    dumper: Dumper,
    dump: Digest,
    say: Say,
) -> tuple[Fingerprint, Digest, GeneratedData | None]:
    """Read the table while it is dumped. Raises `ProofFailed` if the readings differ in the number of rows."""
    with ThreadPoolExecutor(1, "partwarden-read") as pool:
        reading = pool.submit(_read, held, store, place, columns, dump, say)
        try:
            kind, table = ("--format=custom", *dumper.options), held.table
            with pgdump.dump(info, table.schema_, table.name, held.snapshot, held.role, kind) as chunks:
                store.put(f"{place}/{DATA}", _watched(dump.through(chunks), reading), held.size)
            say(f"{dump.size:,} bytes written")
            taken, rows, generated = reading.result()
        except BaseException:
            # Without this the pool would wait for a statement whose result is of no use any more. A server that cannot
            # be reached fails it too, by keep-alives.
            with suppress(psycopg.Error):
                held.connection.cancel_safe(timeout=10)
            raise
    if rows.lines != taken.rows:
        raise errors.ProofFailed(
            f"{held.table}: COPY gave {rows.lines} rows, and a count {taken.rows}, in one snapshot"
        )
    return taken, rows, generated


def _read(
    held: Held, store: Store, place: str, columns: tuple[Column, ...], dump: Digest, say: Say
) -> tuple[Fingerprint, Digest, GeneratedData | None]:
    """Read the table twice, for the fingerprint and for the digest of the rows as COPY writes them, while the dump is
    written. The values of its stored generated columns are written beside that."""
    try:
        taken = fingerprint.take(held.connection, held.table.schema_, held.table.name)
    except (pg.CharacterNotInRepertoire, pg.UntranslatableCharacter) as error:
        raise errors.StatementRejected(
            f"table {held.table} is not archived: it holds text that is not valid in its encoding: "
            f"{message(error)}; correct those values first"
        ) from None
    say(f"{taken.rows:,} rows, fingerprint {taken.content}")
    progress = Progress(say, taken.rows)

    def report(rows: Digest) -> None:
        progress.report(rows.lines, f"{rows.lines:,} of {taken.rows:,} rows read, {dump.size:,} bytes written")

    if not (stored := stored_names(columns)):
        return taken, snapshot.read_rows(held, columns, report), None
    with GeneratedWriter(store, f"{place}/{GENERATED}", held.size) as writer:
        return taken, snapshot.read_rows(held, columns, report, writer.write), writer.finish(stored)


def _watched(chunks: Iterator[bytes], other: Future[Any]) -> Iterator[bytes]:
    """End with an error as soon as ``other`` has: the dump would be worth nothing."""
    for chunk in chunks:
        if other.done():
            other.result()
        yield chunk
    # Before the object is finished: what is not to be proven shall not be there either.
    other.result()


def _prove(archived: Archive, say: Say) -> None:
    say(f"reading {archived.manifest.bytes:,} bytes back from {archived.url}")
    archived.prove()


def _report(archived: Archive, server: str, completed: datetime | None = None) -> Report:
    manifest = archived.manifest
    named = {name: getattr(manifest, name) for name in ArchiveManifest.model_fields.keys() & Report.model_fields.keys()}
    return Report(
        **{**named, "completed": completed or manifest.completed},
        ok=True,
        location=archived.url,
        manifest_sha256=archived.manifest_sha256,
        oid=manifest.partition.oid,
        server=server,
        formats=(Format.DUMP, Format.PARQUET) if manifest.parquet else (Format.DUMP,),
        parquet_bytes=manifest.parquet.bytes if manifest.parquet else None,
    )


def failure(error: errors.PartwardenError, id_: str = "", oid: int = 0) -> Report:
    """The report of an archive or check that came to nothing."""
    return Report(
        ok=False, reason=error.reason, message=str(error)[:1024], id=id_, oid=oid, completed=datetime.now(UTC)
    )
