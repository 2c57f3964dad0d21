"""A PersistentVolumeClaim that pods which are not root can write to, in clusters that provide no volumes themselves."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lab import pod
from lab.cluster import Cluster, ClusterError
from lab.cluster.choice import EXISTING
from lab.kubectl import Kubectl

FOLDER = "/var/lib/kubelet/partwarden-volumes"
"""On the node, where it is removed with the cluster."""

LABEL = "lab.partwarden.dev/claim"
USER = 65532
SIZE = "1Gi"


def claim(cluster: Cluster, image: str, name: str, namespace: str) -> None:
    """Create the claim, bound to an empty volume. Raises ClusterError or KubectlError.

    A cluster of the user's own provides the volume. Elsewhere it is a folder of the node, which a pod of the operator's
    image gives to the image's user: `fsGroup` changes nothing in folders of a node.
    """
    kubectl = Kubectl.of(cluster, namespace)
    if cluster.provider == EXISTING:
        kubectl.apply(_claim(name, None))
        return
    volume = f"volume-{secrets.token_hex(4)}"
    labels = {LABEL: f"{namespace}.{name}"}
    path = f"{FOLDER}/{volume}"
    ended = pod.run_pod(Kubectl.of(cluster, "default"), _giving(volume, labels, image, path))
    if ended.code != 0:
        raise ClusterError(f"the folder {path} of the node could not be made: {ended.said}")
    kubectl.apply(_volume(volume, labels, path, name, namespace), _claim(name, volume))
    kubectl("wait", f"persistentvolumeclaim/{name}", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")


def discard(cluster: Cluster, name: str, namespace: str) -> None:
    """Remove what `claim` created outside of the namespace; idempotent."""
    if cluster.provider != EXISTING:
        kubectl = Kubectl.of(cluster, "default")
        kubectl("delete", "pods,persistentvolumes", f"--selector={LABEL}={namespace}.{name}", "--wait=false")


@contextmanager
def claimed(cluster: Cluster, image: str, name: str, namespace: str) -> Iterator[str]:
    """`claim`, and `discard` at the end."""
    try:
        claim(cluster, image, name, namespace)
        yield name
    finally:
        discard(cluster, name, namespace)


def _giving(name: str, labels: Mapping[str, str], image: str, path: str) -> dict[str, Any]:
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
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def _volume(name: str, labels: Mapping[str, str], path: str, claim: str, namespace: str) -> dict[str, Any]:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": SIZE},
        "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"name": claim, "namespace": namespace},
        "hostPath": {"path": path, "type": "Directory"},
    }
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}


def _claim(name: str, volume: str | None) -> dict[str, Any]:
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": SIZE}}}
    if volume:
        spec |= {"storageClassName": "", "volumeName": volume}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
