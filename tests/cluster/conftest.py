"""Operators, as real processes with the least rights, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cluster import Cluster
from lab.kubectl import Kubectl
from lab.operator import Operator
from lab.site import Site


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
