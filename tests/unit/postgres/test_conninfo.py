"""Secrets and connection parameters, made into libpq's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.postgres import make_certificates
from partwarden.api.database import Database
from partwarden.errors import InvalidSpec, PartwardenError, SecretInvalid
from partwarden.postgres.conninfo import ConnectionInfo, from_dsn, resolve
from support.complaints import check

PASSWORD = "s3cr3t-w0rd"
KEYS = {"host": "db.shop", "port": "5433", "dbname": "orders", "user": "app", "password": PASSWORD}
ENCRYPTED = {**KEYS, "sslmode": "require"}
URI = f"postgresql://app:{PASSWORD}@db.shop:5433/orders"
BROKEN = "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CA certificate."""
    return make_certificates(tmp_path_factory.mktemp("tls")).authority.read_text()


CLOUD_NATIVE_PG = {
    "dbname": "orders",
    "fqdn-jdbc-uri": f"jdbc:postgresql://cluster-rw.shop.svc.cluster.local:5432/orders?password={PASSWORD}&user=app",
    "fqdn-uri": f"postgresql://app:{PASSWORD}@cluster-rw.shop.svc.cluster.local:5432/orders",
    "host": "cluster-rw",
    "jdbc-uri": f"jdbc:postgresql://cluster-rw.shop:5432/orders?password={PASSWORD}&user=app",
    "password": PASSWORD,
    "pgpass": f"cluster-rw:5432:orders:app:{PASSWORD}\n",
    "port": "5432",
    "uri": f"postgresql://app:{PASSWORD}@cluster-rw.shop:5432/orders",
    "user": "app",
    "username": "app",
}
ZALANDO = {"username": "app", "password": PASSWORD}


def info(secret: dict[str, str] | None, **connection: object) -> ConnectionInfo:
    """What a policy with this Secret, and with these in spec.database.connection, connects by."""
    fields: dict[str, object] = {"connection": connection} if connection else {}
    if secret is not None:
        fields["secretRef"] = {"name": "login"}
    return resolve(Database.model_validate(fields), secret, "login" if secret is not None else None)


def refusal(secret: dict[str, str] | None, **connection: object) -> PartwardenError:
    """What is said of a Secret that cannot be used."""
    with pytest.raises(PartwardenError) as caught:
        info(secret, **connection)
    return caught.value


@pytest.mark.parametrize(
    ("secret", "connection"),
    [
        (KEYS, {}),
        ({"uri": URI}, {}),
        ({"uri": URI.replace("postgresql:", "postgres:") + "\n"}, {}),
        ({"uri": "host=db.shop port=5433 dbname=orders user=app password=" + PASSWORD}, {}),
        ({**KEYS, "uri": "postgresql://another:stale@elsewhere:1/another"}, {}),
        ({"uri": URI.replace(PASSWORD, "stale"), "password": PASSWORD}, {}),
        ({"uri": URI.replace("app:", "another:"), "username": "app"}, {}),
        ({"username": "app", "database": "orders", "password": PASSWORD}, {"host": "db.shop", "port": 5433}),
        ({**KEYS, "user": "", "username": "app"}, {}),
        ({**KEYS, "dbname": "another"}, {"dbname": "orders"}),
        ({"uri": URI.replace("app:", "another:")}, {"user": "app"}),
        ({name: value + "\n" for name, value in KEYS.items()}, {}),
        ({**KEYS, "host": " db.shop\r\n", "password": PASSWORD + "\r\n"}, {}),
        ({**KEYS, "pgpass": "anything", "jdbc-uri": "jdbc:postgresql://elsewhere/x", "note": "\0"}, {}),
    ],
)
def test_all_ways_to_say_the_same(secret: dict[str, str], connection: dict[str, object]) -> None:
    found = info(secret, **connection)
    assert dict(found.parameters) == ENCRYPTED
    assert found.isolated
    assert found.ca is None
    assert found.database_key == ("db.shop", "5433", "orders")


def test_the_secret_of_cloud_native_pg_works_as_it_is() -> None:
    assert dict(info(CLOUD_NATIVE_PG).parameters) == {**ENCRYPTED, "host": "cluster-rw.shop", "port": "5432"}


def test_the_secret_of_cloud_native_pg_works_after_its_password_alone_was_rotated() -> None:
    found = info({**CLOUD_NATIVE_PG, "password": "rotated"})
    assert dict(found.parameters) == {**ENCRYPTED, "host": "cluster-rw.shop", "port": "5432", "password": "rotated"}


