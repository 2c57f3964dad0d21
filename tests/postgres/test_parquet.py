"""Archives as Parquet: of every specimen, as DuckDB reads them, damaged, and interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.api.destination import PVC, Destination
from partwarden.api.retention import Format
from partwarden.archive import create
from partwarden.archive.job_order import JobSpec, Report, Task
from partwarden.archive.manifest import MANIFEST, ParquetData, TableName
from partwarden.archive.parquet import availability, proof, values, write
from partwarden.archive.parquet.layout import NAME
from partwarden.archive.storage import Store
from partwarden.archive.verify import Archive, open_archive, place_of, read
from partwarden.cli.main import main
from partwarden.errors import (
    ArchiveDamaged,
    DatabaseUnreachable,
    DumpFailed,
    ParquetUnavailable,
    ProofFailed,
)
from partwarden.postgres.conninfo import from_dsn
from support import zoo
from support.archived import quoted, use_client
from support.meanwhile import kill_others
from support.places import FOLDER, PLAIN, Place
from support.shelf import Shelf

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
    if plain and not any("float" in column.type or "double" in column.type for column in data.columns):
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


COLUMNS = {
    "id": ("int", "i"),
    "small": ("smallint", "i - 100"),
    "big": ("bigint", "i * 10000000000000"),
    "ok": ("boolean", "i % 2 = 0"),
    "n": ("numeric(12,4)", "(i - 50) / 7.0"),
    "wide": ("numeric(38,10)", "1234567890123456789012345678.0123456789 - i"),
    "tiny": ("numeric(9,9)", "-0.000000001 * i"),
    "cost": ("price", "i"),
    "day": ("date", "date '1900-01-01' + i * 400"),
    "ts": ("timestamp", "timestamp '0001-01-01' + i * interval '40 years 3.5 s'"),
    "clock": ("time", "time '00:00' + i * interval '1 min 0.000001 s'"),
    "u": ("uuid", "md5(i::text)::uuid"),
    "raw": ("bytea", "decode(md5(i::text), 'hex')"),
    "t": ("text", r"E'tab\t\\n\n' || i"),
    "code": ("char(5)", "'a' || i"),
    "doc": ("jsonb", r"""jsonb_build_object('i', i, 'é', '\')"""),
    "m": ("mood", "(enum_range(NULL::mood))[i % 3 + 1]"),
    "half": ("real", "CASE i WHEN 7 THEN 'NaN' ELSE i / 3.0 END"),
    "whole": ("double precision", "CASE i WHEN 7 THEN '-Infinity' ELSE i / 7.0 END"),
    "ints": ("int[]", "ARRAY[i, NULL, -i]"),
    "nums": ("numeric(6,2)[]", "ARRAY[i, 0.5, NULL]"),
    "texts": ("text[]", r"""ARRAY['', 'a b', NULL, '"', '\', 'NULL', E'\t', i::text]"""),
    "moods": ("mood[]", """ARRAY['very, "happy"', 'ok']::mood[]"""),
    "floats": ("double precision[]", "ARRAY[i / 9.0, NULL, '-0', 'Infinity']::float8[]"),
    "days": ("date[]", "ARRAY[date '2020-01-01' + i, NULL]"),
    "clocks": ("time[]", "ARRAY[time '00:00' + i * interval '1 min 0.000001 s', NULL]"),
    "uuids": ("uuid[]", "CASE WHEN i > 50 THEN ARRAY[md5(i::text)::uuid] ELSE '{}' END"),
    "raws": ("bytea[]", r"ARRAY['\x00ff'::bytea, '']"),
    "year": ("int", "1900 + i"),
    "free": ("numeric", "i / 3.0"),
    "most": ("numeric(39,2)", "i"),
    "below": ("numeric(5,2)", "CASE i WHEN 7 THEN 'NaN'::numeric ELSE i END"),
    "ends": ("date", "CASE i WHEN 7 THEN date '0044-03-15 BC' ELSE '2020-01-01' END"),
    "midnight": ("time", "CASE i WHEN 7 THEN time '24:00' ELSE '23:00' END"),
    "span": ("interval", "i * interval '1 day'"),
    "held": ("tstzrange", "tstzrange('2020-01-01Z', NULL)"),
    "spot": ("place", "ROW('x', point(1, i))::place"),
    "grid": ("int[]", "CASE i WHEN 7 THEN ARRAY[[1, 2]] ELSE ARRAY[3] END"),
    'odd "name" é': ("text", "'odd'"),
}
"""Of each kind a type and a value over ``i``; in `AS_TEXT` are those of which Parquet does not hold all exactly."""
TYPED = zoo.Specimen(
    f"""
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'very, "happy"');
    CREATE TYPE place AS (label text, spot point);
    CREATE DOMAIN price AS numeric(12,4) CHECK (VALUE > -1000000);
    CREATE TABLE zoo (at timestamptz NOT NULL, twice int GENERATED ALWAYS AS (small * 2) STORED,
      {", ".join(f"{quoted(name)} {type_}" for name, (type_, _) in COLUMNS.items())}) PARTITION BY RANGE (at);
    CREATE TABLE zoo_2020 PARTITION OF zoo FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
    INSERT INTO zoo (at, id) VALUES ('2020-01-01Z', 0);
    INSERT INTO zoo (at, {", ".join(map(quoted, COLUMNS))})
      SELECT timestamptz '2020-01-01Z' + i * interval '1 hour 1.000001 s',
        {", ".join(value for _, value in COLUMNS.values())} FROM generate_series(1, 100) i
    """,
    rows=101,
)
EXACT = {
    "id": "int32",
    "at": "timestamp[us, tz=UTC]",
    "small": "int16",
    "big": "int64",
    "ok": "bool",
    "n": "decimal128(12, 4)",
    "wide": "decimal128(38, 10)",
    "tiny": "decimal128(9, 9)",
    "cost": "decimal128(12, 4)",
    "day": "date32[day]",
    "ts": "timestamp[us]",
    "clock": "time64[us]",
    "u": "extension<arrow.uuid>",
    "raw": "binary",
    "m": "dictionary<values=string, indices=int32, ordered=0>",
    "half": "float",
    "whole": "double",
    "ints": "list<element: int32>",
    "nums": "list<element: decimal128(6, 2)>",
    "texts": "list<element: string>",
    "moods": "list<element: string>",
    "floats": "list<element: double>",
    "days": "list<element: date32[day]>",
    "clocks": "list<element: time64[us]>",
    "uuids": "list<element: extension<arrow.uuid>>",
    "raws": "list<element: binary>",
    "twice": "int32",
    "year": "int32",
}
AS_TEXT = {
    "free": "numeric has no precision",
    "most": "numeric(39,2) may have more than 38 digits",
    "below": "holds NaN",
    "ends": "holds infinity, or a date that is not of the years 1 to 9999",
    "midnight": "holds 24:00:00",
    "span": "no type of Parquet holds every interval exactly",
    "held": "no type of Parquet holds every tstzrange exactly",
    "spot": "no type of Parquet holds every public.place exactly",
    "grid": "holds an array that has several dimensions, or does not begin at 1",
}


