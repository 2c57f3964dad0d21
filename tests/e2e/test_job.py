"""An archive Job in Kubernetes: the contents of its pod, its retries, and the reported causes of failures.

In place of `partwarden archive` the Jobs run programs that say what they find, or fail as the test asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lab import jobs, pod
from lab.kubectl import Kubectl
from lab.operator import until
from partwarden.api.destination import PVC, Destination
from partwarden.api.job_settings import JobSettings
from partwarden.archive.job_order import WRONG, JobSpec, Report, Task
from partwarden.archive.manifest import TableName
from partwarden.controller import archive_job
from partwarden.controller.job_status import CLAIM_NOT_FOUND, Phase
from partwarden.controller.settings import Settings

PASSWORD = "of-the-secret"
ORDER = JobSpec(
    task=Task.ARCHIVE,
    id="a1",
    # Kubelet would put the value of the variable there, and one dollar in place of two.
    partition=TableName(schema_="public", name="run_$(PARTWARDEN_DB_password)$$", oid=4711),
    destination=Destination(pvc=PVC(claim_name=jobs.CLAIM)),
)

TELL = """
import json, os, pathlib
order = json.loads(os.environ["PARTWARDEN_ORDER"])
found = {
    "password": os.environ.get("PARTWARDEN_DB_password"),
    "host": os.environ.get("PARTWARDEN_DB_host"),
    "partition": order["partition"]["name"],
    "token": os.path.exists("/var/run/secrets/kubernetes.io"),
    "root": os.access("/", os.W_OK),
    "tmp": os.access("/tmp", os.W_OK),
    "user": os.getuid(),
}
pathlib.Path(order["mount"], "proof").write_text("kept")
print(json.dumps(found, sort_keys=True))
report = {"ok": True, "id": order["id"], "location": "pvc://archives", "rows": 3}
pathlib.Path("/dev/termination-log").write_text(json.dumps(report))
"""
FAIL = """
import json, pathlib, sys
report = {{"ok": False, "reason": "DestinationNotFound", "message": "there is no bucket"}}
pathlib.Path("/dev/termination-log").write_text(json.dumps(report))
sys.exit({code})
"""
IN_TURN = """
import json, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
turn = len(list(pathlib.Path("/archives").glob("turn-*")))
pathlib.Path("/archives", f"turn-{turn}").touch()
if turn == 0:
    time.sleep(3600)
pathlib.Path("/dev/termination-log").write_text(json.dumps({"ok": True, "id": "a1"}))
"""
SWALLOW = "hoard = [bytearray(1 << 20) for _ in range(1 << 14)]"


@pytest.fixture
def begin(restricted: Kubectl, operator_image: str, claim: str) -> Callable[..., str]:
    """Starts a Job with a program in place of the archive's, and returns its name."""
    restricted("create", "secret", "generic", "run-db", f"--from-literal=password={PASSWORD}")

    def start(program: str, wanted: JobSettings | None = None, order: JobSpec = ORDER, **settings: Any) -> str:
        owner = archive_job.Owner(restricted.namespace or "", "run-2020", "4711")
        chosen = Settings.model_validate({"job_image": operator_image, **settings})
        made = archive_job.manifest(owner, order, "1", settings=chosen, database_secret="run-db", wanted=wanted)
        # No such PartitionArchive exists, and objects without an owner are garbage collected.
        del made["metadata"]["ownerReferences"]
        container = made["spec"]["template"]["spec"]["containers"][0]
        container |= {"command": [pod.PYTHON, "-Ic"], "args": [program]}
        restricted.apply(made)
        return str(made["metadata"]["name"])

    return start


def test_the_pod_of_a_job_has_its_spec_the_secret_and_the_claim_and_nothing_else(
    restricted: Kubectl, begin: Callable[..., str], operator_image: str
) -> None:
    name = begin(TELL)
    last = jobs.ended(restricted, name)
    assert (last.phase, last.report) == (
        Phase.COMPLETE,
        Report(ok=True, id="a1", location="pvc://archives", rows=3),
    )
    assert restricted("logs", f"job/{name}") == (
        '{"host": null, "partition": "run_$(PARTWARDEN_DB_password)$$", "password": "of-the-secret", "root": false, '
        '"tmp": true, "token": false, "user": 65532}\n'
    )
    assert PASSWORD not in str(restricted.get("job", name)) + str(jobs.pods_of(restricted, name))
    kept = pod.python(restricted, operator_image, "print(open('/archives/proof').read())", claim=jobs.CLAIM)
    assert kept.said == "kept\n"


