"""An archive is bound to the table that it is of: by its fingerprint and by its rows, and by neither alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.postgres import Database
from lab.site import partitions
from partwarden.api.destination import PVC, Destination
from partwarden.archive import create, pgdump, snapshot
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import JobSpec, Report, Task
from partwarden.archive.manifest import DATA, MANIFEST, ArchiveManifest, TableName, serialize
from partwarden.archive.verify import open_archive
from partwarden.cli import drop_database, tables
from partwarden.cli.main import main
from partwarden.cli.options import Target
from partwarden.errors import ContentsChanged, DumpFailed
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.archived import use_client

ID = "0001"
TABLES = """
CREATE TABLE run (id bigint, at timestamptz NOT NULL, note text) PARTITION BY RANGE (at);
CREATE TABLE run_2019 PARTITION OF run FOR VALUES FROM ('2019-01-01Z') TO ('2020-01-01Z');
CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
INSERT INTO run SELECT n, '2019-05-05Z', 'of 2019' FROM generate_series(1, 100) n;
INSERT INTO run SELECT n, '2020-05-05Z', 'of 2020' FROM generate_series(1, 100) n;
"""


@pytest.fixture
def table(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Two past partitions with as many rows."""
    use_client(monkeypatch)
    database.execute(TABLES)
    return database


def order(partition: str = "run_2020", **fields: Any) -> JobSpec:
    named = TableName(schema_="public", name=partition, oid=0)
    place = Destination(pvc=PVC(claim_name="archives"))
    return JobSpec(task=Task.ARCHIVE, id=ID, partition=named, destination=place).model_copy(update=fields)


def make(database: Database, folder: Path, partition: str = "run_2020", said: list[str] | None = None) -> Report:
    lines = [] if said is None else said
    return create.archive(order(partition), from_dsn(database.dsn), Folder(folder), lines.append)


def manifest_of(report: Report) -> ArchiveManifest:
    return open_archive(report.location).manifest


def rewrite(report: Report, **fields: Any) -> None:
    """The manifest says something else, and is whole."""
    path = Path(report.location.removeprefix("file://"), MANIFEST)
    path.write_bytes(serialize(manifest_of(report).model_copy(update=fields)))


def of_another_table(database: Database, folder: Path) -> Report:
    """The archive of run_2019, whole and proven, whose manifest has the fingerprint and the OID of run_2020."""
    mine, other = make(database, folder / "a"), make(database, folder / "b", "run_2019")
    named = TableName(schema_="public", name="run_2019", oid=mine.oid)
    rewrite(other, partition=named, fingerprint=manifest_of(mine).fingerprint)
    return other


def of_other_rows(database: Database, folder: Path) -> Report:
    """An archive of run_2020 from before its rows were changed, whose manifest has the fingerprint of now."""
    before = make(database, folder / "a")
    database.execute("UPDATE run_2020 SET note = 'changed' WHERE id = 50")
    rewrite(before, fingerprint=manifest_of(make(database, folder / "b")).fingerprint)
    return before


def of_other_columns(database: Database, folder: Path) -> Report:
    """One whose manifest has one column of a type that it has not; its rows are written the same."""
    report = make(database, folder)
    first, *rest = manifest_of(report).columns
    rewrite(report, columns=(first.model_copy(update={"type": "text"}), *rest))
    return report


FORGED: dict[str, Callable[[Database, Path], Report]] = {
    "another table": of_another_table,
    "other rows": of_other_rows,
    "other columns": of_other_columns,
}
forged = pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)


def drop(database: Database, url: str) -> str:
    done = CliRunner().invoke(main, ["drop", "run_2020", "--archive", url, "--yes", "--dsn", database.dsn])
    assert "Traceback" not in done.output
    return "dropped" if done.exit_code == 0 else done.output


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()


@forged
def test_drop_refuses_an_archive_with_the_fingerprint_of_the_table_and_the_data_of_another(
    table: Database, tmp_path: Path, forge: Callable[[Database, Path], Report]
) -> None:
    report = forge(table, tmp_path)
    # It is whole, and it says so.
    open_archive(report.location).prove()
    before, rows = partitions(table), table.query("SELECT * FROM run_2020 ORDER BY id")
    said = drop(table, report.location)
    assert "archive it again" in said
    assert partitions(table) == before
    assert table.query("SELECT * FROM run_2020 ORDER BY id") == rows


def test_drop_takes_the_archive_that_the_table_was_proven_equal_to(table: Database, tmp_path: Path) -> None:
    assert drop(table, make(table, tmp_path).location) == "dropped"
    assert partitions(table) == ["run_2019"]


@forged
def test_a_check_refuses_changed_data_under_the_proven_manifest(
    table: Database, tmp_path: Path, forge: Callable[[Database, Path], Report]
) -> None:
    report = forge(table, tmp_path)
    base = next(
        each for each in (tmp_path / "a", tmp_path / "b", tmp_path) if report.location.startswith(f"file://{each}")
    )
    asked = order(task=Task.CHECK, location=report.location, sha256=report.sha256)
    with pytest.raises(ContentsChanged, match="archive it again"):
        create.check(asked, from_dsn(table.dsn), Folder(base))


