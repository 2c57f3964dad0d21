"""The demo's second half: Jobs archive the expired years, the operator drops them, a pod restores one."""

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
    """An archive of the demo: its folder below the claim's root, and what psql counted before the drop."""

    folder: str
    counted: str


def why_not(cluster: Cluster) -> str:
    """Why Jobs cannot run here or cannot reach PostgreSQL, in one line; "" where they can."""
    if not cluster.runs_pods:
        return f"no pods: {cluster.why_no_pods}"
    if not cluster.host_address:
        return "pods have no address at which they reach PostgreSQL on this machine"
    if cluster.provider == EXISTING:
        return "" if os.environ.get(image.VARIABLE) else f"{image.VARIABLE} names no image that the cluster can pull"
    return image.why_not(Reporter())


def prepare(story: Story, files: Files, cluster: Cluster) -> str:
    """Load the image into the cluster, and let PostgreSQL listen where pods reach it. Returns the image's name."""
    story.command("make image")
    name = image.provide(cluster, Reporter())
    server = Server.reopen(files.server)
    server.stop()
    server.start_again({"listen_addresses": f"{server.host},{cluster.host_address}"})
    secret = files.secret.read_text()
    files.write(files.secret, secret.replace(f"@{server.host}:", f"@{cluster.host_address}:"))
    story.say(f"{name}, with the pg_dump of PostgreSQL {MAJOR}")
    story.say(f"PostgreSQL also listens on {cluster.host_address}, which pods reach")
    return name


def retire(story: Story, files: Files, cluster: Cluster, image_name: str, data: Demonstrated) -> Proven:
    """Create a claim, apply the policy with retention, and wait until the expired years are archived and dropped."""
    volume.discard(cluster, CLAIM, NAMESPACE)
    volume.claim(cluster, image_name, CLAIM, NAMESPACE)
    counted = data.psql(f'-c "{COUNT}"')
    story.say("The archives go to a PersistentVolumeClaim in the namespace of the policy:")
    story.run(f"{IN_NAMESPACE} get persistentvolumeclaims")
    story.say(
        "The same policy, with retention. A partition is dropped only after its archive was read back and compared:"
    )
    story.run("cat examples/retention.yaml")
    story.say("Here without the day between detach and drop:")
    story.run(f"sed 's|grace: 24h|grace: 0s|' examples/retention.yaml | {KUBECTL} apply -f -")
    wait = f"{IN_NAMESPACE} wait partitionpolicy/run {NOTHING_WAITS} --timeout=240s"
    try:
        with story.beside(f"{IN_NAMESPACE} get events --watch-only --field-selector {OURS}"):
            story.run(wait, unless=lambda: operating.why_ended(files), log=files.operator_log)
            story.run(f"{IN_NAMESPACE} wait partitionarchives --all --for=condition=Verified --timeout=10s")
    except DemoError:
        story.run(f"{IN_NAMESPACE} describe partitionpolicies,partitionarchives")
        raise
    story.say("One PartitionArchive per dropped partition, with its rows, its bytes and its proof:")
    story.run(f"{IN_NAMESPACE} get parc")
    story.run(f"{KUBECTL} get partitionpolicies -A")
    data.partitions()
    found = Kubectl.of(cluster, NAMESPACE)("get", "parc", "--output", f"jsonpath={_of(YEAR)}").strip()
    if not found:
        raise DemoError(f"cannot find a PartitionArchive of {YEAR}: the operator created none", files.operator_log)
    return Proven(found.removeprefix(f"pvc://{CLAIM}/"), counted)


def restore(story: Story, files: Files, cluster: Cluster, image_name: str, data: Demonstrated, proven: Proven) -> None:
    """Load one archive as a table, in a pod that mounts the claim, and compare it with the dropped partition."""
    server = f"{cluster.host_address}:{Server.reopen(files.server).port}"
    story.say("A pod that mounts the claim runs `partwarden restore`:")
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
        raise DemoError(f"the restored {YEAR} differs from the partition that was dropped")
    story.say("Rows, first and last time and hash equal those counted before the drop.")


def _of(partition: str) -> str:
    return f'{{.items[?(@.spec.partition=="{partition}")].status.location}}'
