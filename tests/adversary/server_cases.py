"""What a server does that a policy of the adversary names: the lies, and the cases of them."""

from __future__ import annotations

from collections.abc import Generator

from adversary.cases import Case
from adversary.hostile_server import (
    BOOL,
    FLOAT8,
    INT4,
    JSON,
    KIB,
    MIB,
    WELCOME,
    Lie,
    Rewrite,
    When,
    authentication,
    described,
    done,
    error,
    fields,
    message,
    parameter,
    ready,
    row,
)
from adversary.stage import SHARE, Stage
from lab.operator import until

ALL = 8
"""Policies: as many as there are workers."""
CONNECTED, STARTUP, SCRAM, QUERY, SECOND = When
UNREACHABLE, UNRESPONSIVE, REJECTED = "DatabaseUnreachable", "DatabaseUnresponsive", "StatementRejected"
UNAUTHENTICATED, WORKER = "AuthenticationFailed", "WorkerFailed"
COLUMN = "with a '{}' that no PostgreSQL has"
CATALOG, TOO_MUCH, STRANGE = "holds what no PostgreSQL has there", "is not read any further", "its type cannot be"
OUT_OF_STEP, TIMEOUT, KILLED = "lost synchronization", "timeout expired", "the process was ended"
ANSWERED = done() + ready()
STEERING = '\x1b]0;owned\x07\r\u2028ERROR\u202e {"level": "info"}\n\x9b2J'
ONE, ROW = described("a"), row(b"x" * KIB)
NOTICE, COPY = message("N", fields("01000", b"x" * KIB)), b"\0\0\x01\0\0"
BOUNDS = b"FOR VALUES FROM ('%s') TO ('2020-01-01 00:00:00+00')"
LIES: dict[str, Lie | Rewrite] = {}
CASES: list[Case] = []


def case(does: str, reason: str, says: str, lie: Lie | Rewrite, policies: int = 1, sslmode: str = "disable") -> None:
    """Add both."""

    def attack(stage: Stage) -> Generator[None]:
        uri = stage.own.dsn if isinstance(lie, Rewrite) else "postgresql://user:password@127.0.0.1/{}"
        for number in range(policies):
            name = stage.name()
            # Each a database of its own: the policies of one have two connections.
            data = {"uri": uri.format(f"d{number}"), "port": str(stage.ports[does]), "sslmode": sslmode}
            stage.secret(name, data)
            stage.policy(name, {"retention": {"keepFor": "1y"}})
        if policies > SHARE:
            until("it holds its share of the workers", lambda: stage.connections(stage.ports[does]) >= SHARE)
        yield

    LIES[does] = lie
    CASES.append(Case(f"server {does}", reason, says, attack))


