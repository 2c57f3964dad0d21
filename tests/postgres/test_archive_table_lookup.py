"""The lookup of the table to archive in the catalog, attached or detached."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lab.postgres import Database
from partwarden.api.retention import KeyEncoding
from partwarden.archive import table_lookup
from partwarden.archive.table_lookup import Target
from partwarden.errors import TableNotFound
from partwarden.planner import marker
from partwarden.planner.calendar import BoundedRange
from partwarden.planner.marker import Marker, Phase
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn

RUN = """
CREATE TABLE run (at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
"""
YEAR = ("2020-01-01 00:00:00+00", "2021-01-01 00:00:00+00")


def find(database: Database, name: str = "run_2020", oid: int | None = None, **more: KeyEncoding) -> Target:
    with session(from_dsn(database.dsn)) as connection:
        return table_lookup.find(connection, "public", name, oid, **more)


def oid(database: Database, table: str) -> int:
    ((found,),) = database.query("SELECT %s::regclass::oid::int8", table)
    return int(str(found))


def mark(database: Database, table: str = "run_2020", of: str = "run_2020") -> None:
    """As it stands in the comment after a detach."""
    since = datetime(2026, 1, 1, tzinfo=UTC)
    years = BoundedRange(datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))
    held = Marker(oid(database, of), oid(database, "run"), "public.run", years, Phase.DETACHED, since)
    text = marker.write("", held) or ""
    database.execute(f"COMMENT ON TABLE {table} IS '{text}'")


def test_a_partition_is_found_with_its_parent_its_bounds_and_their_key(database: Database) -> None:
    # Whatever the database says of zones: bounds are read in one.
    database.execute(f"ALTER DATABASE {database.name} SET TimeZone = 'Asia/Kolkata'; {RUN}")
    found = find(database)
    assert (found.partition.oid, str(found.partition)) == (oid(database, "run_2020"), "public.run_2020")
    assert found.parent
    assert (found.parent.oid, str(found.parent)) == (oid(database, "run"), "public.run")
    assert (found.bounds, found.key) == (YEAR, "at")


def test_what_was_renamed_or_moved_is_found_by_its_oid(database: Database) -> None:
    database.execute(RUN)
    known = oid(database, "run_2020")
    database.execute("CREATE SCHEMA old; ALTER TABLE run_2020 RENAME TO run_old; ALTER TABLE run_old SET SCHEMA old")
    found = find(database, oid=known)
    assert (found.partition.oid, str(found.partition), found.bounds) == (known, "old.run_old", YEAR)
    with pytest.raises(TableNotFound, match=r"public\.run_2020 does not exist"):
        find(database)


def test_another_table_of_that_name_is_not_the_one_with_that_oid(database: Database) -> None:
    database.execute(RUN)
    known = oid(database, "run_2020")
    database.execute("DROP TABLE run_2020; CREATE TABLE run_2020 (at timestamptz)")
    with pytest.raises(TableNotFound):
        find(database, oid=known)


def test_the_mark_gives_parent_and_bounds_of_a_detached_table(database: Database) -> None:
    database.execute(f"{RUN} ALTER TABLE run DETACH PARTITION run_2020")
    found = find(database)
    assert found == Target(found.partition, server=found.server)
    mark(database)
    found = find(database)
    assert found.parent
    assert str(found.parent) == "public.run"
    assert (found.bounds, found.key) == (YEAR, "at")


def test_the_mark_of_another_table_means_nothing(database: Database) -> None:
    database.execute(f"{RUN} ALTER TABLE run DETACH PARTITION run_2020; CREATE TABLE copied (LIKE run_2020)")
    mark(database, "copied", of="run_2020")
    assert find(database, "copied").parent is None


def test_bounds_of_what_was_detached_are_written_as_its_key_takes_them(database: Database) -> None:
    database.execute("CREATE TABLE run (id bigint NOT NULL) PARTITION BY RANGE (id); CREATE TABLE run_2020 (LIKE run)")
    mark(database)
    assert find(database, encoding=KeyEncoding.EPOCH_SECONDS).bounds == ("1577836800", "1609459200")
    assert find(database).bounds is None


@pytest.mark.parametrize("name", ["run", "pg_class", "seen", "no such table"])
def test_a_relation_without_rows_of_its_own_is_refused(database: Database, name: str) -> None:
    database.execute(f"{RUN} CREATE VIEW seen AS SELECT * FROM run_2020")
    with pytest.raises(TableNotFound):
        find(database, name)


def test_names_are_quoted_as_they_are(database: Database) -> None:
    odd = "We\"ird {Näme} %s 'x' \\"
    quoted = '"' + odd.replace('"', '""') + '"'
    database.execute(f"{RUN} ALTER TABLE run_2020 RENAME TO {quoted}")
    assert find(database, odd).partition.name == odd


def test_the_size_is_that_of_heap_and_toast_as_last_counted(database: Database) -> None:
    database.execute(RUN + "ALTER TABLE run ADD note text; ALTER TABLE run ALTER note SET STORAGE EXTERNAL")
    assert find(database).bytes == 0
    database.execute("INSERT INTO run SELECT '2020-05-05Z', repeat('x', 9000) FROM generate_series(1, 100)")
    database.execute("VACUUM run_2020")
    ((expected,),) = database.query(
        "SELECT pg_relation_size(oid) + pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'run_2020'::regclass"
    )
    assert find(database).bytes == expected
    assert find(database).bytes > 900_000
