"""``kubectl partwarden`` on policies: the commands of users, run by kubectl, beside a real operator."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.archives import IMAGE, NOWHERE, S3, Archives, oid, proof
from lab.operator import account_kubeconfig, until
from lab.postgres import Database
from lab.site import ROOT, RUN, Site, partitions
from partwarden.api.policy import ANNOTATION as HOLD
from support.archived import use_client

YEAR = datetime.now(UTC).year
OLD = f"run_{YEAR - 3}"


class Plugin:
    """``kubectl partwarden``, with the configuration of the site."""

    def __init__(self, site: Site) -> None:
        programs = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = site.kubectl.environment | {"KUBECONFIG": str(site.cluster.kubeconfig), "PATH": programs}
        self.scope = ["--namespace", site.namespace]

    def run(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        """Its output and exit code."""
        done = subprocess.run(
            ["kubectl", "partwarden", *arguments, *self.scope],
            env=self.environment,
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = self.run(*arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def data(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))

    def typed(self, answer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """At a terminal, where a user types."""
        ours, theirs = pty.openpty()
        os.write(ours, f"{answer}\n".encode())
        try:
            return self.run(*arguments, stdin=theirs)
        finally:
            os.close(theirs)
            os.close(ours)


def made(archives: Archives) -> list[str]:
    """The names of all archives."""
    return [each["metadata"]["name"] for each in archives.kubectl.get("parc")["items"]]


@pytest.fixture
def plugin(site: Site) -> Plugin:
    return Plugin(site)


@pytest.fixture
def run(site: Site, pg_database: Database) -> Iterator[Database]:
    """Policy run is Ready, by year, and its operator runs."""
    pg_database.execute(RUN)
    with site.operator().serving():
        site.watch_over(pg_database, premake=1)
        site.wait(Ready="True")
        yield pg_database


def test_list_and_stats_show_the_policies_of_a_cluster(site: Site, plugin: Plugin, run: Database) -> None:
    site.watch_over(run, "other", table={"name": "none"})
    site.wait("other", Stalled="True")
    lines = [line.split() for line in plugin("list", "run").splitlines()]
    assert lines[0] == ["NAME", "FROM", "TO", "STATE", "ROWS", "SIZE", "ARCHIVE"]
    assert [(line[0], line[3], line[-1]) for line in lines[1:]] == [
        (f"run_{YEAR}", "Current", "-"),
        (f"run_{YEAR + 1}", "Future", "-"),
    ]
    assert "MANAGED" in plugin("list", "run", "-o", "wide")
    assert plugin("list", "run", "-o", "name").splitlines() == [f"run_{YEAR}", f"run_{YEAR + 1}"]
    (listed,) = plugin.data("list", "run")
    assert listed["policy"] == {"namespace": site.namespace, "name": "run"}
    assert [(each["state"], each["managed"]) for each in listed["partitions"]] == [("Current", True), ("Future", True)]
    assert f"{site.namespace}/other" in plugin("list")
    assert [each["policy"]["name"] for each in yaml.safe_load_all(plugin("list", "-o", "yaml"))] == ["other", "run"]
    assert re.search(r"partitions +2, of which 2 are exactly one Year", plugin("stats", "run"))
    run.execute(f"INSERT INTO run VALUES (1, '{YEAR}-05-05Z')")
    assert plugin.data("stats", "run", "--exact")[0]["rows"]["total"] == 1
    assert plugin.data("stats", "run")[0]["summary"]["partitions"] == 2


def test_timeline_and_report_show_what_the_operator_observed(
    site: Site, plugin: Plugin, pg_database: Database, tmp_path: Path
) -> None:
    """With an expired partition that the policy would detach, and does not, for it only plans."""
    pg_database.execute(RUN)
    pg_database.execute(
        f"CREATE TABLE {OLD} PARTITION OF run FOR VALUES FROM ('{YEAR - 3}-01-01Z') TO ('{YEAR - 2}-01-01Z')"
    )
    retention = {"keepFor": "1y", "onExpire": "Detach"}
    with site.operator().serving():
        site.watch_over(pg_database, premake=1, mode="Plan", retention=retention, startFrom=f"{YEAR}-01-01")
        until("it was observed", lambda: (site.policy().get("status") or {}).get("plan"))
        shown = plugin("timeline", "run").splitlines()
    assert shown[0].startswith(f"{site.namespace}/run: public.run by ")
    assert any(each.split()[:2] == [OLD, str(YEAR - 3)] and each.endswith("detach now") for each in shown)
    assert any(each.split()[0] == f"run_{YEAR}" and "Planned" in each and each.endswith("create now") for each in shown)
    assert max(map(len, shown)) <= 80
    file = tmp_path / "report.html"
    assert plugin("report", "run", "--html", str(file)) == f"wrote {file}: 1 table\n"
    assert f'<h2 id="table-1">{site.namespace}/run</h2>' in file.read_text()
    assert "DetachPartition" in file.read_text()


def test_health_is_an_exit_code_for_probes(site: Site, plugin: Plugin, run: Database) -> None:
    assert plugin("health", "run").startswith(f"OK: {site.namespace}/run: 2 partitions, ")
    site.apply("run", {"premake": 1, "suspend": True})
    site.wait(Ready="Unknown")
    assert f"WARNING: {site.namespace}/run: not Ready: Suspended" in plugin("health", "run", code=1)
    site.watch_over(run, "other", table={"name": "none"})
    site.wait("other", Stalled="True")
    said = plugin("health", code=2)
    assert f"CRITICAL: {site.namespace}/other: the operator has not observed its table: TableNotFound" in said
    assert json.loads(plugin("health", "-o", "json", code=2))["level"] == "CRITICAL"
    assert plugin("health", "missing", code=2).startswith("CRITICAL: there is no PartitionPolicy 'missing'")


def test_create_adds_the_period_to_the_policy_for_the_operator(site: Site, plugin: Plugin, run: Database) -> None:
    said = plugin("create", str(YEAR + 5), "run")
    assert f"added to spec.ensure of {site.namespace}/run: {YEAR + 5}\n" in said
    assert "Ready, Converged: 3 partitions" in said
    assert "keeps this policy" not in said
    assert partitions(run) == [f"run_{YEAR}", f"run_{YEAR + 1}", f"run_{YEAR + 5}"]
    assert site.policy()["spec"]["ensure"] == [str(YEAR + 5)]
    assert f"spec.ensure of {site.namespace}/run has {YEAR + 5} already" in plugin("create", str(YEAR + 5), "run")
    site.kubectl(
        "annotate", "partitionpolicy", "run", "--namespace", site.namespace, "argocd.argoproj.io/tracking-id=x"
    )
    said = plugin("create", str(YEAR + 6))
    assert "ArgoCD keeps this policy and will undo that" in said
    assert f"{YEAR + 6}, as {YEAR + 5}..{YEAR + 6} with what was there" in said
    assert f'  ensure: ["{YEAR + 5}..{YEAR + 6}"]' in said


def test_auto_says_what_premake_implies(site: Site, plugin: Plugin, run: Database) -> None:
    said = plugin("auto", "1", "run")
    assert f"{site.namespace}/run has premake: 1: the operator keeps the current Year and 1 after it" in said
    said = plugin("auto", "3", "run", code=1)
    assert f"for 3 ahead, until {YEAR + 4}-01-01 today, put this line into the policy:\n  premake: 3" in said
    assert plugin.data("auto", "1")["enough"] is True
    assert site.policy()["spec"]["premake"] == 1
    assert partitions(run) == [f"run_{YEAR}", f"run_{YEAR + 1}"]


def test_explain_goes_by_the_policys_secret(plugin: Plugin, run: Database) -> None:
    said = plugin("explain", f"SELECT FROM run WHERE submitted_at = '{YEAR}-05-05Z'", "run")
    assert "public.run by submitted_at: it prunes: 1 of 2 partitions is read" in said
    assert "does not prune" in plugin("explain", "SELECT FROM run", "run", code=2)


def test_drop_writes_the_approval_annotation(site: Site, plugin: Plugin, pg_database: Database) -> None:
    """Only expired partitions are approved; the archive is shown, and nothing is dropped before it is proven."""
    pg_database.execute(RUN)
    ends = f"FROM ('{YEAR - 3}-01-01Z') TO ('{YEAR - 2}-01-01Z')"
    pg_database.execute(f"CREATE TABLE {OLD} PARTITION OF run FOR VALUES {ends}")
    archives = Archives(site)
    retention = {"keepFor": "1y", "onExpire": "Drop", "grace": "0s", "approval": "Manual", "archive": S3}
    retention["job"] = {"nodeSelector": NOWHERE}
    with site.operator(JOB_IMAGE=IMAGE).serving():
        site.watch_over(pg_database, premake=0, startFrom=f"{YEAR}-01-01", retention=retention)
        (name,) = until("an archive is asked for", lambda: made(archives))
        site.wait(Ready="True", ArchivesHealthy="True")
        assert "is Current: only what is older than spec.retention.keepFor (1y)" in plugin(
            "drop", str(YEAR), "run", code=1
        )
        assert "there is no terminal to ask at" in plugin("drop", str(YEAR - 3), "run", code=1)
        said = plugin("drop", str(YEAR - 3), "run", "--yes", code=1)
        assert f"{OLD}, [{YEAR - 3}-01-01, {YEAR - 2}-01-01): " in said
        assert f"archive {name}: " in said
        assert f"--yes goes with a proven archive only, and {OLD} has none" in said
        assert "annotations" not in site.policy()["metadata"] or "approve-drop" not in str(site.policy()["metadata"])
        archives.end(archives.job(name), proof(oid(pg_database, OLD)), 0)
        archives.wait(name, "Proven", Verified="True")
        assert "Proven" in plugin("list", "run")
        said = plugin("drop", str(YEAR - 3), "run", "--yes")
        assert f"archive {name}: Proven, " in said
        assert f"approved {OLD}: the operator drops it once" in said
        assert (
            site.policy()["metadata"]["annotations"]["partwarden.dev/approve-drop"] == f"{OLD}@{oid(pg_database, OLD)}"
        )
        assert plugin.typed("no", "drop", OLD, "run").returncode == 1
        assert plugin.typed(OLD, "drop", OLD, "run").returncode == 0


def test_a_hold_keeps_a_partition_until_it_is_taken_back(site: Site, plugin: Plugin, pg_database: Database) -> None:
    pg_database.execute(RUN)
    ends = f"FROM ('{YEAR - 3}-01-01Z') TO ('{YEAR - 2}-01-01Z')"
    pg_database.execute(f"CREATE TABLE {OLD} PARTITION OF run FOR VALUES {ends}")
    fields: dict[str, Any] = {"premake": 0, "startFrom": f"{YEAR}-01-01", "retention": {"keepFor": "1y"}}
    with site.operator().serving():
        site.watch_over(pg_database, **fields, mode="Plan")
        site.wait(reason="PlanPending")
        number = oid(pg_database, OLD)
        done = plugin.run("hold", f"{OLD}@{number}")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (f"{OLD}@{number} is held by {site.namespace}/run\nheld now: {OLD}@{number}\n")
        assert f"did you mean {OLD}?" in plugin.run("hold", OLD.replace("run", "rnu"), "run").stderr
        site.watch_over(pg_database, **fields)
        held = site.wait(Ready="True")["status"]["partitions"]
        assert [(each["name"], each["state"]) for each in held] == [(OLD, "Held"), (f"run_{YEAR}", "Current")]
        assert plugin("unhold", f"{OLD}@{number}").endswith(f"held now: {OLD.replace('run', 'rnu')}\n")
        until("it is detached", lambda: partitions(pg_database) == [f"run_{YEAR}"])


def test_holds_of_several_users_at_one_moment_are_all_kept(site: Site, plugin: Plugin, run: Database) -> None:
    """Beside the operator, which writes the status meanwhile."""
    names = [f"run_{YEAR + number}" for number in range(5)]
    with ThreadPoolExecutor(len(names)) as pool:
        done = list(pool.map(lambda name: plugin.run("hold", name, "run"), names))
    assert [each.returncode for each in done] == [0] * len(names), done
    assert sorted(site.policy()["metadata"]["annotations"][HOLD].split(", ")) == names
    with ThreadPoolExecutor(len(names)) as pool:
        done = list(pool.map(lambda name: plugin.run("unhold", name, "run"), names[1:]))
    assert [each.returncode for each in done] == [0] * len(done), done
    assert site.policy()["metadata"]["annotations"][HOLD] == names[0]


def test_the_role_of_the_page_is_enough_to_hold(site: Site, plugin: Plugin, tmp_path: Path) -> None:
    site.apply("run")
    scope = ("--namespace", site.namespace)
    (role,) = re.findall(
        r"```yaml\n(apiVersion: rbac.*?)```", (ROOT / "docs/how-to/commands.md").read_text(), re.DOTALL
    )
    site.kubectl("apply", *scope, "--filename", "-", given=role)
    site.kubectl("create", "serviceaccount", "reader", *scope)
    account = f"--serviceaccount={site.namespace}:reader"
    kubeconfig = account_kubeconfig(site.kubectl, site.namespace, "reader", tmp_path / "kubeconfig")
    plugin.environment = {**plugin.environment, "KUBECONFIG": str(kubeconfig)}
    assert "forbidden" in plugin("hold", "run_2018", code=1)
    site.kubectl("create", "rolebinding", "reader", "--role=partwarden-holds", account, *scope)
    until("the right is there", lambda: plugin.run("hold", "run_2018").returncode == 0)
    assert site.policy()["metadata"]["annotations"][HOLD] == "run_2018"
    assert plugin("unhold", "run_2018").endswith("held now: nothing\n")


def test_what_cannot_be_approved_says_why(site: Site, plugin: Plugin, run: Database) -> None:
    assert "the policy has no spec.retention" in plugin("drop", str(YEAR), "run", code=1)
    assert "is called 'run_1999' or lies in it" in plugin("drop", "run_1999", "run", code=1)
    assert "--archive goes with --dsn" in plugin("drop", OLD, "run", "--archive", "x", code=1)
    site.watch_over(run, "other", table={"name": "none"})
    assert "there are 2 policies in namespace" in plugin("drop", OLD, code=1)


def test_a_missing_object_and_a_missing_right_are_one_line_each(site: Site, plugin: Plugin, tmp_path: Path) -> None:
    assert f"there is no PartitionPolicy in namespace '{site.namespace}'; use -n or -A" in plugin("list", code=1)
    assert "there is no PartitionPolicy 'run' in namespace" in plugin("create", "2027", "run", code=1)
    plugin.environment = {**plugin.environment, "KUBECONFIG": str(tmp_path / "none")}
    assert "no way to a Kubernetes cluster" in plugin("list", code=1)
    (tmp_path / "broken").write_text("{")
    plugin.environment = {**plugin.environment, "KUBECONFIG": str(tmp_path / "broken")}
    done = plugin.run("list")
    assert done.returncode == 1
    assert "Error: " in done.stderr


def test_policies_are_completed_by_name(site: Site, plugin: Plugin) -> None:
    for name in ("run", "run-log", "other"):
        site.apply(name)
    words = ["kubectl_complete-partwarden", "list", *plugin.scope, "ru"]
    done = subprocess.run(words, env=plugin.environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("run\nrun-log\n:4\n", "")
    words = ["kubectl_complete-partwarden", "list", "--dsn", "x", "ru"]
    done = subprocess.run(words, env=plugin.environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (":4\n", "")
    environment = {**plugin.environment, "KUBECONFIG": "/nonexistent"}
    words = ["kubectl_complete-partwarden", "list", "ru"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (":4\n", "")


def test_kubectl_completes_the_plugins_arguments(plugin: Plugin) -> None:
    done = subprocess.run(
        ["kubectl_complete-partwarden", "dr"], env=plugin.environment, capture_output=True, text=True, timeout=60
    )
    assert re.fullmatch(r"drop\tDrop one past partition.*\n:4\n", done.stdout)
    done = subprocess.run(
        ["kubectl", "__complete", "partwarden", "l"], env=plugin.environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[0].startswith("list\t")


def test_an_archive_is_named_by_its_partitionarchive_which_says_what_was_proven(
    site: Site, plugin: Plugin, pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    pg_database.execute("""CREATE TABLE run (at date NOT NULL, n int) PARTITION BY RANGE (at);
        CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        INSERT INTO run VALUES ('2020-02-02', 7)""")

    def partwarden(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "partwarden", *arguments]
        environment = {**os.environ, "KUBECONFIG": str(site.cluster.kubeconfig)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    database = ("--dsn", pg_database.dsn)
    made = json.loads(
        partwarden("archive", *database, "--partition", "run_2020", "--to", str(tmp_path), "-o", "json").stdout
    )
    site.kubectl.apply(
        {
            "apiVersion": "partwarden.dev/v1alpha1",
            "kind": "PartitionArchive",
            "metadata": {"name": "run-2020", "namespace": site.namespace},
            "spec": {"partition": "run_2020", "destination": S3, "database": {"secretRef": {"name": "db"}}},
        }
    )
    name = f"parc/{site.namespace}/run-2020"
    early = partwarden("verify", name)
    assert early.returncode == 1
    assert "is not proven" in early.stderr
    status = {"location": made["location"], "manifestSha256": made["manifestSha256"]}
    change = json.dumps({"status": status})
    scope = ("--namespace", site.namespace, "--subresource=status")
    site.kubectl("patch", "parc", "run-2020", *scope, "--type=merge", "-p", change)
    assert partwarden("verify", name).returncode == 0
    other = partwarden("verify", name, "--manifest-sha256", "0" * 64)
    assert other.returncode == 1
    assert "says" in other.stderr
    manifest = Path(made["location"].removeprefix("file://"), "manifest.json")
    text = manifest.read_text()
    manifest.write_text(text.replace('"database"', '"database" '))
    for command in (("verify", name), ("restore", "--manifest", name, *database, "--as", "again")):
        done = partwarden(*command)
        assert done.returncode == 1
        assert "it was changed" in done.stderr
    manifest.write_text(text)
    assert partwarden("restore", "--manifest", name, *database, "--as", "again").returncode == 0
    assert pg_database.query("SELECT n FROM again") == [(7,)]
    nothing = partwarden("verify", f"parc/{site.namespace}/nothing")
    assert nothing.returncode == 1
    assert "there is no PartitionArchive 'nothing'" in nothing.stderr
