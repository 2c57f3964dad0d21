"""`make demo`: each step, in order. Any step may be interrupted, and the whole be done again."""

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

STEPS = 10
WITH_JOBS = 3
"""So many of them need pods."""

NAMESPACE = "orchestrator"
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def up(story: Story, files: Files) -> None:
    """The demo. Raises DemoError, ClusterError or LabError at the step that `story` is at."""
    if operating.stop(files):
        story.say("the operator of an earlier demo has ended; its database and policy are made anew")
    story.step("a database whose partitions end with 2025")
    data = database.renew(story, files)
    data.partitions()
    story.step("today's row finds no partition")
    data.insert_fails()
    story.step("a Kubernetes cluster")
    cluster = _cluster(story, files)
    image = _image(story, files, cluster)
    story.step("the resources, and how to reach the database")
    _resources(story, files)
    story.step("the operator")
    story.run(f"{KUBECTL} apply -f examples/rbac.yaml")
    operating.start(story, files, image)
    story.step("the policy")
    _policy(story, files)
    story.step("the same row again")
    data.insert_succeeds()
    data.partitions()
    if image:
        story.step("the oldest years are archived, proven, and dropped")
        proven = archiving.retire(story, files, cluster, image, data)
        story.step("one is brought back, and counted")
        archiving.restore(story, files, cluster, image, data, proven)
    _epilogue(story, files, cluster, data, bool(image))


def _image(story: Story, files: Files, cluster: Cluster) -> str:
    """Of the Jobs that archive; "" where none can run, and then nothing of archives is shown."""
    if why := archiving.why_not(cluster):
        story.say(f"(archives are left out here: {why})")
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
    """What a shell needs besides, where it would send everything through a proxy."""
    if not any(os.environ.get(name) for name in PROXIES) or cluster.provider == "existing":
        return ""
    return f"NO_PROXY={shlex.quote(cluster.environment()['NO_PROXY'])}"


def _resources(story: Story, files: Files) -> None:
    story.run(f"{KUBECTL} delete namespace {NAMESPACE} --ignore-not-found")
    story.run(f"{KUBECTL} apply -f crds/")
    kinds = "crd/partitionpolicies.partwarden.dev crd/partitionarchives.partwarden.dev"
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
    """What to type next, each with what it shows; all may be typed again. ``jobs``: whether they can run."""
    where = f"--kubeconfig {shown(kubeconfig)} --namespace {NAMESPACE}"
    kubectl = f"{prefix}{KUBECTL} {where}"
    patch = """'{"spec": {"premake": 5}}'"""
    plan = f'.venv/bin/partwarden plan -f examples/run.yaml --dsn "$(cat {shown(files.dsn)})"'
    tried = [
        ("all that the operator knows of the table", f"{kubectl} get partitionpolicy run -o yaml"),
        ("the script's list, on the policy", f"{prefix}.venv/bin/partwarden list run {where}"),
        ("three more years; they exist a moment later", f"{kubectl} patch ppol run --type merge -p {patch}"),
        ("what would be done on another day, without Kubernetes", f"{plan} --now 2040-01-01T00:00:00Z"),
    ]
    if jobs:
        wait = f"{kubectl} wait --for=condition=Verified parc/run-2025 --timeout=120s"
        tried.append(("an archive of another year, which stays", f"{kubectl} apply -f examples/archive.yaml && {wait}"))
    return tried


def _epilogue(story: Story, files: Files, cluster: Cluster, data: Demonstrated, jobs: bool) -> None:
    proxy = _no_proxy(cluster)
    story.say(
        f"\ndone in {story.seconds:.0f} s: Kubernetes {cluster.version}, PostgreSQL {data.version}, one operator."
    )
    story.say("They keep running. To try next, in this folder:")
    for what, command in to_try(files, cluster.kubeconfig, f"{proxy} " if proxy else "", jobs):
        story.say(f"\n# {what}")
        story.command(command)
    story.say(f"\n{shown(files.psql)} opens the database; the operator's log is {shown(files.operator_log)}")
    story.say(f"{ending(files)} ends and removes all of it.")


def ending(files: Files) -> str:
    """The command that removes this demo."""
    return (
        "make demo-down"
        if files.name == NAME
        else f"PYTHONPATH=tests:examples .venv/bin/python -m demo down --name {files.name}"
    )
