"""`make demo`: the steps in order. Each may be interrupted; the next run starts from the beginning."""

import os
import shlex
from pathlib import Path

from lab import cluster as clusters
from lab.cluster import Cluster, Reporter
from lab.kubectl import Kubectl

from . import archiving, borrowed, database, operating
from .database import Demonstrated
from .files import NAME, DemoError, Files, shown
from .operating import KUBECTL
from .story import Story

STEPS = 11
WITH_JOBS = 4
"""Steps that need pods."""

NAMESPACE = "orchestrator"
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def up(story: Story, files: Files) -> None:
    """Run the demo. Raises DemoError, ClusterError or LabError; `story.place` is the step that failed."""
    if operating.stop(files):
        story.say("stopped the operator of an earlier demo; its database and policy are created again")
    story.step("a database whose partitions end with 2025")
    story.say("The application's migration made partitions for two years, and no job has made one since.")
    data = database.renew(story, files)
    data.partitions()
    story.step("an insert of today fails: no partition takes the row")
    data.insert_fails()
    story.step("a Kubernetes cluster")
    cluster = _cluster(story, files)
    image = _image(story, files, cluster)
    story.step("the CustomResourceDefinitions, and a Secret with the connection to the database")
    _resources(story, files)
    story.step("the operator, with its own service account and rights")
    story.run(f"{KUBECTL} apply -f examples/rbac.yaml")
    operating.start(story, files, image)
    story.step("a PartitionPolicy: one partition per year, two years ahead")
    _policy(story, files)
    story.step("the same insert succeeds")
    data.insert_succeeds()
    data.partitions()
    if image:
        story.step("expired years are archived, proven, and dropped")
        counted = archiving.retire(story, files, cluster, image, data)
        story.step("the dropped years are queried as Parquet")
        archiving.query(story, files, image)
        story.step("one dropped year is restored and compared")
        archiving.restore(story, files, data, counted)
    _epilogue(story, files, cluster, data, bool(image))


def _image(story: Story, files: Files, cluster: Cluster) -> str:
    """The image of archive Jobs; "" where Jobs cannot run, and then the demo shows no archives."""
    if why := archiving.why_not(cluster):
        story.say(f"(without archives: {why})")
        story.leave_out(WITH_JOBS)
        return ""
    story.step("the operator's image, for Jobs that archive")
    return archiving.prepare(story, files, cluster)


def _cluster(story: Story, files: Files) -> Cluster:
    if os.environ.get("CLUSTER") != "existing":
        story.command(f"PYTHONPATH=tests .venv/bin/python -m lab.cluster start --name {files.name}")
    borrowed.refuse_another(files)
    cluster = clusters.start(files.name, Reporter())
    if cluster.provider == "existing":
        borrowed.remember(files, cluster)
    pods = "" if cluster.runs_pods else f"; no pods: {cluster.why_no_pods}"
    story.say(f"Kubernetes {cluster.version} ({cluster.provider}{pods})")
    story.export(Kubectl.of(cluster).environment, _exports(cluster))
    return cluster


def _exports(cluster: Cluster) -> str:
    proxy = _no_proxy(cluster)
    return f"export KUBECONFIG={shown(cluster.kubeconfig)}{f' {proxy}' if proxy else ''}"


def _no_proxy(cluster: Cluster) -> str:
    """What a shell needs besides where it has an HTTP proxy: the cluster is reached directly."""
    if not any(os.environ.get(name) for name in PROXIES) or cluster.provider == "existing":
        return ""
    return f"NO_PROXY={shlex.quote(cluster.environment()['NO_PROXY'])}"


def _resources(story: Story, files: Files) -> None:
    story.run(f"{KUBECTL} delete namespace {NAMESPACE} --ignore-not-found")
    story.run(f"{KUBECTL} apply -f crds/")
    kinds = " ".join(f"crd/partition{kind}.partwarden.dev" for kind in ("policies", "archives", "restores"))
    story.run(f"{KUBECTL} wait --for=condition=Established {kinds} --timeout=60s")
    story.run(f"{KUBECTL} create namespace {NAMESPACE}")
    secret = f"create secret generic orchestrator-db --from-env-file {shown(files.secret)}"
    story.run(f"{KUBECTL} --namespace {NAMESPACE} {secret}")


def _policy(story: Story, files: Files) -> None:
    story.run("cat examples/run.yaml")
    story.run(f"{KUBECTL} apply -f examples/run.yaml")
    wait = f"{KUBECTL} --namespace {NAMESPACE} wait --for=condition=Ready partitionpolicy/run --timeout=60s"
    try:
        story.run(wait, unless=lambda: operating.why_ended(files), log=files.operator_log)
    except DemoError:
        story.run(f"{KUBECTL} get partitionpolicies -A -o wide")
        raise
    story.run(f"{KUBECTL} get partitionpolicies -A")
    story.run(f"{KUBECTL} --namespace {NAMESPACE} get events --sort-by=.metadata.creationTimestamp")


def to_try(files: Files, kubeconfig: Path, prefix: str = "", jobs: bool = False) -> list[tuple[str, str]]:
    """Commands to try, each with what it shows; each may be repeated. ``jobs``: whether Jobs can run."""
    where = f"--kubeconfig {shown(kubeconfig)} --namespace {NAMESPACE}"
    kubectl = f"{prefix}{KUBECTL} {where}"
    patch = """'{"spec": {"premake": 5}}'"""
    plan = f'.venv/bin/partwarden plan -f examples/run.yaml --dsn "$(cat {shown(files.dsn)})"'
    tried = [
        ("the status: every partition, condition and finding", f"{kubectl} get partitionpolicy run -o yaml"),
        ("the partitions of the policy, as a table", f"{prefix}.venv/bin/partwarden list run {where}"),
        (
            "three more years ahead; their partitions exist a moment later",
            f"{kubectl} patch ppol run --type merge -p {patch}",
        ),
        ("the plan for another day, without Kubernetes; nothing is executed", f"{plan} --now 2040-01-01T00:00:00Z"),
    ]
    if jobs:
        wait = f"{kubectl} wait --for=condition=Verified parc/run-2025 --timeout=120s"
        tried.append(
            ("an archive of another year, whose partition stays", f"{kubectl} apply -f examples/archive.yaml && {wait}")
        )
    return tried


def _epilogue(story: Story, files: Files, cluster: Cluster, data: Demonstrated, jobs: bool) -> None:
    proxy = _no_proxy(cluster)
    story.say(
        f"\ndone in {story.seconds:.0f} s: Kubernetes {cluster.version}, PostgreSQL {data.version}, one operator."
    )
    story.say("All of it keeps running. To try next, in this folder:")
    for what, command in to_try(files, cluster.kubeconfig, f"{proxy} " if proxy else "", jobs):
        story.say(f"\n# {what}")
        story.command(command)
    story.say(f"\n{shown(files.psql)} opens the database; the operator logs to {shown(files.operator_log)}")
    story.say(f"{ending(files)} stops and removes all of it.")


def ending(files: Files) -> str:
    """The command that stops and removes this demo."""
    return (
        "make demo-down"
        if files.name == NAME
        else f"PYTHONPATH=tests:examples .venv/bin/python -m demo down --name {files.name}"
    )
