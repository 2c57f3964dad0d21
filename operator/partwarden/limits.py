"""The table of time limits that a role or a database can carry, and the settings that take their place.

``ALTER ROLE … SET`` and ``ALTER DATABASE … SET`` limit each session of an application. Partwarden sets every one of
them itself: once for the session, right after it is connected, and again at the beginning of each transaction, for its
length. The former is for what no transaction holds: the time between two of them, VACUUM, and all that says
CONCURRENTLY. The latter is for transaction poolers, where nothing is set for a session.
"""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import sql

LIMITS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # Never another value: while a transaction runs, PostgreSQL takes this limit away, but does not extend it.
    "transaction_timeout": "0",
}
"""Every limit, and what it is where a caller says nothing else: none."""

ABSENT = frozenset({"idle_session_timeout", "transaction_timeout"})
"""Limits that some server may not have: they came with 14, which older ones are told by, and with 17."""

LOCAL_COMMIT = {"synchronous_commit": "local"}
"""A commit waits for this server's disk and for no standby: see docs/architecture.md."""


def setting(settings: Mapping[str, str], *, local: bool = True) -> sql.Composed:
    """``SELECT`` that sets each, for the length of the transaction or, if not ``local``, of the session.

    A limit that the server does not have is left out.
    """
    return sql.SQL("SELECT {}").format(sql.SQL(", ").join(_call(*each, local) for each in settings.items()))


def _call(name: str, value: str, local: bool) -> sql.Composed:
    call = sql.SQL("pg_catalog.set_config({}, {}, {})").format(name, value, local)
    if name not in ABSENT:
        return call
    known = sql.SQL("pg_catalog.current_setting({}, true) IS NOT NULL").format(name)
    return sql.SQL("CASE WHEN {} THEN {} END").format(known, call)


def session_setting(backend: int) -> sql.Composed:
    """The statement by which a new connection lifts the limits, and commits without waiting for standbys.

    ``backend``: the process that the server, or a pooler, named when it was connected to. It sets nothing where another
    process answers: a pooler then hands this server connection to other clients, settings and all.
    """
    statement = setting(LIMITS | LOCAL_COMMIT, local=False)
    # Nothing is resolved by search_path, which the role or the database may have set to a schema of others.
    return statement + sql.SQL(" WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {}").format(backend)
