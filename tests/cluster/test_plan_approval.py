"""The life of an approval on a real cluster: a plan waits, is approved, is taken back, and is another after an edit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.operator import Operator, until
from lab.postgres import Database
from lab.site import Site
from support.meanwhile import RUN

YEAR = datetime.now(UTC).year
OLD = range(YEAR - 8, YEAR - 4)
RETENTION: dict[str, Any] = {"keepFor": "1y", "onExpire": "Drop", "grace": "1h", "dropWithoutArchive": True}
FIELDS: dict[str, Any] = {"premake": 0, "resync": "1h", "startFrom": f"{YEAR}-01-01"}


def partitions(database: Database) -> list[str]:
    """The old ones that are partitions still."""
    found = database.query(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'run'::regclass ORDER BY 1"
    )
    return [str(name) for (name,) in found if name != f"run_{YEAR}"]


def partwarden(site: Site, *arguments: str, code: int = 0) -> str:
    """The command on policies of the site."""
    environment = os.environ | site.kubectl.environment | {"KUBECONFIG": str(site.cluster.kubeconfig)}
    done = subprocess.run(
        [sys.executable, "-m", "partwarden", *arguments, "--namespace", site.namespace],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_plan_waits_until_it_is_approved_and_another_waits_again(
    site: Site, operator: Operator, pg_database: Database, tmp_path: Path
) -> None:
    database = pg_database
    database.execute(RUN)
    for year in OLD:
        database.execute(
            f"CREATE TABLE run_{year} PARTITION OF run FOR VALUES FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z')"
        )
    names = [f"run_{year}" for year in OLD]
    policy = ("ppol/run", "--namespace", site.namespace)
    site.watch_over(database, **FIELDS, retention={**RETENTION, "maxRetirements": 3})
    waiting = site.wait(reason="PlanPending", Ready="False", Stalled="False", Reconciling="False")
    first = waiting["status"]["planDigest"]
    assert partitions(database) == names

    # An edit in between: another plan, which the approval of the first does not name.
    site.watch_over(database, **FIELDS, retention={**RETENTION, "maxRetirements": 3, "grace": "2h"})
    until("the plan is another", lambda: site.policy()["status"].get("planDigest") not in (first, None))
    site.kubectl("annotate", *policy, f"partwarden.dev/approve-plan={first}")
    until("the annotation was seen", lambda: first in str(site.policy()["status"]["conditions"]))
    assert partitions(database) == names

    # Approved, and carried out.
    second = site.policy()["status"]["planDigest"]
    assert "by now the plan is" in partwarden(site, "approve", "run", "--yes", first, code=1)
    assert f"approved plan {second} of " in partwarden(site, "approve", "run", "--yes", second)
    until("all are detached", lambda: partitions(database) == [])
    recorded = site.wait(Ready="True")["status"]["approvedPlan"]
    assert (recorded["digest"], len(recorded["steps"])) == (second, len(names))

    # Taken back: once the grace is over nothing is dropped.
    site.kubectl("annotate", *policy, "partwarden.dev/approve-plan-")
    until("the record is gone", lambda: "approvedPlan" not in site.policy()["status"])
    site.watch_over(database, **FIELDS, retention={**RETENTION, "maxRetirements": 3, "grace": "0s"})
    site.wait(reason="PlanPending", Ready="False")
    # What an edit changes, by the database that the policy's Secret names.
    edited = tmp_path / "edited.yaml"
    edited.write_text(json.dumps(site.manifest("run", {**FIELDS, "database": site.policy()["spec"]["database"]})))
    said = partwarden(site, "plan", "-f", str(edited), "run", code=2)
    assert "spec.retention: {" in said
    assert f"No more with the edit: {len(names)}\n" in said
    assert [database.query(f"SELECT to_regclass('{name}') IS NOT NULL") for name in names] == [[(True,)]] * len(names)
