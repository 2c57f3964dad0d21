"""An OID names another table on another server: a Job connected to one reads and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from lab.postgres import Database, Server
from partwarden.api.destination import PVC, Destination
from partwarden.api.policy import Table, TableSpec
from partwarden.archive import create, table_lookup
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import JobSpec, Report, Task
from partwarden.archive.manifest import TableName
from partwarden.errors import InsufficientPrivilege, TableChanged
from partwarden.postgres import catalog, table_state
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.archived import use_client

TABLE = """
CREATE TABLE run (id bigint, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
INSERT INTO run SELECT n, '2020-05-05Z' FROM generate_series(1, 10) n;
"""
HIDDEN = "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch)


@pytest.fixture
def twins(database: Database) -> Iterator[tuple[Database, Database]]:
    """Two databases, each with a table of one OID. In the second, other rows came later."""
    database.execute(TABLE)
    twin = Database(database.server, f"{database.name}_twin")
    with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(copy.format(sql.Identifier(twin.name), sql.Identifier(database.name)))
    with twin:
        twin.execute("INSERT INTO run VALUES (11, '2020-06-06Z')")
        assert oid(twin) == oid(database)
        yield database, twin


def oid(database: Database) -> int:
    ((found,),) = database.query("SELECT 'run_2020'::regclass::oid::int8")
    return int(str(found))


def identity(dsn: str) -> str:
    with session(from_dsn(dsn)) as connection:
        return table_state.read(connection)


def order(database: Database, server: str, **fields: Any) -> JobSpec:
    return JobSpec(
        task=Task.ARCHIVE,
        id="0001",
        server=server,
        partition=TableName(schema_="public", name="run_2020", oid=oid(database)),
        destination=Destination(pvc=PVC(claim_name="archives")),
    ).model_copy(update=fields)


def make(database: Database, server: str, folder: Path, dsn: str = "") -> Report:
    info = from_dsn(dsn or database.dsn)
    return create.archive(order(database, server), info, Folder(folder), lambda line: None)


def check(database: Database, server: str, folder: Path, report: Report) -> Report:
    proven = {"location": report.location, "sha256": report.sha256, "manifest_sha256": report.manifest_sha256}
    asked = order(database, server, task=Task.CHECK, **proven)
    return create.check(asked, from_dsn(database.dsn), Folder(folder))


def test_a_job_archives_and_checks_a_table_of_that_server_only(
    twins: tuple[Database, Database], tmp_path: Path
) -> None:
    here, moved = twins
    mine, other = identity(here.dsn), identity(moved.dsn)
    with pytest.raises(TableChanged, match=rf"the archive is of a table of server {mine}, and this is {other}"):
        make(moved, mine, tmp_path)
    assert list(tmp_path.iterdir()) == []
    report = make(here, mine, tmp_path)
    assert (report.ok, report.server, report.rows) == (True, mine, 10)
    with pytest.raises(TableChanged, match="correct the Secret, or make another PartitionArchive"):
        check(moved, mine, tmp_path, report)
    assert check(here, mine, tmp_path, report).server == mine
    # What was there already is reported with the server that it was compared on.
    assert make(here, mine, tmp_path) == report


def test_a_table_is_found_on_its_server_only(twins: tuple[Database, Database]) -> None:
    here, moved = twins
    with session(from_dsn(here.dsn)) as connection:
        server = table_lookup.find(connection, "public", "run_2020").server
    assert server == identity(here.dsn)
    with session(from_dsn(moved.dsn)) as connection, pytest.raises(TableChanged, match=f"server {server}"):
        table_lookup.find(connection, "public", "run_2020", oid(moved), server=server)


def test_the_server_identity_is_part_of_an_observation(database: Database) -> None:
    database.execute(TABLE)
    with session(from_dsn(database.dsn)) as connection:
        observed = catalog.observe(connection, TableSpec(table=Table(schema_="public", name="run")))
        assert observed.server.identity == table_state.read(connection)


def test_two_servers_are_two_and_a_standby_that_is_promoted_is_its_primary(
    new_server: Callable[..., Server], server: Server
) -> None:
    primary = new_server(server.major)
    known = identity(primary.dsn())
    assert known != identity(server.dsn())
    with primary.standby() as standby:
        assert identity(standby.dsn()) == known
        primary.stop("immediate")
        with psycopg.connect(standby.dsn(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        assert identity(standby.dsn()) == known


def test_a_role_that_may_not_read_the_identity_gets_the_grant_it_needs(database: Database, tmp_path: Path) -> None:
    database.execute(TABLE)
    role, known = database.new_role(), identity(database.dsn)
    database.execute(f"ALTER TABLE run OWNER TO {role.name}; ALTER TABLE run_2020 OWNER TO {role.name}; {HIDDEN}")
    with pytest.raises(InsufficientPrivilege, match=r"GRANT EXECUTE ON FUNCTION pg_catalog\.pg_control_system\(\)"):
        make(database, known, tmp_path, role.dsn)
    assert list(tmp_path.iterdir()) == []
    # By hand the table is named by its database, and no other is meant.
    report = make(database, "", tmp_path, role.dsn)
    assert (report.ok, report.server) == (True, "")
    with session(from_dsn(role.dsn)) as connection:
        assert table_lookup.find(connection, "public", "run_2020").server == ""


def test_a_policy_whose_role_may_not_ask_does_nothing(database: Database) -> None:
    database.execute(TABLE)
    role = database.new_role()
    database.execute(f"ALTER TABLE run OWNER TO {role.name}; ALTER TABLE run_2020 OWNER TO {role.name}; {HIDDEN}")
    with (
        pytest.raises(InsufficientPrivilege, match="permission denied for function pg_control_system"),
        session(from_dsn(role.dsn)) as connection,
    ):
        catalog.observe(connection, TableSpec(table=Table(schema_="public", name="run")))
