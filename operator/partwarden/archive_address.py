"""The archive that a command is about: an address, or a PartitionArchive in a cluster, which says what was proven."""

from __future__ import annotations

from typing import Any

from .errors import InvalidSpec
from .where import Where

OBJECT = "parc/"
"""Begins ``parc/NAME`` and ``parc/NAMESPACE/NAME``, as kubectl calls a PartitionArchive."""


def resolve(url: str, manifest_sha256: str | None) -> tuple[str, str | None]:
    """The address of the archive's folder, and what the sha256 of its manifest must be, None where nothing says it.

    A PartitionArchive says both; it is read by the kubeconfig, from the namespace of its context where none is named.
    Raises `InvalidSpec` where there is none, or it is not proven, or says another sha256 than is demanded, and
    `ClusterUnavailable`.
    """
    if not url.startswith(OBJECT):
        return url, manifest_sha256
    namespace, _, name = url.removeprefix(OBJECT).rpartition("/")
    status = _status(namespace or None, name)
    location, proven = status.get("location"), status.get("manifestSha256")
    if not location or not proven:
        raise InvalidSpec(f"PartitionArchive {name} is not proven: kubectl describe parc {name} says what it waits for")
    if manifest_sha256 is not None and manifest_sha256 != proven:
        raise InvalidSpec(f"--manifest-sha256 is {manifest_sha256}, but PartitionArchive {name} says {proven}")
    return str(location), str(proven)


def _status(namespace: str | None, name: str) -> dict[str, Any]:
    # Here, for an address needs no Kubernetes client, which takes long to load.
    from . import reaching

    policies = reaching.Policies(Where(namespace=namespace))
    found = policies.archive(name)
    if found is None:
        raise InvalidSpec(f"there is no PartitionArchive {name!r} in namespace {policies.namespace!r}")
    status: dict[str, Any] = found.get("status") or {}
    return status
