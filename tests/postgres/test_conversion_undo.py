"""The way back of a conversion loses no row, and is refused where it could."""

from __future__ import annotations

import time

import psycopg
import pytest

from lab.postgres import Database
from partwarden.errors import StatementFailed, StatementRejected, TableBusy
from partwarden.postgres import conversion_undo
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.converted import AHEAD, ID, LEGACY, PLAIN, convert, undo

ROWS = "SELECT count(*), count(DISTINCT id), min(at)::date::text, max(at)::date::text FROM run"


@pytest.fixture
def converted(database: Database) -> Database:
    """The table with 1,000 rows in its first partition, and 3 in the others."""
    database.execute(PLAIN)
    convert(database, ID)
    database.execute("INSERT INTO run VALUES (2001, '2027-05-05Z'), (2002, '2028-05-05Z'), (2003, '2028-06-06Z')")
    return database


def test_more_rows_than_the_limit_are_refused_with_their_numbers(converted: Database) -> None:
    before = converted.query(ROWS)
    with pytest.raises(StatementRejected, match=r"1 row in public.run_2027, 2 rows in public.run_2028; at most 2"):
        undo(converted.dsn, limit=2)
    assert converted.query(ROWS) == before
    assert undo(converted.dsn, limit=3) == 3
    assert converted.query(ROWS) == before
    assert converted.query("SELECT count(*) FROM pg_class WHERE relname IN ('run_2027', 'run_2028')") == [(0,)]


