"""Writes kubeconfig files that stand alone: every key is inside."""

import base64
from pathlib import Path
from typing import Any

import yaml

from .certificates import write


def write_kubeconfig(path: Path, cluster: str, server: str, authority: Path, certificate: Path, key: Path) -> None:
    """Write a kubeconfig with one context, named as the cluster; only its owner can read it."""
    context = {"cluster": cluster, "user": cluster}
    user = {"client-certificate-data": _inline(certificate), "client-key-data": _inline(key)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": cluster, "cluster": {"server": server, "certificate-authority-data": _inline(authority)}}
        ],
        "users": [{"name": cluster, "user": user}],
        "contexts": [{"name": cluster, "context": context}],
        "current-context": cluster,
    }
    write(path, yaml.safe_dump(content, sort_keys=False).encode(), 0o600)


def server_of(path: Path) -> str:
    """The API server's URL in the current context of a kubeconfig, "" where it names none."""
    content: Any = yaml.safe_load(path.read_text())
    contexts = {entry["name"]: entry["context"] for entry in content.get("contexts") or []}
    clusters = {entry["name"]: entry["cluster"] for entry in content.get("clusters") or []}
    context = contexts.get(content.get("current-context"), {})
    return str(clusters.get(context.get("cluster"), {}).get("server", ""))


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