def _comparable(value: Any) -> Any:
    """Floating-point numbers by their digits, of which NaN has some, too; the rest as it is."""
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    return repr(value) if isinstance(value, float) else value


def test_duckdb_reads_the_values_that_the_table_has(database: Database, store: Shelf, tmp_path: Path) -> None:
    database.execute(TYPED.setup)
    report = make(database, TYPED, store)
    _, data = archived(report, store)
    assert {each.name: each.text_reason for each in data.columns if each.text_reason} == AS_TEXT
    assert {each.name: each.type for each in data.columns if each.name in EXACT} == EXACT
    # The table has a column of that name, which the path would hide.
    assert data.path == "parquet/table=zoo/data.parquet"
    path = parquet_file(report, store, tmp_path)
    names = [each.name for each in data.columns]
    # As text what is text there; of real the digits of a double, which all of its readers make of it.
    read = {each: f"{quoted(each)}::text" for each in (*AS_TEXT, "doc", "m")} | {"half": "half::float8"}
    read |= {"moods": "moods::text[]"}
    shown = ", ".join(read.get(each, quoted(each)) for each in names)
    mine = database.query(f"SELECT {shown} FROM zoo_2020 ORDER BY id")
    theirs = duckdb.sql(f"SELECT {', '.join(map(quoted, names))} FROM read_parquet('{path}') ORDER BY id").fetchall()
    for name, *columns in zip(names, zip(*mine, strict=True), zip(*theirs, strict=True), strict=True):
        assert [_comparable(each) for each in columns[1]] == [_comparable(each) for each in columns[0]], name
    for query in (
        "SELECT sum(small), sum(big)::numeric(38,0), min(n), max(n), sum(n), min(wide), max(cost), min(tiny) FROM {}",
        'SELECT min(day), max(day), min(ts), max(ts), min("at"), max("at"), min(clock), max(clock) FROM {}',
        "SELECT count(DISTINCT u), count(DISTINCT raw), count(DISTINCT m), count(ok), sum(twice) FROM {} WHERE id > 50",
        "SELECT m::text, count(*), sum(n) FROM {} WHERE \"at\" >= '2020-01-02 00:00:00+00' GROUP BY 1 ORDER BY 1",
        "SELECT sum(each) FROM (SELECT unnest(ints) AS each FROM {} WHERE ok) q",
    ):
        (found,) = ([*database.query(query.format("zoo_2020"))],)
        assert duckdb.sql(query.format(f"read_parquet('{path}')")).fetchall() == found, query


