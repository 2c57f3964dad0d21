"""A worker keeps its session for a moment: the next reconcile of that database finds it as new, or connects."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.api.policy import PartitionPolicySpec
from partwarden.api.retention import KeyEncoding
from partwarden.archive import pgdump
from partwarden.controller import database_work
from partwarden.controller.database_process import DatabaseProcesses
from partwarden.controller.database_work import Supervisor, TableSearch, WorkReport, WorkRequest, find_table
from partwarden.errors import InvalidSpec, PartwardenError
from partwarden.planner.drop_preconditions import UNKNOWN
from partwarden.postgres import kept_session
from partwarden.postgres.conninfo import ConnectionInfo, from_dsn
from partwarden.postgres.kept_session import KeptSession

OURS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'partwarden' AND datname = current_database()"
LEFT = """
SET lock_timeout = '1ms'; SET search_path = public; CREATE TEMP TABLE pg_class_like (id int);
SELECT pg_advisory_lock(7); LISTEN news; SET ROLE {role}; SET SESSION AUTHORIZATION {role}
"""
STATE = """
SELECT current_user = session_user AND session_user = '{user}', current_setting('lock_timeout'),
       current_setting('synchronous_commit'), to_regclass('pg_temp.pg_class_like') IS NULL,
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
       (SELECT count(*) FROM pg_listening_channels())
"""


@pytest.fixture
def kept() -> Iterator[KeptSession]:
    made = KeptSession()
    yield made
    made.close()


def use(kept: KeptSession, info: ConnectionInfo, statement: str = "SELECT 1") -> int:
    """The server process that served."""
    with kept.use(info, 5) as connection:
        connection.execute(statement.encode())
        return connection.info.backend_pid


def test_the_next_use_of_the_same_database_has_the_same_session(kept: KeptSession, database: Database) -> None:
    info = from_dsn(database.dsn)
    assert use(kept, info) == use(kept, info) == use(kept, info)
    kept.close()
    until("it is closed", lambda: not database.query(OURS))


def test_what_a_use_has_left_in_the_session_is_gone_for_the_next(kept: KeptSession, database: Database) -> None:
    info, role = from_dsn(database.dsn), database.new_role()
    first = use(kept, info, LEFT.format(role=role.name))
    with kept.use(info, 5) as connection:
        assert connection.info.backend_pid == first
        (state,) = connection.execute(STATE.format(user=info.parameters["user"]).encode()).fetchall()
    assert state == (True, "0", "local", True, 0, 0)


def test_other_parameters_have_a_session_of_their_own_and_end_the_kept_one(
    kept: KeptSession, database: Database
) -> None:
    info = from_dsn(database.dsn)
    use(kept, info)
    wrong = replace(info, parameters={**info.parameters, "application_name": "other"})
    use(kept, wrong)
    until("the first is closed", lambda: not database.query(OURS))


@pytest.mark.parametrize("statement", ["BEGIN", "SELECT 1/0"])
def test_a_session_that_is_not_as_it_was_is_closed(kept: KeptSession, database: Database, statement: str) -> None:
    info = from_dsn(database.dsn)
    if statement == "BEGIN":
        use(kept, info, statement)
    else:
        with pytest.raises(PartwardenError):
            use(kept, info, statement)
    assert not kept.exists
    until("it is closed", lambda: not database.query(OURS))


def test_a_kept_session_that_the_server_ended_is_replaced_without_an_error(
    kept: KeptSession, database: Database
) -> None:
    info = from_dsn(database.dsn)
    first = use(kept, info)
    database.query("SELECT pg_terminate_backend(%s)", first)
    assert use(kept, info) != first


def test_a_session_serves_for_some_seconds_at_most(
    kept: KeptSession, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = from_dsn(database.dsn)
    first = use(kept, info)
    monkeypatch.setattr(kept_session, "OLDEST", 0.0)
    assert use(kept, info) != first
    assert not kept.exists


@pytest.fixture
def processes() -> Iterator[DatabaseProcesses]:
    made = DatabaseProcesses(256 * 1024 * 1024, observation=60.0)
    yield made
    made.close()


def work(processes: DatabaseProcesses, database: Database, table: str, dsn: str | None = None) -> WorkReport:
    spec = {"database": {"secretRef": {"name": "db"}}, "table": {"name": table}, "interval": "Month"}
    request = WorkRequest(
        spec=PartitionPolicySpec.model_validate(spec),
        connection=from_dsn(dsn or database.dsn),
        held=frozenset(),
        archives=UNKNOWN,
        patience=5.0,
        connect_timeout=10,
    )
    return processes.run(database_work.work, request, Supervisor())


def test_a_worker_keeps_the_session_only_of_a_reconcile_that_has_read_and_only_for_a_moment(
    processes: DatabaseProcesses, database: Database
) -> None:
    database.execute("CREATE TABLE run (at date) PARTITION BY RANGE (at)")
    work(processes, database, "run")
    until("that of a reconcile that made partitions is closed", lambda: not database.query(OURS))
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        for _ in range(3):
            assert work(processes, database, "run").update.ready.reason == "Converged"
            assert len(connection.execute(OURS.encode()).fetchall()) <= 1
    until("it is closed", lambda: not database.query(OURS))


def test_logins_of_one_database_that_work_in_turn_have_one_session_there(
    processes: DatabaseProcesses, database: Database
) -> None:
    database.execute("CREATE TABLE run (at date) PARTITION BY RANGE (at)")
    logins = [database.new_role().dsn for _ in range(3)]
    with psycopg.connect(database.dsn, autocommit=True) as connection, ThreadPoolExecutor(2) as threads:
        # Two workers from now on.
        list(threads.map(lambda dsn: work(processes, database, "absent", dsn), [database.dsn] * 2))
        for dsn in [*logins, *logins]:
            work(processes, database, "run", dsn)
            assert len(connection.execute(OURS.encode()).fetchall()) <= 1


def test_a_table_of_an_archive_is_found_without_keeping_what_was_open(
    processes: DatabaseProcesses, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptSession()
    use(kept, from_dsn(database.dsn))
    monkeypatch.setattr(database_work, "kept", kept)
    seen: list[bool] = []

    def check(*_: object) -> None:
        seen.append(kept.exists)
        raise InvalidSpec("no further")

    monkeypatch.setattr(pgdump, "check", check)
    search = TableSearch(
        connection=from_dsn(database.dsn),
        connect_timeout=5,
        schema="public",
        name="run",
        oid=None,
        server="",
        encoding=KeyEncoding.NATIVE,
        client=0,
    )
    with pytest.raises(InvalidSpec):
        find_table(search, Supervisor())
    assert seen == [False]
