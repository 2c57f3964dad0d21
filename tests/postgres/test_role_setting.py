"""A login that becomes another role by its setting: ALTER ROLE … SET role. It is the user's, and is left as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lab.postgres import Database, Role
from partwarden.cli.main import main
from support.archived import use_client
from support.meanwhile import keep, reasons

TABLES = """
CREATE DOMAIN small AS int; CREATE TABLE zoo (at date NOT NULL, i small) PARTITION BY RANGE (at);
CREATE TABLE zoo_2020 PARTITION OF zoo FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
INSERT INTO zoo VALUES ('2020-01-01', 1);
GRANT ALL ON SCHEMA public TO {owner}, {other}; GRANT {owner}, {other} TO {login};
ALTER TABLE zoo OWNER TO {owner}; ALTER TABLE zoo_2020 OWNER TO {owner}; ALTER DOMAIN small OWNER TO {owner}
"""


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


class Roles:
    """A login, the owner of the tables, and another role; the login is a member of both."""

    def __init__(self, database: Database) -> None:
        self.database, self.login = database, database.new_role()
        self.owner, self.other = database.new_role().name, database.new_role().name
        self.execute(TABLES)

    def execute(self, text: str) -> None:
        self.database.execute(text.format(login=self.login.name, owner=self.owner, other=self.other))


@pytest.fixture
def roles(pg_database: Database) -> Roles:
    return Roles(pg_database)


def partwarden(login: Role, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [command, *arguments, "--dsn", login.dsn], catch_exceptions=False)


def through(login: Role, folder: Path) -> None:
    """Archive, drop and restore by the commands."""
    made = partwarden(login, "archive", "--partition", "public.zoo_2020", "--to", str(folder))
    assert made.exit_code == 0, made.output
    url = made.stdout.strip()
    drop = partwarden(login, "drop", "zoo_2020", "--table", "public.zoo", "--archive", url, "--yes")
    assert drop.exit_code == 0, drop.output
    back = partwarden(login, "restore", "--manifest", url, "--attach")
    assert back.exit_code == 0, back.output


def test_a_login_without_rights_of_its_own_that_becomes_the_owner_archives_drops_and_restores(
    roles: Roles, tmp_path: Path
) -> None:
    roles.execute("ALTER ROLE {login} NOINHERIT; ALTER ROLE {login} SET role = {owner}")
    through(roles.login, tmp_path)
    assert roles.database.query("SELECT i FROM zoo_2020") == [(1,)]


@pytest.mark.parametrize("command", ["archive", "drop", "restore"])
def test_a_login_that_becomes_another_role_is_refused_with_the_statement_that_ends_that(
    roles: Roles, tmp_path: Path, command: str
) -> None:
    url = partwarden(roles.login, "archive", "--partition", "public.zoo_2020", "--to", str(tmp_path)).stdout.strip()
    roles.execute("ALTER ROLE {login} SET role = {other}")
    arguments = {
        "archive": ("--partition", "public.zoo_2020", "--to", str(tmp_path)),
        "drop": ("zoo_2020", "--table", "public.zoo", "--archive", url, "--yes"),
        "restore": ("--manifest", url, "--attach"),
    }
    if command == "restore":
        roles.execute("DROP TABLE zoo_2020")
    refused = partwarden(roles.login, command, *arguments[command])
    assert refused.exit_code == 1
    assert f"role '{roles.other}', which login '{roles.login.name}' becomes by its setting \"role\"" in refused.output
    found = re.search(r"ALTER ROLE .* SET role = none", refused.output)
    assert found, refused.output
    roles.database.execute(found[0])
    done = partwarden(roles.login, command, *arguments[command])
    assert done.exit_code == 0, done.output


def test_a_policy_is_refused_in_the_same_words_and_goes_on_afterwards(roles: Roles) -> None:
    roles.execute("ALTER ROLE {login} SET role = {other}")
    fields: dict[str, Any] = {"table": {"schema": "public", "name": "zoo"}, "premake": 0, "interval": "Year"}
    (finding,) = [each for each in keep(roles.login.dsn, **fields).after.findings if each.error]
    assert type(finding.error).__name__ == "NotOwner"
    assert f"role '{roles.other}', which login '{roles.login.name}' becomes by its setting \"role\"" in finding.message
    _, _, statement = finding.message.rpartition("connect as it, or ")
    roles.database.execute(statement)
    assert "created" in reasons(keep(roles.login.dsn, **fields))


def test_a_superuser_that_becomes_another_role_lends_its_rights_to_no_function_of_others(
    roles: Roles, tmp_path: Path
) -> None:
    url = partwarden(roles.login, "archive", "--partition", "public.zoo_2020", "--to", str(tmp_path)).stdout.strip()
    roles.execute("""DROP TABLE zoo; ALTER ROLE {login} SUPERUSER; ALTER ROLE {login} SET role = {other};
        CREATE FUNCTION seize(int) RETURNS bool LANGUAGE plpgsql AS
            'BEGIN PERFORM set_config(''role'', ''none'', false); ALTER ROLE {owner} SUPERUSER; RETURN true; END';
        ALTER FUNCTION seize(int) OWNER TO {owner}; ALTER DOMAIN small ADD CHECK (seize(VALUE))""")
    done = partwarden(roles.login, "restore", "--manifest", url, "--as", "public.back")
    assert done.exit_code == 0, done.output
    assert f"it calls function public.seize(integer) of role '{roles.owner}'" in done.output
    assert roles.database.query("SELECT i FROM back") == [(1,)]
    assert roles.database.query("SELECT rolsuper FROM pg_roles WHERE rolname = %s", roles.owner) == [(False,)]