def test_the_file_says_what_it_is_of_and_its_path_the_range(
    pg_database: Database, store: Shelf, tmp_path: Path
) -> None:
    specimen = zoo.build(pg_database, "dressed")
    report = make(pg_database, specimen, store)
    found, data = archived(report, store)
    assert data.path == "parquet/table=zoo/year=2020/data.parquet"
    path = parquet_file(report, store, tmp_path)
    whole = f"read_parquet('{tmp_path}/queried/**/*.parquet', hive_partitioning=true)"
    assert duckdb.sql(f"SELECT count(*) FROM {whole} WHERE year = 2020 AND \"table\" = 'zoo'").fetchall() == [(61,)]
    assert duckdb.sql(f"SELECT count(*) FROM {whole} WHERE year = 2021").fetchall() == [(0,)]
    metadata = dict(duckdb.sql(f"SELECT key, value FROM parquet_kv_metadata('{path}')").fetchall())
    facts = json.loads(metadata[b"partwarden"])
    manifest = found.manifest
    assert facts["archive"] == manifest.id == ID
    assert (facts["schema"], facts["table"], facts["parent"]) == ("public", "zoo_2020", "public.zoo")
    assert (facts["bounds"], facts["key"], facts["rows"]) == ([*(manifest.bounds or ())], "at", 61)
    assert (facts["snapshot"], facts["serverVersion"]) == (manifest.snapshot, manifest.server_version)
    assert facts["fingerprint"]["content"] == manifest.fingerprint.content
    chunks = f"SELECT path_in_schema, compression, stats_min, stats_max FROM parquet_metadata('{path}')"
    columns = {name: rest for name, *rest in duckdb.sql(chunks).fetchall()}
    assert columns["id"] == ["ZSTD", "1", "61"]
    assert {compression for compression, _, _ in columns.values()} == {"ZSTD"}


def _flip(text: bytes) -> bytes:
    middle = len(text) // 2
    return text[:middle] + bytes([text[middle] ^ 1]) + text[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "one byte changed": _flip,
    "truncated": lambda text: text[:-10],
    "longer": lambda text: text + b"x",
    "gone": lambda text: None,
}


