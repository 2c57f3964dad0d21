"""A walk of a new user through what comes next: each step is a command as it is typed, and the lines of its answer.

To extend it, add a `Step` to `WALK`, in the order of the user. What a step ``says`` must also stand in the page that it
names, as it prints: years, numbers and the namespace may differ. What no command does, such as the rows of an
application, is done by ``before``; what takes time, such as a reconcile, is retried for ``patience`` seconds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.cluster import Cluster
from lab.kubectl import Kubectl
from lab.operator import until
from lab.postgres import Database
from lab.site import ROOT, RUN, Site

YEAR = datetime.now(UTC).year
DOCS = ROOT / "docs"
WIDEST = 120
"""Columns of ``kubectl get ppol``."""
POLICY: dict[str, Any] = {
    "interval": "Year",
    "premake": 2,
    "startFrom": f"{YEAR}-01-01",
    "retention": {"keepFor": "3y", "onExpire": "Detach"},
    "resync": "10s",
}


class Walker:
    """The user: a shell with kubectl and partwarden on its path, a database, and a folder."""

    def __init__(self, site: Site, database: Database, folder: Path) -> None:
        self.site, self.database, self.folder = site, database, folder
        programs = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
        # A copy: the namespace of the context is the user's own.
        kubeconfig = yaml.safe_load(site.cluster.kubeconfig.read_text())
        for each in kubeconfig["contexts"]:
            each["context"]["namespace"] = site.namespace
        (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        own = {"KUBECONFIG": str(folder / "kubeconfig"), "PATH": programs, "DSN": database.dsn}
        self.environment = site.kubectl.environment | own

    def write(self, name: str, **spec: Any) -> None:
        """A policy for public.run as a file in the folder."""
        whole = self.site.manifest("run", {**POLICY, **spec})
        (self.folder / name).write_text(yaml.safe_dump(whole))

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """In a shell, without a terminal."""
        return subprocess.run(
            ["/bin/bash", "-c", command],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )


def nothing(_walker: Walker) -> None:
    """Before most steps."""


@dataclass(frozen=True)
class Step:
    """``says``: what the answer holds; ``{ns}`` is the namespace. ``page``: below docs, where it stands as well."""

    why: str
    command: str
    says: tuple[str, ...] = ()
    page: str = ""
    code: int = 0
    patience: float = 0.0
    before: Callable[[Walker], None] = field(default=nothing)

    def __str__(self) -> str:
        return self.why


def have_a_table(walker: Walker) -> None:
    """One of five years and a DEFAULT partition, made by hand before there was a policy."""
    walker.database.execute(f"{RUN} CREATE TABLE run_default PARTITION OF run DEFAULT")
    for year in range(YEAR - 5, YEAR + 1):
        bounds = f"FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z')"
        walker.database.execute(f"CREATE TABLE run_{year} PARTITION OF run FOR VALUES {bounds}")
    walker.site.secret("run", {"uri": walker.database.dsn})


def write_stray_rows(walker: Walker) -> None:
    """An application whose clock is wrong, and one that is late."""
    late = f"INSERT INTO run SELECT n, '{YEAR - 9}-05-05Z' FROM generate_series(1, 5) n"
    walker.database.execute(f"{late}; INSERT INTO run VALUES (0, '1970-01-01Z')")


WALK = [
    Step(
        "nothing is there yet",
        "kubectl partwarden list",
        ("Error: there is no PartitionPolicy in namespace '{ns}'; use -n or -A",),
        "how-to/commands.md",
        code=1,
        before=have_a_table,
    ),
    Step(
        "a slip of the tongue",
        "kubectl partwarden lst",
        ("Error: No such command 'lst'. Did you mean 'list'?",),
        "how-to/commands.md",
        code=1,
    ),
    Step(
        "a duration in words",
        "partwarden plan -f run.yaml --dsn $DSN",
        ('must be an age like 90d, 18mo or 5y: a whole number of h, d, w, mo or y, found "30 days"; write 30d',),
        "how-to/retention.md",
        code=1,
        before=lambda walker: walker.write("run.yaml", retention={"keepFor": "30 days"}),
    ),
    Step(
        "the API server answers the same",
        "kubectl apply -f run.yaml",
        ("must be an age like 90d, 18mo or 5y: a whole number of h, d, w, mo or y; write 30d",),
        code=1,
    ),
    Step(
        "a range with a slash",
        "kubectl apply -f run.yaml",
        (f"; write {YEAR + 4}-01..{YEAR + 4}-06",),
        code=1,
        before=lambda walker: walker.write("run.yaml", ensure=[f"{YEAR + 4}-01/{YEAR + 4}-06"]),
    ),
    Step(
        "what would be done on another day, without a cluster",
        f"partwarden plan -f run.yaml --dsn $DSN --now {YEAR + 1}-12-03",
        (f"now is {YEAR + 1}-12-03T00:00:00Z", "detach"),
        code=2,
        before=lambda walker: walker.write("run.yaml"),
    ),
    Step("the policy as it should be", "kubectl apply -f run.yaml", ("created",)),
    Step(
        "the policy is ready",
        "kubectl wait --for=condition=Ready partitionpolicy/run --timeout=60s",
        ("condition met",),
    ),
    Step(
        "a policy that is misspelt",
        "kubectl partwarden list rnu",
        ("there is no PartitionPolicy 'rnu' in namespace '{ns}': there are run; did you mean run?",),
        code=1,
    ),
    Step(
        "the partitions, with the namespace before the command",
        "kubectl partwarden -n {ns} list run",
        (f"{YEAR}-01-01  {YEAR + 1}-01-01  Current",),
        "how-to/commands.md",
    ),
    Step(
        "a partition out of turn",
        f"kubectl partwarden create {YEAR + 6} run",
        (f"added to spec.ensure of {{ns}}/run: {YEAR + 6}",),
        "how-to/commands.md",
    ),
    Step(
        "and the next ones: one entry",
        f"kubectl partwarden create {YEAR + 7}..{YEAR + 8} run",
        (f"added to spec.ensure of {{ns}}/run: {YEAR + 7}..{YEAR + 8}, as {YEAR + 6}..{YEAR + 8} with what was there",),
        "how-to/commands.md",
    ),
    Step(
        "a hold",
        f"kubectl partwarden hold run_{YEAR} run",
        (f"run_{YEAR} is held by {{ns}}/run", f"held now: run_{YEAR}"),
        "how-to/commands.md",
    ),
    Step("is shown though it has not expired", "kubectl partwarden list run", ("Current, held",), "how-to/commands.md"),
    Step(
        "a hold that is misspelt",
        f"kubectl partwarden hold run_{YEAR + 91} run",
        (f"warning: no partition or detached table in the status of {{ns}}/run is called run_{YEAR + 91}",),
        "how-to/commands.md",
    ),
    Step(
        "is an Event",
        "kubectl get events --field-selector reason=HoldMatchesNothing",
        (f"names 'run_{YEAR + 91}'",),
        patience=60,
    ),
    Step(
        "it is taken back",
        f"kubectl partwarden unhold run_{YEAR + 91} run && kubectl partwarden unhold run_{YEAR} run",
        ("held now: nothing",),
    ),
    Step(
        "rows that no partition holds",
        "kubectl describe ppol run",
        (
            f"holds 1970 (1 row), {YEAR - 9} (5 rows), 6 rows in all",
            "lies far from everything else, as wrong dates do: correct those rows, or add them to spec.ensure if they "
            "are right",
        ),
        "how-to/default-partition.md",
        patience=60,
        before=write_stray_rows,
    ),
    Step(
        "are what kubectl shows first",
        "kubectl get ppol run",
        ("ConvergedWithWarnings", "1: rows in DEFAULT"),
        "how-to/troubleshoot.md",
        patience=60,
    ),
    Step("and what a probe sees", "kubectl partwarden health run", ("WARNING:", "DefaultHasRows"), code=1),
    Step(
        "the table along time",
        "kubectl partwarden timeline run",
        ("NAME RANGE SIZE STATE", f"run_{YEAR} {YEAR}", "Current", "Detached"),
        "how-to/commands.md",
    ),
    Step(
        "a file for the change ticket",
        "kubectl partwarden report --html report.html",
        ("wrote report.html: 1 table",),
        "how-to/commands.md",
    ),
    Step(
        "what an edit would change",
        "kubectl partwarden plan -f edited.yaml run --dsn $DSN",
        (
            "spec.retention.keepFor: 3y -> 1y",
            "expired: 2 partitions more (",
            f"run_{YEAR - 3}, run_{YEAR - 2}",
            "Only with the edit:",
        ),
        "how-to/approve.md",
        code=2,
        before=lambda walker: walker.write("edited.yaml", retention={"keepFor": "1y", "onExpire": "Detach"}),
    ),
    Step(
        "the same in mode Plan",
        "kubectl apply -f edited.yaml",
        ("configured",),
        before=lambda walker: walker.write(
            "edited.yaml", mode="Plan", retention={"keepFor": "1y", "onExpire": "Detach"}
        ),
    ),
    Step("waits, and says so", "kubectl get ppol run", ("PlanPending",), patience=60),
    Step("with what it would do", "kubectl describe ppol run", ("2 partitions to detach",), patience=60),
    Step(
        "more at once than usual",
        "kubectl apply -f edited.yaml",
        ("configured",),
        before=lambda walker: walker.write(
            "edited.yaml", retention={"keepFor": "1y", "onExpire": "Detach", "maxRetirements": 1}
        ),
    ),
    Step(
        "waits for the user",
        "kubectl get ppol run -o jsonpath='{{.status.conditions[?(@.type==\"Ready\")].message}}'",
        (
            "are to be retired at once, more than spec.retention.maxRetirements (1): ",
            "no more archives are asked for, and nothing is detached or dropped before plan",
        ),
        "how-to/approve.md",
        patience=60,
    ),
    Step(
        "who approves it",
        "kubectl partwarden approve run --yes $(kubectl get ppol run -o jsonpath='{{.status.planDigest}}')",
    ),
    Step(
        "and it is done",
        "kubectl get events --field-selector reason=PartitionDetached",
        (f"run_{YEAR - 3}", f"run_{YEAR - 2}"),
        patience=60,
    ),
    Step(
        "what is to be dropped after a grace",
        "kubectl apply -f edited.yaml",
        ("configured",),
        before=lambda walker: walker.write(
            "edited.yaml", retention={"keepFor": "1y", "onExpire": "Drop", "grace": "24h", "dropWithoutArchive": True}
        ),
    ),
    Step(
        "is what kubectl calls the next drop",
        "kubectl get ppol run -o jsonpath='{{.status.nextDrop.action}} {{.status.nextDrop.object}}'",
        (f"DropDetached run_{YEAR - 5}",),
        patience=60,
    ),
    Step("with its moment", "kubectl get ppol run -o wide", ("NEXT-DROP",)),
]
"""In the order of a user."""


def shape(text: str) -> str:
    """What is the same in a page and on a cluster: numbers and namespaces differ, spaces align."""
    named = re.sub(r"\bsite-[0-9a-f]+-\d+\b|\b(?:orchestrator|default)\b", "NS", text)
    return " ".join(re.sub(r"\d+", "N", named).split())


@pytest.mark.parametrize("step", [each for each in WALK if each.page], ids=str)
def test_each_message_stands_in_the_page_as_it_prints(step: Step) -> None:
    page = shape((DOCS / step.page).read_text(encoding="utf-8"))
    missing = [said for said in step.says if shape(said.format(ns="default")) not in page]
    assert not missing, f"docs/{step.page} does not hold it"


@pytest.fixture
def walker(cluster: Cluster, installed: Kubectl, pg_database: Database, tmp_path: Path) -> Iterator[Walker]:
    for folder in ("operator", "user"):
        (tmp_path / folder).mkdir()
    with Site(cluster, installed, tmp_path / "operator").open() as site, site.operator().serving():
        yield Walker(site, pg_database, tmp_path / "user")


def test_a_user_walks_through_it(walker: Walker) -> None:
    for step in WALK:
        step.before(walker)
        answer = ""

        def answered(step: Step = step) -> bool:
            nonlocal answer
            done = walker.type(step.command.format(ns=walker.site.namespace))
            answer = done.stdout + done.stderr
            assert "Traceback" not in answer
            words = " ".join(answer.split())
            expected = (" ".join(each.format(ns=walker.site.namespace).split()) for each in step.says)
            return done.returncode == step.code and all(each in words for each in expected)

        try:
            if not answered():
                until(step.why, answered, step.patience)
        except AssertionError as error:
            raise AssertionError(f"{step}: {step.command}: {error}; the answer is\n{answer}") from None


def test_what_kubectl_shows_fits_a_terminal(walker: Walker) -> None:
    have_a_table(walker)
    walker.write("run.yaml")
    walker.type("kubectl apply -f run.yaml")
    walker.site.wait(Ready="True")
    shown = walker.type("kubectl get ppol").stdout
    assert max(map(len, shown.splitlines())) <= WIDEST, shown
