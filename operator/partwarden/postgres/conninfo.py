"""How to reach the database of a policy: its Secret and its connection parameters, made into libpq's.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from ..api.database import Connection, Database, SSLMode
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

CA_KEYS = SECRET_KEYS["sslrootcert"]
LONGEST_CA, LONGEST_VALUE = 64 << 10, 4 << 10
"""Bytes of a value of a Secret that is read: of a CA, and of every other but a list of hosts."""
MOST_HOSTS, LONGEST_HOST = 8, 1 << 10
"""Hosts of one connection, each with its address and port, and the bytes of one of them."""
SYSTEM = "system"
"""``sslrootcert``: the authorities that the system trusts."""
PEM = "-----BEGIN "
MAX_FOUND = 60
"""Characters of a wrong value that a message repeats."""
IPV6 = frozenset("0123456789abcdefABCDEF:.")


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
        where = f"[{host}]" if ":" in host and set(host) <= IPV6 else host or "the default host"
        return f"database {dbname!r} at {where}:{port}"


def resolve(
    database: Database, secret: Mapping[str, str] | None, secret_name: str | None, *, ca_folder: str | None = None
) -> ConnectionInfo:
    """The parameters of ``spec.database``. Raises as `merge`."""
    return merge(database.connection, secret, secret_name, ca_folder=ca_folder)


def merge(
    connection: Connection | None,
    secret: Mapping[str, str] | None,
    secret_name: str | None,
    *,
    ca_folder: str | None = None,
) -> ConnectionInfo:
    """Connection parameters: ``connection`` wins over the Secret, whose single keys win over its ``uri``.

    ``ca_folder``: where the files are that ``sslrootcert`` may name; none where empty, any where None, as a user names
    files of their own. With a CA the default ``sslmode`` is verify-full. A password goes over no network in clear text
    unless ``sslmode`` is disable or allow: where nothing else is said, or prefer, it is require.

    Raises `SecretKeyMissing` when none says host, dbname or user, `SecretInvalid` when a value cannot be used, and
    `InvalidSpec` when that is one of ``connection``.
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
        origins |= {each: f"{SPEC}{each}" for each in stated}
    for parameter in ("host", "dbname", "user"):
        if not found.get(parameter):
            raise _missing(parameter, secret, secret_name)
    for parameter in ("host", "hostaddr", "port"):
        _check_hosts(found.get(parameter, ""), parameter, origins)
    ca = found.get("sslrootcert", "")
    _choose_sslmode(found)
    if PEM in ca:
        _check_ca(ca, name)
        del found["sslrootcert"]
        return ConnectionInfo(found, ca, origins=origins)
    if ca not in ("", SYSTEM) and ca_folder is not None and not _is_file_below(ca, ca_folder):
        raise _refusal(origins["sslrootcert"])(
            f"{origins['sslrootcert']} names neither {SYSTEM!r} nor a regular file below the folder "
            f"{ca_folder or '(none)'} of the operator's setting PARTWARDEN_CA_FOLDER: put the CA into the Secret, key "
            "ca.crt, or have its file put into that folder"
        )
    return ConnectionInfo(found, origins=origins)


SPEC = "spec.database.connection."


def _refusal(origin: str) -> type[InvalidSpec] | type[SecretInvalid]:
    """Of a value that came from there."""
    return InvalidSpec if origin.startswith(SPEC) else SecretInvalid


def _choose_sslmode(found: dict[str, str]) -> None:
    """Put the default where none is stated. libpq's own, prefer, would fall back to clear text."""
    if "sslmode" not in found and "sslrootcert" in found:
        found["sslmode"] = SSLMode.VERIFY_FULL.value
    elif found.get("sslmode", SSLMode.PREFER) == SSLMode.PREFER and "password" in found and not is_local(found):
        found["sslmode"] = SSLMode.REQUIRE.value