def harm(store: Shelf, damage: str) -> None:
    (key,) = store.files(NAME)
    left = DAMAGES[damage](store.read(key) or b"")
    if left is None:
        store.lose(key)
    else:
        store.write(key, left)


@pytest.fixture
def plain(pg_database: Database) -> Database:
    zoo.build(pg_database, "by date")
    return pg_database


BY_DATE = zoo.ZOO["by date"]


@pytest.mark.parametrize("pyarrow", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_by_verify_and_hinders_no_restore(
    plain: Database, store: Shelf, damage: str, pyarrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = make(plain, BY_DATE, store)
    monkeypatch.setattr(availability, "is_available", lambda: pyarrow)
    assert CliRunner().invoke(main, ["verify", report.location]).exit_code == 0
    harm(store, damage)
    done = CliRunner().invoke(main, ["verify", report.location])
    assert done.exit_code == 1
    assert NAME in done.stderr
    assert "data.dump beside it is whole, and restores all rows" in done.stderr
    restored = CliRunner().invoke(main, ["restore", "--manifest", report.location, "--dsn", plain.dsn, "--as", "back"])
    assert restored.exit_code == 0
    assert plain.query("SELECT count(*) FROM back") == [(12,)]
    monkeypatch.undo()


@pytest.mark.parametrize("damage", ["one byte changed", "gone"])
def test_damage_between_writing_and_reading_back_is_seen_and_the_next_attempt_is_whole(
    plain: Database, store: Shelf, damage: str
) -> None:
    store.moment, store.what = f"after {NAME}", lambda: harm(store, damage)
    with pytest.raises(ArchiveDamaged, match=NAME):
        make(plain, BY_DATE, store)
    assert store.files(MANIFEST) == []
    found, _ = archived(make(plain, BY_DATE, store), store)
    found.prove()


def replaced(table: Any, numbers: list[int | None]) -> Any:
    """The table with these in its second column."""
    return table.set_column(1, table.schema.field(1), pa.array(numbers, pa.int32()))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "another value": lambda table: replaced(table, [*range(2, 14)]),
    "NULL for a value": lambda table: replaced(table, [None, *range(2, 13)]),
    "rows in another order": lambda table: table.take([*reversed(range(12))]),
    "a row twice": lambda table: table.take([0, 0, *range(2, 12)]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_value_that_is_not_the_tables_is_seen(
    plain: Database, store: Shelf, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in the conversion, or in pyarrow; the number of rows stays right."""
    monkeypatch.setattr(values, "parse_rows", lambda *given, parse=values.parse_rows: CHANGES[change](parse(*given)))
    with pytest.raises(ProofFailed, match="the digest of its rows"):
        make(plain, BY_DATE, store)
    assert store.files(MANIFEST) == []


def test_the_file_of_another_table_is_not_taken_for_it_whatever_the_manifest_says(
    plain: Database, store: Shelf
) -> None:
    report = make(plain, BY_DATE, store)
    plain.execute("CREATE TABLE other (LIKE zoo_2020); INSERT INTO other SELECT at, n + 1 FROM zoo_2020")
    other = make(plain, BY_DATE, store, partition=TableName(schema_="public", name="other", oid=0))
    (_, mine), (_, theirs) = archived(report, store), archived(other, store)
    place = place_of(store, report.location)
    store.write(f"{place}/{mine.path}", store.read(f"{place_of(store, other.location)}/{theirs.path}") or b"")
    manifest = json.loads(store.read(f"{place}/{MANIFEST}") or b"")
    manifest["parquet"] |= {"bytes": theirs.bytes, "sha256": theirs.sha256, "footer": theirs.footer}
    store.write(f"{place}/{MANIFEST}", json.dumps(manifest).encode())
    with pytest.raises(ProofFailed, match="the digest of its rows"):
        open_archive(report.location).prove()


class Killed(BaseException):
    """As SIGKILL, but for the process."""


@pytest.mark.parametrize("place", [FOLDER, PLAIN], indirect=True)
@pytest.mark.parametrize("when", ["before", "during", "after", "reading"])
def test_an_archive_interrupted_anywhere_is_completed_by_the_next_attempt(
    plain: Database, store: Shelf, when: str
) -> None:
    def die() -> None:
        raise Killed

    store.moment, store.what = f"{when} {NAME}", die
    with pytest.raises(Killed):
        make(plain, BY_DATE, store)
    assert store.files(MANIFEST) == []
    if when in ("before", "during"):
        assert store.files(NAME) == []
    found, _ = archived(make(plain, BY_DATE, store), store)
    found.prove()
    assert len(store.files(MANIFEST)) == 1


def test_a_lost_connection_proves_nothing(plain: Database, store: Shelf) -> None:
    store.moment, store.what = f"before {NAME}", lambda: kill_others(plain)
    with pytest.raises((DatabaseUnreachable, DumpFailed)):
        make(plain, BY_DATE, store)
    assert store.files(MANIFEST) == []


def test_without_pyarrow_nothing_is_written(
    plain: Database, store: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "is_available", lambda: False)
    with pytest.raises(ParquetUnavailable, match=r"-parquet.*pip install partwarden\[parquet\]"):
        make(plain, BY_DATE, store)
    assert store.files() == []
    # Where it is not asked for, it is not needed.
    assert make(plain, BY_DATE, store, formats=(Format.DUMP,)).formats == (Format.DUMP,)
    command = ["archive", "--dsn", plain.dsn, "--partition", "zoo_2020", "--to", str(tmp_path), "--format", "Parquet"]
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, "pip install partwarden[parquet]" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("options", "formats"),
    [
        ((), ["Dump"]),
        (("--format", "Dump"), ["Dump"]),
        (("--format", "Parquet"), ["Dump", "Parquet"]),
        (("--format", "dump,parquet"), ["Dump", "Parquet"]),
        (("--format", "Parquet", "--format", "Dump"), ["Dump", "Parquet"]),
    ],
)
def test_the_command_writes_what_is_asked_for(
    plain: Database, tmp_path: Path, options: tuple[str, ...], formats: list[str]
) -> None:
    command = ["archive", "--dsn", plain.dsn, "--table", "zoo", "--partition", "zoo_2020", "--to", str(tmp_path)]
    report = json.loads(CliRunner().invoke(main, [*command, *options, "-o", "json"]).stdout)
    assert report["formats"] == formats
    assert ("parquetBytes" in report) == ("Parquet" in formats)
    assert len([*tmp_path.rglob(NAME)]) == len(formats) - 1
    shown = CliRunner().invoke(main, ["verify", report["location"]])
    assert ("of Parquet" in shown.stdout) == ("Parquet" in formats)


def test_a_format_that_is_none_is_refused() -> None:
    command = ["archive", "--dsn", "", "--partition", "run", "--to", "x", "--format", "Dump,Orc"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert "must be Dump or Parquet, found 'Orc'" in done.stderr


def test_rows_of_several_pieces_and_groups_are_written_and_proven(
    plain: Database, store: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.execute("""ALTER TABLE zoo ADD t text; INSERT INTO zoo SELECT date '2020-06-01' + n % 100, n, CASE WHEN
        n % 997 = 0 THEN repeat(md5(n::text), 300) ELSE E'\\ufeff' || n END FROM generate_series(1, 5000) n""")
    monkeypatch.setattr(write, "PIECE", 4096)
    monkeypatch.setattr(write, "GROUP", 1 << 15)
    monkeypatch.setattr(proof, "BATCH", 1 << 13)
    report = make(plain, BY_DATE, store)
    path = parquet_file(report, store, tmp_path)
    ((groups,),) = duckdb.sql(f"SELECT count(DISTINCT row_group_id) FROM parquet_metadata('{path}')").fetchall()
    assert groups > 3
    query = "SELECT count(*), sum(n), count(t), sum(length(t)) FROM {}"
    assert duckdb.sql(query.format(f"'{path}'")).fetchall() == plain.query(query.format("zoo_2020"))
