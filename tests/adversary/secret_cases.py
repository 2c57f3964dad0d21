"""What a Secret of the adversary holds."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Mapping
from typing import Any

from adversary.cases import Case
from adversary.stage import Stage
from lab.site import keys_of

INVALID, MISSING, UNREACHABLE = "SecretInvalid", "SecretKeyMissing", "DatabaseUnreachable"
MIB = 1 << 20
URI = "postgresql://user:password@127.0.0.1:1/d"
CASES: list[Case] = []


def case(does: str, reason: str, says: str, data: Mapping[str, str | bytes], **more: Any) -> None:
    """Single keys of ``data`` beside those of a database that is there, where it has no ``uri``."""

    def attack(stage: Stage) -> Generator[None]:
        name = stage.name()
        whole = data if "uri" in data or "type" in more else {**keys_of(stage.own.dsn), **data}
        stage.secret(name, whole, **more)
        stage.policy(name)
        yield

    CASES.append(Case(f"Secret {does}", reason, says, attack))


case("names 100,000 hosts", INVALID, "key 'host' of Secret", {"host": ",".join(["h"] * 100_000)})
case("names 100,000 hosts in its uri", INVALID, "key 'uri' of Secret", {"uri": f"postgresql://{'h,' * 100_000}h/d"})
case("names nine hosts", INVALID, "a list of 9 entries of 'host'", {"host": ",".join("abcdefghi")})
case(
    "names nine addresses",
    INVALID,
    "a list of 9 entries of 'hostaddr'",
    {"uri": f"{URI}?hostaddr={'127.0.0.1,' * 8}::1"},
)
case("names fewer hosts than addresses", INVALID, "could not match", {"uri": f"{URI}?hostaddr=127.0.0.1,127.0.0.2"})
case("names a host of 4 KiB", INVALID, "an entry of 'host' of 4,096 bytes", {"host": "h" * 4096})
case("names a host that is none in DNS", UNREACHABLE, "it is not a host name", {"host": "a..b"})
case("names a host with a line end", INVALID, "a control character", {"host": "h\nhostaddr=127.0.0.1"})
case("names a socket in a folder of the operator", UNREACHABLE, "", {"host": "/proc/self"})
case("names an abstract socket", UNREACHABLE, "", {"host": "@adversary"})
case("names a port below zero", INVALID, "not a TCP port", {"port": "-1"})
case("names a port of 1 MiB", INVALID, "key 'port' of Secret", {"port": "1" * (MIB // 2)})
case("has a CA of 200 KiB", INVALID, "key 'ca.crt' of Secret", {"ca.crt": "-----BEGIN CERTIFICATE-----\n" * 7_500})
case("has a CA of 60 KiB of beginnings", INVALID, "cannot be read", {"ca.crt": "-----BEGIN CERTIFICATE-----" * 2_270})
case("names a file of the operator as its CA", INVALID, "PARTWARDEN_CA_FOLDER", {"sslrootcert": "/etc/passwd"})
case(
    "names its way out of the folder of CAs",
    INVALID,
    "PARTWARDEN_CA_FOLDER",
    {"sslrootcert": "/etc/postgres-ca/../passwd"},
)
case("has a password of 900 KiB", INVALID, "key 'password' of Secret", {"password": "x" * 900 * 1024})
case("has a password with NUL", INVALID, "a control character", {"password": "a\0b"})
case("has values that are no text", MISSING, "has no key", {"host": b"\xff\xfe", "dbname": b"\xc3\x28"})
case(
    "has 5,000 keys",
    "AuthenticationFailed|DatabaseNotFound",
    "",
    {f"k{n}": "x" for n in range(5000)} | {"user": "nobody"},
)
case("is empty", MISSING, "has no key 'uri'", {}, type="Opaque")
case("is one for TLS", MISSING, "has no key 'uri'", {"tls.crt": "x", "tls.key": "y"}, type="kubernetes.io/tls")
case(
    "has a database name that is a connection string",
    "DatabaseNotFound",
    "",
    {"dbname": "host=127.0.0.1 options=-cjit=on"},
)
case("has a user that is an option", "AuthenticationFailed", "", {"user": "x' options='-c log_statement=all"})
case(
    "has settings of the server in its uri",
    INVALID,
    "'options', which cannot be used",
    {"uri": f"{URI}?options=-cjit%3Don"},
)
case("names a service in its uri", INVALID, "'service', which cannot be used", {"uri": f"{URI}?service=x"})
case(
    "names a file of passwords in its uri",
    INVALID,
    "'passfile', which cannot be used",
    {"uri": f"{URI}?passfile=/etc/passwd"},
)
case("names a key file in its uri", INVALID, "'sslkey', which cannot be used", {"uri": f"{URI}?sslkey=/etc/passwd"})
case(
    "has a uri of escapes that do not end",
    INVALID,
    "not a PostgreSQL connection string",
    {"uri": "postgresql://" + "%" * 4000},
)


def edited(stage: Stage) -> Generator[None]:
    """A new host each time, as fast as the API server takes it."""
    name, ended, numbers = stage.name(), threading.Event(), itertools.count()
    stage.secret(name, {"uri": URI})
    stage.policy(name)

    def edit() -> None:
        while not ended.is_set():
            body: Any = {"stringData": {"uri": f"postgresql://user@127.0.0.1:{1 + next(numbers) % 9}/d"}}
            stage.core.patch_namespaced_secret(name, stage.adversary, body)
            stage.edit(name, {"premake": next(numbers) % 9})

    editing = threading.Thread(target=edit)
    editing.start()
    try:
        yield
    finally:
        ended.set()
        editing.join()


CASES.append(Case("Secret and policy are edited without end", UNREACHABLE, "Connection refused", edited))
