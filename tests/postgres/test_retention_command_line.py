"""Retention and the hold from the command line: plan shows a future day, apply acts on the present one only."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.cli.main import main
from support.table_of_years import make_table, partitions

Command = Callable[..., tuple[int, dict[str, Any]]]
POLICY = """\
apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata:
  name: run
  annotations: {{partwarden.dev/hold: "{held}"}}
spec:
  table: {{name: run}}
  premake: 0
  startFrom: "2026-01-01"
  retention: {{keepFor: 1y, onExpire: Drop, dropWithoutArchive: true, grace: 0s}}
"""


@pytest.fixture
def partwarden(pg_database: Database) -> Command:
    """Runs a command on table run, by year, with 2024 and 2025; returns how it exits, and its document."""
    make_table(pg_database)

    def run(command: str, *arguments: str, held: str = "") -> tuple[int, dict[str, Any]]:
        fixed = [command, "-f", "-", "--dsn", pg_database.dsn, "-o", "json"]
        result = CliRunner().invoke(main, [*fixed, *arguments], input=POLICY.format(held=held), catch_exceptions=False)
        text = result.stdout
        return result.exit_code, json.loads(text[: text.rindex("}") + 1])

    return run


def actions(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["action"], each["partition"]) for each in document["actions"]]


def test_plan_asks_about_a_day_to_come_and_apply_does_not_act_on_it(partwarden: Command, pg_database: Database) -> None:
    """The year of the test is not known: 2024 and 2025 have expired in 2999 whatever it is."""
    before = partitions(pg_database)
    code, document = partwarden("plan", "--now", "2999-06-01T00:00:00Z")
    assert code == 2
    assert actions(document)[-2:] == [("DetachPartition", "run_2024"), ("DetachPartition", "run_2025")]
    code, document = partwarden("apply", "--now", "2999-06-01T00:00:00Z")
    assert code == 1
    assert document["error"]["reason"] == "InvalidSpec"
    assert document["error"]["message"].startswith("--now: 2999-06-01T00:00:00Z lies after the server's clock, ")
    assert partitions(pg_database) == before


def test_a_hold_in_the_manifest_keeps_a_partition(partwarden: Command, pg_database: Database) -> None:
    moment = ("--now", "2999-06-01T00:00:00Z")
    _, document = partwarden("plan", *moment, held="run_2024, run_2oo5")
    assert ("DetachPartition", "run_2025") in actions(document)
    assert ("DetachPartition", "run_2024") not in actions(document)
    assert [(each["reason"], each["error"]) for each in document["findings"]] == [
        ("HoldMatchesNothing", False),
        ("SuperuserLogin", False),
    ]


def test_expired_partitions_are_dropped_and_held_ones_stay(partwarden: Command, pg_database: Database) -> None:
    pg_database.execute("CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z')")
    pg_database.execute("CREATE TABLE run_2019 PARTITION OF run FOR VALUES FROM ('2019-01-01Z') TO ('2020-01-01Z')")
    for number in (2024, 2025):
        pg_database.execute(f"DROP TABLE run_{number}")
    code, document = partwarden("apply", held="run_2018")
    assert [each["result"] for each in document["actions"]] == ["Done"] * len(document["actions"])
    assert ("DetachPartition", "run_2019") in actions(document)
    # Without a grace what was detached can be dropped at once, which is for the next time.
    assert code == 0
    code, document = partwarden("apply", held="run_2018")
    assert (code, actions(document)) == (0, [("DropDetached", "run_2019")])
    tables = pg_database.query("SELECT relname FROM pg_class WHERE relname IN ('run_2018', 'run_2019')")
    assert tables == [("run_2018",)]
    assert "run_2018" in partitions(pg_database)


def test_with_archives_plan_and_apply_report_what_waits_and_drop_nothing(pg_database: Database) -> None:
    pg_database.execute("CREATE TABLE run (submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at)")
    pg_database.execute("CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z')")
    wanted = POLICY.format(held="").replace("dropWithoutArchive: true", "archive: {pvc: {claimName: old, path: runs}}")
    for command in ("plan", "apply"):
        fixed = [command, "-f", "-", "--dsn", pg_database.dsn]
        printed = CliRunner().invoke(main, fixed, input=wanted, catch_exceptions=False).stdout
        assert "Archiving" in printed
        assert "neither detached nor dropped before an archive in pvc://old/runs is proven equal: run_2018" in printed
        due, coming = printed.split("To come:")
        assert "run_2018" not in due
        assert [line.split()[0] for line in coming.splitlines()[2:6]] == ["archive", "detach", "compare", "drop"]
    assert "run_2018" in partitions(pg_database)
