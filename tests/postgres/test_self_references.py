"""A foreign key of a table to itself is kept by a conversion and its way back, and checks every row all the time."""

from __future__ import annotations

import time
from contextlib import suppress

import psycopg
import pytest

from lab.postgres import Database
from partwarden.errors import DatabaseUnreachable
from partwarden.postgres import conversion_finish, conversion_swap, conversion_undo
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.converted import LEGACY, LOWER, UPPER, conversion, convert, dump, prepare, swap, undo
from support.meanwhile import keep, killing_after_each_ddl_command

TABLE = """
    CREATE TABLE run (id int, at timestamptz, up int, up_at timestamptz, CONSTRAINT run_pkey PRIMARY KEY (id, at),
    CONSTRAINT up FOREIGN KEY (up, up_at) REFERENCES run ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE) {};
    COMMENT ON CONSTRAINT up ON run IS 'its chief';"""
RUN = (
    TABLE.format("")
    + "INSERT INTO run SELECT n, '2026-01-01Z', nullif(n - 1, 0), '2026-01-01Z' FROM generate_series(1, 100) n"
)
KEYS = """SELECT conrelid::regclass::text, confrelid::regclass::text, convalidated FROM pg_constraint
    WHERE contype = 'f' AND conname = 'up' ORDER BY 1"""


def is_checked(database: Database) -> None:
    """Each row that is written is checked, whichever partition it is for; a row that is deleted is one no more."""
    with database.connect() as connection:
        for year in (2026, 2027):
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                connection.execute(f"INSERT INTO run VALUES (500, '{year}-02-02Z', 400, '2026-01-01Z')".encode())


def finish(database: Database, name: str) -> None:
    with session(from_dsn(database.dsn)) as connection:
        conversion_finish.finish(connection, "public", name, time.monotonic() + 10)


def test_it_is_that_of_a_table_partitioned_from_the_start_and_comes_back(database: Database) -> None:
    database.execute(RUN)
    before = dump(database)
    convert(database)
    is_checked(database)
    database.execute("INSERT INTO run VALUES (200, '2027-05-05Z', 3, '2026-01-01Z')")
    assert len(database.query(KEYS)) == 4
    with database.server.new_database() as reference:
        reference.execute(TABLE.format("PARTITION BY RANGE (at)"))
        reference.execute(f"CREATE TABLE {LEGACY} PARTITION OF run FOR VALUES FROM ('{LOWER}') TO ('{UPPER}')")
        keep(reference.dsn, premake=2)
        found, wanted = dump(database), dump(reference)
        assert {k: v for k, v in found.items() if LEGACY not in k} == {
            k: v for k, v in wanted.items() if LEGACY not in k
        }
    # New partitions have it, too.
    keep(database.dsn, premake=3)
    assert len(database.query(KEYS)) == 5
    database.execute("UPDATE run SET id = 300 WHERE id = 3; DELETE FROM run WHERE id = 50")
    assert database.query("SELECT up FROM run WHERE id IN (4, 51, 200) ORDER BY id") == [(300,), (None,), (300,)]
    assert undo(database.dsn) == 1
    assert dump(database) == before
    assert database.query(KEYS) == [("run", "run", True)]
    assert database.query("SELECT count(*) FROM run") == [(100,)]


def test_no_row_is_read_for_it_under_the_lock(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute(RUN)
    made = conversion(database, ahead=())
    prepare(database, made)
    database.execute(f"""ALTER DATABASE "{database.name}" SET client_min_messages = debug1""")
    said: list[str] = []

    def watched(work: str) -> int:
        said.clear()
        with session(from_dsn(database.dsn)) as connection:
            connection.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
            if work == "swap":
                conversion_swap.swap(connection, made, time.monotonic() + 10)
            elif work == "undo":
                conversion_undo.undo(connection, "public", "run", time.monotonic() + 10)
            else:
                conversion_finish.finish(connection, "public", work, time.monotonic() + 10)
        return len([each for each in said if each == 'validating foreign key constraint "up"'])

    for work, name in (("swap", LEGACY), ("undo", "run")):
        with monkeypatch.context() as patched:
            patched.setattr(conversion_swap, "finish", lambda *_: None)
            patched.setattr(conversion_undo, "finish", lambda *_: None)
            assert watched(work) == 0
        assert watched(name) == 1
    assert database.query(KEYS) == [("run", "run", True)]


def test_it_may_be_interrupted_at_any_command_and_every_row_is_checked(database: Database) -> None:
    database.execute(RUN)
    before, made = dump(database), conversion(database)
    prepare(database, made)
    kind = "SELECT relkind::text FROM pg_class WHERE oid = 'run'::regclass"

    def there() -> None:
        if database.query(kind) == [("r",)]:
            swap(database.dsn, made)
        else:
            finish(database, LEGACY)

    def back() -> None:
        if database.query(kind) == [("p",)]:
            undo(database.dsn)
        else:
            finish(database, "run")

    for step, many in ((there, 4), (back, 1)):
        kills = 0
        for _ in killing_after_each_ddl_command(database):
            with suppress(DatabaseUnreachable):
                step()
                break
            kills += 1
            if database.query(kind) == [("p",)]:
                is_checked(database)
        database.execute("DROP EVENT TRIGGER count_ddl; DROP FUNCTION count_ddl()")
        assert kills > 10
        assert {(to, valid) for _, to, valid in database.query(KEYS)} == {("run", True)}
        assert len(database.query(KEYS)) == many
        is_checked(database) if many > 1 else None
    assert dump(database) == before


def test_the_way_back_is_open_before_it_is_validated(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute(RUN)
    before, made = dump(database), conversion(database)
    prepare(database, made)
    with monkeypatch.context() as patched:
        patched.setattr(conversion_swap, "finish", lambda *_: None)
        swap(database.dsn, made)
    assert (LEGACY, "run", False) in database.query(KEYS)
    is_checked(database)
    database.execute("INSERT INTO run VALUES (200, '2027-05-05Z', 3, '2026-01-01Z')")
    assert undo(database.dsn) == 1
    assert dump(database) == before
