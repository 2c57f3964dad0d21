"""Find out whether a connection keeps its server connection, or a pooler gives that to other sessions in between.

pg_dump sets ``search_path`` and more for the length of its session. Behind a pooler that takes a server connection back
after each transaction, those settings stay on it, and the application that is given it next does not find its tables.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from psycopg.sql import SQL

from . import dumping
from .connection import ConnectionInfo
from .errors import BehindPooler
from .session import Session, run, session

TURNS = "ABBABAABBAABABBA"
"""Which of two connections asks. A pooler gives out the server connection that it got back last, or the one that it got
back first: the former serves B right after A, and the latter does not serve one of them twice in a row."""
PATIENCE = 30.0
"""Seconds that a pooler may let one statement wait for a server connection."""

# Outside a transaction, and changing nothing: the next moment another session may have what it is executed on. Process
# IDs are used again; with the moment at which a process began they are not, not even on several servers.
ACTIVITY = """
SELECT a.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid(), a.pid,
       (EXTRACT(epoch FROM a.backend_start) OPERATOR(pg_catalog.*) 1000000)::int8,
       (EXTRACT(epoch FROM a.query_start) OPERATOR(pg_catalog.*) 1000000)::int8
FROM pg_catalog.pg_stat_activity a
WHERE a.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() OR a.pid OPERATOR(pg_catalog.=) {}
"""
SERVER = """
SELECT pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port(),
       pg_catalog.current_setting('cluster_name')
"""


@dataclass(frozen=True, slots=True)
class _Backend:
    """A server connection, and when its latest statement began, in microseconds."""

    pid: int
    began: int
    asked: int | None

    def is_same(self, other: _Backend) -> bool:
        return (self.pid, self.began) == (other.pid, other.began)


def check(info: ConnectionInfo, connect_timeout: int = 10) -> None:
    """Whether pg_dump may connect so: to the server itself, or through a pooler that shares nothing before the end.

    Two connections at once, for some milliseconds. Raises `BehindPooler`, and as `session.session`.
    """
    with (
        session(_as_pg_dump(info), connect_timeout=connect_timeout) as one,
        session(info, connect_timeout=connect_timeout) as other,
    ):
        one.longest = other.longest = PATIENCE
        if _is_shared(one, other):
            raise BehindPooler(
                f"{info} is behind a pooler that gives a server connection to other sessions after each transaction: "
                "what pg_dump sets would stay on it, and the application would not find its tables any more; set "
                f"spec.database.archive.host (by hand, --dsn) to the PostgreSQL server itself{_server(one)}"
            )


def _as_pg_dump(info: ConnectionInfo) -> ConnectionInfo:
    """With the options that pg_dump is given: some poolers refuse any."""
    own = info.parameters.get("options") or ("" if info.isolated else os.environ.get("PGOPTIONS", ""))
    return replace(info, parameters={**info.parameters, "options": f"{own} {dumping.SETTINGS}".strip()})


def _is_shared(one: Session, other: Session) -> bool:
    """Whether a connection was served by several server connections, or a server connection served another one, too.

    That is seen from one of the two, or by when the latest statement began: an application may be at it meanwhile.
    """
    latest: dict[str, _Backend] = {}
    for turn in TURNS:
        idle = latest.get("A" if turn == "B" else "B")
        asked = SQL(ACTIVITY).format(idle.pid if idle else 0)
        found = [(own, _Backend(*each)) for own, *each in run(one if turn == "A" else other, asked)[0]]
        now = next(each for own, each in found if own)
        if turn in latest and not now.is_same(latest[turn]):
            return True
        if idle and any(each.is_same(idle) and (own or each.asked != idle.asked) for own, each in found):
            return True
        latest[turn] = now
    return False


def _server(connection: Session) -> str:
    """In words, where the pooler has connected to: what its own settings name, and its operator's names for it."""
    (((host, port, cluster),),) = run(connection, SERVER)
    where = f", which the pooler reaches at {host}:{port}" if host else ""
    services = f" (Service {cluster}-rw of CloudNativePG, Service {cluster} of Zalando's operator)" if cluster else ""
    return f"{where}{services}"
