"""libpq's words for a connection that could not be made -> our errors."""

from __future__ import annotations

import pytest

from partwarden.postgres.conninfo import ConnectionInfo
from partwarden.postgres.errors import explain
from support.complaints import check

PREFIX = 'connection failed: connection to server at "db" (10.0.0.1), port 5432 failed: '
SECOND = 'connection to server at "db" (10.0.0.1), port 5432 failed: '
INFO = ConnectionInfo({"host": "db", "dbname": "orders", "password": "s3cr3t"})
PLAIN = ConnectionInfo({"host": "db", "dbname": "orders", "sslmode": "disable"})
OWN = ConnectionInfo({"host": "db", "dbname": "orders"}, isolated=False)

REFUSED = f"{PREFIX}Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?"
WRONG_PASSWORD = f'{PREFIX}FATAL:  password authentication failed for user "app"'
HBA = 'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "app", database "orders", '

CASES = [
    (WRONG_PASSWORD, "AuthenticationFailed", 'for user "app"; correct user and password in the Secret'),
    (f"{PREFIX}fe_sendauth: no password supplied", "AuthenticationFailed", "correct user and password"),
    (f'{PREFIX}FATAL:  role "app" does not exist', "AuthenticationFailed", "create the role"),
    (f'{PREFIX}FATAL:  role "app" is not permitted to log in', "AuthenticationFailed", "WITH LOGIN"),
    (f"{PREFIX}FATAL:  connection requires a valid client certificate", "AuthenticationFailed", "with a password"),
    (f"{PREFIX}SSL error: tlsv13 alert certificate required", "AuthenticationFailed", "with a password"),
    (f'{PREFIX}FATAL:  LDAP authentication failed for user "app"', "AuthenticationFailed", "correct user and password"),
    (
        f'{PREFIX}FATAL:  Peer authentication failed for user "app"',
        "AuthenticationFailed",
        "in the server's pg_hba.conf",
    ),
    (f"{PREFIX}{HBA}no encryption", "AuthenticationFailed", "let the role in from this address"),
    (f"{PREFIX}FATAL:  no such user: app", "AuthenticationFailed", "no such user"),
    (
        f"{PREFIX}server does not support SSL, but SSL was required",
        "TLSMismatch",
        "turn ssl on at the server; or say sslmode: disable",
    ),
    (f"{PREFIX}SSL error: certificate verify failed", "TLSMismatch", "ca.crt"),
    (
        f'{PREFIX}server certificate for "a" (and 1 other name) does not match host name "db"',
        "TLSMismatch",
        "connect to a name that the certificate holds",
    ),
    (
        'connection is bad: root certificate file "/nonexistent/partwarden" does not exist\nEither provide the file, '
        "use the system's trusted roots with sslrootcert=system, or change sslmode",
        "TLSMismatch",
        "root certificate does not exist; put the certificate of the CA",
    ),
    (
        f'{PREFIX}could not read root certificate file "/tmp/partwarden-ca-x1/ca.crt": no certificate found',
        "TLSMismatch",
        "could not read root certificate: no certificate found",
    ),
    ('connection is bad: weak sslmode "prefer" may not be used with sslrootcert=system', "TLSMismatch", "weak"),
    (f"{PREFIX}FATAL:  SSL required", "TLSMismatch", "wants TLS"),
    (f'{PREFIX}FATAL:  database "orders" does not exist', "DatabaseNotFound", "create it, or correct dbname"),
    (f"{PREFIX}FATAL:  no such database: orders", "DatabaseNotFound", "correct dbname"),
    (f'{PREFIX}FATAL:  database "orders" is not currently accepting connections', "DatabaseNotFound", "ALLOW"),
    (
        f'{PREFIX}FATAL:  permission denied for database "orders"\nDETAIL:  User does not have CONNECT privilege.',
        "InsufficientPrivilege",
        "(User does not have CONNECT privilege.); GRANT CONNECT ON DATABASE",
    ),
    (f"{PREFIX}session is read-only", "ReadOnlyServer", "through the primary"),
    (f"{PREFIX}server is in hot standby mode", "ReadOnlyServer", "through the primary"),
    (f"{PREFIX}FATAL:  sorry, too many clients already", "DatabaseUnreachable", "raise max_connections"),
    (f'{PREFIX}FATAL:  too many connections for role "app"', "DatabaseUnreachable", "CONNECTION LIMIT"),
    (
        f"{PREFIX}FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "DatabaseUnreachable",
        "max_connections",
    ),
    (f"{PREFIX}FATAL:  the database system is starting up", "DatabaseUnreachable", "starting up; wait until"),
    (f"{PREFIX}FATAL:  the database system is shutting down", "DatabaseUnreachable", "wait until it is ready"),
    (
        f"{PREFIX}FATAL:  the database system is not yet accepting connections\n"
        "DETAIL:  Consistent recovery state has not been yet reached.",
        "DatabaseUnreachable",
        "Consistent recovery state",
    ),
    (f"{PREFIX}received invalid response to SSL negotiation: H", "DatabaseUnreachable", "no PostgreSQL listens there"),
    (REFUSED, "DatabaseUnreachable", "Connection refused; start the server, or correct host and port"),
    ("connection timeout expired", "DatabaseUnreachable", "firewalls and network policies"),
    (f"{PREFIX}No route to host\n\tIs the server", "DatabaseUnreachable", "correct host and port"),
    (f"{PREFIX}server closed the connection unexpectedly\n\tThis probably", "DatabaseUnreachable", "start the server"),
    (f"{PREFIX}SSL SYSCALL error: EOF detected", "DatabaseUnreachable", "start the server"),
    ("failed to resolve host 'db': [Errno -2] Name or service not known", "DatabaseUnreachable", "its own namespace"),
    (
        f"{PREFIX}FATAL:  Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen",
        "DatabaseUnreachable",
        "Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen; see the server's log",
    ),
]


