"""A demo in a cluster that the user brought: nothing of the user's is touched, and nothing of the demo's stays."""

import json
import os
from pathlib import Path

from lab.cluster import Cluster, ClusterError
from lab.kubectl import Kubectl, KubectlError

from .files import DemoError, Files, shown

MADE = (
    "namespace/orchestrator",
    "namespace/partwarden",
    "clusterrolebinding/partwarden",
    "clusterrole/partwarden",
    "customresourcedefinition/partitionpolicies.partwarden.dev",
    "customresourcedefinition/partitionarchives.partwarden.dev",
)
"""What the demo makes in a cluster, in the order in which it is removed."""


def refuse_another(files: Files) -> None:
    """Raises DemoError when this demo left things in a cluster of the user's, and is asked to go on elsewhere."""
    before = files.borrowed_cluster()
    if before and os.environ.get("CLUSTER") != "existing":
        raise DemoError(f"the demo is in the cluster of {shown(before)} already: make demo-down first")


def remember(files: Files, cluster: Cluster) -> None:
    """Write the cluster down before anything is made in it.

    Raises DemoError when it holds something by a name that the demo would use, or when the demo is elsewhere.
    """
    before = files.borrowed_cluster()
    if before == cluster.kubeconfig.absolute():
        return
    if before:
        raise DemoError(f"the demo is in the cluster of {shown(before)} already: make demo-down first")
    if found := Kubectl.of(cluster)("get", *MADE, "--ignore-not-found", "--output", "name").split():
        raise DemoError(
            f"the cluster of {shown(cluster.kubeconfig)} has {', '.join(found)} already, which the demo would change "
            "and remove: give it another cluster, or leave CLUSTER unset to have one made"
        )
    files.write(files.borrowed, json.dumps({"kubeconfig": str(cluster.kubeconfig.absolute())}))


def remove(files: Files, kubeconfig: Path) -> None:
    """Remove what the demo made there. Raises ClusterError when the cluster does not do it."""
    try:
        Kubectl(kubeconfig)("delete", *MADE, "--ignore-not-found")
    except KubectlError as error:
        raise ClusterError(
            f"{error}; what the demo made there is {', '.join(MADE)}. When the cluster itself is gone, remove "
            f"{shown(files.borrowed)}"
        ) from None
    files.borrowed.unlink()
