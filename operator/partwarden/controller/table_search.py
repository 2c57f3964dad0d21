"""Find the table of an archive in its database, in a worker process, as its Job would: before there is one."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..api.retention import KeyEncoding
from ..archive import pgdump, table_lookup
from ..archive.table_lookup import Target
from ..postgres.conninfo import ConnectionInfo
from .database_work import CONNECTING, Supervisor, cancellable_session


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSearch:
    """What is searched for. ``oid`` and ``server`` are those of the archive, as far as they are known."""

    connection: ConnectionInfo = field(repr=False)
    connect_timeout: int
    schema: str
    name: str
    oid: int | None
    server: str
    encoding: KeyEncoding
    client: int
    """PostgreSQL major of the Job's pg_dump; 0 for any."""


def search(request: TableSearch, supervisor: Supervisor) -> Target:
    """Raises a `PartwardenError`, also where a Job could not archive from that server."""
    supervisor.begins(CONNECTING, None)
    pgdump.check(request.connection, request.connect_timeout)
    with cancellable_session(request.connection, request.connect_timeout) as connection:
        supervisor.begins("finding the table of an archive", None)
        if request.client:
            pgdump.check_version(str(request.client), connection.info.parameter_status("server_version") or "")
        return table_lookup.find(
            connection, request.schema, request.name, request.oid, request.encoding, request.server
        )