# Before and during the login.
case("accepts connections and says nothing", UNREACHABLE, TIMEOUT, Lie(CONNECTED), ALL)
case("answers nothing after the first query", UNRESPONSIVE, KILLED, Lie(SECOND), ALL)
case(
    "accepts the login and says nothing",
    UNREACHABLE,
    "the first statement is not answered",
    Lie(STARTUP, WELCOME + ready()),
    ALL,
)
case(
    "asks for two billion SCRAM iterations", UNRESPONSIVE, KILLED, Lie(SCRAM, b"r=NONCEx,s=c2FsdA==,i=2000000000"), ALL
)
case("begins TLS and says nothing", UNREACHABLE, TIMEOUT, Lie(CONNECTED, b"S"), ALL, "require")
case(
    "answers SSLRequest with garbage", "TLSMismatch", "SSL error", Lie(CONNECTED, b"S", b"\x16\x03" * KIB), 1, "require"
)
case("answers SSLRequest with 1 GiB", UNREACHABLE, "SSL", Lie(CONNECTED, message("E", b"S", 1 << 30)), 1, "require")
case("says its welcome one byte a second", UNREACHABLE, TIMEOUT, Lie(STARTUP, WELCOME + ready(), pause=1.0))
case("ends each connection at once", UNREACHABLE, "closed the connection", Lie(CONNECTED, ends=True))
case(
    "states parameters without end",
    UNREACHABLE,
    TIMEOUT,
    Lie(STARTUP, authentication(0), parameter("x", "x" * KIB) * 64),
)
case(
    "states a parameter of 1 MiB", UNREACHABLE, OUT_OF_STEP, Lie(STARTUP, authentication(0), parameter("x", "x" * MIB))
)
case("says that it is version 99999999.x", REJECTED, "answers to", Lie(QUERY, ANSWERED, version="99999999.x"))
case("says that it has no version", REJECTED, "answers to", Lie(QUERY, ANSWERED, version=""))
case("states a version of 1 MiB", UNREACHABLE, OUT_OF_STEP, Lie(QUERY, version="18" * MIB))
case("asks for the password in clear text, and hangs", UNREACHABLE, TIMEOUT, Lie(STARTUP, authentication(3)))
case("asks for the password as MD5, and hangs", UNREACHABLE, TIMEOUT, Lie(STARTUP, authentication(5, b"salt")))
case("asks for Kerberos", UNAUTHENTICATED, "unknown authentication", Lie(STARTUP, authentication(2)))
case("asks for a ticket of GSSAPI", UNAUTHENTICATED, "GSSAPI", Lie(STARTUP, authentication(7)))
case("asks for SSPI", UNAUTHENTICATED, "SSPI", Lie(STARTUP, authentication(9)))
case("asks for an unknown authentication", UNAUTHENTICATED, "unknown authentication", Lie(STARTUP, authentication(99)))
case("lists SASL mechanisms without end", UNREACHABLE, "invalid", Lie(STARTUP, message("R", b"\0\0\0\x0a", 1 << 30)))
case("answers SCRAM with another nonce", UNREACHABLE, "nonce mismatch", Lie(SCRAM, b"r=other,s=c2FsdA==,i=4096"))
case("asks for no SCRAM iterations", UNREACHABLE, "iteration count", Lie(SCRAM, b"r=NONCEx,s=c2FsdA==,i=0"))
case("salts SCRAM with garbage", UNREACHABLE, "invalid salt", Lie(SCRAM, b"r=NONCEx,s=\xff\xfe,i=1"))
case(
    "signs SCRAM wrongly",
    UNREACHABLE,
    "signature",
    Lie(SCRAM, b"r=NONCEx,s=c2FsdA==,i=1", authentication(12, b"v=AA"), 1),
)
case(
    "refuses the login in 100 MiB",
    UNREACHABLE,
    "cannot connect",
    Lie(STARTUP, message("E", b"", 100 * MIB), b"x" * MIB, 100),
)
case(
    "refuses the login in words that steer a terminal", UNAUTHENTICATED, r"\x1b", Lie(STARTUP, error(STEERING, "28P01"))
)

# Answers that no server gives.
case("answers in words that steer a terminal", REJECTED, r"\x1b", Lie(QUERY, error(STEERING, "42601") + ready()))
case(
    "answers in bytes that are no text",
    REJECTED,
    "42601",
    Lie(QUERY, message("E", fields("42601", b"\xff\xfe")) + ready()),
)
case("answers with errors without end", REJECTED, TOO_MUCH, Lie(QUERY, b"", error("x" * KIB) * 64))
case(
    "answers with an error of 64 MiB",
    UNRESPONSIVE,
    KILLED,
    Lie(SECOND, message("E", b"", 64 * MIB), b"SX\0\0" * MIB, 16),
)
case("answers with notices without end", UNRESPONSIVE, KILLED, Lie(SECOND, b"", NOTICE * 64))
case(
    "answers with notifications without end",
    f"{WORKER}|{UNRESPONSIVE}",
    "",
    Lie(SECOND, b"", message("A", b"\0" * KIB) * 64),
)
case("answers with rows without end", REJECTED, TOO_MUCH, Lie(QUERY, ONE, ROW * 64))
case("answers with rows of 1 MiB, without end", REJECTED, TOO_MUCH, Lie(QUERY, ONE, row(b"x" * MIB)))
case("answers without rows, without end", REJECTED, TOO_MUCH, Lie(QUERY, b"", done() * KIB))
case(
    "announces a row of 1 GiB",
    REJECTED,
    "allocate memory",
    Lie(QUERY, ONE + message("D", b"\0\x01", 1 << 30), b"x" * MIB, 100),
)
case("sends more values than columns", REJECTED, "unexpected field count", Lie(QUERY, ONE + row(b"1", b"2") + ANSWERED))
case(
    "announces more values than it sends",
    REJECTED,
    "unexpected field count",
    Lie(QUERY, ONE + row(b"1", count=99) + ANSWERED),
)
case(
    "announces more columns than it names",
    REJECTED,
    "insufficient data",
    Lie(QUERY, described("a", count=99) + ANSWERED),
)
case(
    "announces a negative number of columns",
    REJECTED,
    "insufficient data",
    Lie(QUERY, described("a", count=-1) + ANSWERED),
)
case("names a column in 1 MiB", REJECTED, "answers to", Lie(QUERY, described("a" * MIB) + row(b"1") + ANSWERED))
case("sends a row of no columns", REJECTED, "without prior row description", Lie(QUERY, row(b"1") + ANSWERED))
case(
    "ends in the middle of a message",
    UNREACHABLE,
    "connection was lost",
    Lie(QUERY, message("T", b"x", 100), ends=True),
)
case("is ready without an answer", REJECTED, "gives 0 answers", Lie(QUERY, ready()))
case("states a failed transaction", REJECTED, "answers to", Lie(QUERY, done() + ready("E")))
case("states a transaction of no known state", REJECTED, "answers to", Lie(QUERY, done() + ready("X")))
case(
    "answers with COPY to the client",
    REJECTED,
    "COPY_OUT",
    Lie(QUERY, message("H", COPY), message("d", b"x" * KIB) * 64),
)
case("answers with COPY from the client", REJECTED, "COPY_IN", Lie(QUERY, message("G", COPY)))
case("answers with COPY in both directions", REJECTED, "COPY_BOTH", Lie(QUERY, message("W", COPY)))
case("sends a message of no known kind", UNRESPONSIVE, KILLED, Lie(SECOND, message("?", b"x")))
case("sends a message of negative length", REJECTED, OUT_OF_STEP, Lie(QUERY, message("T", b"x", -5)))
case("sends zeros without end", REJECTED, OUT_OF_STEP, Lie(QUERY, b"", b"\0" * MIB))

