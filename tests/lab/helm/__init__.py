"""The helm command, built from its Go module, run against one cluster and never with the user's own configuration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from lab.cluster import Cluster, Reporter, folders, gobuild

MODULE = Path(__file__).parent
"""Whose go.mod and go.sum pin it."""
REQUIRED = "helm.sh/helm/v4"
PATIENCE = 240.0
"""Seconds that one command is given."""


class HelmError(Exception):
    """A command failed; the message is helm's own."""


def version() -> str:
    """The pinned version, such as "4.3.1"."""
    return gobuild.version_of(MODULE, REQUIRED).removeprefix("v")


def built(say: Reporter) -> Path:
    """The command, from the cache where it was built before. Raises ClusterError when it cannot be built."""
    flags = f"-s -w -X helm.sh/helm/v4/internal/version.version=v{version()}"
    recipe = gobuild.Recipe(f"helm {version()}", f"helm/v{version()}", MODULE, (f"{REQUIRED}/cmd/helm",), flags)
    return gobuild.build(recipe, say) / "helm"


class Helm:
    """helm, for one cluster and namespace where they are given."""

    def __init__(self, program: Path, cluster: Cluster | None = None, namespace: str = "") -> None:
        self.program, self.namespace = program, namespace
        home = folders.cache() / "helm" / "home"
        known = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
        places = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        own: Mapping[str, str] = cluster.environment() if cluster else {}
        # Without a cluster it must find none, wherever the user has one.
        kubeconfig = str(cluster.kubeconfig if cluster else home / "none")
        self.environment = {**known, **own, **places, "KUBECONFIG": kubeconfig}

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Runs it with `given` as its input and returns what it said, whether or not it succeeded."""
        scope = ["--namespace", self.namespace] if self.namespace else []
        return subprocess.run(
            [str(self.program), *arguments, *scope],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def __call__(self, *arguments: str, given: str = "") -> str:
        """Runs it and returns its output. Raises HelmError when it fails."""
        done = self.run(*arguments, given=given)
        if done.returncode != 0:
            raise HelmError(f"helm {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout
