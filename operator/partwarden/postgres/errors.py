"""Errors of statements, by SQLSTATE, and of connections that could not be made, by libpq's words, as our errors.

libpq gives no SQLSTATE for a failed attempt, so words must do: its own, which are English here, and the server's, which
follow lc_messages. Where they are not recognised the SQLSTATE decides, if it could be read (`answers.sqlstates`); else
it is an outage, in the server's own words.
https://www.postgresql.org/docs/current/auth-pg-hba-conf.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import psycopg
from psycopg import errors as pg

from .. import errors
from ..errors import PartwardenError
from .answers import LONGEST, UnreadAnswer
from .conninfo import ConnectionInfo

# Statements, judged by SQLSTATE (psycopg has a class for each), never by words, which depend on lc_messages.
# https://www.postgresql.org/docs/current/errcodes-appendix.html

LOST = ("08", "57P")
LOST_EXACTLY = ("25P03", "25P04")
"""The server has ended the connection: it shuts down, was asked to, or idleness or the transaction took too long."""

POOLER_WAITS = "RESUME the database there, or give its pool more server connections"
"""What to do where a pooler has accepted a login, and gives out no server connection."""

ROW_SECURITY = "check_enable_rls"
"""The function of PostgreSQL that refuses to read what policies hide: by SQLSTATE it is one missing right of many, and
its words follow lc_messages."""

UNABLE = ("40", "53", "57", "58", "XX")
"""The server would, but cannot now: rolled back, no resources left, cancelled, a failing disk, damaged data."""


def translate(error: psycopg.Error, subject: str) -> PartwardenError:
    """What a statement about ``subject`` failed of. Losing the connection is `DatabaseUnreachable`."""
    words = message(error)
    match error:
        case UnreadAnswer():
            return errors.StatementRejected(f"{subject}: {words}")
        case pg.LockNotAvailable() | pg.DeadlockDetected():
            return errors.TableBusy(f"{subject} is busy: {words}")
        case pg.DuplicateTable() | pg.DuplicateObject():
            return errors.NameTaken(f"{subject}: {words}; rename the other, or choose another spec.nameFormat")
        case pg.IntegrityError():
            return _broken_rule(error, subject, words)
        case pg.InvalidObjectDefinition():
            return errors.TableChanged(f"{subject}: {words}; {MEANWHILE}")
        case pg.UndefinedTable() | pg.UndefinedObject() | pg.WrongObjectType() | pg.InvalidSchemaName():
            return errors.TableChanged(f"{subject}: {words}; it was changed meanwhile: it is planned again")
        case pg.InsufficientPrivilege():
            return errors.InsufficientPrivilege(f"{subject}: {words}; {_missing_right(error)}")
        case pg.ReadOnlySqlTransaction():
            way_out = "connect through the primary, or end default_transaction_read_only = on"
            return errors.ReadOnlyServer(f"{subject}: {words}; {way_out}")
        case pg.ProtocolViolation() if "statement pooling" in words:
            # PgBouncer's own words, in no other language, before it hangs up.
            return errors.BehindPooler(
                f"{subject}: {words}; set the pooler's pool_mode to transaction or session, or host and port of the "
                "Secret or of spec.database.connection (by hand, --dsn) to the PostgreSQL server itself"
            )
    return _by_class(error, subject, words)


MEANWHILE = "another session made a partition meanwhile"


def _broken_rule(error: psycopg.Error, subject: str, words: str) -> PartwardenError:
    """Of rows, or of the catalog, where two sessions make the same at once."""
    if isinstance(error, pg.CheckViolation) and error.diag.constraint_name is None:
        # The bounds of partitions are a constraint without a name.
        return errors.DefaultHasRows(f"{subject}: {words}; move those rows out of the DEFAULT partition")
    if isinstance(error, pg.UniqueViolation) and error.diag.schema_name in (None, "pg_catalog"):
        return errors.TableChanged(f"{subject}: {words}; {MEANWHILE}")
    if isinstance(error, pg.UniqueViolation):
        return errors.StatementRejected(f"{subject}: {words}; correct those rows, or that key or index")
    return _by_class(error, subject, words)


def _missing_right(error: psycopg.Error) -> str:
    """The way out."""
    if error.diag.source_function != ROW_SECURITY:
        return "grant it to the role that is connected, and to the owner of the table, as whom all else is done"
    return (
        "no row may be missed: ALTER TABLE … NO FORCE ROW LEVEL SECURITY where the table is read as its owner, else "
        "ALTER ROLE … BYPASSRLS for the role that reads"
    )


def _by_class(error: psycopg.Error, subject: str, words: str) -> PartwardenError:
    state = error.sqlstate or ""
    if is_lost(error):
        advice = f"; {POOLER_WAITS}" if "query_wait_timeout" in words else ""
        return errors.DatabaseUnreachable(f"{subject}: the connection was lost: {words}{advice}")
    if isinstance(error, pg.CharacterNotInRepertoire):
        return errors.StatementRejected(
            f"{subject}: a name or another text of the catalog is not valid in its encoding: {words}; rename or change "
            "what holds it"
        )
    if state.startswith(UNABLE):
        return errors.StatementFailed(
            f"{subject}: PostgreSQL could not finish a statement: {words} (SQLSTATE {state}); see the server's log"
        )
    return errors.StatementRejected(f"{subject}: PostgreSQL refused a statement: {words} (SQLSTATE {state or 'none'})")


def is_lost(error: psycopg.Error) -> bool:
    """Whether the connection has gone with this error."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith(LOST) or state in LOST_EXACTLY


