"""How to reach the database of a policy: its Secret and its connection parameters, made into libpq's.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from ..api.policy import Connection, Database, SSLMode
from ..errors import InvalidSpec, SecretInvalid, SecretKeyMissing

SECRET_KEYS = {
    "host": ("host",),
    "port": ("port",),
    "dbname": ("dbname", "database"),
    "user": ("user", "username"),
    "password": ("password",),
    "sslmode": ("sslmode",),
    "sslrootcert": ("sslrootcert", "ca.crt"),
}
"""Where a Secret may have each parameter by itself; the first that is there and not empty counts, before ``uri``."""

URI_PARAMETERS = frozenset(SECRET_KEYS) | {
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslnegotiation",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
}
"""What a ``uri`` may say. Others name files of the operator's own, or change how the session behaves."""


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """libpq parameters. ``ca`` is a PEM text to be put into a file for ``sslrootcert``.

    ``isolated``: nothing that is missing may be taken from this process's own environment or files. ``origins``: which
    key or field gave each parameter, in words.
    """

    parameters: Mapping[str, str] = field(repr=False)
    ca: str | None = field(default=None, repr=False)
    isolated: bool = True
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def database_key(self) -> tuple[str, str, str]:
        """Host, port and database: what connections are counted by."""
        get = self.parameters.get
        return get("host", ""), get("port", "5432"), get("dbname", "")

    def __str__(self) -> str:
        host, port, dbname = self.database_key
        where = f"[{host}]" if re.fullmatch(r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", host) else host or "the default host"
        return f"database {dbname!r} at {where}:{port}"


def resolve(database: Database, secret: Mapping[str, str] | None, secret_name: str | None) -> ConnectionInfo:
    """The parameters of ``spec.database``. Raises as `merge`."""
    return merge(database.connection, secret, secret_name)


def merge(connection: Connection | None, secret: Mapping[str, str] | None, secret_name: str | None) -> ConnectionInfo:
    """Connection parameters: ``connection`` wins over the Secret, whose single keys win over its ``uri``.

    Raises `SecretKeyMissing` when none says host, dbname or user, and `SecretInvalid` when a value cannot be used.
    """
    secret, name = secret or {}, secret_name or ""
    found = _from_uri(secret, name) if _uri(secret) else {}
    origins = dict.fromkeys(found, f"key 'uri' of Secret {name!r}")
    single = _from_keys(secret, name)
    if "host" in single and found.get("host", "").startswith(f"{single['host']}."):
        # CloudNativePG's key names the Service alone, which only pods of its namespace resolve; the URI adds that.
        del single["host"]
    _supersede(found, single)
    origins |= {each: f"key {_key(secret, each)!r} of Secret {name!r}" for each in single}
    if connection is not None:
        stated = connection.model_dump(exclude_none=True, mode="json")
        _supersede(found, {key: str(value) for key, value in stated.items()})
        origins |= {each: f"spec.database.connection.{each}" for each in stated}
    for parameter in ("host", "dbname", "user"):
        if not found.get(parameter):
            raise _missing(parameter, secret, secret_name)
    ca = found.get("sslrootcert", "")
    if "-----BEGIN" in ca:
        _check_ca(ca, name)
        del found["sslrootcert"]
        return ConnectionInfo(found, ca, origins=origins)
    return ConnectionInfo(found, origins=origins)


def from_dsn(dsn: str) -> ConnectionInfo:
    """A URI or keyword string as libpq takes it, completed by the user's own environment. Raises `InvalidSpec`."""
    try:
        parameters = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except ProgrammingError as error:
        raise InvalidSpec(f"--dsn is not a connection string: {_parse_error(error)}") from None
    return ConnectionInfo(parameters, isolated=False)


def _uri(secret: Mapping[str, str]) -> str:
    return secret.get("uri", "").strip()


def _supersede(found: dict[str, str], stated: Mapping[str, str]) -> None:
    """Put what is stated into what was found. Another host takes neither address nor ports of those it replaces."""
    if stated.get("host", found.get("host")) != found.get("host"):
        # libpq would prefer the address that goes with the other host, and wants as many ports as hosts.
        found.pop("hostaddr", None)
        if "," in found.get("port", ""):
            del found["port"]
    found |= stated


def _key(secret: Mapping[str, str], parameter: str) -> str | None:
    """The key of the Secret that gives the parameter by itself."""
    return next((key for key in SECRET_KEYS[parameter] if secret.get(key, "").strip()), None)


def _from_keys(secret: Mapping[str, str], name: str) -> dict[str, str]:
    found = {}
    for parameter in SECRET_KEYS:
        key = _key(secret, parameter)
        if key is not None:
            found[parameter] = _value(parameter, secret[key], f"key {key!r} of Secret {name!r}")
    if not _is_port(port := found.get("port", "")):
        raise SecretInvalid(f"key 'port' of Secret {name!r} is {port!r}, which is not a TCP port")
    _check_sslmode(found, f"key 'sslmode' of Secret {name!r}")
    return found


def _from_uri(secret: Mapping[str, str], name: str) -> dict[str, str]:
    """No message here shows a value: a password that is not percent-encoded shifts into any of them."""
    where = f"key 'uri' of Secret {name!r}"
    try:
        parsed = {key: str(value) for key, value in conninfo_to_dict(_uri(secret)).items() if value not in (None, "")}
    except ProgrammingError as error:
        raise SecretInvalid(f"{where} is not a PostgreSQL connection string: {_parse_error(error)}") from None
    if refused := sorted(parsed.keys() - URI_PARAMETERS):
        raise SecretInvalid(f"{where} holds the parameter {refused[0]!r}, which cannot be used here: remove it")
    if "@" in parsed.get("host", "") or not _is_port(parsed.get("port", "")):
        raise SecretInvalid(
            f"{where} has no proper host and port: characters such as @ / : ? # % in its user and password must be "
            "percent-encoded (%40 for @)"
        )
    found = {key: _value(key, value, where) for key, value in parsed.items()}
    _check_sslmode(found, f"sslmode in {where}")
    return found


def _value(parameter: str, text: str, where: str) -> str:
    """Without the newline at the end that `echo` and editors leave in a Secret, and that no password has."""
    if parameter == "sslrootcert":
        return text if "-----BEGIN" in text else text.strip()
    text = text.rstrip("\r\n")
    if parameter != "password":
        text = text.strip()
    if "\0" in text or (parameter != "password" and re.search(r"[\x00-\x1f\x7f]", text)):
        raise SecretInvalid(f"{where} holds a control character in the value of {parameter!r}: write it anew")
    return text


def _check_sslmode(found: Mapping[str, str], where: str) -> None:
    if (mode := found.get("sslmode", SSLMode.PREFER)) not in list(SSLMode):
        raise SecretInvalid(f"{where} is {mode!r}: it must be one of {', '.join(SSLMode)}")


def _check_ca(text: str, name: str) -> None:
    """libpq would refuse it too, but in other words each time."""
    certificates = re.findall(r"-----BEGIN [^-]*CERTIFICATE-----.*?-----END [^-]*CERTIFICATE-----", text, re.DOTALL)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(certificates))
    except (ssl.SSLError, ValueError):
        raise SecretInvalid(
            f"the CA in key 'sslrootcert' or 'ca.crt' of Secret {name!r} cannot be read: it must hold certificates "
            "in PEM form"
        ) from None


def _is_port(text: str) -> bool:
    # libpq takes several ports, as it does hosts, separated by commas.
    return all(
        each == "" or (re.fullmatch(r"[0-9]{1,5}", each) is not None and 0 < int(each) < 65536)
        for each in text.split(",")
    )


def _parse_error(error: Exception) -> str:
    """libpq's words, without what it quotes from the text: that may be a password, or a piece of one."""
    return re.sub(r'".*"', '"…"', " ".join(str(error).split()))


def _missing(parameter: str, secret: Mapping[str, str], secret_name: str | None) -> SecretKeyMissing:
    if secret_name is None:
        return SecretKeyMissing(f"spec.database.connection.{parameter} is missing, and no secretRef could give it")
    if _uri(secret):
        found = f"key 'uri' of Secret {secret_name!r} names no {parameter}"
    else:
        keys = " or ".join(repr(key) for key in ("uri", *SECRET_KEYS[parameter]))
        found = f"Secret {secret_name!r} has no key {keys}"
    return SecretKeyMissing(
        f"{found}, and spec.database.connection.{parameter} does not say it either: add it to one of the two"
    )