def test_rows_that_cannot_move_in_time_stay_and_are_counted(
    converted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = converted.query("SELECT count(*), sum(hashtext(run::text)::int8) FROM run")
    with monkeypatch.context() as patched:
        patched.setattr(conversion_undo, "UNDER_LOCK", 1)
        with pytest.raises(StatementFailed, match=r"all was undone .*; 3 rows of later partitions move back meanwhile"):
            undo(converted.dsn)
    assert converted.query("SELECT count(*), sum(hashtext(run::text)::int8) FROM run") == before
    assert converted.query("SELECT relkind FROM pg_class WHERE relname = 'run'") == [("p",)]


def test_a_row_with_a_key_of_an_old_one_keeps_everything_as_it_is(converted: Database) -> None:
    converted.execute("INSERT INTO run VALUES (7, '2027-05-05Z')")
    with pytest.raises(StatementRejected, match=rf"has a key that public.{LEGACY} holds as well"):
        undo(converted.dsn)
    assert converted.query("SELECT count(*) FROM run") == [(1004,)]
    converted.execute("DELETE FROM run WHERE id = 7 AND at >= '2027-01-01Z'")
    assert undo(converted.dsn) == 3


def test_an_older_snapshot_that_would_miss_rows_is_waited_for(converted: Database) -> None:
    with converted.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        with pytest.raises(TableBusy, match="has an older snapshot"):
            undo(converted.dsn, patience=1.0)
        assert reader.execute("SELECT count(*) FROM run").fetchone() == (1003,)
    assert undo(converted.dsn) == 3


def test_nothing_of_another_kind_of_partition_is_dropped(converted: Database) -> None:
    converted.execute("CREATE TABLE run_2029 (LIKE run INCLUDING ALL) PARTITION BY RANGE (at)")
    converted.execute("ALTER TABLE run ATTACH PARTITION run_2029 FOR VALUES FROM ('2029-01-01Z') TO ('2030-01-01Z')")
    with pytest.raises(StatementRejected, match=r"public\.run_2029 is no plain table; detach it first"):
        undo(converted.dsn)
    assert converted.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'run'::regclass") == [(4,)]


def test_a_table_that_was_never_converted_is_left_alone(database: Database) -> None:
    database.execute("CREATE TABLE run (at date) PARTITION BY RANGE (at); CREATE TABLE rest PARTITION OF run DEFAULT")
    with pytest.raises(StatementRejected, match="bears the mark of a conversion"):
        undo(database.dsn)
    # A copy of a comment says nothing of another table.
    database.execute("""COMMENT ON TABLE rest IS 'partwarden.dev/converted {"oid": 1, "parent": 2, "keys": [],
        "nullable": false, "validate": [], "undone": false}'""")
    with pytest.raises(StatementRejected, match="bears the mark of a conversion"):
        undo(database.dsn)


def test_what_was_changed_since_holds_for_the_plain_table(converted: Database) -> None:
    reader = converted.new_role()
    converted.execute(f"""ALTER TABLE run ADD more int DEFAULT 5; CREATE INDEX since ON run (more);
        CREATE STATISTICS st ON n, more FROM run; GRANT SELECT ON run
        TO {reader.name}; CREATE VIEW above AS SELECT more FROM run; COMMENT ON TABLE run IS 'new'""")
    assert undo(converted.dsn) == 3
    assert converted.query("SELECT sum(more) FROM above") == [(5015,)]
    assert converted.query("SELECT stxname FROM pg_statistic_ext WHERE stxrelid = 'run'::regclass") == [("st",)]
    assert converted.query(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'run'::regclass ORDER BY 1"
    ) == [
        ("run_pkey",),
        ("since",),
    ]
    with psycopg.connect(reader.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM public.run").fetchone() == (1003,)
    assert converted.query("SELECT obj_description('run'::regclass)") == [("new",)]


def test_rows_that_all_of_a_database_is_published_for_are_not_moved(converted: Database) -> None:
    converted.execute("CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)")
    with pytest.raises(StatementRejected, match="'pub' publishes every table"):
        undo(converted.dsn)
    converted.execute(f"DELETE FROM run WHERE at >= '{AHEAD[0].lower}'")
    assert undo(converted.dsn) == 0
    assert converted.query("SELECT count(*) FROM run") == [(1000,)]


@pytest.mark.parametrize(
    "renamed",
    [f"TABLE {LEGACY} RENAME TO first", f"INDEX {LEGACY}_pkey RENAME TO narrow", "INDEX run_pkey RENAME TO k"],
)
def test_what_was_renamed_since_is_found(converted: Database, renamed: str) -> None:
    converted.execute(f"ALTER {renamed}")
    assert undo(converted.dsn) == 3
    keys = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'run'::regclass"
    assert converted.query(keys) == [("k" if "run_pkey" in renamed else "run_pkey",)]


def test_a_table_that_bears_another_name_since_is_made_plain_under_that(converted: Database) -> None:
    converted.execute("ALTER TABLE run RENAME TO ran")
    with session(from_dsn(converted.dsn)) as connection:
        assert conversion_undo.undo(connection, "public", "ran", time.monotonic() + 10.0) == 3
    assert converted.query("SELECT count(*) FROM ran") == [(1003,)]
    keys = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'ran'::regclass"
    assert converted.query(keys) == [("run_pkey",)]


def test_a_table_that_was_moved_or_given_away_says_what_to_do_with_its_partitions(converted: Database) -> None:
    owner = converted.new_role().name
    converted.execute(f"""GRANT ALL ON SCHEMA public TO {owner}; CREATE SCHEMA new AUTHORIZATION {owner};
        ALTER TABLE run OWNER TO {owner}; ALTER TABLE run SET SCHEMA new""")
    for what in ("owner", "owner", "owner", "schema"):
        with (
            session(from_dsn(converted.dsn)) as connection,
            pytest.raises(StatementRejected, match=f"has another {what} than the table; ALTER TABLE ") as refused,
        ):
            conversion_undo.undo(connection, "new", "run", time.monotonic() + 10.0)
        converted.execute(str(refused.value).partition("the table; ")[2])
    with session(from_dsn(converted.dsn)) as connection:
        assert conversion_undo.undo(connection, "new", "run", time.monotonic() + 10.0) == 3
    assert converted.query("SELECT count(*) FROM new.run") == [(1003,)]


def test_a_foreign_key_to_the_wider_key_that_was_made_since_is_refused_in_words(converted: Database) -> None:
    converted.execute("CREATE TABLE log (id int, at timestamptz, FOREIGN KEY (id, at) REFERENCES run)")
    with pytest.raises(StatementRejected, match=r"points to a key that the table will not have then .*; drop it"):
        undo(converted.dsn)
    converted.execute("DROP TABLE log")
    assert undo(converted.dsn) == 3
