"""Why no connection could be made: libpq's words -> our errors.

libpq tells no SQLSTATE of a failed attempt, so words must do: its own, which are English here, and the server's, which
follow lc_messages. What is not recognised is an outage, told in the server's own words.
https://www.postgresql.org/docs/current/auth-pg-hba-conf.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from . import errors
from .connection import ConnectionInfo
from .errors import PartwardenError


@dataclass(frozen=True, slots=True)
class Refusal:
    """One cause: the class it belongs to, the words it is known by, and the way out."""

    error: type[PartwardenError]
    words: str
    way_out: str


TLS_DEMANDED = Refusal(
    errors.TLSMismatch,
    r"SSL required|TLS required",
    "sslmode is 'disable', and the server wants TLS: set sslmode to require or verify-full; or, if it wants none, let "
    "the role in by pg_hba.conf",
)

ANSWERED = (
    Refusal(
        errors.AuthenticationFailed,
        r"(password|SASL|LDAP|PAM|RADIUS) authentication failed|no password supplied|no such user|empty password",
        "correct user and password in the Secret",
    ),
    Refusal(
        errors.AuthenticationFailed,
        r'^role ".*" (does not exist|is not permitted to log in)',
        "correct user, or create the role WITH LOGIN",
    ),
    Refusal(
        errors.AuthenticationFailed,
        r"valid client certificate|alert certificate required|authentication failed|authentication method",
        "let the role log in with a password, in the server's pg_hba.conf",
    ),
    Refusal(
        errors.AuthenticationFailed,
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "let the role in from this address in the server's pg_hba.conf, or correct host, user, dbname or sslmode",
    ),
    Refusal(
        errors.TLSMismatch,
        r"server does not support SSL",
        "set sslmode to prefer or disable, or turn ssl on at the server",
    ),
    Refusal(
        errors.TLSMismatch,
        r"does not match host name|could not get server's host name",
        "connect to a name that the certificate holds, or set sslmode to verify-ca",
    ),
    Refusal(
        errors.TLSMismatch,
        r"root certificate|certificate verify failed|signature failure|sslrootcert",
        "put the certificate of the CA that signed the server's into the Secret, key ca.crt or sslrootcert",
    ),
    TLS_DEMANDED,
    Refusal(
        errors.TLSMismatch,
        r"SSL error|certificate|channel binding",
        "correct sslmode, the CA certificate or the server's TLS settings",
    ),
    Refusal(
        errors.DatabaseNotFound,
        r'database ".*" does not exist|no such database',
        "create it, or correct dbname",
    ),
    Refusal(
        errors.DatabaseNotFound,
        r'database ".*" is not currently accepting|invalid database ".*"',
        "let it accept connections (ALTER DATABASE … ALLOW_CONNECTIONS true), or correct dbname",
    ),
    Refusal(
        errors.BehindPooler,
        # PgBouncer's words for options of a session, which pg_dump needs, where it is not told to drop them.
        r"unsupported startup parameter",
        "a pooler answers there: set spec.database.archive.host (by hand, --dsn) to the PostgreSQL server itself",
    ),
    Refusal(
        errors.InsufficientPrivilege,
        r"permission denied for database",
        "GRANT CONNECT ON DATABASE to the role",
    ),
    Refusal(
        errors.InvalidSpec,
        r"^(invalid|weak|bad) .*(value|option|sslmode|port)|could not match \d+",
        "correct that connection parameter",
    ),
    Refusal(
        errors.ReadOnlyServer,
        r"session is read-only|in hot standby mode",
        "connect through the primary",
    ),
    Refusal(
        errors.DatabaseUnreachable,
        r"too many (clients|connections)|connection slots|no more connections",
        "end idle connections, or raise max_connections or the CONNECTION LIMIT of the role or database",
    ),
    Refusal(
        errors.DatabaseUnreachable,
        r"starting up|shutting down|in recovery|accepting connections",
        "wait until it is ready",
    ),
    Refusal(
        errors.DatabaseUnreachable,
        r"invalid response to (SSL|GSSAPI) negotiation|expected authentication request",
        "no PostgreSQL listens there: correct host and port",
    ),
)

UNANSWERED = (
    Refusal(
        errors.DatabaseUnreachable,
        r"timeout expired|timed out",
        "no answer in time: look at host and port, firewalls and network policies",
    ),
    Refusal(
        errors.DatabaseUnreachable,
        r"refused|unreachable|No route|closed the connection|reset by peer|EOF",
        "start the server, or correct host and port",
    ),
    Refusal(
        errors.DatabaseUnreachable,
        r"failed to resolve host|could not translate host",
        "correct host; from another namespace, the name of a Service needs its own namespace behind a dot",
    ),
)


def explain(failures: Sequence[str], info: ConnectionInfo) -> PartwardenError:
    """The error for a connection of which every attempt failed; ``failures`` are libpq's words, one for each address.

    The address that came furthest tells the cause: one that was asked in vain matters less than one that said no.
    Never holds a password, nor anything else that differs between two attempts.
    """
    told = list(dict.fromkeys(part for words in failures for part in _parts(words)))
    judged = sorted(((*_judge(words, info), words) for words in told), key=lambda each: each[0])
    _, refusal, words = judged[0]
    others = [each for each in told if each != words]
    also = f" (another attempt: {others[0]})" if others else ""
    kind = refusal.error if refusal else errors.DatabaseUnreachable
    if kind is errors.InvalidSpec and info.isolated:
        kind = errors.SecretInvalid
    way_out = refusal.way_out if refusal else "see the server's log"
    if kind is errors.AuthenticationFailed and info.origins:
        way_out += _login(info)
    return kind(f"cannot connect to {info}: {words}{also}; {way_out}")


def _login(info: ConnectionInfo) -> str:
    """Where user and password came from: a Secret may hold two of each."""
    told = (f"{each} from {info.origins.get(each, 'nowhere')}" for each in ("user", "password"))
    return f" ({', '.join(told)})"


def _judge(words: str, info: ConnectionInfo) -> tuple[int, Refusal | None]:
    """The rank, smaller for what tells more, and the cause; None where the words are unknown."""
    if info.parameters.get("sslmode") == "disable" and re.search(r"pg_hba.*(no encryption|SSL off)", words):
        # With any other sslmode the server has seen an attempt over TLS, too.
        return 0, TLS_DEMANDED
    everything = (*ANSWERED, None, *UNANSWERED)
    for rank, refusal in enumerate(everything):
        if refusal and re.search(refusal.words, words):
            return rank, refusal
    return len(ANSWERED), None


def _parts(words: str) -> list[str]:
    """What one attempt says; of sslmode prefer it may be two failures, with TLS and without.

    Addresses and the names of temporary files are left out: they would make every message a new one.
    """
    words = re.sub(r"^connection (failed|is bad): ", "", words.strip())
    parts = re.split(r"connection to server (?:at|on socket) .*? failed: ", words)
    return [_readable(part) for part in parts if part.strip()]


def _readable(words: str) -> str:
    lines = words.strip().splitlines()
    # libpq's advice stands on indented lines; the server's DETAIL on one of its own.
    detail = [line.removeprefix("DETAIL:").strip() for line in lines[1:] if line.startswith("DETAIL:")]
    text = re.sub(r"^([A-Z]+:\s+|fe_sendauth: )", "", lines[0]) + (f" ({detail[0]})" if detail else "")
    return re.sub(r' file "[^"]*partwarden[^"]*"', "", " ".join(text.split()))
