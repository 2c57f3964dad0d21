"""The demo's second half: an old year is archived by a Job, proven, and brought back as a table of its own."""

import os

import yaml

from lab import image, pod, volume
from lab.cluster import Cluster, Reporter
from lab.cluster.choice import EXISTING
from lab.kubectl import Kubectl
from lab.postgres import Server

from . import operating
from .database import DATABASE, MAJOR, ROLE, Demonstrated
from .files import DemoError, Files, shown
from .operating import KUBECTL
from .story import Story

NAMESPACE = "orchestrator"
CLAIM = "archives"
ARCHIVE = "run-2019"
RESTORED = "run_2019_again"
IN_NAMESPACE = f"{KUBECTL} --namespace {NAMESPACE}"


def prepare(story: Story, files: Files, cluster: Cluster) -> str:
    """The image, loaded, and PostgreSQL where pods reach it. Returns the image's name, "" where no Job can run."""
    if why := _why_not(cluster):
        story.say(f"(left out here: {why})")
        return ""
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


def archive(story: Story, files: Files, cluster: Cluster, image_name: str) -> None:
    """A claim, a PartitionArchive, and what became of it."""
    if not image_name:
        story.say("(left out here: no Job can run)")
        return
    volume.discard(cluster, CLAIM, NAMESPACE)
    volume.claim(cluster, image_name, CLAIM, NAMESPACE)
    story.run(f"{IN_NAMESPACE} get persistentvolumeclaims")
    story.run("cat examples/archive.yaml")
    story.run(f"{KUBECTL} apply -f examples/archive.yaml")
    wait = f"{IN_NAMESPACE} wait --for=condition=Verified partitionarchive/{ARCHIVE} --timeout=180s"
    try:
        story.run(wait, unless=lambda: operating.why_ended(files), log=files.operator_log)
    except DemoError:
        story.run(f"{IN_NAMESPACE} describe partitionarchive {ARCHIVE}")
        raise
    story.run(f"{IN_NAMESPACE} logs --selector app.kubernetes.io/component=archive --tail=-1")
    story.run(f"{IN_NAMESPACE} get parc")


def restore(story: Story, files: Files, cluster: Cluster, image_name: str, data: Demonstrated) -> None:
    """A pod that has the claim loads the archive as a table of its own."""
    if not image_name:
        story.say("(left out here: no Job can run)")
        return
    found = Kubectl.of(cluster, NAMESPACE).get("partitionarchive", ARCHIVE)["status"]["location"]
    folder = found.replace(f"pvc://{CLAIM}", "/archives")
    port = Server.reopen(files.server).port
    dsn = f"postgresql://{ROLE}@{cluster.host_address}:{port}/{DATABASE}?sslmode=disable"
    arguments = ["restore", "--manifest", folder, "--dsn", dsn, "--as", RESTORED]
    made = pod.manifest("restore", image_name, arguments, claim=CLAIM)
    made["spec"]["containers"][0]["env"] = [
        {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "orchestrator-db", "key": "password"}}}
    ]
    files.write(files.restoring, yaml.safe_dump(made, sort_keys=False))
    story.run(f"cat {shown(files.restoring)}")
    story.run(f"{IN_NAMESPACE} apply -f {shown(files.restoring)}")
    story.run(f"{IN_NAMESPACE} wait --for=jsonpath='{{.status.phase}}'=Succeeded pod/restore --timeout=120s")
    story.run(f"{IN_NAMESPACE} logs restore")
    data.psql(f'-c "SELECT count(*), min(submitted_at), max(submitted_at) FROM {RESTORED}"')


def _why_not(cluster: Cluster) -> str:
    if not cluster.runs_pods:
        return f"no pods: {cluster.why_no_pods}"
    if not cluster.host_address:
        return "no address is known at which pods reach PostgreSQL on this machine"
    if cluster.provider == EXISTING:
        return "" if os.environ.get(image.VARIABLE) else f"{image.VARIABLE} names no image that the cluster can pull"
    return image.why_not(Reporter())
