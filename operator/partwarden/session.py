"""Connections to PostgreSQL that cannot hang for ever, and errors in Partwarden's own words.

Nothing is pinned by SET for the length of a session: behind PgBouncer in transaction mode the next transaction may run
on another server connection. `pinned` is said at the beginning of every transaction instead.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import clear_frames
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.abc import RV, PQGen

from .connection import ConnectionInfo
from .sqlstate import translate, translate_connect

NOWHERE = "/nonexistent/partwarden"
"""libpq falls back to files in the home directory for what is empty, but not for a path that does not exist."""

LIVENESS = {
    # A peer that vanished without a word is noticed after about 30 s, not after the system's hours.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}


class Session(psycopg.Connection[Any]):
    """A psycopg connection that counts its round trips."""

    round_trips = 0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Every exchange with the server passes here once."""
        self.round_trips += 1
        return super().wait(gen, interval, timeout)


@contextmanager
def session(info: ConnectionInfo, *, connect_timeout: int = 10) -> Iterator[Session]:
    """A connection in autocommit, closed at the end.

    ``connect_timeout``: seconds for each address of the host. Raises what `sqlstate.translate_connect` makes of a
    failure; psycopg's errors of the statements in the block are raised as `sqlstate.translate` makes them.
    """
    with _ca_file(info) as extra:
        timeout = {"connect_timeout": str(connect_timeout)}
        # Names and messages in a database without an encoding (SQL_ASCII) would come as bytes otherwise.
        encoding = {"client_encoding": "UTF8"}
        parameters = {"application_name": "partwarden", **encoding, **timeout, **(_isolation() if info.isolated else {})}
        # A Secret may not make the operator wait for ever.
        parameters |= {**info.parameters, **extra, **LIVENESS, **(timeout if info.isolated else {})}
        try:
            connection = Session.connect(**parameters, autocommit=True, prepare_threshold=None)  # type: ignore[arg-type]
        except psycopg.Error as error:
            # What its frames hold keeps the socket of an attempt that timed out open for as long as the error lives.
            clear_frames(error.__traceback__)
            raise translate_connect(error, info) from None
    try:
        yield connection
    except psycopg.Error as error:
        raise translate(error, str(info)) from error
    finally:
        connection.close()


def pinned(lock_timeout: str, statement_timeout: str) -> sql.Composed:
    """The settings that every transaction begins with, for its own length.

    search_path holds nothing that a user could put a function into; texts of moments are ISO and UTC whatever the
    database, the role or the server says.
    """
    settings = {
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",
        "search_path": "pg_catalog, pg_temp",
        "quote_all_identifiers": "off",
        "enable_partition_pruning": "on",
        "lock_timeout": lock_timeout,
        "statement_timeout": statement_timeout,
        "idle_in_transaction_session_timeout": "60s",
    }
    calls = [sql.SQL("pg_catalog.set_config({}, {}, true)").format(name, value) for name, value in settings.items()]
    return sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls))


def run(
    connection: psycopg.Connection[Any], *statements: sql.Composable | LiteralString
) -> list[list[tuple[Any, ...]]]:
    """Send the statements in one round trip. Returns the rows of each; what returns none gives an empty list."""
    parts = [part if isinstance(part, sql.Composable) else sql.SQL(part) for part in statements]
    results = []
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("; ").join(parts))
        more: bool | None = True
        while more:
            results.append(cursor.fetchall() if cursor.description else [])
            more = cursor.nextset()
    return results


def _isolation() -> dict[str, str]:
    """Values that keep libpq from looking into the operator's environment and home directory."""
    return {
        "passfile": NOWHERE,
        "sslcert": NOWHERE,
        "sslkey": NOWHERE,
        "port": "5432",
        "sslmode": "prefer",
        "gssencmode": "disable",
    }


@contextmanager
def _ca_file(info: ConnectionInfo) -> Iterator[dict[str, str]]:
    """libpq takes CA certificates from a file only, and reads it while it connects."""
    if info.ca is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="partwarden-ca-") as folder:
        path = Path(folder, "ca.crt")
        path.write_text(info.ca)
        yield {"sslrootcert": str(path)}
