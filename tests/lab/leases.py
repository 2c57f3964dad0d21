"""The right to a Lease, as the chart gives it."""

from __future__ import annotations

from typing import Any

from lab.site import Site


def allow(site: Site) -> str:
    """Let the operators of the site use a Lease. Returns its namespace and name."""
    rules = [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["leader"],
            "verbs": ["get", "update"],
        },
    ]
    metadata = {"name": "lease", "namespace": site.namespace}
    role: dict[str, Any] = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata}
    site.kubectl.apply({**role, "rules": rules})
    account = f"--serviceaccount={site.namespace}:operator"
    site.kubectl("create", "rolebinding", "lease", "--role=lease", account, "--namespace", site.namespace)
    return f"{site.namespace}/leader"