# A catalog that holds what none holds.
case("has a table without OID", REJECTED, COLUMN.format("oid"), Rewrite("oid", None))
case("has an OID that is a word", REJECTED, STRANGE, Rewrite("oid", b"x"))
case("has an OID below zero", REJECTED, COLUMN.format("oid"), Rewrite("oid", b"-5", INT4))
case("has NaN rows", REJECTED, COLUMN.format("rows"), Rewrite("rows", b"NaN", FLOAT8))
case("has tables of infinite size", REJECTED, COLUMN.format("bytes"), Rewrite("bytes", b"Infinity", FLOAT8))
case("has a clock in the year 99999", REJECTED, CATALOG, Rewrite("now", b"99999-01-01T00:00:00"))
case("has a clock in the year 9999", REJECTED, "clock says 9999", Rewrite("now", b"9999-12-31T23:59:59"))
case("has a clock of nested JSON", REJECTED, STRANGE, Rewrite("now", b"[" * 100000, JSON))
case("has rights that may be", "NotOwner", "is not the owner", Rewrite("may_own", b"maybe", BOOL))
case("has a partition key of nested arrays", REJECTED, "arrays in arrays", Rewrite("key", b"{" * 5000))
case("has no partition key", REJECTED, CATALOG, Rewrite("key", None))
case("has an unknown kind of table", REJECTED, CATALOG, Rewrite("kind", b"z"))
case("has two million partitions", REJECTED, TOO_MUCH, Rewrite("bounds", BOUNDS % b"2019-01-01", times=2_000_000))
case("has bounds of 1 MiB", REJECTED, CATALOG, Rewrite("bounds", BOUNDS % (b"9" * MIB)))
case("has bounds that steer a terminal", REJECTED, CATALOG, Rewrite("bounds", BOUNDS % STEERING.encode()))
case("has tables whose names steer a terminal", "TableChanged", r"\x1b", Rewrite("name", STEERING.encode()))
case("has names of 1 MiB", REJECTED, COLUMN.format("name"), Rewrite("name", b"x" * MIB))
case("has names with NUL", REJECTED, "NUL", Rewrite("name", b"a\0b"))
case("has names that are no text", REJECTED, STRANGE, Rewrite("name", b"\xff\xfe"))
case("has grants of garbage", REJECTED, "malformed array", Rewrite("relacl", b'{"='))
case("has comments of 20 MiB", f"{WORKER}|{REJECTED}", "", Rewrite("comment", b"x" * (20 * MIB)))
case("has an identity of 1 MiB", REJECTED, COLUMN.format("identity"), Rewrite("identity", b"9" * MIB))