def test_another_host_of_its_own_key_takes_neither_the_address_nor_the_ports_of_the_uris() -> None:
    several = f"postgresql://app:{PASSWORD}@a:5432,b:5433/orders?hostaddr=10.0.0.1,10.0.0.2"
    assert dict(info({"uri": several, "host": "db.shop"}).parameters) == {
        "host": "db.shop",
        "dbname": "orders",
        "user": "app",
        "password": PASSWORD,
        "sslmode": "require",
    }


def test_a_certificate_of_its_own_key_wins_over_a_file_that_the_uri_names(pem: str) -> None:
    found = info({"uri": f"{URI}?sslrootcert=/etc/ca.crt", "ca.crt": pem})
    assert (found.ca, "sslrootcert" in found.parameters) == (pem, False)


@pytest.mark.parametrize(
    ("secret", "connection", "user", "password"),
    [
        (CLOUD_NATIVE_PG, {}, "key 'user' of Secret 'login'", "key 'password' of Secret 'login'"),
        (
            {**ZALANDO, "uri": URI},
            {},
            "key 'username' of Secret 'login'",
            "key 'password' of Secret 'login'",
        ),
        ({"uri": URI}, {}, "key 'uri' of Secret 'login'", "key 'uri' of Secret 'login'"),
        ({"uri": URI}, {"user": "me"}, "spec.database.connection.user", "key 'uri' of Secret 'login'"),
    ],
)
def test_where_user_and_password_came_from_is_known(
    secret: dict[str, str], connection: dict[str, object], user: str, password: str
) -> None:
    found = info(secret, **connection)
    assert (found.origins["user"], found.origins["password"]) == (user, password)


def test_the_secret_of_zalandos_operator_needs_only_host_and_dbname_beside_it() -> None:
    found = info(ZALANDO, host="acid-minimal.shop", dbname="orders")
    assert dict(found.parameters) == {
        "host": "acid-minimal.shop",
        "dbname": "orders",
        "user": "app",
        "password": PASSWORD,
        "sslmode": "require",
    }
    assert found.database_key == ("acid-minimal.shop", "5432", "orders")


def test_no_secret_at_all() -> None:
    found = info(None, host="db", dbname="orders", user="app", sslmode="verify-full", sslrootcert="system")
    assert dict(found.parameters) == {
        "host": "db",
        "dbname": "orders",
        "user": "app",
        "sslmode": "verify-full",
        "sslrootcert": "system",
    }


@pytest.mark.parametrize(
    "password", ["p@ss/w:rd?#%&", "  spaces  ", "inner\nnewline", "'quotes\" \\", "пароль", "postgresql://x:y@z/d", "="]
)
def test_a_password_of_its_own_key_is_taken_as_it_is(password: str) -> None:
    assert info({**KEYS, "password": password}).parameters["password"] == password


def test_a_password_in_a_uri_is_percent_encoded() -> None:
    secret = {"uri": "postgresql://app:p%40ss%2Fw%3Ard%3F%25@db.shop/orders"}
    assert info(secret).parameters["password"] == "p@ss/w:rd?%"


@pytest.mark.parametrize("key", ["sslrootcert", "ca.crt"])
@pytest.mark.parametrize("secret", [KEYS, {"uri": URI}])
def test_a_ca_certificate_of_the_secret_is_used(pem: str, key: str, secret: dict[str, str]) -> None:
    found = info({**secret, key: pem})
    assert found.ca == pem
    assert "sslrootcert" not in found.parameters


def test_several_ca_certificates_with_remarks_between_them(pem: str) -> None:
    bundle = f"# Größte Zertifizierungsstelle\n{pem}\n# the next\n{pem}"
    assert info({**KEYS, "ca.crt": bundle}).ca == bundle


@pytest.mark.parametrize("key", ["sslrootcert", "ca.crt"])
@pytest.mark.parametrize("ca", [BROKEN, BROKEN[:40], BROKEN.replace("CERTIFICATE", "PRIVATE KEY")])
def test_a_ca_that_cannot_be_read(key: str, ca: str) -> None:
    check(
        refusal({**KEYS, key: ca}), "SecretInvalid", "'ca.crt' of Secret 'login'", "in PEM form", secrets=["nonsense"]
    )


def test_a_ca_that_the_policy_names_wins_over_the_secrets(pem: str) -> None:
    found = info({**KEYS, "ca.crt": pem}, sslrootcert="system")
    assert (found.ca, found.parameters["sslrootcert"]) == (None, "system")


