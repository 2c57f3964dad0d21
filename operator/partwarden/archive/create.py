"""Make an archive of a partition and prove it, or prove one again. Nothing here changes a database.

In one snapshot: the fingerprint, the dump, which goes to the destination as it is made, and a digest of the rows as
COPY writes them. Then the dump is read back from the destination, and what it restores must have that very digest. The
manifest is written after that: where there is none, nothing was proven. Interrupted at any moment, what is left is
never taken for an archive, and never written over.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

from psycopg import errors as pg

from .. import __version__
from ..api.archive import Fingerprint
from ..api.retention import OnLargeObjects
from ..errors import (
    ArchiveDamaged,
    ContentsChanged,
    DestinationNotFound,
    DumpFailed,
    ObjectExists,
    PartwardenError,
    ProofFailed,
    StatementRejected,
    TableChanged,
)
from ..planner.findings import pointing
from ..postgres import fingerprint, large_objects, table_state
from ..postgres.connection import run
from ..postgres.conninfo import ConnectionInfo
from ..postgres.errors import message
from ..postgres.settings import TEXT_SETTINGS
from . import pgdump, snapshot, table_lookup, table_schema, verify
from .generated_columns import GeneratedWriter
from .jobspec import JobSpec, Report, TableToArchive
from .manifest import (
    DATA,
    GENERATED,
    MANIFEST,
    ArchiveManifest,
    Column,
    GeneratedData,
    TableName,
    serialize,
    stored_names,
)
from .snapshot import Held, TableContents
from .storage import Digest, Store, folder
from .verify import Archive

Say = Callable[[str], None]
MOST = 100
"""Attempts at one archive that may fail, and leave a dump each, before no more are made."""


def archive(wanted: TableToArchive, info: ConnectionInfo, store: Store, say: Say) -> Report:
    """Make the archive, or find that it was made already. Its report is always ``ok``.

    Raises a `PartwardenError`, or psycopg's errors as `connection.session` translates them: then nothing is proven.
    """
    started = datetime.now(UTC)
    client = pgdump.version(pgdump.find("pg_dump"))
    pgdump.find("pg_restore")
    pgdump.check(info)
    with snapshot.holding(info, wanted.partition) as held:
        server = table_state.read(held.connection, wanted.server)
        pgdump.check_version(client, held.server_version)
        origin = table_lookup.find_origin(held.connection, held.table)
        _check_parent(wanted, origin.parent)
        _check_large_objects(wanted, held, say)
        home = folder(held.connection.info.dbname, wanted.parent or origin.parent, held.table)
        if known := _find_proven(store, home, wanted, held, say):
            return _report(known, server=server)
        # A folder of this attempt's own: an upload that was taken for dead, and that comes to its end after all, must
        # not write over what another attempt has proven meanwhile. Not every store can refuse that.
        place = f"{home}/{wanted.id}-{secrets.token_hex(4)}"
        say(f"archiving {held.table} ({held.estimate:,} rows or so) to {store.url(place)}")
        description = table_schema.describe(held.connection, held.table.oid)
        taken = _take(held, info, store, place, description.columns, say)
        manifest = ArchiveManifest(
            id=wanted.id,
            database=held.connection.info.dbname,
            parent=origin.parent or wanted.parent,
            partition=held.table,
            bounds=origin.bounds or wanted.bounds,
            key=origin.key or wanted.key,
            columns=description.columns,
            types=description.types,
            parent_ddl=_parent_ddl(held, info, origin.parent),
            rows=taken.fingerprint.rows,
            bytes=taken.dump.size,
            sha256=taken.dump.sha256,
            copy_sha256=taken.rows.sha256,
            generated=taken.generated,
            unlogged=held.unlogged,
            settings=TEXT_SETTINGS,
            fingerprint=taken.fingerprint,
            snapshot=held.snapshot,
            server_version=held.server_version,
            client_version=client,
            partwarden_version=__version__,
            started=started,
            completed=datetime.now(UTC),
        )
        _prove(verify.at(store, place, manifest), say)
        text = serialize(manifest)
        # Nothing proves an archive but this. The connection answers: its locks were held, and the snapshot, to the end.
        run(held.connection, "SELECT 1")
        store.put(f"{place}/{MANIFEST}", [text])
    return _report(verify.read(store, place, hashlib.sha256(text).hexdigest()), server=server)


def check(order: JobSpec, info: ConnectionInfo | None, store: Store) -> Report:
    """Read an archive again, and its table where ``info`` says how to reach it: fingerprint and COPY in one snapshot.

    Raises `ArchiveDamaged` where it is not what the order says was proven, `ProofFailed` or `DumpFailed` where that
    cannot be restored, `ContentsChanged` where the table holds something else, and what `archive` raises.
    """
    archived = verify.read(store, _key(store, order.location), order.manifest_sha256 or None)
    manifest = archived.manifest
    if order.sha256 and manifest.sha256 != order.sha256:
        raise ArchiveDamaged(f"{archived.url} has the sha256 {manifest.sha256}, but {order.sha256} was proven")
    if order.partition.oid not in (0, manifest.partition.oid) or manifest.id != order.id:
        raise ArchiveDamaged(f"{archived.url} is archive {manifest.id} of {manifest.partition}, not {order.id}")
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


def _check_parent(wanted: TableToArchive, parent: TableName | None) -> None:
    if parent and wanted.parent and (parent.schema_, parent.name) != (wanted.parent.schema_, wanted.parent.name):
        raise TableChanged(f"{wanted.partition} is a partition of {parent}, not of {wanted.parent}")


def _check_large_objects(wanted: TableToArchive, held: Held, say: Say) -> None:
    """Check all rows in the snapshot that is archived. Raises `LargeObjects`."""
    table = held.table
    if not (columns := large_objects.columns(held.connection, table.oid, table.schema_, table.name)):
        return
    if wanted.large_objects is OnLargeObjects.REFUSE:
        raise pointing("archive", table, columns)
    say(f"large objects that column {', '.join(columns)} points to are left out, as was asked for")


def _find_proven(store: Store, home: str, wanted: TableToArchive, held: Held, say: Say) -> Archive | None:
    """The archive of that identifier which is there already, proves, and is equal to the table now.

    Raises `ObjectExists`.
    """
    now: TableContents | None = None
    for key in _keys_below(store, home, wanted.id, MANIFEST):
        place = key.rpartition("/")[0]
        try:
            archived = verify.read(store, place)
            if archived.manifest.id != wanted.id:
                continue
            if (oid := archived.manifest.partition.oid) != held.table.oid:
                raise ArchiveDamaged(f"{archived.url} is of the table with OID {oid}")
            _prove(archived, say)
            if now is None:
                say(f"reading {held.table} to compare it with {archived.url}")
                now = snapshot.read(held)
            snapshot.compare(f"table {held.table}", archived.url, archived.manifest, now)
        except (ArchiveDamaged, ContentsChanged, ProofFailed, DumpFailed) as error:
            say(f"an earlier archive cannot be used, and is left as it is: {error}")
            continue
        say(f"{archived.url} is there already, and proven")
        return archived
    if len(_keys_below(store, home, wanted.id, DATA)) >= MOST:
        raise ObjectExists(f"{store.url(home)}/{wanted.id} and {MOST - 1} more like it came to nothing: remove those")
    return None


def _keys_below(store: Store, home: str, id_: str, name: str) -> list[str]:
    """The keys of that name in folders whose names begin with the identifier, sorted."""
    try:
        return sorted(key for key in store.below(home, name) if key.removeprefix(f"{home}/").startswith(id_))
    except DestinationNotFound:
        # Whether there is no archive yet, or no such place at all, is found out by writing.
        return []


class Taken(NamedTuple):
    """What was read and written in one snapshot."""

    fingerprint: Fingerprint
    rows: Digest
    """Of the rows as COPY writes them."""
    dump: Digest
    generated: GeneratedData | None
    """What was written beside the dump."""


def _take(held: Held, info: ConnectionInfo, store: Store, place: str, columns: tuple[Column, ...], say: Say) -> Taken:
    """Take the fingerprint and the digest of the rows, while the dump is written. Raises `ProofFailed` if they differ
    in the number of rows."""
    dump = Digest()
    with ThreadPoolExecutor(1, "partwarden-read") as pool:
        reading = pool.submit(_read, held, store, place, columns, dump, say)
        try:
            with pgdump.dump(info, held.table.schema_, held.table.name, held.snapshot, held.role) as chunks:
                store.put(f"{place}/{DATA}", _watched(dump.through(chunks), reading), held.size)
            say(f"{dump.size:,} bytes written")
            taken = reading.result()
        except BaseException:
            # Without this the pool would wait for a statement whose result is of no use any more.
            snapshot.cancel(held)
            raise
    if taken.rows.lines != taken.fingerprint.rows:
        raise ProofFailed(
            f"{held.table}: COPY gave {taken.rows.lines} rows, and a count {taken.fingerprint.rows}, in one snapshot"
        )
    return taken


def _read(held: Held, store: Store, place: str, columns: tuple[Column, ...], dump: Digest, say: Say) -> Taken:
    """Read the table twice, and write the values of its stored generated columns."""
    try:
        taken = fingerprint.take(held.connection, held.table.schema_, held.table.name)
    except (pg.CharacterNotInRepertoire, pg.UntranslatableCharacter) as error:
        raise StatementRejected(
            f"table {held.table} is not archived: it holds text that is not valid in its encoding: "
            f"{message(error)}; correct those values first"
        ) from None
    say(f"{taken.rows:,} rows, fingerprint {taken.content}")
    progress = _Progress(say, taken.rows, dump)
    if not (stored := stored_names(columns)):
        return Taken(taken, snapshot.read_rows(held, columns, progress), dump, None)
    with GeneratedWriter(store, f"{place}/{GENERATED}", held.size) as writer:
        rows = snapshot.read_rows(held, columns, progress, writer.write)
        return Taken(taken, rows, dump, writer.finish(stored))


def _watched(chunks: Iterator[bytes], other: Future[Any]) -> Iterator[bytes]:
    """End with an error as soon as ``other`` has: the dump would be worth nothing."""
    for chunk in chunks:
        if other.done():
            other.result()
        yield chunk
    # Before the object is finished: what is not to be proven shall not be there either.
    other.result()


class _Progress:
    """Says how far it is, at every twentieth part."""

    def __init__(self, say: Say, rows: int, dump: Digest) -> None:
        self.say, self.rows, self.dump, self.said = say, rows, dump, 0

    def __call__(self, digest: Digest) -> None:
        percent = digest.lines * 100 // self.rows if self.rows else 100
        if percent >= self.said + 5:
            self.said = percent
            self.say(f"{percent} %: {digest.lines:,} of {self.rows:,} rows read, {self.dump.size:,} bytes written")


def _prove(archived: Archive, say: Say) -> None:
    say(f"reading {archived.manifest.bytes:,} bytes back from {archived.url}")
    archived.prove()


def _parent_ddl(held: Held, info: ConnectionInfo, parent: TableName | None) -> str:
    return pgdump.definition(info, parent.schema_, parent.name, held.snapshot, held.role) if parent else ""


def _report(archived: Archive, server: str, completed: datetime | None = None) -> Report:
    manifest = archived.manifest
    return Report(
        ok=True,
        location=archived.url,
        id=manifest.id,
        rows=manifest.rows,
        bytes=manifest.bytes,
        sha256=manifest.sha256,
        manifest_sha256=archived.manifest_sha256,
        fingerprint=manifest.fingerprint,
        oid=manifest.partition.oid,
        server=server,
        server_version=manifest.server_version,
        client_version=manifest.client_version,
        started=manifest.started,
        completed=completed or manifest.completed,
    )


def failure(error: PartwardenError, id_: str = "", oid: int = 0) -> Report:
    """The report of an archive or check that came to nothing."""
    return Report(
        ok=False, reason=error.reason, message=str(error)[:1024], id=id_, oid=oid, completed=datetime.now(UTC)
    )


def _key(store: Store, location: str) -> str:
    base = store.url("")
    if not location.startswith(base):
        raise ArchiveDamaged(f"{location} does not lie at {base}: the destination was changed since it was proven")
    return location.removeprefix(base).strip("/")
