"""Connections to PostgreSQL that cannot hang for ever, and errors in Partwarden's own words.

Behind PgBouncer in transaction mode the next transaction may run on another server connection. So only the `limits` are
set for the length of a session, and only where no pooler is between; `pinned` begins every transaction in any case.

A pooler answers the login itself, and the first statement once it has a server connection: where its database is
paused, never. So that statement must be answered within the time for connecting.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from traceback import clear_frames
from typing import Any, LiteralString

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_attempts
from psycopg.pq import Conninfo
from psycopg.pq.abc import PGconn

from .. import errors
from ..planner.findings import as_itself
from . import answers
from .conninfo import ConnectionInfo
from .errors import POOLER_WAITS, explain, is_unknown, translate
from .settings import LIMITS, LOCAL_COMMIT, session_setting, setting

OTHER_ROLE = "SELECT session_user, current_user WHERE session_user OPERATOR(pg_catalog.<>) current_user"
NOWHERE = "/nonexistent/partwarden"
"""libpq falls back to files in the home directory for what is empty, but not for a path that does not exist."""

LIVENESS = {
    # A peer that vanished without a word is noticed after about 30 s, not after the system's hours.
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}

MOST_ADDRESSES = 32
"""Of all hosts together, with each address that a name resolves to: one that does not answer takes its time."""
RECONNECTIONS = 3
"""How often one session may be connected anew: a server that ends every connection is left alone."""

# psycopg warns ("error ignored terminating …") of what else fails on a connection that is lost already, as the end of a
# COPY. The error that comes first is raised; without a handler Python would print the warning beside it.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class NoAnswer(psycopg.OperationalError):
    """The server does not answer a statement in the time that it is given."""


class Session(psycopg.Connection[Any]):
    """A psycopg connection that counts its round trips, and waits for none of them for ever."""

    round_trips = 0
    longest = 120.0
    """Seconds. PostgreSQL ends statements sooner (see `pinned`), but not when the server itself hangs."""
    lost: psycopg.Error | None = None
    """What the server said when it ended the connection, which most often is not what fails next: see `run`."""
    pooled = False
    """Whether a pooler has answered the login: then no setting may outlast a transaction, nor does any."""
    reconnections = 0
    again: Callable[[], Session] | None = None
    """Connects once more as this session was connected; set by `connect`."""

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Wait for each answer in the block for so long at least."""
        before, self.longest = self.longest, max(self.longest, seconds)
        try:
            yield
        finally:
            self.longest = before

    def reconnect(self) -> None:
        """Replace a lost connection by a new one with the same parameters, in this very object.

        The holder of the session goes on with it; transactions and settings of the old connection are gone. Raises
        `DatabaseUnreachable` after `RECONNECTIONS`, and as `connect`; the session stays closed then.
        """
        self.close()
        if self.again is None or self.reconnections >= RECONNECTIONS:
            raise errors.DatabaseUnreachable(
                f"the connection was lost {self.reconnections + 1} times: the rest is left; see the server's log for "
                "what ends it"
            )
        self.reconnections += 1
        fresh = self.again()
        # psycopg keeps all that belongs to the server in `pgconn`; in autocommit, without prepared statements and
        # handlers of notices there is nothing else to take over.
        self.pgconn, fresh.pgconn = fresh.pgconn, self.pgconn
        self.lost, self.pooled = None, fresh.pooled

    def exchange(self, query: bytes, *, alone: bool = False) -> list[list[Any]]:
        """Send a query, and return the rows of each of its answers. ``alone``: by the extended protocol.

        On a connection that was lost raises once more what was said then. Raises `answers.UnreadAnswer` where an answer
        is larger than it is taken; the connection is lost then, for what is unread may have no end.
        """
        if self.lost is not None:
            raise self.lost
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        try:
            with self.lock:
                return self.wait(answers.read(self, query, alone=alone))
        except answers.UnreadAnswer as error:
            self.close()
            self.lost = error
            raise

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Every exchange with the server passes here once."""
        self.round_trips += 1
        try:
            return super().wait(gen, interval, timeout or self.longest)
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError) and error.sqlstate is None and not self.closed:
                # Only a time-out leaves the connection open, and nothing can be said on it any more.
                self.close()
                self.lost = NoAnswer(f"no answer in {timeout or self.longest:.0f} s")
                raise self.lost from None
            if not self.closed:
                raise
            self.lost = self.lost or (error if error.sqlstate else _last_words(self.pgconn) or error)
            raise self.lost from None


def _last_words(pgconn: PGconn) -> psycopg.Error | None:
    """What the server said before it ended the connection, where psycopg met the end first and libpq has both."""
    try:
        result = pgconn.get_result()
    except psycopg.Error:
        return None
    error = psycopg.errors.error_from_result(result) if result is not None else None
    return error if error is not None and error.sqlstate else None


@contextmanager
def session(info: ConnectionInfo, *, connect_timeout: int = 10) -> Iterator[Session]:
    """A connection as `connect` makes it, closed at the end. Errors of the block are raised as by `translating`."""
    connection = connect(info, connect_timeout=connect_timeout)
    try:
        yield connection
    except psycopg.Error as error:
        raise translate(error, f"{info}{by_setting(connection, error)}") from error
    finally:
        connection.close()


def by_setting(connection: Session, error: psycopg.Error) -> str:
    """For a refusal: as which role all is done, where the login becomes another by its setting ``role``."""
    if isinstance(error, pg.InsufficientPrivilege):
        with suppress(psycopg.Error):
            connection.rollback()
            for login, role in run(connection, OTHER_ROLE)[0]:
                itself = as_itself(login, connection.info.dbname)
                return f', as role {role!r}, which login {login!r} becomes by its setting "role" ({itself} ends that)'
    return ""


def connect(info: ConnectionInfo, *, connect_timeout: int = 10) -> Session:
    """A connection in autocommit.

    ``connect_timeout``: seconds for each address of the host. Raises what `refusals.explain` makes of a failure.
    """
    timeout = {"connect_timeout": str(connect_timeout)}
    parameters = {**(isolation() if info.isolated else {}), "application_name": "partwarden", **timeout}
    # A Secret may not make the operator wait for ever; names in the catalog may be in any script.
    parameters |= {**info.parameters, **LIVENESS, "client_encoding": "UTF8", **(timeout if info.isolated else {})}
    with ca_file(info) as ca:
        connection = _connect({**parameters, **ca}, info)
    try:
        with translating(info):
            _begin(connection, info, float(parameters["connect_timeout"]))
    except BaseException:
        connection.close()
        raise
    connection.round_trips = 0
    connection.again = partial(connect, info, connect_timeout=connect_timeout)
    return connection


def _begin(connection: Session, info: ConnectionInfo, seconds: float) -> None:
    """The first statements of a session. Raises `DatabaseUnreachable` where they are not answered in so many seconds,
    and psycopg's errors: of a pooler that takes no transactions, too."""
    usual = connection.longest
    # As for libpq, 0 is no limit.
    connection.longest = seconds if seconds > 0 else usual
    try:
        (direct,) = run(connection, session_setting(connection.info.backend_pid))
        connection.pooled = not direct
        if connection.pooled:
            # Two messages: one with both would pass where each statement may go to another server connection.
            run(connection, "BEGIN")
            run(connection, "ROLLBACK")
    except NoAnswer:
        raise errors.DatabaseUnreachable(
            f"cannot connect to {info}: the login was accepted, and the first statement is not answered in "
            f"{seconds:.0f} s; if a pooler listens there, {POOLER_WAITS}"
        ) from None
    connection.longest = usual


