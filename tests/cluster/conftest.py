"""Operators, as real processes with the least rights, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.archives import PARTITION, Archives
from lab.cluster import Cluster
from lab.kubectl import Kubectl
from lab.operator import Operator
from lab.postgres import Database
from lab.reconciled_archive import ReconciledArchive
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


@pytest.fixture
def archives(site: Site, pg_database: Database) -> Archives:
    """A table with two partitions, reached by the Secret ``run``; no operator runs."""
    pg_database.execute(PARTITION)
    site.secret("run", {"uri": pg_database.dsn})
    return Archives(site)


@pytest.fixture
def by_hand(archives: Archives, pg_database: Database) -> ReconciledArchive:
    """Of an operator whose Jobs are given one pod."""
    return ReconciledArchive(archives, pg_database, job_retries=0)
