"""The audit log of a local cluster's API server: the requests of service accounts.

https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
"""

from __future__ import annotations

import json
from typing import Any

from lab import report
from lab.cluster import Cluster
from lab.cluster.components import AUDIT


def requests(cluster: Cluster, namespace: str, account: str) -> list[dict[str, Any]]:
    """Events (audit.k8s.io/v1) of that service account, oldest first. Without an audit log the test does not run."""
    if cluster.logs is None or not (cluster.logs / AUDIT).exists():
        report.could_not_run(f"cluster {cluster.name} writes no audit log")
    whole = (cluster.logs / AUDIT).read_text().splitlines(keepends=True)
    events = [json.loads(line) for line in whole if line.endswith("\n")]
    return [each for each in events if each["user"]["username"] == f"system:serviceaccount:{namespace}:{account}"]
