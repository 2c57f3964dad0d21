"""Rows that point to large objects, whose contents no archive of a table holds: reported before one is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lab.postgres import Database
from partwarden.api.destination import PVC, Destination
from partwarden.api.retention import OnLargeObjects
from partwarden.archive import create
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import JobSpec, Task
from partwarden.archive.manifest import TableName
from partwarden.cli.main import main
from partwarden.errors import LargeObjects
from partwarden.planner.archive_gate import ArchiveRequest, CheckRequest
from partwarden.planner.drop_preconditions import Archives, ArchiveState, CheckState
from partwarden.planner.plan import Plan
from partwarden.postgres import fingerprint, large_objects
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import observe_and_plan
from support.archived import here, use_client
from support.meanwhile import NOW, keep, policy
from support.retirement import LONG_AGO, edit_mark, verbs, why

YEARS = """
    CREATE DOMAIN lo AS oid;
    CREATE DOMAIN list AS oid[];
    CREATE TYPE file AS (title text, body lo);
    CREATE TYPE folder AS (title text, files file[]);
    CREATE TABLE run (id int, at timestamptz NOT NULL, doc {type}) PARTITION BY RANGE (at);
    CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z');
    CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
    INSERT INTO run VALUES (0, '2018-05-05Z', NULL);
"""
"""The extension lo has that very domain, and is not everywhere."""
POINTING = {
    "oid": "{}",
    "lo": "{}",
    "oid[]": "ARRAY[0, {}]::oid[]",
    "lo[]": "ARRAY[[0, {}]]::lo[]",
    "list": "ARRAY[{}]::oid[]",
    "file": "ROW('x', {})::file",
    "file[]": "ARRAY[NULL, ROW('x', {})::file]",
    "folder": "ROW('x', ARRAY[ROW('x', {})::file])::folder",
}
"""By the type of a column: a value with the OID of a large object in it."""
DETACH: dict[str, Any] = {"keepFor": "5y", "archive": {"pvc": {"claimName": "archives"}}}
DROP: dict[str, Any] = {**DETACH, "onExpire": "Drop", "grace": "1h"}
POLICY = """\
apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {{name: run}}
spec: {{table: {{name: run}}, retention: {{keepFor: 5y, largeObjects: {said}}}}}
"""
SAYS = "column doc holds OIDs of large objects"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch)


def build(database: Database, type_: str = "lo", value: str | None = "lo_from_bytea(0, 'hello')") -> None:
    """run, by year; in 2018 a row that points to nothing, and three with the value."""
    database.execute(YEARS.format(type=type_))
    if value is not None:
        database.execute(
            f"INSERT INTO run SELECT n, '2018-05-05Z', {POINTING.get(type_, '{}').format(value)} "
            "FROM generate_series(1, 3) n"
        )


def fields(retention: dict[str, Any]) -> dict[str, Any]:
    return {"startFrom": "2026-01-01", "premake": 0, "retention": retention}


def planned(database: Database, retention: dict[str, Any], archives: Archives | None = None) -> Plan:
    with session(from_dsn(database.dsn)) as connection:
        known = archives or Archives()
        return observe_and_plan(connection, policy(**fields(retention)), NOW, archives=known)[1]


def errors(plan: Plan) -> list[tuple[str, str]]:
    """Which findings are errors, and of what."""
    return [(each.reason, each.object) for each in plan.findings if each.error is not None]


def requests(plan: Plan) -> list[type]:
    return [type(each) for each in plan.retired.gate.requests]


def run(database: Database, *arguments: str) -> Result:
    done = CliRunner().invoke(main, [*arguments, "--dsn", database.dsn])
    assert "Traceback" not in done.output
    return done


def order(**more: Any) -> JobSpec:
    return JobSpec(
        task=Task.ARCHIVE,
        id="0001",
        partition=TableName(schema_="public", name="run_2018", oid=0),
        destination=Destination(pvc=PVC(claim_name="archives")),
    ).model_copy(update=more)


def job(database: Database, folder: Path, **more: Any) -> None:
    create.archive(order(**more), from_dsn(database.dsn), Folder(folder), lambda line: None)


@pytest.mark.parametrize("type_", POINTING)
def test_a_policy_reports_them_before_anything_is_archived_or_detached(database: Database, type_: str) -> None:
    build(database, type_)
    plan = planned(database, DETACH)
    assert (plan.actions, requests(plan)) == ((), [])
    assert errors(plan) == [("LargeObjects", "public.run_2018")]
    (message,) = [each.message for each in plan.findings if each.reason == "LargeObjects"]
    assert message.startswith(f"cannot archive table public.run_2018: {SAYS}")
    assert "spec.retention.largeObjects: LeaveOut" in message


@pytest.mark.parametrize("type_", POINTING)
def test_the_commands_refuse_before_anything_is_written(database: Database, tmp_path: Path, type_: str) -> None:
    build(database, type_)
    arguments = ("archive", "--partition", "run_2018", "--to", str(tmp_path))
    done = run(database, *arguments)
    assert done.exit_code == 1
    assert f"cannot archive table public.run_2018: {SAYS}" in done.output
    assert list(tmp_path.iterdir()) == []
    done = run(database, *arguments, "--without-large-objects")
    assert done.exit_code == 0, done.output
    archive = done.stdout.splitlines()[-1]
    dropping = ("drop", "run_2018", "--table", "run", "--archive", archive, "--yes")
    done = run(database, *dropping)
    assert done.exit_code == 1
    assert f"cannot drop table public.run_2018: {SAYS}" in done.output
    assert database.query("SELECT count(*) FROM run") == [(4,)]
    done = run(database, *dropping, "--without-large-objects")
    assert done.exit_code == 0, done.output
    assert database.query("SELECT to_regclass('run_2018'), count(*) FROM run") == [(None, 0)]


def test_the_file_of_a_policy_says_for_the_command_that_the_user_knows(pg_database: Database, tmp_path: Path) -> None:
    build(pg_database)
    arguments = ("archive", "--partition", "run_2018", "--to", str(tmp_path), "--without-large-objects")
    archive = run(pg_database, *arguments).stdout.splitlines()[-1]
    manifest = tmp_path / "policy.yaml"
    dropping = ("drop", "run_2018", "-f", str(manifest), "--archive", archive, "--yes")
    for said, code in (("Refuse", 1), ("LeaveOut", 0)):
        manifest.write_text(POLICY.format(said=said))
        assert run(pg_database, *dropping).exit_code == code
    assert pg_database.query("SELECT to_regclass('run_2018')") == [(None,)]


ANOTHER: dict[str, tuple[str, str | None]] = {
    "no value": ("lo", None),
    "no large object of that OID": ("oid", "'pg_class'::regclass"),
    "one that was deleted": ("lo", "4711"),
    "another type": ("bigint", "4712"),
}


@pytest.mark.parametrize("what", ANOTHER)
def test_what_points_to_none_is_archived(database: Database, tmp_path: Path, what: str) -> None:
    build(database, *ANOTHER[what])
    database.execute("SELECT lo_create(4712)")
    plan = planned(database, DETACH)
    assert (errors(plan), requests(plan)) == ([], [ArchiveRequest])
    job(database, tmp_path)


def test_of_a_database_without_large_objects_nothing_is_asked(pg_database: Database) -> None:
    build(pg_database, "lo", None)
    with session(from_dsn(pg_database.dsn)) as connection:
        assert large_objects.columns(connection, 0, "public", "run_2018") == ()
        assert connection.round_trips == 1


def test_a_job_reads_all_rows_where_the_plan_reads_some(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_objects, "SAMPLE", 1)
    build(database)
    assert requests(planned(database, DETACH)) == [ArchiveRequest]
    with pytest.raises(LargeObjects, match=SAYS):
        job(database, tmp_path)
    assert list(tmp_path.iterdir()) == []
    job(database, tmp_path, large_objects=OnLargeObjects.LEAVE_OUT)


def test_a_policy_that_says_that_it_knows_has_it_archived(database: Database) -> None:
    build(database)
    plan = planned(database, {**DETACH, "largeObjects": "LeaveOut"})
    assert (errors(plan), requests(plan)) == ([], [ArchiveRequest])


def ready(database: Database, retention: dict[str, Any]) -> Archives:
    """2018 is archived, detached long ago, and was read again: nothing but the lock is between it and its end."""
    ((oid,),) = database.query("SELECT 'run_2018'::regclass::oid::int8")
    assert isinstance(oid, int)
    with session(from_dsn(database.dsn)) as connection:
        taken = fingerprint.take(connection, "public", "run_2018")
    made = ArchiveState("run-2018-0", 0, here(database), oid, True, taken, location="pvc://archives/2018")
    assert verbs(keep(database.dsn, archives=Archives({oid: (made,)}), **fields(retention))) == [("detach", "done")]
    edit_mark(database, since=LONG_AGO)
    (asked,) = planned(database, retention, Archives({oid: (made,)})).retired.gate.requests
    assert isinstance(asked, CheckRequest)
    read = CheckState(asked.token, ok=True, completed=NOW)
    checked = replace(made, check=read)
    return Archives({oid: (checked,)})


def test_one_that_was_made_since_the_archive_keeps_the_table(database: Database) -> None:
    build(database, "lo", "4711")
    archives = ready(database, DROP)
    database.execute("SELECT lo_create(4711)")
    plan = planned(database, DROP, archives)
    assert (plan.actions, errors(plan)) == ((), [("LargeObjects", "public.run_2018")])
    known = {**DROP, "largeObjects": "LeaveOut"}
    (drop,) = planned(database, known, archives).actions
    assert verbs(keep(database.dsn, archives=archives, **fields(known))) == [("drop", "done")], drop


def test_it_is_asked_again_of_all_rows_under_the_lock(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    build(database, "lo", "4711")
    archives = ready(database, DROP)
    monkeypatch.setattr(large_objects, "SAMPLE", 1)
    database.execute("SELECT lo_create(4711)")
    report = keep(database.dsn, archives=archives, **fields(DROP))
    assert verbs(report) == [("drop", "LargeObjects")]
    assert why(report).startswith(f"cannot drop table public.run_2018: {SAYS}")
    assert database.query("SELECT count(*) FROM run_2018") == [(4,)]


def test_a_policy_that_needs_no_archive_loses_none_of_them(database: Database) -> None:
    build(database)
    retention = {"keepFor": "5y", "onExpire": "Drop", "grace": "0s", "dropWithoutArchive": True}
    assert verbs(keep(database.dsn, **fields(retention))) == [("detach", "done")]
    edit_mark(database, since=LONG_AGO)
    assert verbs(keep(database.dsn, **fields(retention))) == [("drop", "done")]
    assert database.query("SELECT count(*) FROM pg_largeobject_metadata") == [(3,)]


def test_the_owner_needs_no_other_right_for_the_report(database: Database, tmp_path: Path) -> None:
    role = database.new_role()
    database.execute(f"GRANT ALL ON SCHEMA public TO {role.name}; SET ROLE {role.name}; {YEARS.format(type='lo')}")
    # Those of others as well.
    database.execute("INSERT INTO run SELECT 1, '2018-05-05Z', lo_create(0)")
    with session(from_dsn(role.dsn)) as connection:
        plan = observe_and_plan(connection, policy(**fields(DETACH)), NOW, archives=Archives())[1]
    assert errors(plan) == [("LargeObjects", "public.run_2018")]
    with pytest.raises(LargeObjects):
        create.archive(order(), from_dsn(role.dsn), Folder(tmp_path), lambda line: None)