def message(error: psycopg.Error) -> str:
    """The server's message, with its detail, in one line. No detail that may quote a row."""
    words = (error.diag.message_primary or str(error))[:LONGEST]
    if error.diag.message_detail and not isinstance(error, psycopg.IntegrityError):
        words += f" ({error.diag.message_detail[:LONGEST]})"
    return " ".join(words.split())


class Refusal(NamedTuple):
    """One cause: the class it belongs to, the words it is known by, and the way out."""

    error: type[PartwardenError]
    words: str
    way_out: str


TLS_DEMANDED = Refusal(
    errors.TLSMismatch,
    r"SSL required|TLS required",
    "sslmode is 'disable', and the server wants TLS: set sslmode to require, or let the role in by pg_hba.conf",
)
WRONG_PASSWORD = Refusal(
    errors.AuthenticationFailed,
    r"(password|SASL|LDAP|PAM|RADIUS) authentication failed|no password supplied|no such user|empty password",
    "correct user and password in the Secret, or the role's VALID UNTIL, if that has passed",
)
NOT_LET_IN = Refusal(
    errors.AuthenticationFailed,
    r'^role ".*" (does not exist|is not permitted to log in)|no pg_hba\.conf entry|pg_hba\.conf rejects',
    "correct user, host, dbname or sslmode, create the role WITH LOGIN, or let the role in from this address in the "
    "server's pg_hba.conf",
)
NO_DATABASE = Refusal(
    errors.DatabaseNotFound, r'database ".*" does not exist|no such database', "create it, or correct dbname"
)
CLOSED_DATABASE = Refusal(
    errors.DatabaseNotFound,
    r'database ".*" is not currently accepting|invalid database ".*"',
    "let it accept connections (ALTER DATABASE … ALLOW_CONNECTIONS true), or correct dbname",
)
NO_CONNECT = Refusal(
    errors.InsufficientPrivilege, r"permission denied for database", "GRANT CONNECT ON DATABASE to the role"
)
TOO_MANY = Refusal(
    errors.DatabaseUnreachable,
    r"too many (clients|connections)|connection slots|no more connections",
    "end idle connections, or raise max_connections or the CONNECTION LIMIT of the role or database",
)
NOT_READY = Refusal(
    errors.DatabaseUnreachable, r"starting up|shutting down|in recovery|accepting connections", "wait until it is ready"
)

ANSWERED = (
    WRONG_PASSWORD,
    NOT_LET_IN,
    Refusal(
        errors.AuthenticationFailed,
        r"valid client certificate|alert certificate required|authentication failed|authentication method",
        "let the role log in with a password, in the server's pg_hba.conf",
    ),
    Refusal(
        errors.TLSMismatch,
        r"server does not support SSL",
        "turn ssl on at the server; or say sslmode: disable, by which the password goes over the network in clear text",
    ),
    Refusal(
        errors.TLSMismatch,
        r"does not match host name|could not get server's host name",
        "connect to a name that the certificate holds, or set sslmode to verify-ca",
    ),
    TLS_DEMANDED,
    Refusal(
        errors.TLSMismatch,
        r"certificate|signature failure|sslrootcert|SSL error|channel binding",
        "put the certificate of the CA that signed the server's into the Secret, key ca.crt or sslrootcert, or correct "
        "sslmode or the server's TLS settings",
    ),
    NO_DATABASE,
    CLOSED_DATABASE,
    # PgBouncer's words for options of a session, which pg_dump needs.
    Refusal(
        errors.BehindPooler,
        r"unsupported startup parameter",
        "a pooler answers there: set spec.database.archive.host (by hand, --dsn) to the PostgreSQL server itself",
    ),
    NO_CONNECT,
    Refusal(
        errors.InvalidSpec,
        r"^(invalid|weak|bad) .*(value|option|sslmode|port)|could not match \d+",
        "correct that connection parameter",
    ),
    Refusal(errors.ReadOnlyServer, r"session is read-only|in hot standby mode", "connect through the primary"),
    TOO_MANY,
    NOT_READY,
    Refusal(
        errors.DatabaseUnreachable,
        r"invalid response to (SSL|GSSAPI) negotiation|expected authentication request",
        "no PostgreSQL listens there: correct host and port",
    ),
)

UNANSWERED = (
    # PgBouncer's words.
    Refusal(errors.DatabaseUnreachable, r"query_wait_timeout", POOLER_WAITS),
    Refusal(errors.DatabaseUnreachable, r'database ".*" is disabled', "ENABLE the database in the pooler"),
    Refusal(
        errors.DatabaseUnreachable,
        r"timeout expired|timed out",
        "no answer in time: check host and port, firewalls and network policies, and whether a pooler there is paused",
    ),
    Refusal(
        errors.DatabaseUnreachable,
        r"refused|unreachable|No route|closed the connection|reset by peer|EOF|No such file",
        "start the server, or correct host and port",
    ),
    Refusal(
        errors.DatabaseUnreachable,
        r"failed to resolve host|could not translate host",
        "correct host; from another namespace, the name of a Service needs its own namespace behind a dot",
    ),
)