@forged
def test_a_job_does_not_take_an_existing_archive_of_other_rows_for_its_own(
    table: Database, tmp_path: Path, forge: Callable[[Database, Path], Report]
) -> None:
    """It lies where an earlier attempt would have left it, and has the identifier that is asked for."""
    report, said = forge(table, tmp_path), list[str]()
    home = tmp_path / "home"
    place = home / table.name / "public.run" / "run_2020" / f"{ID}-00000000"
    shutil.copytree(report.location.removeprefix("file://"), place)
    left = (place / MANIFEST).read_bytes(), (place / DATA).read_bytes()
    made = make(table, home, said=said)
    assert any("an earlier archive cannot be used, and is left as it is" in line for line in said)
    assert made.location != f"file://{place}"
    assert drop(table, made.location) == "dropped"
    assert ((place / MANIFEST).read_bytes(), (place / DATA).read_bytes()) == left


def test_a_job_whose_table_was_changed_since_archives_it_again_beside(table: Database, tmp_path: Path) -> None:
    """Its report was lost: the archive is there, proven, and of other rows."""
    before = make(table, tmp_path)
    assert make(table, tmp_path) == before
    table.execute("UPDATE run_2020 SET note = 'changed' WHERE id = 50")
    after = make(table, tmp_path)
    assert after.location != before.location
    assert (after.id, after.fingerprint == before.fingerprint) == (before.id, False)
    # Of the two, the one of now is found.
    assert make(table, tmp_path) == after


def test_a_row_that_comes_between_the_two_readings_is_in_neither_and_keeps_the_table(
    table: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = open_archive(make(table, tmp_path).location)
    copied = snapshot.read_rows

    def after_a_write(held: snapshot.Held, *arguments: Any, **options: Any) -> Any:
        table.execute("INSERT INTO run VALUES (101, '2020-06-06Z', 'late')")
        return copied(held, *arguments, **options)

    monkeypatch.setattr(snapshot, "read_rows", after_a_write)
    with session(from_dsn(table.dsn)) as connection:
        found = drop_database.find(connection, tables.only_spec(connection, Target()), "run_2020", frozenset())
        longest = connection.longest
        proven = drop_database.compare(connection, found, archive)
        assert (proven.rows, connection.longest) == (100, longest)
        outcomes = drop_database.remove(connection, found, proven, archive.url, 10.0)
    assert isinstance(outcomes[-1].error, ContentsChanged)
    assert table.query("SELECT count(*) FROM run_2020") == [(101,)]


def test_rows_in_another_order_are_archived_again_before_they_are_dropped(table: Database, tmp_path: Path) -> None:
    """They are equal, but no digest of COPY says so."""
    report = make(table, tmp_path)
    table.execute("UPDATE run_2020 SET note = note WHERE id = 1")
    assert "the rows were written in another order since; archive it again" in drop(table, report.location)
    assert drop(table, make(table, tmp_path).location) == "dropped"


def test_constraints_that_came_later_make_no_other_archive(table: Database, tmp_path: Path) -> None:
    report = make(table, tmp_path)
    table.execute("ALTER TABLE run_2020 ALTER id SET NOT NULL, ADD CHECK (id > 0); CREATE INDEX ON run_2020 (note)")
    assert drop(table, report.location) == "dropped"


def test_fingerprint_and_copy_digest_are_of_one_snapshot(table: Database) -> None:
    with snapshot.holding(from_dsn(table.dsn), order().partition) as held:
        table.execute("DELETE FROM run_2020 WHERE id > 10")
        contents = snapshot.read(held)
    assert (contents.fingerprint.rows, contents.copied) == (100, 100)
    assert json.loads(contents.columns[0].model_dump_json())["name"] == "id"


@pytest.mark.parametrize(("partition", "words"), [("run_2019", "a second table"), ("run_2020", "another table")])
def test_a_dump_that_holds_more_than_the_rows_of_the_table_proves_nothing(
    table: Database, tmp_path: Path, partition: str, words: str
) -> None:
    report = make(table, tmp_path, partition)
    data = Path(report.location.removeprefix("file://"), DATA)
    command = [pgdump.find("pg_dump"), "-Fc", "--quote-all-identifiers", "-t", "run_20*", "-f", str(data), table.dsn]
    subprocess.run(command, check=True, timeout=60)
    dump = data.read_bytes()
    rewrite(report, bytes=len(dump), sha256=hashlib.sha256(dump).hexdigest())
    with pytest.raises(DumpFailed, match=words):
        open_archive(report.location).prove()


def test_the_position_of_a_sequence_that_the_table_owns_stands_beside_its_rows(table: Database, tmp_path: Path) -> None:
    table.execute("""CREATE TABLE "it's; COPY" (id serial, "a;\nb" text); INSERT INTO "it's; COPY" VALUES (1), (2)""")
    report = make(table, tmp_path, "it's; COPY")
    archive = open_archive(report.location)
    with pgdump.restore_script(archive.open()) as script:
        assert b"pg_catalog.setval" in b"".join(script)
    archive.prove()
    assert report.rows == 2