def is_local(found: Mapping[str, str]) -> bool:
    """Whether no host is reached over a network: only Unix sockets, loopback addresses and ``localhost``."""
    hosts = (host.strip() for key in ("host", "hostaddr") for host in found.get(key, "").split(","))
    return all(host[:1] in ("", "/", "@") or host == "localhost" or _is_loopback(host) for host in hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_file_below(path: str, folder: str) -> bool:
    """Whether it is a regular file there, also behind symbolic links, as those of a mounted ConfigMap."""
    try:
        file = Path(path).resolve(strict=True)
        return bool(folder) and file.is_relative_to(Path(folder).resolve()) and stat.S_ISREG(file.stat().st_mode)
    except (OSError, RuntimeError, ValueError):
        return False


def _check_hosts(text: str, parameter: str, origins: Mapping[str, str]) -> None:
    origin, parts = origins.get(parameter, ""), text.split(",")
    if len(parts) > MOST_HOSTS:
        raise _refusal(origin)(
            f"{origin} holds a list of {len(parts):,} entries of {parameter!r}, and at most {MOST_HOSTS} are taken: "
            "name fewer"
        )
    if (longest := max(len(part.encode()) for part in parts)) > LONGEST_HOST:
        raise _refusal(origin)(
            f"{origin} holds an entry of {parameter!r} of {longest:,} bytes, and at most {LONGEST_HOST:,} are taken: "
            "correct it"
        )


def _check_size(key: str, text: str, name: str) -> None:
    """Before anything is made of the value: a parser of it takes time and memory of all other policies, too."""
    most, way_out = LONGEST_VALUE, "write only that value into it"
    if key in CA_KEYS:
        most, way_out = LONGEST_CA, "put only the certificates of the CA there that signed the server's"
    elif key == "host":
        most, way_out = MOST_HOSTS * (LONGEST_HOST + 1), f"name at most {MOST_HOSTS} hosts"
    if (size := len(text.encode("utf-8", "surrogatepass"))) > most:
        raise SecretInvalid(
            f"key {key!r} of Secret {name!r} has {size:,} bytes, and at most {most:,} are read: {way_out}"
        )


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
            _check_size(key, secret[key], name)
            found[parameter] = _value(parameter, secret[key], f"key {key!r} of Secret {name!r}")
    if not _is_port(port := found.get("port", "")):
        raise SecretInvalid(f"key 'port' of Secret {name!r} is {port[:MAX_FOUND]!r}, which is not a TCP port")
    _check_sslmode(found, f"key 'sslmode' of Secret {name!r}")
    return found


def _from_uri(secret: Mapping[str, str], name: str) -> dict[str, str]:
    """No message here shows a value: a password that is not percent-encoded shifts into any of them."""
    where = f"key 'uri' of Secret {name!r}"
    _check_size("uri", secret["uri"], name)
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
        return text if PEM in text else text.strip()
    text = text.rstrip("\r\n")
    if parameter != "password":
        text = text.strip()
    if "\0" in text or (parameter != "password" and re.search(r"[\x00-\x1f\x7f]", text)):
        raise SecretInvalid(f"{where} holds a control character in the value of {parameter!r}: write it anew")
    return text


def _check_sslmode(found: Mapping[str, str], where: str) -> None:
    if (mode := found.get("sslmode", SSLMode.PREFER)) not in list(SSLMode):
        raise SecretInvalid(f"{where} is {mode[:MAX_FOUND]!r}: it must be one of {', '.join(SSLMode)}")


def _check_ca(text: str, name: str) -> None:
    """libpq would refuse it too, but in other words each time."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(_certificates(text)))
    except (ssl.SSLError, ValueError):
        raise SecretInvalid(
            f"the CA in key 'sslrootcert' or 'ca.crt' of Secret {name!r} cannot be read: it must hold certificates "
            "in PEM form"
        ) from None


def _certificates(text: str) -> Iterator[str]:
    """The certificates of a PEM text, without what stands between them. Takes time in proportion to its length."""
    for block in text.split(PEM)[1:]:
        label, _, rest = block.partition("-----")
        if label.endswith("CERTIFICATE"):
            end = f"-----END {label}-----"
            # One that does not end is given whole: it cannot be read then.
            yield PEM + label + "-----" + (rest[: rest.index(end)] + end if end in rest else rest)


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