@pytest.mark.parametrize(("words", "reason", "way_out"), CASES)
def test_the_words_of_libpq_and_of_an_english_server(words: str, reason: str, way_out: str) -> None:
    error = explain([words], INFO)
    check(error, reason, "cannot connect to database 'orders' at db:5432: ", way_out, secrets=["s3cr3t", "partwarden"])


@pytest.mark.parametrize("words", ["no encryption", "SSL off"])
def test_sslmode_disable_where_only_tls_is_let_in_is_a_tls_mismatch(words: str) -> None:
    check(explain([f"{PREFIX}{HBA}{words}"], PLAIN), "TLSMismatch", "pg_hba.conf", "sslmode is 'disable'")


def test_sslmode_prefer_names_both_attempts_and_blames_the_login() -> None:
    error = explain([f"{PREFIX}{HBA}SSL encryption\n{SECOND}{HBA}no encryption"], INFO)
    check(error, "AuthenticationFailed", "SSL encryption (another attempt: no pg_hba.conf entry")


@pytest.mark.parametrize(("info", "reason"), [(INFO, "SecretInvalid"), (OWN, "InvalidSpec")])
def test_parameters_that_libpq_does_not_understand(info: ConnectionInfo, reason: str) -> None:
    error = explain(['connection is bad: invalid channel_binding value: "maybe"'], info)
    check(error, reason, 'invalid channel_binding value: "maybe"; correct that connection parameter')


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (WRONG_PASSWORD, "AuthenticationFailed"),
        (f"{PREFIX}FATAL:  the database system is starting up", "DatabaseUnreachable"),
        (f"{PREFIX}FATAL:  Zu viele Verbindungen", "DatabaseUnreachable"),
        (f"{PREFIX}session is read-only", "ReadOnlyServer"),
    ],
)
def test_of_two_addresses_the_one_that_answered_gives_the_cause(turn: int, words: str, reason: str) -> None:
    error = explain([words, REFUSED][::turn], INFO)
    essential = words.removeprefix(PREFIX).removeprefix("FATAL:  ")
    check(error, reason, f"at db:5432: {essential} (another attempt: Connection refused); ")


def test_two_addresses_with_the_same_words_say_them_once() -> None:
    other = REFUSED.replace("10.0.0.1", "::1")
    assert str(explain([REFUSED, other], INFO)) == str(explain([REFUSED], INFO))


def test_the_message_is_the_same_each_time_whichever_address_is_asked_first() -> None:
    first, second = REFUSED, "connection timeout expired"
    assert str(explain([first, second], INFO)) == str(explain([second, first], INFO))


def test_a_login_that_is_refused_names_the_keys_that_it_was_made_from() -> None:
    origins = {"user": "key 'username' of Secret 'login'", "password": "key 'uri' of Secret 'login'"}
    info = ConnectionInfo({"host": "db", "dbname": "orders", "password": "s3cr3t"}, origins=origins)
    error = explain([WRONG_PASSWORD], info)
    check(
        error,
        "AuthenticationFailed",
        "correct user and password in the Secret, or the role's VALID UNTIL, if that has passed",
        "(user from key 'username' of Secret 'login', password from key 'uri' of Secret 'login')",
        secrets=["s3cr3t"],
    )


def test_a_login_without_a_password_says_that_none_was_given() -> None:
    info = ConnectionInfo({"host": "db", "dbname": "orders"}, origins={"user": "spec.database.connection.user"})
    check(
        explain([f"{PREFIX}fe_sendauth: no password supplied"], info), "AuthenticationFailed", "password from nowhere"
    )