def test_a_host_that_the_policy_names_does_not_get_the_address_of_another() -> None:
    found = info({"uri": f"{URI}?hostaddr=10.0.0.1"}, host="other.shop")
    assert (found.parameters["host"], "hostaddr" in found.parameters) == ("other.shop", False)
    assert info({"uri": f"{URI}?hostaddr=10.0.0.1"}).parameters["hostaddr"] == "10.0.0.1"


def test_several_hosts_with_their_ports() -> None:
    secret = {"uri": f"postgresql://app:{PASSWORD}@a:5432,b:5433/orders?target_session_attrs=read-write"}
    assert info(secret).parameters["port"] == "5432,5433"


@pytest.mark.parametrize(
    ("secret", "connection", "words"),
    [
        ({}, {}, ["Secret 'login' has no key 'uri' or 'host'", "spec.database.connection.host"]),
        (ZALANDO, {}, ["no key 'uri' or 'host'"]),
        (ZALANDO, {"host": "db"}, ["no key 'uri' or 'dbname' or 'database'", "spec.database.connection.dbname"]),
        ({**KEYS, "user": "\n"}, {}, ["no key 'uri' or 'user' or 'username'"]),
        (
            {"uri": f"postgresql://db.shop/orders?password={PASSWORD}"},
            {},
            ["key 'uri' of Secret 'login' names no user"],
        ),
        ({"uri": f"postgresql://app:{PASSWORD}@/orders"}, {}, ["key 'uri' of Secret 'login' names no host"]),
        ({"uri": f"postgresql://app:{PASSWORD}@db.shop"}, {}, ["names no dbname", "spec.database.connection.dbname"]),
        (None, {"host": "db", "dbname": "orders"}, ["spec.database.connection.user is missing", "no secretRef"]),
    ],
)
def test_what_is_missing_is_named(
    secret: dict[str, str] | None, connection: dict[str, object], words: list[str]
) -> None:
    check(refusal(secret, **connection), "SecretKeyMissing", *words, secrets=[PASSWORD])


FILES = ["passfile", "sslcert", "sslkey", "sslcrl", "sslcrldir", "sslkeylogfile", "service", "gsslib"]
BEHAVIOUR = ["options", "replication", "require_auth", "requirepeer", "sslcertmode", "krbsrvname", "gssdelegation"]


@pytest.mark.parametrize("parameter", FILES + BEHAVIOUR)
def test_a_uri_may_not_name_files_of_the_operator_or_change_the_session(parameter: str) -> None:
    error = refusal({"uri": f"{URI}?{parameter}=x"})
    check(error, "SecretInvalid", "key 'uri' of Secret 'login'", repr(parameter), "remove it", secrets=[PASSWORD])


@pytest.mark.parametrize(
    "parameter", ["channel_binding=require", "keepalives=0", "connect_timeout=3", "sslmode=require"]
)
def test_a_uri_may_say_what_concerns_the_connection_alone(parameter: str) -> None:
    name, value = parameter.split("=")
    assert info({"uri": f"{URI}?{parameter}"}).parameters[name] == value


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://app:{PASSWORD}%zz@db.shop/orders",
        f'postgresql://app:a"{PASSWORD}%zz@db.shop/orders',
        f"postgresql://app:x@{PASSWORD}@db.shop/orders",
        f"postgresql://app:x/{PASSWORD}@db.shop/orders",
        f"postgresql://app:{PASSWORD}/@db.shop/orders",
        f"postgresql://app:x@db.shop/orders?{PASSWORD}",
        f"postgresql://app:x@db.shop/orders?{PASSWORD}=1",
        f"host=db.shop user=app dbname=orders password=a {PASSWORD}",
        f"host=db.shop user=app dbname=orders password='{PASSWORD}",
        f"postgresql://app:{PASSWORD}@[::1/orders",
        f"jdbc:postgresql://db.shop/orders?user=app&password={PASSWORD}",
        PASSWORD,
    ],
)
def test_a_uri_that_cannot_be_read_betrays_no_password(uri: str) -> None:
    check(refusal({"uri": uri}), "SecretInvalid", "key 'uri' of Secret 'login'", secrets=[PASSWORD])


@pytest.mark.parametrize("port", ["fifty", "0", "65536", "-1", "5432.0", "5432,x", "५४३२", "5432 5433"])
def test_a_port_that_is_none(port: str) -> None:
    check(refusal({**KEYS, "port": port}), "SecretInvalid", "key 'port' of Secret 'login'", "not a TCP port")


