"""The operator's image runs as Kubernetes' restricted standard wants it, and says what is wrong with its settings."""

import json
import tarfile
from typing import Any

import pytest

from lab import pod
from lab.cluster import Cluster, Reporter
from lab.cluster.choice import EXISTING
from lab.image import build
from lab.kubectl import Kubectl
from partwarden import __version__

WHAT_IS_THERE = """
import json, os, pathlib, shutil, sys
programs = ("cc", "gcc", "ld", "make", "pip", "pip3", "psql", "git", "curl")
folders = ("/", "/tmp", "/opt/partwarden", sys.prefix, "/usr/local/bin")
print(json.dumps({
    "user": os.getuid(),
    "programs": [name for name in programs if shutil.which(name)],
    "writable": [name for name in folders if os.access(name, os.W_OK)],
    "caches": [str(path) for name in ("/var/lib/apt/lists", "/var/cache", "/root/.cache")
               if os.access(name, os.R_OK) for path in pathlib.Path(name).rglob("*") if path.is_file()],
    "dump": [shutil.which(name) for name in ("pg_dump", "pg_restore")],
}))
"""


@pytest.fixture
def restricted(kubectl: Kubectl, namespace: str) -> Kubectl:
    """kubectl for a namespace that takes restricted pods only."""
    kubectl("label", "namespace", namespace, pod.ENFORCED)
    return Kubectl(kubectl.kubeconfig, kubectl.environment, namespace)


def test_it_runs_as_it_is_with_a_read_only_root(restricted: Kubectl, operator_image: str) -> None:
    ended = pod.run(restricted, operator_image, "version")
    assert (ended.code, ended.said) == (0, f"partwarden {__version__}\n")


def test_a_wrong_setting_ends_it_with_one_line_that_names_it(restricted: Kubectl, operator_image: str) -> None:
    ended = pod.run(restricted, operator_image, "run", PARTWARDEN_WORKERS="0")
    assert (ended.code, ended.said) == (1, "Error: PARTWARDEN_WORKERS='0': must be greater than or equal to 1\n")


def test_it_holds_what_it_needs_and_no_more(restricted: Kubectl, operator_image: str) -> None:
    ended = pod.python(restricted, operator_image, WHAT_IS_THERE)
    assert ended.code == 0, ended.said
    assert json.loads(ended.said) == {
        "user": 65532,
        "programs": [],
        "writable": [],
        "caches": [],
        "dump": ["/usr/local/bin/pg_dump", "/usr/local/bin/pg_restore"],
    }


def test_its_labels_and_its_user_are_those_of_this_version(pods: Cluster, operator_image: str) -> None:
    if pods.provider == EXISTING:
        return  # that image was built by somebody else
    with tarfile.open(build(Reporter(quiet=True)).archive) as archive:
        config = _json(archive, _json(archive, "manifest.json")[0]["Config"])["config"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/opt/partwarden/bin/partwarden"]


def _json(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    assert member
    return json.load(member)
