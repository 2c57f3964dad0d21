"""The provider for the user's own cluster, used only when CLUSTER names it."""

import os
from pathlib import Path

from kubernetes import client

from . import api, check
from .model import Cluster, ClusterError
from .reporter import Reporter

VARIABLE = "PARTWARDEN_KUBECONFIG"
"""Not KUBECONFIG: what a shell happens to point at is not to be tested on."""


def start(name: str, say: Reporter) -> Cluster:
    """The cluster of the kubeconfig that PARTWARDEN_KUBECONFIG names; nothing is changed in it.

    Raises ClusterError when the variable is not set, the file is not there, or the cluster does not answer.
    """
    named = os.environ.get(VARIABLE, "")
    if not named:
        raise ClusterError(f"CLUSTER=existing needs {VARIABLE}: the kubeconfig file of the cluster to use")
    kubeconfig = Path(named).expanduser()
    if not kubeconfig.is_file():
        raise ClusterError(f"{VARIABLE}={named}: there is no such file")
    version = check.api_version(kubeconfig, direct=False)
    why = _why_no_pods(kubeconfig)
    say.say(f"cluster {name}: the existing one of {kubeconfig}, {version}; it is used as it is and left as it is")
    host = os.environ.get("PARTWARDEN_HOST_ADDRESS", "")
    return Cluster(name, "existing", version, kubeconfig, not why, why, host, None, _Handle(kubeconfig))


class _Handle:
    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    def load_image(self, archive: Path) -> list[str]:
        raise ClusterError(
            f"{archive} cannot be loaded into the existing cluster of {self._kubeconfig}: "
            "push its images to a registry that the cluster pulls from, or load them into its nodes by hand"
        )

    def stop(self) -> None:
        return


def _why_no_pods(kubeconfig: Path) -> str:
    with api.connect(kubeconfig, direct=False) as connection:
        nodes = api.plain(connection, client.CoreV1Api(connection).list_node(_request_timeout=10))["items"]
    for node in nodes:
        conditions = {entry["type"]: entry["status"] for entry in node["status"].get("conditions", [])}
        if conditions.get("Ready") == "True" and not node["spec"].get("unschedulable"):
            return ""
    return f"none of its {len(nodes)} nodes is ready"
