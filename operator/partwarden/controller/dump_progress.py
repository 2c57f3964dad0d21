"""How far the dump of a table has come: asked of the database in a worker process."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..archive import pgdump
from ..postgres.connection import session
from ..postgres.conninfo import ConnectionInfo
from .database_work import CONNECTING, Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySearch:
    """The dump of the table with that OID, by a Job."""

    connection: ConnectionInfo = field(repr=False)
    connect_timeout: int
    oid: int


def find_copy(request: CopySearch, supervisor: Supervisor) -> int | None:
    """As `pgdump.progress`. Raises a `PartwardenError`."""
    supervisor.begins(CONNECTING, None)
    with session(request.connection, connect_timeout=request.connect_timeout) as connection:
        return pgdump.progress(connection, request.oid)