def test_a_user_error_is_not_retried(restricted: Kubectl, begin: Callable[..., str]) -> None:
    name = begin(FAIL.format(code=WRONG))
    last = jobs.ended(restricted, name)
    assert (last.phase, last.reason, last.message) == (Phase.FAILED, "DestinationNotFound", "there is no bucket")
    assert len(jobs.pods_of(restricted, name)) == 1


def test_a_transient_error_is_retried_by_one_pod_after_the_other(
    restricted: Kubectl, begin: Callable[..., str]
) -> None:
    name = begin(FAIL.format(code=1), job_retries=1)
    assert jobs.ended(restricted, name).phase is Phase.FAILED
    first, second = sorted(jobs.pods_of(restricted, name), key=lambda each: str(each["metadata"]["creationTimestamp"]))
    done = first["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
    assert done <= second["metadata"]["creationTimestamp"]


def test_an_out_of_memory_kill_is_reported_as_such(restricted: Kubectl, begin: Callable[..., str]) -> None:
    limits = {"limits": {"memory": "48Mi"}, "requests": {"memory": "48Mi"}}
    last = jobs.ended(restricted, begin(SWALLOW, JobSettings.model_validate({"resources": limits}), job_retries=0))
    assert (last.phase, last.reason) == (Phase.FAILED, "OOMKilled")
    assert "raise retention.job.resources.limits.memory" in last.message


def at_work(kubectl: Kubectl, name: str) -> str:
    """The Job's pod, once its program runs."""

    def running() -> str:
        pods = [each for each in jobs.pods_of(kubectl, name) if each["status"]["phase"] == "Running"]
        return str(pods[0]["metadata"]["name"]) if pods else ""

    return until(f"a pod of job {name} runs", running, jobs.PATIENCE)


def test_an_evicted_pod_does_not_count_as_an_attempt(restricted: Kubectl, begin: Callable[..., str]) -> None:
    name = begin(IN_TURN, job_retries=0)
    first = at_work(restricted, name)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": first}}
    path = f"/api/v1/namespaces/{restricted.namespace}/pods/{first}/eviction"
    restricted("create", "--raw", path, "--filename", "-", given=json.dumps(eviction))
    last = jobs.ended(restricted, name)
    assert (last.phase, last.report) == (Phase.COMPLETE, Report(ok=True, id="a1"))


def test_a_pod_that_is_lost_is_replaced(restricted: Kubectl, begin: Callable[..., str]) -> None:
    """Forced, as when its node is lost: no kubelet confirms its end."""
    name = begin(IN_TURN, job_retries=1)
    restricted("delete", "pod", at_work(restricted, name), "--force", "--grace-period=0")
    last = jobs.ended(restricted, name)
    assert (last.phase, last.report) == (Phase.COMPLETE, Report(ok=True, id="a1"))


def test_a_missing_image_is_reported_while_the_job_waits(restricted: Kubectl, begin: Callable[..., str]) -> None:
    image = "localhost:1/partwarden/none:1"
    name = begin(TELL, job_image=image)
    waits = jobs.waiting(restricted, name)
    assert waits.phase is Phase.RUNNING
    assert waits.reason == "ImagePullBackOff"
    assert f"of image {image!r}" in waits.message


def test_a_missing_claim_is_reported_while_the_job_waits(restricted: Kubectl, begin: Callable[..., str]) -> None:
    order = ORDER.model_copy(update={"destination": Destination(pvc=PVC(claim_name="none"))})
    name = begin(TELL, order=order)
    waits = jobs.waiting(restricted, name)
    assert waits.phase is Phase.RUNNING
    assert waits.reason == CLAIM_NOT_FOUND
    assert "PersistentVolumeClaim 'none'" in waits.message
