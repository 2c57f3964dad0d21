"""Operators, as real processes with the least rights, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from lab.cluster import Cluster
from lab.kubectl import Kubectl
from lab.operator import Operator
from lab.site import CRD, RIGHTS, ROLE, Site


@pytest.fixture(scope="session")
def installed(kubectl: Kubectl) -> Iterator[Kubectl]:
    """The CustomResourceDefinition and the ClusterRole, as a user installs them; what was there before stays."""
    wanted = ("crd/partitionpolicies.partwarden.dev", f"clusterrole/{ROLE}")
    ours = [name for name in wanted if not kubectl("get", name, "--ignore-not-found", "--output", "name")]
    kubectl("apply", "--server-side", "--filename", str(CRD))
    kubectl.apply(*[each for each in yaml.safe_load_all(RIGHTS.read_text()) if each["kind"] == "ClusterRole"])
    kubectl("wait", "--for=condition=Established", wanted[0], "--timeout=60s")
    yield kubectl
    if ours:
        kubectl("delete", *ours, "--ignore-not-found")


@pytest.fixture
def site(cluster: Cluster, installed: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two namespaces; no operator runs in them yet."""
    with Site(cluster, installed, tmp_path_factory.mktemp("site"), count=2).open() as opened:
        yield opened


@pytest.fixture
def operator(site: Site) -> Iterator[Operator]:
    """An operator that serves the namespaces of `site`."""
    with site.operator().serving() as running:
        yield running
