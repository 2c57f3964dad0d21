"""Attacks on a real operator: one for each module, at a real API server, with another team's real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from adversary.stage import Stage
from lab.cluster import Cluster
from lab.kubectl import Kubectl
from lab.postgres import Server
from lab.site import Site


@pytest.fixture(scope="module")
def stage(
    cluster: Cluster, installed: Kubectl, pg: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """An operator that serves two namespaces. All cases of a module attack it in turn."""
    with ExitStack() as stack:
        site = stack.enter_context(Site(cluster, installed, tmp_path_factory.mktemp("adversary"), count=2).open())
        yield Stage(site, pg, stack)
