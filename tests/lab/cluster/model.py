"""The result of every provider: a Cluster, or a ClusterError."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from .kubeconfigs import server_of


class ClusterError(Exception):
    """A cluster could not be started, used or stopped; the message says which step, why, and where to read more."""


class Handle(Protocol):
    """What a provider does to a cluster of its own that runs."""

    def load_image(self, archive: Path) -> list[str]:
        """Make the images of a docker-archive tar known to every node; return their names."""

    def stop(self) -> None:
        """Remove the cluster and all it left. Doing it again does nothing."""


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes cluster that answered and, where it runs pods, was seen to run them.

    `version` is the API server's, such as "v1.37.2". `kubeconfig` is a file of this cluster's own, good for kubectl
    and for every client; its user may do everything. `host_address` is the IP address at which pods reach what
    listens on this machine, "" where no such address is known. `why_no_pods` is "" when `runs_pods`, else one line.
    """

    name: str
    provider: str
    version: str
    kubeconfig: Path
    runs_pods: bool
    why_no_pods: str
    host_address: str
    logs: Path | None
    handle: Handle = field(repr=False, compare=False)

    def load_image(self, archive: Path) -> list[str]:
        """Load a docker-archive tar and return the names of its images, as a pod may ask for them.

        Raises ClusterError when the cluster runs no pods, when it is not ours to load into, or when the archive is bad.
        """
        if not self.runs_pods:
            raise ClusterError(f"cluster {self.name} cannot load {archive}: it runs no pods ({self.why_no_pods})")
        return self.handle.load_image(archive)

    def stop(self) -> None:
        """Remove the cluster; one that the user brought is left alone. Doing it again does nothing."""
        self.handle.stop()

    def environment(self) -> dict[str, str]:
        """The process environment for kubectl and other clients: this kubeconfig, and no proxy on the way to it."""
        environment = dict(os.environ, KUBECONFIG=str(self.kubeconfig))
        host = urlsplit(server_of(self.kubeconfig)).hostname or ""
        for name in ("NO_PROXY", "no_proxy") if self.provider != "existing" else ():
            known = [part for part in environment.get(name, "").split(",") if part]
            environment[name] = ",".join([*known, host])
        return environment
