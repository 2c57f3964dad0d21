"""Behind a real PgBouncer: no archive is begun that would leave pg_dump's settings in the application's sessions."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lab.pgbouncer import OPERATORS, USUAL, PgBouncer
from lab.postgres import Database, Server
from partwarden.api.database import Connection
from partwarden.api.destination import PVC, Destination
from partwarden.archive import create, pgdump
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import DATABASE_PREFIX, VARIABLE, WRONG, JobSpec, Report, Task
from partwarden.archive.manifest import TableName
from partwarden.errors import BehindPooler, DatabaseUnreachable
from partwarden.postgres.conninfo import ConnectionInfo, from_dsn
from support import archived, zoo
from support.complaints import RUN, check, complaint, complaints

POOL = 3
"""Server connections of each pool."""

Start = Callable[..., PgBouncer]


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    archived.use_client(monkeypatch)


@pytest.fixture
def start(server: Server, new_pooler: Start) -> Start:
    """Starts poolers in front of the server: start(pool_mode, ignored parameters, **settings)."""

    def begin(pool_mode: str, ignored: str = OPERATORS, **settings: object) -> PgBouncer:
        return new_pooler(server, pool_mode, ignored=ignored, settings={"default_pool_size": POOL, **settings})

    return begin


@pytest.fixture
def plain(database: Database) -> Database:
    zoo.build(database, "by date")
    return database


def order(task: Task = Task.ARCHIVE, **fields: object) -> JobSpec:
    specimen = zoo.ZOO["by date"]
    return JobSpec(
        task=task,
        id="0001",
        partition=TableName(schema_=specimen.schema, name=specimen.partition, oid=0),
        destination=Destination(pvc=PVC(claim_name="archives")),
    ).model_copy(update=fields)


def archive(info: ConnectionInfo, folder: Path) -> Report:
    return create.archive(order(), info, Folder(folder), lambda line: None)


def sessions(pooler: PgBouncer, name: str, count: int = POOL) -> list[tuple[Any, ...]]:
    """What an application finds on each server connection of its pool: the rows of a table by its bare name."""
    found = []
    with ExitStack() as stack:
        # A transaction keeps a server connection: so every one of the pool is seen.
        for _ in range(count):
            connection = stack.enter_context(psycopg.connect(pooler.dsn(name)))
            settings = (
                "current_setting('search_path'), current_setting('statement_timeout'), current_setting('TimeZone')"
            )
            row = connection.execute(f"SELECT (SELECT count(*) FROM zoo_2020), {settings}").fetchone()
            assert row is not None
            found.append(row)
    return found


@contextlib.contextmanager
def busy(pooler: PgBouncer, name: str, count: int) -> Iterator[None]:
    """An application with so many clients, each of which makes one short transaction after the other."""
    ending, errors = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            with psycopg.connect(pooler.dsn(name), autocommit=True, prepare_threshold=None) as connection:
                while not ending.is_set():
                    with connection.transaction():
                        connection.execute("SELECT count(*) FROM zoo_2020")
        except psycopg.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        ending.set()
        for each in threads:
            each.join()
    assert not errors


@pytest.mark.parametrize("ignored", [OPERATORS, USUAL])
def test_nothing_is_archived_through_a_pooler_that_shares_sessions_and_they_are_unharmed(
    plain: Database, start: Start, tmp_path: Path, ignored: str
) -> None:
    pooler = start("transaction", ignored)
    before = sessions(pooler, plain.name)
    with pytest.raises(BehindPooler) as caught:
        archive(from_dsn(pooler.dsn(plain.name)), tmp_path)
    check(
        caught.value,
        "BehindPooler",
        f"database {plain.name!r} at 127.0.0.1:{pooler.port}",
        "set spec.database.archive.host (by hand, --dsn) to the PostgreSQL server itself",
        secrets=[plain.server.password],
    )
    assert list(tmp_path.iterdir()) == []
    assert sessions(pooler, plain.name) == before == [(12, '"$user", public', "0", "UTC")] * POOL


def test_the_message_names_the_server_behind_the_pooler(plain: Database, start: Start, tmp_path: Path) -> None:
    pooler = start("transaction")
    with pytest.raises(BehindPooler, match=f"which the pooler reaches at 127.0.0.1:{plain.server.port}$"):
        archive(from_dsn(pooler.dsn(plain.name)), tmp_path)


def test_a_job_behind_a_pooler_does_not_compare_an_archive_either(
    plain: Database, start: Start, tmp_path: Path
) -> None:
    proven = archive(from_dsn(plain.dsn), tmp_path)
    again = order(
        Task.CHECK, location=proven.location, sha256=proven.sha256, manifest_sha256=proven.manifest_sha256, id=proven.id
    )
    pooler = start("transaction")
    with pytest.raises(BehindPooler):
        create.check(again, from_dsn(pooler.dsn(plain.name)), Folder(tmp_path))
    assert sessions(pooler, plain.name) == [(12, '"$user", public', "0", "UTC")] * POOL
    assert create.check(again, from_dsn(plain.dsn), Folder(tmp_path)).ok


def test_a_job_behind_a_pooler_reports_it_and_is_not_retried(plain: Database, start: Start, tmp_path: Path) -> None:
    pooler = start("transaction")
    report_file = tmp_path / "report"
    asked = order(mount=str(tmp_path)).model_dump_json(by_alias=True)
    variables = {**os.environ, VARIABLE: asked, f"{DATABASE_PREFIX}uri": pooler.dsn(plain.name)}
    command = [sys.executable, "-m", "partwarden", "job", "--report", str(report_file)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == WRONG, done.stderr
    assert Report.model_validate_json(report_file.read_text()).reason == "BehindPooler"
    assert "BehindPooler: " in done.stderr
    assert "Traceback" not in done.stderr
    # The same, by the way that the policy names.
    direct = Connection(host=plain.server.host, port=plain.server.port)
    variables[VARIABLE] = order(mount=str(tmp_path), connection=direct).model_dump_json(by_alias=True)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sessions(pooler, plain.name) == [(12, '"$user", public', "0", "UTC")] * POOL


def test_pg_dump_itself_would_break_the_application(plain: Database, start: Start) -> None:
    """What all of this is for. Each statement outside a transaction comes to the next server connection here."""
    pooler = start("transaction", server_round_robin=1)
    sessions(pooler, plain.name)
    with plain.connect() as connection, connection.transaction():
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        # It sets search_path more than once, and only the connection of its transaction is closed at its end.
        pgdump.definition(from_dsn(pooler.dsn(plain.name)), "public", "zoo_2020", str(row[0]))
        with pytest.raises(psycopg.errors.UndefinedTable):
            sessions(pooler, plain.name)


def test_an_archive_leaves_nothing_where_a_session_pooler_resets_nothing(
    plain: Database, start: Start, tmp_path: Path
) -> None:
    """pg_dump ends within its transaction: PgBouncer closes such a server connection."""
    pooler = start("session", server_reset_query="")
    before = sessions(pooler, plain.name)
    assert archive(from_dsn(pooler.dsn(plain.name)), tmp_path).rows == 12
    assert sessions(pooler, plain.name) == before


def test_an_archive_needs_two_server_connections_of_a_session_pooler(plain: Database, start: Start) -> None:
    pooler = start("session", default_pool_size=1)
    with pytest.raises(DatabaseUnreachable) as caught:
        pgdump.check(from_dsn(pooler.dsn(plain.name)), connect_timeout=2)
    check(caught.value, "DatabaseUnreachable", "give its pool more server connections")


@pytest.mark.parametrize(
    "settings",
    [
        {"default_pool_size": 1},
        {"default_pool_size": 2},
        {"server_round_robin": 1},
        {"server_round_robin": 1, "default_pool_size": 2},
    ],
    ids=str,
)
def test_a_pooler_is_detected_however_it_assigns_server_connections(
    plain: Database, start: Start, settings: dict[str, object]
) -> None:
    pooler = start("transaction", **settings)
    # All of the pool is open by then.
    sessions(pooler, plain.name, int(str(settings.get("default_pool_size", POOL))))
    with pytest.raises(BehindPooler):
        pgdump.check(from_dsn(pooler.dsn(plain.name)))


@pytest.mark.parametrize("round_robin", [0, 1])
@pytest.mark.parametrize("clients", [1, 2, 6])
def test_a_pooler_is_detected_while_the_application_works(
    plain: Database, start: Start, round_robin: int, clients: int
) -> None:
    pooler = start("transaction", server_round_robin=round_robin)
    with busy(pooler, plain.name, clients):
        for _ in range(20):
            with pytest.raises(BehindPooler):
                pgdump.check(from_dsn(pooler.dsn(plain.name)))


def test_an_archive_through_a_session_pooler_works(plain: Database, start: Start, tmp_path: Path) -> None:
    pooler = start("session")
    assert archive(from_dsn(pooler.dsn(plain.name)), tmp_path).rows == 12
    assert sessions(pooler, plain.name) == [(12, '"$user", public', "0", "UTC")] * POOL


def test_a_session_pooler_that_takes_no_options_is_refused(plain: Database, start: Start, tmp_path: Path) -> None:
    pooler = start("session", USUAL)
    with pytest.raises(BehindPooler) as caught:
        archive(from_dsn(pooler.dsn(plain.name)), tmp_path)
    # From 1.20 on PgBouncer reads what `options` says, and names a parameter that it does not know.
    check(caught.value, "BehindPooler", "unsupported startup parameter", "options", "the PostgreSQL server itself")


def test_the_server_itself_is_never_taken_for_a_pooler(plain: Database) -> None:
    role = plain.new_role("IN ROLE pg_read_all_data")
    for dsn in (plain.dsn, role.dsn, f"{plain.dsn}?options=-c%20track_activities%3Doff"):
        for _ in range(5):
            pgdump.check(from_dsn(dsn))


def test_statement_pooling_is_a_user_error(database: Database, start: Start, tmp_path: Path) -> None:
    database.execute(RUN)
    pooler = start("statement")
    words = ("transaction blocks not allowed in statement pooling mode", "the PostgreSQL server itself", "pool_mode")
    check(complaint(from_dsn(pooler.dsn(database.name))), "BehindPooler", *words)
    # Also where nothing is to be done.
    assert complaints(from_dsn(database.dsn)) == []
    check(complaint(from_dsn(pooler.dsn(database.name))), "BehindPooler", *words)
    with pytest.raises(BehindPooler):
        archive(from_dsn(pooler.dsn(database.name)), tmp_path)
