"""A server whose synchronous standby is away."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from lab.postgres.errors import LabError

if TYPE_CHECKING:
    from lab.postgres.server import Server

PATIENCE, POLL = 60.0, 0.05
SYNCHRONOUS = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"


@contextmanager
def standby_away(server: "Server") -> Iterator[None]:
    """Each commit on the server waits for a standby, which was there and has stopped, until the end of the block.

    Commits with ``synchronous_commit = local`` do not wait, and so do not those of the lab's own superuser. Raises
    LabError when the standby does not become synchronous.
    """
    with server.standby() as standby, psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {server.superuser} SET synchronous_commit = local".encode())
        _demand(connection, "*")
        deadline = time.monotonic() + PATIENCE
        while not connection.execute(SYNCHRONOUS).fetchall():
            if time.monotonic() > deadline:
                raise LabError(f"the standby of {server.folder} does not become synchronous")
            time.sleep(POLL)
        standby.stop()
        try:
            yield
        finally:
            _demand(connection, "")


def _demand(connection: psycopg.Connection, names: str) -> None:
    connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
    connection.execute("SELECT pg_reload_conf()")
