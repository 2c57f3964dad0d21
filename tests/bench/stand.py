"""What the figures of the operator are measured on: a cluster, a server and operators of the benchmark's own."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from lab import cluster as clusters
from lab.cluster import Cluster, Reporter
from lab.kubectl import Kubectl
from lab.postgres import Binaries, Role, Server
from lab.site import Site, installed

TABLE = """
CREATE TABLE {name} (id bigint NOT NULL, submitted_at timestamptz NOT NULL, status text NOT NULL DEFAULT 'queued',
  payload jsonb NOT NULL DEFAULT '{{}}', PRIMARY KEY (id, submitted_at)) PARTITION BY RANGE (submitted_at);
CREATE INDEX ON {name} (status, submitted_at);
"""
SECRET = "bench-db"


@dataclass(frozen=True)
class Stand:
    """One server and one cluster, with the resource installed."""

    say: Reporter
    server: Server
    cluster: Cluster
    kubectl: Kubectl
    folder: Path

    @contextmanager
    def site(self, tables: int) -> Iterator[tuple[Site, Role]]:
        """A namespace with a Secret for a new database of so many tables, and the role that owns them."""
        with self.server.new_database() as database, Site(self.cluster, self.kubectl, self.folder).open() as site:
            role = database.new_role()
            database.execute(f"ALTER DATABASE {database.name} OWNER TO {role.name}")
            with psycopg.connect(role.dsn, autocommit=True) as connection:
                for name in table_names(tables):
                    connection.execute(TABLE.format(name=name).encode())
            site.secret(SECRET, {"uri": role.dsn})
            yield site, role


def table_names(count: int) -> list[str]:
    """The names of the tables of a site."""
    return [f"t{number:03d}" for number in range(count)]


def spec(table: str, **more: object) -> dict[str, object]:
    """The spec of a policy for one of them, by month."""
    return {"database": {"secretRef": {"name": SECRET}}, "table": {"name": table}, "interval": "Month", **more}


@contextmanager
def stand(say: Reporter) -> Iterator[Stand]:
    """Start it all; at the end nothing is left."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="partwarden-bench-")))
        server = stack.enter_context(Server.start(Binaries.wheel()))
        cluster = clusters.start(f"bench-{os.getpid()}", say, leashed=True)
        stack.callback(cluster.stop)
        kubectl = Kubectl.of(cluster)
        stack.enter_context(installed(kubectl))
        yield Stand(say, server, cluster, kubectl, folder)
