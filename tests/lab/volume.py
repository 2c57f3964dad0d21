"""A PersistentVolumeClaim that pods which are not root can write to, in clusters that provide no volumes themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab import pod
from lab.cluster import Cluster, ClusterError
from lab.cluster.choice import EXISTING
from lab.kubectl import Kubectl

FOLDER = "/var/lib/kubelet/partwarden-volumes"
"""On the node, where it goes with the cluster."""

USER = 65532
SIZE = "1Gi"


def claim(cluster: Cluster, image: str, name: str, namespace: str) -> None:
    """Make the claim, bound. Raises ClusterError or KubectlError.

    A cluster of the user's own provides the volume. Elsewhere it is a folder of the node, which a pod of the operator's
    image gives to the image's user: `fsGroup` changes nothing in folders of a node.
    """
    kubectl = Kubectl.of(cluster, namespace)
    if cluster.provider == EXISTING:
        kubectl.apply(_claim(name, None))
        return
    volume = volume_name(name, namespace)
    path = f"{FOLDER}/{volume}"
    ended = pod.run_pod(Kubectl.of(cluster, "default"), _giving(f"give-{volume}"[:63], image, path))
    if ended.code != 0:
        raise ClusterError(f"the folder {path} of the node could not be made: {ended.said}")
    kubectl.apply(_volume(volume, path, name, namespace), _claim(name, volume))
    kubectl("wait", f"persistentvolumeclaim/{name}", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")


def discard(cluster: Cluster, name: str, namespace: str) -> None:
    """Take away what `claim` made outside of the namespace; doing it again does nothing."""
    if cluster.provider != EXISTING:
        volume = volume_name(name, namespace)
        kubectl = Kubectl.of(cluster, "default")
        kubectl("delete", "pod", f"give-{volume}"[:63], "--ignore-not-found", "--wait=false")
        kubectl("delete", "persistentvolume", volume, "--ignore-not-found", "--wait=false")


@contextmanager
def claimed(cluster: Cluster, image: str, name: str, namespace: str) -> Iterator[str]:
    """`claim`, and `discard` at the end."""
    try:
        claim(cluster, image, name, namespace)
        yield name
    finally:
        discard(cluster, name, namespace)


def volume_name(name: str, namespace: str) -> str:
    """Of the PersistentVolume behind a claim: volumes have no namespace."""
    return f"{namespace}-{name}"


def _giving(name: str, image: str, path: str) -> dict[str, Any]:
    program = f"import os; os.chown('/given', {USER}, {USER}); os.chmod('/given', 0o700)"
    container = {
        "name": "it",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [pod.PYTHON, "-Ic", program],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "given", "mountPath": "/given"}],
    }
    volume = {"name": "given", "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _volume(name: str, path: str, claim: str, namespace: str) -> dict[str, Any]:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": SIZE},
        "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"name": claim, "namespace": namespace},
        "hostPath": {"path": path, "type": "Directory"},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def _claim(name: str, volume: str | None) -> dict[str, Any]:
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": SIZE}}}
    if volume:
        spec |= {"storageClassName": "", "volumeName": volume}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
