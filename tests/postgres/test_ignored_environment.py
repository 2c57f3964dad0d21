"""A policy's connection uses the policy and its Secret only, and nothing of the operator's environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from psycopg import pq

from lab.postgres import Database, Role, free_port
from partwarden.cli.main import main

PROGRAM = """
import sys
from partwarden.postgres import connection as session
from partwarden.postgres.conninfo import ConnectionInfo
from partwarden.errors import PartwardenError
if "forget" in sys.argv:
    session.forget_environment()
parameters = dict(each.split("=") for each in sys.argv[2:])
try:
    with session.session(ConnectionInfo(parameters, isolated=sys.argv[1] != "own"), connect_timeout=2) as connection:
        print(*(connection.execute("SELECT current_user, current_setting('application_name'), "
                                   "current_setting('client_encoding')").fetchone()))
except PartwardenError as error:
    print(error.reason, error)
"""


@pytest.fixture
def role(pg_database: Database) -> Role:
    """A role that may connect."""
    return pg_database.new_role()


@pytest.fixture
def home(tmp_path: Path, pg_database: Database, role: Role) -> Path:
    """A home directory with the right password and a service."""
    (tmp_path / ".pgpass").touch(0o600)
    (tmp_path / ".pgpass").write_text(f"*:*:*:*:{role.password}\n")
    (tmp_path / ".pg_service.conf").write_text(f"[mine]\npassword={role.password}\napplication_name=service\n")
    return tmp_path


@pytest.fixture
def parameters(pg_database: Database, role: Role) -> dict[str, str]:
    """All that a policy must say."""
    server = pg_database.server
    return {"host": server.host, "port": str(server.port), "dbname": pg_database.name, "user": role.name}


def connect(whose: str, home: Path, environment: dict[str, str], parameters: dict[str, str]) -> str:
    """What a process in that environment says of a connection; ``whose`` is "policy", "forget", or "own"."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, whose, *(f"{name}={value}" for name, value in parameters.items())],
        env={**kept, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SOURCES = ["PGPASSWORD", "PGPASSFILE", "~/.pgpass", "PGSERVICE"]


def traps(source: str, home: Path, role: Role) -> dict[str, str]:
    """An environment in which the password is to be had from one source."""
    if source != "~/.pgpass":
        (home / ".pgpass").rename(home / "elsewhere")
    values = {"PGPASSWORD": role.password, "PGPASSFILE": str(home / "elsewhere"), "PGSERVICE": "mine"}
    return {source: values[source]} if source in values else {}


@pytest.mark.parametrize("source", SOURCES)
def test_a_password_is_not_taken_from_the_operator(
    source: str, home: Path, role: Role, parameters: dict[str, str]
) -> None:
    environment = traps(source, home, role)
    assert connect("own", home, environment, parameters).startswith(f"{role.name} "), "the trap does not work"
    said = connect("policy", home, environment, parameters)
    assert said.startswith("AuthenticationFailed"), said
    assert "no password supplied" in said


HOSTILE = {
    "PGHOST": "nowhere.invalid",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": str(free_port()),
    "PGDATABASE": "another",
    "PGUSER": "another",
    "PGPASSWORD": "another",
    "PGPASSFILE": "/another",
    "PGREQUIREAUTH": "none",
    "PGCHANNELBINDING": "require",
    "PGOPTIONS": "-c no_such_parameter=1",
    "PGAPPNAME": "another",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLCERT": "/another",
    "PGSSLKEY": "/another",
    "PGSSLCERTMODE": "require",
    "PGSSLROOTCERT": "system",
    "PGSSLCRL": "/another",
    "PGSSLCRLDIR": "/another",
    "PGREQUIREPEER": "another",
    "PGSSLMINPROTOCOLVERSION": "TLSv1.3",
    "PGSSLMAXPROTOCOLVERSION": "TLSv1",
    "PGMINPROTOCOLVERSION": "3.2",
    "PGMAXPROTOCOLVERSION": "3.0",
    "PGGSSENCMODE": "require",
    "PGKRBSRVNAME": "another",
    "PGGSSLIB": "gssapi",
    "PGGSSDELEGATION": "1",
    "PGCONNECT_TIMEOUT": "-1",
    "PGCLIENTENCODING": "LATIN1",
    "PGTARGETSESSIONATTRS": "standby",
    "PGLOADBALANCEHOSTS": "random",
    "PGSSLCOMPRESSION": "1",
    "PGSSLSNI": "0",
}


def test_no_variable_of_libpq_changes_anything(home: Path, role: Role, parameters: dict[str, str]) -> None:
    known = {each.envvar.decode() for each in pq.Conninfo.get_defaults() if each.envvar}
    assert known - HOSTILE.keys() == {"PGSERVICE"}, "libpq reads more"
    stated = {**parameters, "password": role.password}
    assert connect("own", home, HOSTILE, stated) != f"{role.name} partwarden UTF8", "the trap does not work"
    for whose in ("policy", "forget"):
        assert connect(whose, home, HOSTILE, stated) == f"{role.name} partwarden UTF8"


@pytest.mark.parametrize(
    "environment", [{"PGSERVICE": "none"}, {"PGTZ": "Mars"}, {"PGDATESTYLE": "x"}, {"PGSERVICE": "mine"}]
)
def test_variables_that_cannot_be_overridden_are_removed_at_startup(
    home: Path, role: Role, parameters: dict[str, str], environment: dict[str, str]
) -> None:
    stated = {**parameters, "password": role.password}
    assert connect("forget", home, environment, stated) == f"{role.name} partwarden UTF8"


def test_the_operator_removes_them_at_startup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = {name: value for name, value in os.environ.items() if re.match("PG[A-Z]", name)}
    for name, value in {**ours, "PGPASSWORD": "its own", "PGSERVICE": "its own", "PG_OTHER": "kept"}.items():
        monkeypatch.setenv(name, value)  # puts it back at the end
    done = CliRunner().invoke(main, ["run", "--kubeconfig", str(tmp_path / "none")])
    assert done.exit_code == 1, done.output
    assert not [name for name in os.environ if re.match("PG[A-Z]", name)]
    assert os.environ["PG_OTHER"] == "kept"