STATES = {
    "28P01": WRONG_PASSWORD,
    "28000": NOT_LET_IN,
    "3D000": NO_DATABASE,
    "55000": CLOSED_DATABASE,
    "42501": NO_CONNECT,
    "53300": TOO_MANY,
    "57P03": NOT_READY,
}
"""What a server refuses a connection with, whatever its language."""
SEVERITY = re.compile(r"[^\s:]+:\s{2,}")
"""How a message of the server begins, in whatever language; libpq's own have one space there."""


def is_unknown(words: str, info: ConnectionInfo) -> bool:
    """Whether a message of the server is in the failure that only its SQLSTATE could explain."""
    return any(SEVERITY.match(each) and _judge(_readable(each), info)[1] is None for each in _split(words))


def explain(failures: Sequence[str], info: ConnectionInfo, states: Sequence[Sequence[str]] = ()) -> PartwardenError:
    """The error for a connection of which every attempt failed; ``failures`` are libpq's words, one for each address.

    ``states``: of each of them the SQLSTATEs of the server's messages, in their order, none where they are not known.
    The address that came furthest gives the cause: one that did not answer matters less than one that refused.
    Never holds a password, nor anything else that differs between two attempts.
    """
    codes: dict[str, str | None] = {}
    for number, words in enumerate(failures):
        for part, code in _parts(words, states[number] if number < len(states) else ()):
            codes[part] = codes.get(part) or code
    judged = sorted(((*_judge(words, info, code), words) for words, code in codes.items()), key=lambda each: each[0])
    _, refusal, words = judged[0]
    others = [each for each in codes if each != words]
    also = f" (another attempt: {others[0]})" if others else ""
    kind = refusal.error if refusal else errors.DatabaseUnreachable
    if kind is errors.InvalidSpec and info.isolated:
        kind = errors.SecretInvalid
    way_out = refusal.way_out if refusal else "see the server's log"
    if kind is errors.AuthenticationFailed and info.origins:
        # A Secret may hold two of each.
        login = (f"{each} from {info.origins.get(each, 'nowhere')}" for each in ("user", "password"))
        way_out += f" ({', '.join(login)})"
    return kind(f"cannot connect to {info}: {words}{also}; {way_out}")


def _judge(words: str, info: ConnectionInfo, state: str | None = None) -> tuple[int, Refusal | None]:
    """The rank, smaller for what says more, and the cause; None where words and SQLSTATE are unknown."""
    rank, refusal = _by_words(words, info)
    known = STATES.get(state or "")
    if known is None or (refusal is not None and refusal.error in (known.error, errors.TLSMismatch)):
        return rank, refusal
    # Words of another language may look like those of another cause.
    return next(place for place, each in enumerate(ANSWERED) if each.error is known.error), known


def _by_words(words: str, info: ConnectionInfo) -> tuple[int, Refusal | None]:
    if info.parameters.get("sslmode") == "disable" and re.search(r"pg_hba.*(no encryption|SSL off)", words):
        # With any other sslmode the server has seen an attempt over TLS, too.
        return 0, TLS_DEMANDED
    ranked = enumerate((*ANSWERED, None, *UNANSWERED))
    known = ((rank, refusal) for rank, refusal in ranked if refusal and re.search(refusal.words, words))
    return next(known, (len(ANSWERED), None))


def _parts(words: str, states: Sequence[str]) -> list[tuple[str, str | None]]:
    """What one attempt says, with the SQLSTATE of what the server said, where it is clear which.

    Addresses and the names of temporary files are left out: they would make every message a new one.
    """
    parts = _split(words)
    servers = [bool(SEVERITY.match(part)) for part in parts]
    left = iter(states if sum(servers) == len(states) else ())
    return [(_readable(part), next(left, None) if own else None) for part, own in zip(parts, servers, strict=True)]


def _split(words: str) -> list[str]:
    """Of sslmode prefer it may be two failures, with TLS and without."""
    words = re.sub(r"^connection (failed|is bad): ", "", words[:LONGEST].strip())
    parts = re.split(r"connection to server (?:at|on socket) .*? failed: ", words)
    return [part.strip() for part in parts if part.strip()]


def _readable(words: str) -> str:
    lines = words.strip().splitlines()
    # libpq's advice stands on indented lines; the server's DETAIL on one of its own.
    detail = [line.removeprefix("DETAIL:").strip() for line in lines[1:] if line.startswith("DETAIL:")]
    text = re.sub(rf"^({SEVERITY.pattern}|[A-Z]+:\s+|fe_sendauth: )", "", lines[0])
    text += f" ({detail[0]})" if detail else ""
    return re.sub(r' file "[^"]*partwarden[^"]*"', "", " ".join(text.split()))
