"""How to reach the database of a policy: its Secret and its connection parameters, made into libpq's.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from .errors import InvalidSpec, SecretInvalid, SecretKeyMissing
from .policy import Database

SECRET_KEYS = {
    "host": ("host",),
    "port": ("port",),
    "dbname": ("dbname", "database"),
    "user": ("user", "username"),
    "password": ("password",),
    "sslmode": ("sslmode",),
    "sslrootcert": ("sslrootcert", "ca.crt"),
}
"""Where a Secret without ``uri`` may have each parameter; the first that is there and not empty counts."""

FROM_OPERATOR = frozenset(
    {
        "service",
        "servicefile",
        "passfile",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslcrl",
        "sslcrldir",
        "krbsrvname",
        "options",
        "require_auth",
    }
)
"""What a ``uri`` may not say: these name files of the operator's own, or change how the session behaves."""


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """libpq parameters. ``ca`` is a PEM text to be put into a file for ``sslrootcert``.

    ``isolated``: nothing that is missing may be taken from this process's own environment or files.
    """

    parameters: Mapping[str, str] = field(repr=False)
    ca: str | None = field(default=None, repr=False)
    isolated: bool = True

    @property
    def database_key(self) -> tuple[str, str, str]:
        """Host, port and database: what connections are counted by."""
        get = self.parameters.get
        return get("host", ""), get("port", "5432"), get("dbname", "")

    def __str__(self) -> str:
        host, port, dbname = self.database_key
        return f"database {dbname!r} at {host or 'the default host'}:{port}"


def resolve(database: Database, secret: Mapping[str, str] | None, secret_name: str | None) -> ConnectionInfo:
    """The parameters of ``spec.database``; what ``connection`` says wins over the Secret.

    Raises `SecretKeyMissing` when neither says host, dbname or user, and `SecretInvalid` when a value cannot be used.
    """
    found = _from_secret(secret or {}, secret_name or "")
    if database.connection is not None:
        stated = database.connection.model_dump(exclude_none=True, mode="json")
        found |= {name: str(value) for name, value in stated.items()}
    for name in ("host", "dbname", "user"):
        if not found.get(name):
            raise _missing(name, secret_name)
    _check_port(found, secret_name)
    ca = found.get("sslrootcert", "")
    if "-----BEGIN" in ca:
        del found["sslrootcert"]
        return ConnectionInfo(found, ca)
    return ConnectionInfo(found)


def from_dsn(dsn: str) -> ConnectionInfo:
    """A URI or keyword string as libpq takes it, completed by the user's own environment. Raises `InvalidSpec`."""
    try:
        parameters = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except ProgrammingError as error:
        raise InvalidSpec(f"--dsn is not a connection string: {_parse_error(error, dsn)}") from None
    return ConnectionInfo(parameters, isolated=False)


def _from_secret(secret: Mapping[str, str], name: str) -> dict[str, str]:
    uri = secret.get("uri", "").strip()
    found = _parse_uri(uri, name) if uri else {}
    for parameter, keys in SECRET_KEYS.items():
        if uri and parameter != "sslrootcert":
            continue
        value = next((secret[key] for key in keys if secret.get(key, "").strip()), None)
        if value is not None and parameter not in found:
            # A trailing newline is what `echo` and editors leave in a Secret; in a password it is kept out, too.
            found[parameter] = value.rstrip("\r\n") if parameter != "sslrootcert" else value
    return found


def _parse_uri(uri: str, name: str) -> dict[str, str]:
    try:
        found = {key: str(value) for key, value in conninfo_to_dict(uri).items() if value not in (None, "")}
    except ProgrammingError as error:
        raise SecretInvalid(
            f"key 'uri' of Secret {name!r} is not a PostgreSQL connection string: {_parse_error(error, uri)}"
        ) from None
    if refused := sorted(FROM_OPERATOR & found.keys()):
        raise SecretInvalid(f"key 'uri' of Secret {name!r} holds {refused[0]!r}, which cannot be used here: remove it")
    return found


def _parse_error(error: Exception, secret_text: str) -> str:
    """libpq's words, without what it quotes from the text: that may be a password."""
    words = str(error).strip()
    pieces = words.split('"')
    return '"…"'.join(pieces[::2]) if len(pieces) > 1 and any(piece in secret_text for piece in pieces[1::2]) else words


def _missing(parameter: str, secret_name: str | None) -> SecretKeyMissing:
    if secret_name is None:
        return SecretKeyMissing(f"spec.database.connection.{parameter} is missing, and no secretRef could give it")
    keys = " or ".join(repr(key) for key in ("uri", *SECRET_KEYS[parameter]))
    return SecretKeyMissing(
        f"Secret {secret_name!r} has no key {keys}, and spec.database.connection.{parameter} does not say it either"
    )


def _check_port(found: Mapping[str, str], secret_name: str | None) -> None:
    port = found.get("port", "5432")
    # libpq takes several ports, as it does hosts, separated by commas.
    if not all(each == "" or (each.isascii() and each.isdigit() and 0 < int(each) < 65536) for each in port.split(",")):
        raise SecretInvalid(f"port {port!r} of Secret {secret_name!r} is not a TCP port")
