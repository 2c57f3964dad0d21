"""The demo's second half: Jobs archive the expired years, the operator drops them, DuckDB queries them, and another Job
restores one."""

import os
import shutil

from lab import image, volume
from lab.cluster import Cluster, Reporter
from lab.cluster.choice import EXISTING
from lab.postgres import Server

from . import operating
from .database import MAJOR, Demonstrated
from .files import DemoError, Files, shown
from .operating import KUBECTL
from .story import Story

NAMESPACE = "orchestrator"
CLAIM = "archives"
YEAR = "run_2019"
AGAIN = "examples/partition-restore.yaml"
READER, READER_POD = "examples/archive-reader.yaml", "archive-reader"
DUCKDB = ".venv/bin/duckdb"
QUERY = (
    "SET TimeZone = 'UTC'; SELECT year, count(*) AS runs, min(submitted_at) AS first, max(submitted_at) AS last "
    "FROM read_parquet('{}/**/*.parquet', hive_partitioning = true) GROUP BY ALL ORDER BY ALL"
)
COUNT = "SELECT count(*), min(submitted_at), max(submitted_at), sum(hashtext(t::text)) AS hash FROM {} AS t"
IN_NAMESPACE = f"{KUBECTL} --namespace {NAMESPACE}"
OURS = "reportingComponent=partwarden.dev/partwarden"
NOTHING_WAITS = """'--for=jsonpath={.status.conditions[?(@.type=="ArchivesHealthy")].reason}=NothingWaits'"""


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
    story.command(f"make image VARIANT={image.PARQUET}")
    name = image.provide(cluster, Reporter(), image.PARQUET)
    server = Server.reopen(files.server)
    server.stop()
    server.start_again({"listen_addresses": f"{server.host},{cluster.host_address}"})
    secret = files.secret.read_text()
    files.write(files.secret, secret.replace(f"@{server.host}:", f"@{cluster.host_address}:"))
    story.say(f"{name}, with the pg_dump of PostgreSQL {MAJOR}")
    story.say(f"PostgreSQL also listens on {cluster.host_address}, which pods reach")
    return name


def retire(story: Story, files: Files, cluster: Cluster, image_name: str, data: Demonstrated) -> str:
    """Create a claim, apply the policy with retention, and wait until the expired years are archived and dropped.
    Returns what psql counted in one of them before."""
    volume.discard(cluster, CLAIM, NAMESPACE)
    volume.claim(cluster, image_name, CLAIM, NAMESPACE)
    counted = data.psql(f'-c "{COUNT.format(YEAR)}"')
    story.say("The archives go to a PersistentVolumeClaim in the namespace of the policy:")
    story.run(f"{IN_NAMESPACE} get persistentvolumeclaims")
    story.say(
        "The same policy, with retention. A partition is dropped only after its archive was read back and compared:"
    )
    story.run("cat examples/retention.yaml")
    story.say("Here without the day between detach and drop, and with archives that can be queried:")
    edit = "sed 's|grace: 24h|grace: 0s|; s|# formats|formats|'"
    story.run(f"{edit} examples/retention.yaml | {KUBECTL} apply -f -")
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
    return counted


def query(story: Story, files: Files, image_name: str) -> None:
    """Copy the archives out of the claim, by a pod that mounts it, and have DuckDB count the rows of dropped years."""
    story.say("Beside each dump lies the same as Parquet. A pod that mounts the claim, to copy the files from:")
    story.run(f"sed 's|IMAGE|{image_name}|' {READER} | {KUBECTL} apply -f -")
    story.run(f"{IN_NAMESPACE} wait pod/{READER_POD} --for=condition=Ready --timeout=120s")
    shutil.rmtree(files.archives, ignore_errors=True)
    story.run(f"{IN_NAMESPACE} cp {READER_POD}:/archives {shown(files.archives)}")
    story.run(f"{IN_NAMESPACE} delete pod/{READER_POD}")
    story.say("The dropped years, queried without PostgreSQL:")
    story.run(f'{DUCKDB} -c "{QUERY.format(files.archives)}"')


def restore(story: Story, files: Files, data: Demonstrated, counted: str) -> None:
    """Have the operator load one archive as a table, and compare it with what psql ``counted`` in the partition."""
    story.say("A PartitionRestore: a Job loads the archive of 2019, and proves the table:")
    story.run(f"cat {AGAIN}")
    story.run(f"{KUBECTL} apply -f {AGAIN}")
    wait = f"{IN_NAMESPACE} wait --for=condition=Restored prst/run-2019-again --timeout=120s"
    try:
        story.run(wait, unless=lambda: operating.why_ended(files), log=files.operator_log)
    except DemoError:
        story.run(f"{IN_NAMESPACE} describe partitionrestores")
        raise
    story.run(f"{IN_NAMESPACE} get prst")
    if data.psql(f'-c "{COUNT.format(f"{YEAR}_again")}"') != counted:
        raise DemoError(f"the restored {YEAR}_again differs from the partition {YEAR} that was dropped")
    story.say("Rows, first and last time and hash equal those counted before the drop.")
