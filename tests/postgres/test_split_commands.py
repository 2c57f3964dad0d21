"""A table is split without Kubernetes: what the commands print, part after part."""

import json

import pytest
import yaml
from click.testing import CliRunner, Result

from lab.postgres import Database
from partwarden.cli.main import main
from partwarden.postgres import conversion_split
from support.converted import ID, LEGACY, convert
from support.splitting import LATER, POLICY, ROWS, YEARS

MANIFEST = yaml.safe_dump(
    {
        "apiVersion": "partwarden.dev/v1alpha1",
        "kind": "PartitionPolicy",
        "metadata": {"name": "run"},
        "spec": POLICY
        | {
            "database": {"secretRef": {"name": "unused"}},
            "table": {"name": "run"},
            "convert": POLICY["convert"] | {"splitMaxRows": 3000},
        },
    }
)


def partwarden(database: Database, command: str, *arguments: str) -> Result:
    fixed = ["--dsn", database.dsn, "--now", LATER.isoformat()]
    return CliRunner().invoke(main, [command, "-f", "-", *fixed, *arguments], input=MANIFEST, catch_exceptions=False)


def test_apply_says_what_has_left_and_plan_what_is_next(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion_split, "TOGETHER", 0.0)
    database.execute(YEARS)
    convert(database, ID)
    before = database.query(ROWS)
    shown = partwarden(database, "plan")
    assert shown.exit_code == 2
    assert "its rows from 2026-01-01T00:00:00Z on move into partition public.run_2026" in shown.stdout
    results = list[str]()
    while results[-1:] != ["Done"]:
        done = partwarden(database, "apply", "-o", "json")
        assert done.exit_code == 0, done.stdout
        (action,) = json.loads(done.stdout)["actions"]
        assert (action["action"], action["partition"], action["from"]) == (
            "SplitLegacy",
            LEGACY,
            "2026-01-01T00:00:00Z",
        )
        results.append(action["result"])
        assert database.query(ROWS) == before
    assert results == ["Partly", "Partly", "Done"]
    done = partwarden(database, "apply")
    assert [line.split()[0] for line in done.stdout.splitlines() if "split" in line and LEGACY in line] == ["PARTLY"]
    shown = partwarden(database, "plan")
    assert "move into partition public.run_2025, which has those that are later" in shown.stdout
    assert database.query(ROWS) == before
