"""A demo in the user's own cluster (CLUSTER=existing): it changes only objects that it made, and removes them all."""

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
    "customresourcedefinition/partitionrestores.partwarden.dev",
)
"""The objects that the demo creates in a cluster, in the order in which it removes them."""


def refuse_another(files: Files) -> None:
    """Raises DemoError when this demo left objects in a cluster of the user, and shall continue in another one."""
    before = files.borrowed_cluster()
    if before and os.environ.get("CLUSTER") != "existing":
        raise DemoError(
            f"cannot start the demo: it is in the cluster of {shown(before)} already; run make demo-down first"
        )


def remember(files: Files, cluster: Cluster) -> None:
    """Record the cluster before any object is created in it.

    Raises DemoError when the cluster has an object with a name that the demo uses, or when the demo is in another one.
    """
    before = files.borrowed_cluster()
    if before == cluster.kubeconfig.absolute():
        return
    if before:
        raise DemoError(
            f"cannot start the demo: it is in the cluster of {shown(before)} already; run make demo-down first"
        )
    if found := Kubectl.of(cluster)("get", *MADE, "--ignore-not-found", "--output", "name").split():
        raise DemoError(
            f"cannot use the cluster of {shown(cluster.kubeconfig)}: it has {', '.join(found)}, which the demo would "
            "change and remove; name another cluster, or leave CLUSTER unset and the demo creates one"
        )
    files.write(files.borrowed, json.dumps({"kubeconfig": str(cluster.kubeconfig.absolute())}))


def remove(files: Files, kubeconfig: Path) -> None:
    """Remove the demo's objects from the cluster. Raises ClusterError when the API server refuses or is unreachable."""
    try:
        Kubectl(kubeconfig)("delete", *MADE, "--ignore-not-found")
    except KubectlError as error:
        raise ClusterError(
            f"cannot remove the demo's objects {', '.join(MADE)}: {error}; if the cluster itself was deleted, remove "
            f"{shown(files.borrowed)}"
        ) from None
    files.borrowed.unlink()