@contextmanager
def translating(info: ConnectionInfo) -> Iterator[None]:
    """psycopg's errors of the statements in the block are raised as `sqlstate.translate` makes them."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, str(info)) from error


def _connect(parameters: dict[str, str], info: ConnectionInfo) -> Session:
    """Tries every address of every host, as libpq does."""
    failures: list[str] = []
    attempts: list[Mapping[str, str | int | None]] = []
    try:
        for attempt in conninfo_attempts(parameters)[:MOST_ADDRESSES]:
            try:
                return Session.connect(**attempt, autocommit=True, prepare_threshold=None)  # type: ignore[arg-type]
            except psycopg.Error as error:
                failures.append(str(error))
                attempts.append(attempt)
                # What its frames hold keeps the socket of an attempt that timed out open for as long as it lives.
                clear_frames(error.__traceback__)
    except psycopg.Error as error:
        failures.append(str(error))
    except UnicodeError:
        # A name that is none in DNS, such as one with two dots in a row.
        failures.append(f"failed to resolve host {parameters.get('host')!r}: it is not a host name")
    states = [
        answers.sqlstates(attempt, words) if is_unknown(words, info) else ()
        for attempt, words in zip(attempts, failures, strict=False)
    ]
    raise explain(failures, info, states)


@lru_cache
def pinned(lock_timeout: str, statement_timeout: str) -> sql.SQL:
    """The settings that every transaction begins with, for its own length.

    All of `limits.LIMITS` are among them, and its commit waits for no standby. search_path holds nothing that a user
    could put a function into; texts of moments are ISO and UTC whatever the database, the role or the server says.
    """
    settings = {
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",
        "search_path": "pg_catalog, pg_temp",
        "quote_all_identifiers": "off",
        "jit": "off",
        "enable_partition_pruning": "on",
        **LOCAL_COMMIT,
        **LIMITS,
        "lock_timeout": lock_timeout,
        "statement_timeout": statement_timeout,
        "idle_in_transaction_session_timeout": "60s",
    }
    # As text at once: it is said in every transaction, and composing takes longer than saying it.
    return sql.SQL(setting(settings).as_string())


def run(connection: psycopg.Connection[Any], *statements: sql.Composable | LiteralString) -> list[list[Any]]:
    """Send the statements in one round trip. Returns the rows of each; what returns none gives an empty list.

    A row is a tuple whose fields also have the names of the columns. Raises as `Session.exchange`.
    """
    parts = [part if isinstance(part, sql.Composable) else sql.SQL(part) for part in statements]
    found = _exchange(connection, sql.SQL("; ").join(parts).as_bytes(connection), alone=False)
    if len(found) != len(parts):
        raise answers.UnreadAnswer(f"the server gives {len(found)} answers to {len(parts)} statements")
    return found


def run_alone(connection: psycopg.Connection[Any], statement: sql.SQL | sql.Composed) -> list[Any]:
    """Send one statement by the extended protocol, in which PostgreSQL refuses a second one behind a semicolon.

    For what is made from the fields of a manifest. Returns its rows. Raises as `run`.
    """
    (rows,) = _exchange(connection, statement.as_bytes(connection), alone=True)
    return rows


def _exchange(connection: psycopg.Connection[Any], query: bytes, *, alone: bool) -> list[list[Any]]:
    if isinstance(connection, Session):
        return connection.exchange(query, alone=alone)
    with connection.lock:
        return connection.wait(answers.read(connection, query, alone=alone))


def forget_environment() -> None:
    """Take libpq's variables (PGHOST, PGSERVICE, PGTZ...) out of this process's environment.

    For the operator, whose policies say everything themselves. To be called before there are threads: what others read
    from the environment meanwhile is undefined.
    """
    for name in [each for each in os.environ if re.match("PG[A-Z]", each)]:
        del os.environ[name]


def isolation() -> dict[str, str]:
    """Every parameter that libpq would else take from the environment or from files in the home directory.

    PGSERVICE cannot be outdone so, but a service only gives what is missing, and nothing is.
    """
    known = {each.keyword.decode(): (each.compiled or b"").decode() for each in Conninfo.get_defaults() if each.envvar}
    del known["service"]
    stated = dict.fromkeys(("passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl"), NOWHERE) | {
        "sslmode": "prefer",
        "gssencmode": "disable",
        # Neither a client certificate nor a Kerberos ticket of the operator's opens a policy's database.
        "sslcertmode": "disable",
        "require_auth": "!gss,!sspi",
        # An empty one is an error; this is what libpq does when nothing is said.
        "min_protocol_version": "3.0",
        "max_protocol_version": "3.0",
    }
    return known | {name: value for name, value in stated.items() if name in known}


@contextmanager
def ca_file(info: ConnectionInfo) -> Iterator[dict[str, str]]:
    """libpq takes CA certificates from a file only, and reads it while it connects."""
    if info.ca is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="partwarden-ca-") as folder:
        path = Path(folder, "ca.crt")
        path.write_text(info.ca)
        yield {"sslrootcert": str(path)}