@pytest.mark.parametrize("secret", [{**KEYS, "sslmode": "on"}, {"uri": f"{URI}?sslmode=on"}])
def test_an_sslmode_that_is_none(secret: dict[str, str]) -> None:
    check(refusal(secret), "SecretInvalid", "Secret 'login'", "'on'", "verify-full", secrets=[PASSWORD])


@pytest.mark.parametrize(
    ("key", "size", "most"),
    [
        ("ca.crt", 200 << 10, "65,536"),
        ("sslrootcert", 65_537, "65,536"),
        ("password", 4097, "4,096"),
        ("user", 4097, "4,096"),
        ("dbname", 1 << 20, "4,096"),
        ("port", 4097, "4,096"),
        ("sslmode", 4097, "4,096"),
        ("host", 1 << 20, "8,200"),
        ("uri", 4097, "4,096"),
    ],
)
def test_a_value_that_is_too_long_is_named_by_its_size_alone(key: str, size: int, most: str) -> None:
    text = (PASSWORD * (size // len(PASSWORD) + 1))[:size]
    error = refusal({**KEYS, key: text})
    check(error, "SecretInvalid", f"key {key!r} of Secret 'login' has {size:,} bytes", most, secrets=[PASSWORD])


def test_the_longest_values_are_taken(pem: str) -> None:
    remark = "# an authority\n"
    ca = pem + remark * ((65_536 - len(pem)) // len(remark))
    host = ",".join(["h" * 253] * 8)
    found = info({**KEYS, "host": host, "password": "p" * 4096, "ca.crt": ca})
    assert (found.parameters["host"], len(found.parameters["password"]), found.ca) == (host, 4096, ca)


@pytest.mark.parametrize(
    "secret",
    [
        {**KEYS, "host": ",".join("abcdefghi")},
        {"uri": f"postgresql://app:{PASSWORD}@{','.join('abcdefghi')}/orders"},
        {**KEYS, "port": ",".join(["5432"] * 9)},
        {"uri": f"{URI}?hostaddr={','.join(['10.0.0.1'] * 9)}"},
    ],
)
def test_more_hosts_than_are_tried(secret: dict[str, str]) -> None:
    check(refusal(secret), "SecretInvalid", "Secret 'login' holds a list of 9 entries", "at most 8", secrets=[PASSWORD])


def test_a_host_that_is_too_long() -> None:
    error = refusal({**KEYS, "host": f"a,{'b' * 1025}"})
    check(error, "SecretInvalid", "key 'host' of Secret 'login' holds an entry", "1,025 bytes", "at most 1,024")


def test_more_hosts_in_the_policy_than_are_tried() -> None:
    error = refusal(KEYS, host=",".join("abcdefghi"))
    check(error, "InvalidSpec", "spec.database.connection.host holds a list of 9 entries", "at most 8")


@pytest.mark.parametrize("host", ["db.shop", "10.0.0.1", "127.0.0.1.nip.io", "localhost,db.shop", "::ffff:10.0.0.1"])
@pytest.mark.parametrize("stated", [{}, {"sslmode": "prefer"}])
def test_a_password_goes_over_no_network_in_clear_text(host: str, stated: dict[str, str]) -> None:
    assert info({**KEYS, "host": host, **stated}).parameters["sslmode"] == "require"
    assert info({**KEYS, "host": host}, **stated).parameters["sslmode"] == "require"


@pytest.mark.parametrize("mode", ["disable", "allow", "require", "verify-ca", "verify-full"])
def test_an_sslmode_is_taken_as_it_is_stated(mode: str) -> None:
    assert info({**KEYS, "sslmode": mode}).parameters["sslmode"] == mode
    assert info({"uri": f"{URI}?sslmode={mode}"}).parameters["sslmode"] == mode
    assert info(KEYS, sslmode=mode).parameters["sslmode"] == mode


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "/run/postgresql", "127.0.0.1,/run/pg"])
def test_a_server_on_the_same_machine_needs_no_tls(host: str) -> None:
    assert "sslmode" not in info({**KEYS, "host": host}).parameters


def test_the_address_counts_beside_the_name_of_a_host() -> None:
    secret = {"uri": f"postgresql://app:{PASSWORD}@localhost/orders?hostaddr=10.0.0.1"}
    assert info(secret).parameters["sslmode"] == "require"


def test_without_a_password_tls_is_not_demanded() -> None:
    assert "sslmode" not in info({key: KEYS[key] for key in ("host", "port", "dbname", "user")}).parameters


def test_with_a_ca_the_server_is_verified_unless_the_user_says_otherwise(pem: str) -> None:
    assert info({**KEYS, "ca.crt": pem}).parameters["sslmode"] == "verify-full"
    assert info({**KEYS, "host": "127.0.0.1", "ca.crt": pem}).parameters["sslmode"] == "verify-full"
    assert info(KEYS, sslrootcert="system").parameters["sslmode"] == "verify-full"
    assert info({**KEYS, "ca.crt": pem, "sslmode": "verify-ca"}).parameters["sslmode"] == "verify-ca"


def below(folder: object, path: object) -> ConnectionInfo:
    """What a policy that names this file connects by, where the operator allows those of the folder."""
    database = Database.model_validate({"secretRef": {"name": "login"}, "connection": {"sslrootcert": str(path)}})
    return resolve(database, KEYS, "login", ca_folder=str(folder))


def test_a_file_of_the_folder_that_the_operator_allows(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    # As kubelet mounts a ConfigMap.
    (folder / "..2026").mkdir(parents=True)
    (folder / "..2026" / "ca.crt").write_text("ca")
    (folder / "..data").symlink_to("..2026")
    (folder / "ca.crt").symlink_to("..data/ca.crt")
    assert below(folder, folder / "ca.crt").parameters["sslrootcert"] == str(folder / "ca.crt")
    assert below("", "system").parameters["sslrootcert"] == "system"


def test_a_file_anywhere_else_is_refused_and_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    (folder / "inner").mkdir(parents=True)
    (tmp_path / "outside.crt").write_text("ca")
    (folder / "link.crt").symlink_to(tmp_path / "outside.crt")
    os.mkfifo(folder / "pipe.crt")
    names = ["../outside.crt", "link.crt", "pipe.crt", "inner", "none.crt"]
    for path in [*(folder / each for each in names), "/dev/zero", "/proc/self/environ", "ca.crt", "a" * 4000]:
        with pytest.raises(InvalidSpec) as caught:
            below(folder, path)
        check(caught.value, "InvalidSpec", "spec.database.connection.sslrootcert", "PARTWARDEN_CA_FOLDER", "key ca.crt")
    with pytest.raises(InvalidSpec):
        below("", tmp_path / "outside.crt")


@pytest.mark.parametrize("secret", [{**KEYS, "sslrootcert": "/dev/zero"}, {"uri": f"{URI}?sslrootcert=/dev/zero"}])
def test_a_file_that_the_secret_names_is_refused_as_well(secret: dict[str, str]) -> None:
    with pytest.raises(SecretInvalid) as caught:
        resolve(Database.model_validate({"secretRef": {"name": "login"}}), secret, "login", ca_folder="/etc/ca")
    check(caught.value, "SecretInvalid", "of Secret 'login'", "/etc/ca", secrets=[PASSWORD])


@pytest.mark.parametrize("key", ["host", "user", "dbname", "password"])
def test_a_value_that_no_server_could_mean(key: str) -> None:
    check(refusal({**KEYS, key: f"{PASSWORD}\0x"}), "SecretInvalid", repr(key), "control character", secrets=[PASSWORD])


def test_what_is_shown_of_a_connection_holds_no_password(pem: str) -> None:
    for found in (info(KEYS), info({"uri": URI, "ca.crt": pem}), from_dsn(URI)):
        assert PASSWORD not in f"{found} {found!r}"
        assert str(found) == "database 'orders' at db.shop:5433"


@pytest.mark.parametrize(
    ("host", "shown"),
    [("::1", "[::1]:5433"), ("10.0.0.1", "10.0.0.1:5433"), ("a,b", "a,b:5433"), ("/run/pg", "/run/pg:5433")],
)
def test_how_a_host_is_shown(host: str, shown: str) -> None:
    assert str(info({**KEYS, "host": host})) == f"database 'orders' at {shown}"


def test_a_dsn_is_completed_by_the_users_own_environment() -> None:
    found = from_dsn("postgresql:///orders?service=shop&passfile=/home/me/pass")
    assert not found.isolated
    assert dict(found.parameters) == {"dbname": "orders", "service": "shop", "passfile": "/home/me/pass"}
    assert str(found) == "database 'orders' at the default host:5432"


@pytest.mark.parametrize("dsn", [f"postgresql://app:{PASSWORD}%zz@db/orders", PASSWORD, f"host=a passwort={PASSWORD}"])
def test_a_dsn_that_cannot_be_read_betrays_no_password(dsn: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        from_dsn(dsn)
    check(caught.value, "InvalidSpec", "--dsn is not a connection string", secrets=[PASSWORD])
