"""Archives as Parquet: of every specimen, as DuckDB reads them, damaged, and interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.api.destination import PVC, Destination
from partwarden.api.retention import Format
from partwarden.archive import create
from partwarden.archive.job_order import JobSpec, Report, Task
from partwarden.archive.manifest import DATA, MANIFEST, ParquetData, TableName
from partwarden.archive.parquet import availability
from partwarden.archive.parquet.layout import NAME
from partwarden.archive.storage import Store
from partwarden.archive.verify import Archive, open_archive, place_of, read
from partwarden.cli.main import main
from partwarden.errors import ArchiveDamaged, ParquetUnavailable, PartwardenError, ProofFailed, StatementRejected
from partwarden.postgres.conninfo import from_dsn
from support import zoo
from support.archived import quoted, use_client
from support.places import Place
from support.shelf import Shelf

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

ID = "0123456789ab"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


@pytest.fixture
def store(place: Place) -> Shelf:
    return place.shelf()


def order(specimen: zoo.Specimen, **fields: object) -> JobSpec:
    return JobSpec(
        task=Task.ARCHIVE,
        id=ID,
        partition=TableName(schema_=specimen.schema, name=specimen.partition, oid=0),
        destination=Destination(pvc=PVC(claim_name="archives")),
        formats=(Format.DUMP, Format.PARQUET),
    ).model_copy(update=fields)


def make(database: Database, specimen: zoo.Specimen, store: Store, **fields: object) -> Report:
    return create.archive(order(specimen, **fields), from_dsn(database.dsn), store, lambda line: None)


def archived(report: Report, store: Store) -> tuple[Archive, ParquetData]:
    found = read(store, place_of(store, report.location), report.manifest_sha256)
    assert found.manifest.parquet is not None
    return found, found.manifest.parquet


def parquet_file(report: Report, store: Shelf, folder: Path) -> str:
    """The object, in a file of this machine."""
    found, data = archived(report, store)
    path = folder / "queried" / data.path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(store.get(f"{place_of(store, found.url)}/{data.path}")))
    return str(path)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_type_is_written_and_proven(database: Database, store: Shelf, tmp_path: Path, name: str) -> None:
    if name not in zoo.living(database.server.major):
        return
    specimen = zoo.build(database, name)
    report = make(database, specimen, store)
    found, data = archived(report, store)
    found.prove()
    plain = all(not column.generated for column in found.manifest.columns)
    if plain and not any("float" in column.type or column.type == "double" for column in data.columns):
        # The very rows that the dump was proven to restore.
        assert data.copy_sha256 == found.manifest.copy_sha256
    path = parquet_file(report, store, tmp_path)
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet('{path}')").fetchall() == [(specimen.rows,)]
    names = [row[0] for row in duckdb.sql(f"DESCRIBE FROM read_parquet('{path}', hive_partitioning=false)").fetchall()]
    table = f"{quoted(specimen.schema)}.{quoted(specimen.partition)}"
    virtual = [column.name for column in found.manifest.columns if column.generated == "v"]
    assert names == [
        each
        for (each,) in database.query(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
            "ORDER BY attnum",
            table,
        )
        if each not in virtual
    ]
