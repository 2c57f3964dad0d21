"""The demo's second half: old years are archived by Jobs, proven and dropped, and one is brought back and counted."""

import os
from dataclasses import dataclass

from lab import image, volume
from lab.cluster import Cluster, Reporter
from lab.cluster.choice import EXISTING
from lab.kubectl import Kubectl
from lab.postgres import Server

from . import operating
from .database import MAJOR, Demonstrated
from .files import DemoError, Files
from .operating import KUBECTL
from .story import Story

NAMESPACE = "orchestrator"
CLAIM = "archives"
YEAR = "run_2019"
COUNT = f"SELECT count(*), min(submitted_at), max(submitted_at), sum(hashtext(t::text)) AS hash FROM {YEAR} AS t"
IN_NAMESPACE = f"{KUBECTL} --namespace {NAMESPACE}"
OURS = "reportingComponent=partwarden.dev/partwarden"
NOTHING_WAITS = """'--for=jsonpath={.status.conditions[?(@.type=="ArchivesHealthy")].reason}=NothingWaits'"""


@dataclass(frozen=True)
class Proven:
    """What was archived: its folder below the claim's root, and what psql said of the rows."""

    folder: str
    counted: str


def why_not(cluster: Cluster) -> str:
    """ "" where Jobs can run and reach PostgreSQL, else one line."""
    if not cluster.runs_pods:
        return f"no pods: {cluster.why_no_pods}"
    if not cluster.host_address:
        return "no address is known at which pods reach PostgreSQL on this machine"
    if cluster.provider == EXISTING:
        return "" if os.environ.get(image.VARIABLE) else f"{image.VARIABLE} names no image that the cluster can pull"
    return image.why_not(Reporter())


def prepare(story: Story, files: Files, cluster: Cluster) -> str:
    """The image, loaded, and PostgreSQL where pods reach it. Returns the image's name."""
    story.command("make image")
    name = image.provide(cluster, Reporter())
    server = Server.reopen(files.server)
    server.stop()
    server.start_again({"listen_addresses": f"{server.host},{cluster.host_address}"})
    secret = files.secret.read_text()
    files.write(files.secret, secret.replace(f"@{server.host}:", f"@{cluster.host_address}:"))
    story.say(f"{name}, with the pg_dump of PostgreSQL {MAJOR}")
    story.say(f"PostgreSQL listens on {cluster.host_address} as well, where pods reach it")
    return name


def retire(story: Story, files: Files, cluster: Cluster, image_name: str, data: Demonstrated) -> Proven:
    """A claim, a policy with a retention, and what became of the years that are older."""
    volume.discard(cluster, CLAIM, NAMESPACE)
    volume.claim(cluster, image_name, CLAIM, NAMESPACE)
    counted = data.psql(f'-c "{COUNT}"')
    story.run(f"{IN_NAMESPACE} get persistentvolumeclaims")
    story.run("cat examples/retention.yaml")
    story.run(f"{KUBECTL} apply -f examples/retention.yaml")
    wait = f"{IN_NAMESPACE} wait partitionpolicy/run {NOTHING_WAITS} --timeout=240s"
    try:
        with story.beside(f"{IN_NAMESPACE} get events --watch-only --field-selector {OURS}"):
            story.run(wait, unless=lambda: operating.why_ended(files), log=files.operator_log)
            story.run(f"{IN_NAMESPACE} wait partitionarchives --all --for=condition=Verified --timeout=10s")
    except DemoError:
        story.run(f"{IN_NAMESPACE} describe partitionpolicies,partitionarchives")
        raise
    story.run(f"{IN_NAMESPACE} get parc")
    story.run(f"{KUBECTL} get partitionpolicies -A")
    data.partitions()
    found = Kubectl.of(cluster, NAMESPACE)("get", "parc", "--output", f"jsonpath={_of(YEAR)}").strip()
    if not found:
        raise DemoError(f"there is no PartitionArchive of {YEAR}", files.operator_log)
    return Proven(found.removeprefix(f"pvc://{CLAIM}/"), counted)


def restore(story: Story, files: Files, cluster: Cluster, image_name: str, data: Demonstrated, proven: Proven) -> None:
    """A pod that has the claim loads the archive as a table of its own."""
    server = f"{cluster.host_address}:{Server.reopen(files.server).port}"
    story.run("cat examples/restore.yaml")
    filled = f"sed 's|IMAGE$|{image_name}|; s|FOLDER$|{proven.folder}|; s|@SERVER|@{server}|' examples/restore.yaml"
    story.run(f"{filled} | {KUBECTL} apply -f -")
    try:
        story.run(f"{IN_NAMESPACE} wait pod/restore --for=jsonpath={{.status.phase}}=Succeeded --timeout=60s")
    except DemoError:
        story.run(f"{IN_NAMESPACE} describe pod restore")
        story.run(f"{IN_NAMESPACE} logs restore")
        raise
    story.run(f"{IN_NAMESPACE} logs restore")
    if data.psql(f'-c "{COUNT}"') != proven.counted:
        raise DemoError(f"{YEAR} is not what it was before it was dropped")
    story.say("the same as before it was dropped")


def _of(partition: str) -> str:
    return f'{{.items[?(@.spec.partition=="{partition}")].status.location}}'
