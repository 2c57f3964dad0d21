"""Makes an archive of a partition and proves it, or proves one again. Nothing here changes a database.

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
from typing import Any

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
from ..planner.keys import literals
from ..postgres import fingerprint, large_objects, table_state
from ..postgres.connection import run
from ..postgres.conninfo import ConnectionInfo
from ..postgres.errors import message
from ..postgres.settings import TEXT_SETTINGS
from . import pgdump, snapshot, table_lookup, table_schema, verify
from .generated_columns import GeneratedWriter
from .jobspec import JobSpec, Report
from .manifest import DATA, GENERATED, MANIFEST, ArchiveManifest, Column, GeneratedData, TableName
from .snapshot import Held, Place, TableContents
from .storage import Digest, Store, folder
from .table_schema import Description

Say = Callable[[str], None]
MOST = 100
"""Attempts at one archive that may come to nothing, and leave a dump, before it is given up."""


def archive(order: JobSpec, info: ConnectionInfo, store: Store, say: Say) -> Report:
    """Make the archive, or find that it was made already. Its report is always ``ok``.

    Raises a `PartwardenError`, or psycopg's errors as `session.session` translates them: then nothing is proven.
    """
    started = datetime.now(UTC)
    client = pgdump.version(pgdump.find("pg_dump"))
    pgdump.find("pg_restore")
    pgdump.check(info)
    with snapshot.holding(info, order.partition) as held:
        server = table_state.read(held.connection, order.server)
        pgdump.check_version(client, held.server_version)
        attached = snapshot.place(held)
        if attached.parent is None:
            attached = table_lookup.place(held)
        _check_parent(order, attached.parent)
        _check_large_objects(order, held, say)
        home = folder(held.connection.info.dbname, order.parent or attached.parent, held.table)
        if known := _known(store, home, order, held, say):
            return known.model_copy(update={"server": server})
        # A folder of this attempt's own: an upload that somebody took for dead, and that comes to its end after all,
        # must not write over what another attempt has proven meanwhile. Not every store can be told not to.
        place = f"{home}/{order.id}-{secrets.token_hex(4)}"
        say(f"archiving {held.table} ({held.estimate:,} rows or so) to {store.url(place)}")
        description = table_schema.describe(held.connection, held.table.oid)
        taken, copied, dumped, generated = _take(held, info, store, place, description.columns, say)
        if copied.lines != taken.rows:
            raise ProofFailed(f"{held.table}: COPY gave {copied.lines} rows, and a count {taken.rows}, in one snapshot")
        found = taken, copied, dumped, generated
        manifest = _manifest(order, held, info, attached, description, found, client, started)
        _prove(store, place, manifest, say)
        text = verify.written(manifest)
        # Nothing proves an archive but this. The connection answers: its locks were held, and the snapshot, to the end.
        run(held.connection, "SELECT 1")
        store.put(f"{place}/{MANIFEST}", [text])
    digest = verify.read_manifest(store, place, hashlib.sha256(text).hexdigest())[1]
    return _report(store, place, manifest, digest).model_copy(update={"server": server})


def check(order: JobSpec, info: ConnectionInfo | None, store: Store) -> Report:
    """Read an archive again, and its table where ``info`` says how to reach it: fingerprint and COPY in one snapshot.

    Raises `ArchiveDamaged` where it is not what the order says was proven, `ProofFailed` or `DumpFailed` where that
    cannot be restored, `ContentsChanged` where the table holds something else, and what `archive` raises.
    """
    place = _key(store, order.location)
    manifest, digest = verify.read_manifest(store, place, order.manifest_sha256 or None)
    if order.sha256 and manifest.sha256 != order.sha256:
        raise ArchiveDamaged(f"{store.url(place)} has the sha256 {manifest.sha256}, but {order.sha256} was proven")
    if order.partition.oid not in (0, manifest.partition.oid) or manifest.id != order.id:
        raise ArchiveDamaged(f"{store.url(place)} is archive {manifest.id} of {manifest.partition}, not {order.id}")
    _prove(store, place, manifest, lambda line: None)
    server, completed = "", datetime.now(UTC)
    if info is not None:
        pgdump.check(info)
        with snapshot.holding(info, order.partition) as held:
            server = table_state.read(held.connection, order.server)
            now = snapshot.read(held)
            # By the clock of the server, as all ages are: how old this reading may become is judged by it.
            ((completed,),) = run(held.connection, "SELECT clock_timestamp()")[0]
        snapshot.compare(f"table {order.partition}", store.url(place), manifest, now)
    now_known = {"completed": completed.astimezone(UTC), "server": server}
    return _report(store, place, manifest, digest).model_copy(update=now_known)


def _check_parent(order: JobSpec, parent: TableName | None) -> None:
    wanted = order.parent
    if parent is not None and wanted is not None and (parent.schema_, parent.name) != (wanted.schema_, wanted.name):
        raise TableChanged(f"{order.partition} is a partition of {parent}, not of {wanted}")


def _check_large_objects(order: JobSpec, held: Held, say: Say) -> None:
    """Of all rows in the snapshot that is archived. Raises `LargeObjects`."""
    table = held.table
    if not (columns := large_objects.columns(held.connection, table.oid, table.schema_, table.name)):
        return
    if order.large_objects is OnLargeObjects.REFUSE:
        raise pointing(table, columns, "archived")
    say(f"large objects that column {', '.join(columns)} points to are left out, as was asked for")


def _known(store: Store, home: str, order: JobSpec, held: Held, say: Say) -> Report | None:
    """The report of an archive of that identifier which is there already, proves, and is equal to the table now.

    Raises `ObjectExists`.
    """
    now: TableContents | None = None
    for key in _below(store, home, order.id, MANIFEST):
        place = key.rpartition("/")[0]
        try:
            manifest, digest = verify.read_manifest(store, place, None)
            if manifest.id != order.id:
                continue
            if manifest.partition.oid != held.table.oid:
                raise ArchiveDamaged(f"{store.url(place)} is of the table with OID {manifest.partition.oid}")
            _prove(store, place, manifest, say)
            if now is None:
                say(f"reading {held.table} to compare it with {store.url(place)}")
                now = snapshot.read(held)
            snapshot.compare(f"table {held.table}", store.url(place), manifest, now)
        except (ArchiveDamaged, ContentsChanged, ProofFailed, DumpFailed) as error:
            say(f"an earlier archive cannot be used, and is left as it is: {error}")
            continue
        say(f"{store.url(place)} is there already, and proven")
        return _report(store, place, manifest, digest)
    if len(_below(store, home, order.id, DATA)) >= MOST:
        raise ObjectExists(f"{store.url(home)}/{order.id} and {MOST - 1} more like it came to nothing: remove those")
    return None


def _below(store: Store, home: str, id_: str, name: str) -> list[str]:
    """The keys of that name in folders whose names begin with the identifier, sorted."""
    try:
        return sorted(key for key in store.below(home, name) if key.removeprefix(f"{home}/").startswith(id_))
    except DestinationNotFound:
        # Whether there is no archive yet, or no such place at all, is found out by writing.
        return []


Taken = tuple[Fingerprint, Digest, Digest, GeneratedData | None]
"""Of one snapshot: fingerprint, digest of the rows, digest of the dump, and what was written beside it."""


def _take(held: Held, info: ConnectionInfo, store: Store, place: str, columns: tuple[Column, ...], say: Say) -> Taken:
    """The fingerprint and the digest of the rows, while the dump is written."""
    dumped, stored = Digest(), [each.name for each in columns if each.generated == "s"]

    def read() -> tuple[Fingerprint, Digest, GeneratedData | None]:
        try:
            taken = fingerprint.take(held.connection, held.table.schema_, held.table.name)
        except (pg.CharacterNotInRepertoire, pg.UntranslatableCharacter) as error:
            raise StatementRejected(
                f"table {held.table} is not archived: it holds text that is not valid in its encoding: "
                f"{message(error)}; correct those values first"
            ) from None
        say(f"{taken.rows:,} rows, fingerprint {taken.content}")
        progress = _Progress(say, taken.rows, dumped)
        if not stored:
            return taken, snapshot.read_rows(held, columns, progress), None
        with GeneratedWriter(store, f"{place}/{GENERATED}", held.size) as writer:
            rows = snapshot.read_rows(held, columns, progress, writer.write)
            return taken, rows, writer.finish(stored)

    with ThreadPoolExecutor(1, "partwarden-read") as pool:
        found = pool.submit(read)
        try:
            with pgdump.dump(info, held.table.schema_, held.table.name, held.snapshot, held.role) as chunks:
                store.put(f"{place}/{DATA}", _watched(chunks, dumped, found), held.size)
            say(f"{dumped.size:,} bytes written")
            taken, copied, generated = found.result()
            return taken, copied, dumped, generated
        except BaseException:
            # Without this the pool would wait for a statement that nobody needs any more.
            snapshot.cancel(held)
            raise


def _watched(chunks: Iterator[bytes], dumped: Digest, other: Future[Any]) -> Iterator[bytes]:
    """Ends with an error as soon as ``other`` has: the dump would be worth nothing."""
    for chunk in chunks:
        if other.done():
            other.result()
        dumped.update(chunk)
        yield chunk
    # Before the object is finished: what is not to be proven shall not be there either.
    other.result()


class _Progress:
    """Says how far it is, at every twentieth part."""

    def __init__(self, say: Say, rows: int, dumped: Digest) -> None:
        self.say, self.rows, self.dumped, self.told = say, rows, dumped, 0

    def __call__(self, digest: Digest) -> None:
        percent = digest.lines * 100 // self.rows if self.rows else 100
        if percent >= self.told + 5:
            self.told = percent
            self.say(f"{percent} %: {digest.lines:,} of {self.rows:,} rows read, {self.dumped.size:,} bytes written")


def _prove(store: Store, place: str, manifest: ArchiveManifest, say: Say) -> None:
    say(f"reading {manifest.bytes:,} bytes back from {store.url(place)}")
    verify.prove(store, place, manifest)


def _manifest(
    order: JobSpec,
    held: Held,
    info: ConnectionInfo,
    attached: Place,
    description: Description,
    found: Taken,
    client: str,
    started: datetime,
) -> ArchiveManifest:
    (taken, copied, dumped, generated), parent, ddl = found, attached.parent, ""
    if parent is not None:
        ddl = pgdump.definition(info, parent.schema_, parent.name, held.snapshot, held.role)
    ranged = attached.key is not None and attached.bounds.startswith("FOR VALUES FROM")
    ends = literals(attached.bounds) if ranged else None
    return ArchiveManifest(
        id=order.id,
        database=held.connection.info.dbname,
        parent=parent or order.parent,
        partition=held.table,
        bounds=(ends.lower, ends.upper) if ends else order.bounds,
        key=attached.key or order.key,
        columns=description.columns,
        types=description.types,
        parent_ddl=ddl,
        rows=taken.rows,
        bytes=dumped.size,
        sha256=dumped.sha256,
        copy_sha256=copied.sha256,
        generated=generated,
        unlogged=held.unlogged,
        settings=TEXT_SETTINGS,
        fingerprint=taken,
        snapshot=held.snapshot,
        server_version=held.server_version,
        client_version=client,
        partwarden_version=__version__,
        started=started,
        completed=datetime.now(UTC),
    )


def _report(store: Store, place: str, manifest: ArchiveManifest, manifest_sha256: str) -> Report:
    return Report(
        ok=True,
        location=store.url(place),
        id=manifest.id,
        rows=manifest.rows,
        bytes=manifest.bytes,
        sha256=manifest.sha256,
        manifest_sha256=manifest_sha256,
        fingerprint=manifest.fingerprint,
        oid=manifest.partition.oid,
        server_version=manifest.server_version,
        client_version=manifest.client_version,
        started=manifest.started,
        completed=manifest.completed,
    )


def failure(order: JobSpec | None, error: PartwardenError) -> Report:
    """What is told of an order that came to nothing."""
    return Report(
        ok=False,
        reason=error.reason,
        message=str(error)[:1024],
        id=order.id if order else "",
        oid=order.partition.oid if order else 0,
        completed=datetime.now(UTC),
    )


def _key(store: Store, location: str) -> str:
    base = store.url("")
    if not location.startswith(base):
        raise ArchiveDamaged(f"{location} does not lie at {base}: the destination was changed since it was proven")
    return location.removeprefix(base).strip("/")
