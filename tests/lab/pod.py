"""Pods that run a command in the operator's image under the restricted standard."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.kubectl import Kubectl
from lab.operator import until

PYTHON = "/opt/partwarden/bin/python"
PATIENCE = 120.0
ENFORCED = "pod-security.kubernetes.io/enforce=restricted"
"""A namespace with this label takes no other pods."""


@dataclass(frozen=True)
class Ended:
    """How a pod ended, and what it printed."""

    code: int
    said: str
    message: str
    """Its termination message."""


def manifest(
    name: str, image: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None, claim: str = ""
) -> dict[str, Any]:
    """A pod of one container with the image's own entrypoint, user and a read-only root; `claim` is at /archives."""
    container: dict[str, Any] = {
        "name": "it",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": list(arguments),
        "env": [{"name": key, "value": value} for key, value in (environment or {}).items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # No user is set: kubelet must see from the image that its user is not root.
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    if claim:
        container["volumeMounts"] = [{"name": "archives", "mountPath": "/archives"}]
        spec["volumes"] = [{"name": "archives", "persistentVolumeClaim": {"claimName": claim}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def run(kubectl: Kubectl, image: str, *arguments: str, claim: str = "", **environment: str) -> Ended:
    """Run the image's entrypoint with these arguments in the namespace of `kubectl`, and wait for its end."""
    return run_pod(kubectl, manifest(f"it-{secrets.token_hex(3)}", image, arguments, environment, claim))


def python(kubectl: Kubectl, image: str, program: str, claim: str = "") -> Ended:
    """The same for a Python program, by the image's Python."""
    made = manifest(f"it-{secrets.token_hex(3)}", image, ["-Ic", program], claim=claim)
    made["spec"]["containers"][0]["command"] = [PYTHON]
    return run_pod(kubectl, made)


def run_pod(kubectl: Kubectl, made: Mapping[str, Any]) -> Ended:
    """Create a pod of one container and wait for its end."""
    name = made["metadata"]["name"]
    kubectl.apply(made)

    def ended() -> dict[str, Any] | None:
        status = kubectl.get("pod", name)["status"]
        states = [each["state"].get("terminated") for each in status.get("containerStatuses", [])]
        return states[0] if states else None

    try:
        last = until(f"pod {name} has ended", ended, PATIENCE)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{describe_pod(kubectl, name)}") from None
    return Ended(int(last["exitCode"]), kubectl("logs", name), last.get("message", ""))


def describe_pod(kubectl: Kubectl, name: str) -> str:
    """The status of a pod and the end of its log, for a message."""
    return "\n".join(kubectl.run(*words, name).stdout for words in (("describe", "pod"), ("logs", "--tail=60")))
