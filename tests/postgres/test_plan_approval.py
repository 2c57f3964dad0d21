"""A plan that waits for the user, on a real server: from the command line, and right before a drop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.api.approval import PlanApproval
from partwarden.cli.main import main
from partwarden.planner.drop_preconditions import Archives, DropCase
from partwarden.planner.recheck import Recheck
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import observe_and_plan
from support.meanwhile import NOW, keep, policy
from support.retirement import DETACH, DROP, LONG_AGO, attached, edit_mark, keep_before, verbs

OLD = range(2004, 2016)
"""More than ten."""
TABLE = "CREATE TABLE run (submitted_at timestamptz NOT NULL, note text) PARTITION BY RANGE (submitted_at);" + "".join(
    f"CREATE TABLE run_{year} PARTITION OF run FOR VALUES FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z');"
    f"INSERT INTO run VALUES ('{year}-05-05Z');"
    for year in OLD
)
MANIFEST = """\
apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {{name: run, annotations: {annotations}}}
spec: {spec}
"""


def run(database: Database, *arguments: str, code: int, annotations: str = "{}", **fields: Any) -> dict[str, Any]:
    spec = {"table": {"name": "run"}, "premake": 0, "startFrom": "2026-01-01", **fields}
    text = MANIFEST.format(spec=json.dumps(spec), annotations=annotations)
    given = [*arguments, "-f", "-", "--dsn", database.dsn, "-o", "json"]
    done = CliRunner().invoke(main, given, input=text, catch_exceptions=False)
    assert done.exit_code == code, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def partitions(database: Database) -> int:
    ((found,),) = database.query("SELECT count(*)::int4 FROM pg_inherits WHERE inhparent = 'run'::regclass")
    assert isinstance(found, int)
    return found


def kinds(document: dict[str, Any]) -> set[str]:
    return {each["action"] for each in document["actions"]}


@pytest.mark.parametrize("by", ["--approve", "annotation"])
def test_more_than_ten_wait_until_their_plan_is_named(database: Database, by: str) -> None:
    database.execute(TABLE)
    retention: dict[str, Any] = {"retention": {"keepFor": "5y"}}
    planned = run(database, "plan", code=2, **retention)
    assert "DetachPartition" not in kinds(planned)
    digest = planned["planDigest"]
    run(database, "apply", "--approve", "0" * 16, code=1, **retention)
    assert partitions(database) == len(OLD) + 1
    if by == "annotation":
        done = run(database, "apply", code=0, annotations=f'{{"partwarden.dev/approve-plan": "{digest}"}}', **retention)
    else:
        done = run(database, "apply", "--approve", digest, code=0, **retention)
    assert [each["result"] for each in done["actions"]] == ["Done"] * len(OLD)
    assert partitions(database) == 1


def test_in_mode_approve_nothing_is_created_until_the_plan_is_named(database: Database) -> None:
    database.execute(TABLE)
    waiting = run(database, "apply", code=1, mode="Approve")
    assert (waiting["actions"], partitions(database)) == ([], len(OLD))
    run(database, "apply", "--approve", waiting["planDigest"], code=0, mode="Approve")
    assert partitions(database) == len(OLD) + 1


def test_in_mode_approve_what_cannot_be_made_is_said_before_the_plan_is_named(database: Database) -> None:
    database.execute(TABLE + "CREATE TABLE run_2026 (note text)")
    said = run(database, "plan", code=1, mode="Approve")
    assert [each["reason"] for each in said["findings"] if each["error"]] == ["NameTaken"]
    assert said["planDigest"] is None


def test_what_foreign_keys_keep_does_not_fill_the_limit(database: Database) -> None:
    """And so the digest that a plan prints is the one that it has once they are counted."""
    database.execute(TABLE + "ALTER TABLE run ADD UNIQUE (submitted_at)")
    database.execute("CREATE TABLE a (at timestamptz REFERENCES run (submitted_at))")
    database.execute("INSERT INTO a VALUES ('2004-05-05Z'), ('2005-05-05Z')")
    run(database, "apply", code=1, retention={"keepFor": "5y"})
    assert partitions(database) == 3


def approved(database: Database, fields: dict[str, Any]) -> Archives:
    """The plan is approved and recorded."""
    with session(from_dsn(database.dsn)) as connection:
        digest = observe_and_plan(connection, policy(**fields), NOW)[1].gate.digest
        known = Archives(plan=PlanApproval(digest))
        record = observe_and_plan(connection, policy(**fields), NOW, archives=known)[1].gate.record
    return Archives(plan=PlanApproval(digest, record))


class TakenBack(Recheck):
    """The annotation is removed while the first table is compared and locked."""

    def renew(self, case: DropCase) -> DropCase:
        return replace(case, archives=replace(case.archives, plan=replace(case.archives.plan, named="")))


def test_an_approval_that_is_taken_back_under_the_lock_keeps_every_table(database: Database) -> None:
    database.execute(TABLE)
    detach = {**DETACH, "retention": {**DETACH["retention"], "maxRetirements": 12}}
    assert {result for _, result in verbs(keep(database.dsn, **detach))} == {"done"}
    for year in OLD:
        edit_mark(database, f"run_{year}", since=LONG_AGO)
    assert verbs(keep(database.dsn, **DROP)) == []
    known = approved(database, DROP)
    report = keep(database.dsn, archives=known, recheck=TakenBack(), **DROP)
    assert verbs(report) == []
    assert (
        "the annotation partwarden.dev/approve-plan of the policy names no plan any more that drops it"
        in report.stopped
    )
    ((left,),) = database.query("SELECT count(*)::int4 FROM pg_class WHERE relname ~ '^run_20(0|1)'")
    assert left == len(OLD)
    assert [verb for verb, _ in verbs(keep(database.dsn, archives=known, **DROP))] == ["drop"] * len(OLD)


def test_a_run_that_breaks_off_leaves_the_rest_of_an_approved_plan_approved(database: Database) -> None:
    database.execute(TABLE)
    known = approved(database, DETACH)

    def broken() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_before(database.dsn, "DETACH PARTITION", broken, nth=5, archives=known, **DETACH)
    assert attached(database, "run_2004") is False
    with session(from_dsn(database.dsn)) as connection:
        rest = observe_and_plan(connection, policy(**DETACH), NOW, archives=known)[1]
    assert rest.gate.digest == ""
    done = verbs(keep(database.dsn, archives=known, **DETACH))
    assert {result for _, result in done} == {"done"}
    assert partitions(database) == 1


def test_an_edit_is_compared_with_the_policy_that_it_replaces(database: Database, tmp_path: Path) -> None:
    database.execute(TABLE)
    files = []
    for name, keep_for in (("old", "50y"), ("new", "5y")):
        spec = {"table": {"name": "run"}, "premake": 0, "startFrom": "2026-01-01", "retention": {"keepFor": keep_for}}
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(MANIFEST.format(spec=json.dumps(spec), annotations="{}"))
    old, new = map(str, files)

    def plan(*arguments: str, code: int) -> str:
        done = CliRunner().invoke(main, ["plan", "--dsn", database.dsn, *arguments], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.stdout

    said = plan("-f", new, "--against", old, code=2)
    assert "spec.retention.keepFor: 50y -> 5y\n" in said
    assert "expired: 12 partitions more (" in said
    assert "): run_2004, run_2005, run_2006, run_2007, run_2008 and 7 more\n" in said
    assert "Only with the edit: 12\n" in said
    document = json.loads(plan("-f", new, "--against", old, "-o", "json", code=2))
    assert (document["expiring"]["partitions"], document["staying"]["partitions"]) == (12, 0)
    assert {each["action"] for each in document["added"]} == {"DetachPartition"}
    assert "Nothing is done otherwise from now on." in plan("-f", new, "--against", new, code=0)
    assert "expired: 12 partitions fewer (" in plan("-f", old, "--against", new, code=2)
    other = tmp_path / "other.yaml"
    other.write_text(files[0].read_text().replace('"name": "run"', '"name": "job"'))
    failed = CliRunner().invoke(main, ["plan", "--dsn", database.dsn, "-f", str(other), "--against", old])
    assert (failed.exit_code, "is of table public.run, the edit of public.job" in failed.output) == (1, True)
    wrong = CliRunner().invoke(main, ["plan", "--dsn", database.dsn, "-f", new, "--against", old, "run"])
    assert (wrong.exit_code, "give POLICY" in wrong.output) == (1, True)
