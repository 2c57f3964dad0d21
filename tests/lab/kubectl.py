"""Runs the kubectl of .venv against one kubeconfig, never the user's own configuration."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lab.cluster import Cluster
from lab.postgres import account

PROGRAM = Path(sys.prefix) / "bin" / "kubectl"
PATIENCE = 120.0
"""Limit of one command, in seconds."""


class KubectlError(Exception):
    """A command failed; the message is kubectl's own."""


class Kubectl:
    """kubectl for one cluster and, if given, one namespace."""

    def __init__(
        self, kubeconfig: Path, environment: Mapping[str, str] | None = None, namespace: str | None = None
    ) -> None:
        self.kubeconfig, self.namespace = kubeconfig, namespace
        # Neither ~/.kube/kuberc nor ~/.kube/cache: the user's folder is not touched.
        cache = str(account.cache().parent / "kubectl")
        self.environment = {**(environment or os.environ), "KUBERC": "off", "KUBECACHEDIR": cache}

    @classmethod
    def of(cls, cluster: Cluster, namespace: str | None = None) -> "Kubectl":
        """The one for this cluster."""
        return cls(cluster.kubeconfig, cluster.environment(), namespace)

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        scope = ["--namespace", self.namespace] if self.namespace else []
        return [str(PROGRAM), "--kubeconfig", str(self.kubeconfig), *scope, *arguments]

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it with `given` as its input. Returns the completed process, also after a failure."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            input=given or "",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        """Run it and return its output. Raises KubectlError when it fails."""
        done = self.run(*arguments, given=given)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json`, parsed. Raises KubectlError."""
        return json.loads(self("get", *arguments, "--output", "json"))

    def apply(self, *manifests: Mapping[str, Any]) -> str:
        """`kubectl apply` of manifests. Raises KubectlError."""
        return self("apply", "--filename", "-", given=yaml.safe_dump_all(manifests))
