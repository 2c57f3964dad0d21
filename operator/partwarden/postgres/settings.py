"""The table of time limits that a role or a database can carry, and the settings that take their place.

``ALTER ROLE … SET`` and ``ALTER DATABASE … SET`` limit each session of an application. Partwarden sets every one of
them itself: once for the session, right after it is connected, and again at the beginning of each transaction, for its
length. The former is for what no transaction holds: the time between two of them, VACUUM, and all that says
CONCURRENTLY. The latter is for transaction poolers, where nothing is set for a session.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from psycopg import sql

# Settings of PostgreSQL that decide how values are written as text and read from text.
#
# Every session that dumps, copies, fingerprints or restores pins them, so that an archive reads back as it was written
# whatever the role, the database or the server says. They are those that ``pg_dump`` uses where it has an opinion.
#

TEXT_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    # With `document`, xml that is a fragment is written and never read again.
    "xmloption": "content",
    # With `off`, NULL in an array is read as the word.
    "array_nulls": "on",
    # Names that columns of type regclass and the like hold.
    "quote_all_identifiers": "off",
    # These decide how expressions and literals are parsed.
    "transform_null_equals": "off",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
}
"""Everything but ``search_path`` and ``client_encoding``, which a program sets for itself."""


def as_options(settings: Mapping[str, str] = TEXT_SETTINGS) -> str:
    """The settings as libpq's parameter ``options``, and as the variable ``PGOPTIONS``, take them."""
    return " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())


def _escaped(value: str) -> str:
    """A space or backslash would end the value."""
    return re.sub(r"([\\ ])", r"\\\1", value)


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
"""Limits that some server may not have: they came with 14 and 17."""

LOCAL_COMMIT = {"synchronous_commit": "local"}
"""A commit waits for this server's disk and for no standby: see docs/explanation/architecture.md."""


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
