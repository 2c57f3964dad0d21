"""Namespaces for pods of the operator's image."""

from collections.abc import Iterator

import pytest

from lab import jobs, pod, volume
from lab.cluster import Cluster
from lab.kubectl import Kubectl


@pytest.fixture
def restricted(pods: Cluster, kubectl: Kubectl, namespace: str) -> Kubectl:
    """kubectl for a namespace that takes restricted pods only."""
    kubectl("label", "namespace", namespace, pod.ENFORCED)
    return Kubectl.of(pods, namespace)


@pytest.fixture
def claim(pods: Cluster, namespace: str, operator_image: str) -> Iterator[str]:
    """A PersistentVolumeClaim in that namespace which the image's user can write to."""
    with volume.claimed(pods, operator_image, jobs.CLAIM, namespace) as made:
        yield made
