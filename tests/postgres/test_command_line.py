"""The command line on a real server: output, effect and exit code."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict

from lab.postgres import Database
from partwarden.cli.main import main
from support.table_of_years import POLICY, make_table, partitions

NOW = "2026-11-22T12:00:00Z"
Command = Callable[..., Result]


@pytest.fixture
def table(pg_database: Database) -> Database:
    """Table run, by year, with 2024 and 2025."""
    make_table(pg_database)
    return pg_database


@pytest.fixture
def partwarden(table: Database) -> Command:
    """Runs a command on the policy, given on standard input, at a fixed moment."""

    def run(command: str, *arguments: str, policy: str = POLICY, dsn: str | None = None) -> Result:
        fixed = ["--dsn", table.dsn if dsn is None else dsn, "--now", NOW]
        return CliRunner().invoke(main, [command, "-f", "-", *fixed, *arguments], input=policy, catch_exceptions=False)

    return run


def test_a_plan_shows_actions_reasons_and_locks(partwarden: Command, table: Database) -> None:
    result = partwarden("plan")
    version = table.server.version
    *lines, empty, found, login = result.output.splitlines()
    assert (empty, found, login.split()[:2]) == ("", "Found: 1", ["SuperuserLogin", "(public.run):"])
    assert lines == [
        f"public.run in database {table.name} (PostgreSQL {version})",
        f"by Year of UTC on submitted_at; now is {NOW}",
        "2 partitions, 0, NOW IS NOT COVERED: inserts fail",
        "",
        "To do: 3",
        "  DO      TABLE            FROM        TO          WHY",
        "  create  public.run_2026  2026-01-01  2027-01-01  current Year",
        "  create  public.run_2027  2027-01-01  2028-01-01  1 of 2 ahead (spec.premake)",
        "  create  public.run_2028  2028-01-01  2029-01-01  2 of 2 ahead (spec.premake)",
        "Heaviest lock, held for a moment each: SHARE UPDATE EXCLUSIVE on public.run",
    ]
    assert result.exit_code == 2
    assert partitions(table) == ["run_2024", "run_2025"]


def test_apply_executes_the_plan_once_and_then_finds_nothing_to_do(partwarden: Command, table: Database) -> None:
    result = partwarden("apply")
    assert result.exit_code == 0
    assert "Done: 3 of 3\n" in result.output
    assert "  DONE    create  public.run_2026  2026-01-01  2027-01-01" in result.output
    assert "covered until 2029-01-01" in result.output
    assert partitions(table) == ["run_2024", "run_2025", "run_2026", "run_2027", "run_2028"]
    for command in ("plan", "apply"):
        again = partwarden(command)
        assert again.exit_code == 0
        assert "Nothing to do." in again.output


def test_plan_takes_another_moment(partwarden: Command, table: Database) -> None:
    result = partwarden("plan", "--now", "2026-12-31T23:59:59Z", "-o", "json")
    assert json.loads(result.output)["actions"][0]["partition"] == "run_2026"
    result = partwarden(
        "apply", "--now", "2027-01-01T00:59:59+01:00", policy=POLICY.replace("key:", "premake: 0\n  key:")
    )
    assert partitions(table) == ["run_2024", "run_2025", "run_2026"]
    result = partwarden("plan", "--now", "2027-01-01T01:00:00+01:00", "-o", "json")
    assert json.loads(result.output)["actions"][0]["partition"] == "run_2027"


def test_json_is_complete_and_stable(partwarden: Command, table: Database) -> None:
    result = partwarden("plan", "-o", "json")
    document = json.loads(result.output)
    assert document.pop("totalBytes") == 0
    assert document.pop("server") == table.server.version
    (finding,) = document.pop("findings")
    assert (finding.pop("message")[:16], finding) == (
        "role 'postgres',",
        {"reason": "SuperuserLogin", "object": "public.run", "error": False},
    )
    step = document.pop("steps")[0]
    assert (len(step.pop("id")), document.pop("planDigest")) == (12, None)
    assert (step.pop("rows"), step.pop("bytes"), step.pop("notBefore"), step.pop("waitsFor")) == (None, None, None, [])
    assert document["actions"][0] == step
    assert document.pop("actions")[0] == {
        "action": "CreatePartition",
        "schema": "public",
        "partition": "run_2026",
        "from": "2026-01-01T00:00:00Z",
        "to": "2027-01-01T00:00:00Z",
        "reason": "current Year",
        "lock": "SHARE UPDATE EXCLUSIVE on public.run",
    }
    assert document == {
        "policy": {"name": "run", "namespace": None},
        "table": "public.run",
        "key": "submitted_at",
        "interval": "Year",
        "timezone": "UTC",
        "database": table.name,
        "now": NOW,
        "mode": "Apply",
        "suspend": False,
        "partitions": 2,
        "managed": 2,
        "current": {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"},
        "coveredUntil": None,
        "nextBoundary": "2027-01-01T00:00:00Z",
        "blocked": False,
    }
    assert result.exit_code == 2


def test_a_failed_partition_is_reported_and_the_others_are_created(partwarden: Command, table: Database) -> None:
    table.execute("CREATE TABLE run_2027 (id int)")
    planned = partwarden("plan")
    assert planned.exit_code == 1
    assert "  ERROR NameTaken ([2027-01-01T00:00:00Z, 2028-01-01T00:00:00Z)): " in planned.output
    result = partwarden("apply", "-o", "json")
    document = json.loads(result.output)
    assert result.exit_code == 1
    assert [(each["partition"], each["result"], each["error"]) for each in document["actions"]] == [
        ("run_2026", "Done", None),
        ("run_2028", "Done", None),
    ]
    assert [(each["reason"], each["error"]) for each in document["findings"]] == [
        ("NameTaken", True),
        ("SuperuserLogin", False),
    ]
    assert document["coveredUntil"] == "2027-01-01T00:00:00Z"


def test_a_lock_timeout_is_an_error(partwarden: Command, table: Database) -> None:
    with table.connect() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
        result = partwarden("apply", "--patience", "0")
    assert result.exit_code == 1
    assert "FAILED" in result.output
    assert "TableBusy: public.run_2026: " in result.output


@pytest.mark.parametrize(
    ("fields", "words"), [("suspend: true", "spec.suspend is true"), ("mode: Plan", "spec.mode is Plan")]
)
def test_apply_does_nothing_for_a_suspended_policy_or_mode_plan(
    partwarden: Command, table: Database, fields: str, words: str
) -> None:
    policy = POLICY + f"  {fields}\n"
    result = partwarden("apply", policy=policy)
    assert result.exit_code == 0
    assert f"{words}: apply does nothing." in result.output
    assert partwarden("plan", policy=policy).exit_code == 2
    assert partitions(table) == ["run_2024", "run_2025"]


def test_a_missing_privilege_is_reported_before_anything_is_tried(partwarden: Command, table: Database) -> None:
    reader = table.new_role()
    result = partwarden("apply", dsn=reader.dsn)
    assert result.exit_code == 1
    assert "Blocked by what is found below: apply does nothing." in result.output
    assert "  ERROR NotOwner (public.run): " in result.output


def test_an_option_names_another_table_than_the_file(partwarden: Command, table: Database) -> None:
    table.execute(
        'CREATE SCHEMA "App.1"; CREATE TABLE "App.1"."Wa""lk" (at date NOT NULL) PARTITION BY RANGE (at);'
        'CREATE TABLE "App.1"."böse\n\x1b[31m" PARTITION OF "App.1"."Wa""lk" '
        "FOR VALUES FROM ('2026-11-02') TO ('2026-11-03')"
    )
    policy = POLICY.replace("  table: {name: run}\n", "").replace("key: submitted_at", "interval: Month\n  premake: 0")
    result = partwarden("plan", "--table", '"App.1"."Wa""lk"', policy=policy)
    assert result.output.splitlines()[4:7] == [
        "To do: 2",
        "  DO      TABLE                         FROM        TO          WHY",
        '  create  App.1.Wa"lk_2026_11_20261103  2026-11-03  2026-12-01  current Month',
    ]
    assert "böse\\n\\x1b[31m" in result.output
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--table", "absent"], "table public.absent does not exist in database"),
        (["--table", "a.b.c"], "must be a table or schema.table, found 'a.b.c'"),
        (["--now", "2026-02-30"], "found '2026-02-30T00:00:00Z'; or give a date like 2026-12-31"),
        (["--now", "0999-01-01"], "must be between the years 1000 and 7999"),
        (["--now", "2026-01-01T00:00:00"], "must carry an offset, like 2026-12-31T23:59:59Z"),
        (["--now", "today"], "must be a moment like 2026-12-31T23:59:59Z"),
        (["--now", "0001-01-01T00:00:00+14:00"], "must be between the years 1000 and 7999"),
        (["--dsn", "host=/nonexistent dbname=x"], "/nonexistent"),
        (["--dsn", "nonsense"], "--dsn is not a connection string"),
        (["--output", "xml"], "'xml' is not one of"),
        (["--nonsense"], "No such option"),
    ],
)
def test_errors_are_one_message_and_exit_1(partwarden: Command, arguments: list[str], words: str) -> None:
    for command in ("plan", "apply"):
        result = partwarden(command, *arguments)
        assert result.exit_code == 1
        assert words in result.stderr
        assert "Traceback" not in result.output


def test_a_date_begins_in_the_time_zone_of_the_policy(partwarden: Command) -> None:
    shown = {
        zone: partwarden("plan", "--now", "2026-12-03", "-o", "json", policy=POLICY + f"  timezone: {zone}\n")
        for zone in ("UTC", "Asia/Kathmandu", "America/New_York")
    }
    assert [json.loads(each.stdout)["now"] for each in shown.values()] == [
        "2026-12-03T00:00:00Z",
        "2026-12-02T18:15:00Z",
        "2026-12-03T05:00:00Z",
    ]


def test_errors_in_json(partwarden: Command) -> None:
    result = partwarden("plan", "--table", "absent", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["reason"] == "TableNotFound"
    result = partwarden("plan", "-o", "json", policy=POLICY + "  premake: 5000\n")
    assert json.loads(result.stdout) == {
        "error": {"reason": "InvalidSpec", "message": "-: spec.premake: must be at most 1000, found 5000"}
    }


def test_an_unknown_zone_is_reported_without_a_connection(partwarden: Command) -> None:
    result = partwarden("plan", dsn="host=/nonexistent", policy=POLICY + "  timezone: Mars/Olympus_Mons\n")
    assert result.exit_code == 1
    assert "spec.timezone: 'Mars/Olympus_Mons' is not in the IANA time zone database" in result.stderr


def test_the_file_may_say_how_to_connect(table: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = conninfo_to_dict(table.dsn)
    fields: dict[str, Any] = {name: parts[name] for name in ("host", "user", "dbname")}
    if "port" in parts:
        fields["port"] = int(str(parts["port"]))
    policy = POLICY + f"  database: {json.dumps({'secretRef': {'name': 'db'}, 'connection': fields})}\n"
    if "password" in parts:
        monkeypatch.setenv("PGPASSWORD", str(parts["password"]))
    result = CliRunner().invoke(main, ["plan", "-f", "-"], input=policy, catch_exceptions=False)
    assert result.exit_code == 2, result.output
    del fields["host"]
    policy = POLICY + f"  database: {json.dumps({'secretRef': {'name': 'db'}, 'connection': fields})}\n"
    result = CliRunner().invoke(main, ["plan", "-f", "-"], input=policy, catch_exceptions=False)
    assert result.exit_code == 1
    assert "Secret 'db' cannot be read from here" in result.stderr
