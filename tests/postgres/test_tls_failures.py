"""TLS that one side demands and the other does not give. libpq judges here, so one major stands for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.postgres import Certificates, Database, Server, make_certificates
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import ConnectionInfo, from_dsn
from support.complaints import RUN, check, complaint, complaints, login, login_by_uri


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and a certificate for localhost and 127.0.0.1."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_server(pg: Server, certificates: Certificates) -> Iterator[Server]:
    """A server that refuses every login without TLS."""
    with Server.start(pg.binaries, tls=certificates, require_tls=True) as server:
        yield server


@pytest.fixture
def tls(tls_server: Server) -> Iterator[Database]:
    """A new database with the table on that server."""
    with tls_server.new_database() as made:
        made.execute(RUN)
        yield made


def secret(database: Database, **more: str) -> ConnectionInfo:
    """A Secret with a URI and other keys beside it, such as ca.crt."""
    sslmode = more.pop("sslmode", "verify-full")
    host = more.pop("host", "127.0.0.1")
    address = "&hostaddr=127.0.0.1" if host != "127.0.0.1" else ""
    uri = f"{database.server.dsn(database.name, host=host)}?sslmode={sslmode}{address}"
    return login_by_uri(uri, **{name.replace("_", "."): value for name, value in more.items()})


def test_tls_that_the_server_demands_and_the_policy_refuses(tls: Database) -> None:
    error = complaint(login(tls.dsn, sslmode="disable"))
    check(error, "TLSMismatch", tls.name, "pg_hba.conf", "sslmode is 'disable', and the server wants TLS")
    for mode in ("allow", "prefer", "require"):
        assert complaints(login(tls.dsn, sslmode=mode)) == []


def test_tls_that_the_policy_demands_and_the_server_does_not_offer(pg_database: Database) -> None:
    pg_database.execute(RUN)
    error = complaint(login(pg_database.dsn, sslmode="require"))
    check(error, "TLSMismatch", "server does not support SSL", "turn ssl on at the server; or say sslmode: disable")
    for mode in ("disable", "allow", "prefer"):
        assert complaints(login(pg_database.dsn, sslmode=mode)) == []


@pytest.mark.parametrize("mode", ["", "&sslmode=prefer"])
def test_a_password_is_not_sent_over_a_network_without_tls_unless_the_user_says_so(
    pg_database: Database, mode: str
) -> None:
    pg_database.execute(RUN)
    uri = f"{pg_database.server.dsn(pg_database.name, host='db.example')}?hostaddr=127.0.0.1"
    error = complaint(login_by_uri(uri + mode))
    words = ["server does not support SSL", "say sslmode: disable", "in clear text"]
    check(error, "TLSMismatch", *words, secrets=[pg_database.server.password])
    for said in ("disable", "allow"):
        assert complaints(login_by_uri(f"{uri}&sslmode={said}")) == []


def test_with_a_ca_the_server_is_verified_where_nothing_is_said(tls: Database, certificates: Certificates) -> None:
    authority = certificates.authority.read_text()
    uri = tls.server.dsn(tls.name, host="127.0.0.1")
    assert complaints(login_by_uri(uri, **{"ca.crt": authority})) == []
    elsewhere = tls.server.dsn(tls.name, host="db.example") + "?hostaddr=127.0.0.1"
    error = complaint(login_by_uri(elsewhere, **{"ca.crt": authority}))
    check(error, "TLSMismatch", 'does not match host name "db.example"')


@pytest.mark.parametrize("key", ["ca_crt", "sslrootcert"])
@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
def test_a_ca_from_the_secret_is_trusted_and_leaves_no_file(
    tls: Database, certificates: Certificates, key: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    info = secret(tls, sslmode=mode, **{key: certificates.authority.read_text()})
    assert complaints(info) == []
    with session(info) as connection:
        assert connection.pgconn.ssl_in_use
        assert list(tmp_path.iterdir()) == []


def test_a_ca_in_a_file_that_the_policy_names(tls: Database, certificates: Certificates) -> None:
    assert complaints(login(tls.dsn, sslmode="verify-full", sslrootcert=str(certificates.authority))) == []


def test_a_ca_that_did_not_sign_the_servers_certificate(
    tls: Database, certificates: Certificates, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path).authority.read_text()
    first = complaint(secret(tls, ca_crt=other))
    check(first, "TLSMismatch", "the certificate of the CA that signed the server's", "key ca.crt or sslrootcert")
    assert str(complaint(secret(tls, ca_crt=other))) == str(first)
    assert complaints(secret(tls, ca_crt=certificates.authority.read_text())) == []


def test_no_ca_at_all(tls: Database) -> None:
    error = complaint(secret(tls))
    check(error, "TLSMismatch", "root certificate does not exist", "into the Secret, key ca.crt", secrets=["/none"])


def test_a_host_name_that_is_not_in_the_servers_certificate(tls: Database, certificates: Certificates) -> None:
    authority = certificates.authority.read_text()
    error = complaint(secret(tls, host="db.example", ca_crt=authority))
    check(error, "TLSMismatch", 'does not match host name "db.example"', "a name that the certificate holds")
    assert complaints(secret(tls, host="db.example", sslmode="verify-ca", ca_crt=authority)) == []


def test_a_server_certificate_of_an_unknown_authority(tls: Database) -> None:
    error = complaint(login(tls.dsn, sslmode="verify-full", sslrootcert="system"))
    check(error, "TLSMismatch", "certificate verify failed", "the CA that signed the server's")


def test_an_authority_in_the_operators_home_is_not_used(
    tls: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".postgresql").mkdir()
    make_certificates(tmp_path).authority.rename(tmp_path / ".postgresql" / "root.crt")
    monkeypatch.setenv("HOME", str(tmp_path))
    demanded = tls.server.dsn(tls.name, sslmode="require")
    check(complaint(from_dsn(demanded)), "TLSMismatch", "the CA that signed the server's")
    assert complaints(login(demanded)) == []


def test_system_roots_with_an_sslmode_that_does_not_use_them(tls: Database) -> None:
    error = complaint(login(tls.dsn, sslmode="require", sslrootcert="system"))
    check(error, "TLSMismatch", 'weak sslmode "require"', "verify-full")
