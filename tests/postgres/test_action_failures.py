"""Failures of actions on a healthy table: the reported reason, and recovery."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from lab.operator import until
from lab.postgres import Database, Role, Server
from partwarden.cli.main import main
from partwarden.postgres.connection import session
from partwarden.postgres.engine import maintain
from support.complaints import NOW, RUN, check, complaint, complaints, login, login_by_uri, policy
from support.meanwhile import findings


@pytest.fixture
def role(database: Database) -> Role:
    """A role without any privilege in a database where PUBLIC may create nothing."""
    database.execute(f"{RUN}; REVOKE CREATE ON SCHEMA public FROM public")
    return database.new_role()


def test_no_privilege_to_create_in_the_schema(database: Database, role: Role) -> None:
    database.execute(f"ALTER TABLE run OWNER TO {role.name}")
    error = complaint(login(role.dsn))
    check(error, "InsufficientPrivilege", role.name, "public.run", 'GRANT CREATE ON SCHEMA "public" TO')
    database.execute(f"GRANT CREATE ON SCHEMA public TO {role.name}")
    assert complaints(login(role.dsn)) == []


def test_not_the_owner(database: Database, role: Role) -> None:
    database.execute(f"GRANT ALL ON SCHEMA public TO {role.name}; GRANT ALL ON run TO {role.name}")
    error = complaint(login(role.dsn))
    check(error, "NotOwner", f"role {role.name!r} is not the owner of public.run, which is 'postgres'", "GRANT")
    database.execute(f"ALTER TABLE run OWNER TO {role.name}")
    assert complaints(login(role.dsn)) == []


def test_a_member_of_the_owner_works_for_the_owner(database: Database, role: Role) -> None:
    team = database.new_role()
    database.execute(f"ALTER TABLE run OWNER TO {team.name}; GRANT CREATE ON SCHEMA public TO {team.name}")
    check(complaint(login(role.dsn)), "NotOwner", f'GRANT "{team.name}" TO "{role.name}"')
    database.execute(f'GRANT "{team.name}" TO "{role.name}"')
    assert complaints(login(role.dsn)) == []
    assert database.query("SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname ~ '^run'") == [
        (team.name,)
    ]


@pytest.mark.parametrize("option", ["SET FALSE", "INHERIT FALSE"])
def test_a_member_that_may_not_act_as_the_owner_is_reported(database: Database, role: Role, option: str) -> None:
    team = database.new_role()
    database.execute(f"ALTER TABLE run OWNER TO {team.name}; GRANT CREATE ON SCHEMA public TO {team.name}")
    if database.server.major >= 16:
        database.execute(f"GRANT {team.name} TO {role.name} WITH {option}")
        heal = f'GRANT "{team.name}" TO "{role.name}" WITH INHERIT TRUE, SET TRUE'
        why = f"without the option {option.removesuffix(' FALSE')}"
    else:
        # Before 16 a member can always become the owner, and only not inheriting keeps it from its rights.
        database.execute(f"GRANT {team.name} TO {role.name}; ALTER ROLE {role.name} NOINHERIT")
        heal, why = f'ALTER ROLE "{role.name}" INHERIT', "but NOINHERIT, and no GRANT changes that"
    check(complaint(login(role.dsn)), "NotOwner", "public.run", f"or {heal}: it is a member of that role", why)
    database.execute(heal)
    assert complaints(login(role.dsn)) == []


def test_a_member_through_a_noinherit_role_is_reported(database: Database, role: Role) -> None:
    team, between = database.new_role(), database.new_role("NOINHERIT")
    database.execute(f"""ALTER TABLE run OWNER TO {team.name}; GRANT CREATE ON SCHEMA public TO {team.name};
        GRANT {team.name} TO {between.name}; GRANT {between.name} TO {role.name}""")
    heal = f'GRANT "{team.name}" TO "{role.name}"'
    heal += " WITH INHERIT TRUE, SET TRUE" if database.server.major >= 16 else ""
    check(complaint(login(role.dsn)), "NotOwner", f"or {heal}: it is a member of that role")
    database.execute(heal)
    assert complaints(login(role.dsn)) == []


def test_health_on_a_standby_says_that_it_is_one(pg_database: Database, standby: Server) -> None:
    """Health checks the table; a read-only server is not a fault of the table."""
    seen = standby.dsn(pg_database.name)

    def health(*options: str) -> Result:
        return CliRunner().invoke(main, ["health", "--dsn", seen, *options])

    done = health()
    assert (done.exit_code, done.output) == (2, "CRITICAL: public.run: no partition holds now: inserts fail\n")
    with session(login(pg_database.dsn)) as connection:
        maintain(connection, policy())
    copy = Database(standby, pg_database.name)
    until("the partitions have come over", lambda: copy.query("SELECT count(*) FROM pg_inherits") == [(3,)])
    done = health()
    assert done.exit_code == 0
    assert done.output.startswith("OK: public.run: 3 partitions, ")
    assert done.output.endswith(", seen on a standby, which is read-only\n")
    assert json.loads(health("-o", "json").output)["level"] == "OK"


def test_a_role_that_writes_nothing_by_default(database: Database, role: Role) -> None:
    database.execute(f"ALTER TABLE run OWNER TO {role.name}; GRANT CREATE ON SCHEMA public TO {role.name}")
    database.execute(f"ALTER ROLE {role.name} SET default_transaction_read_only = on")
    check(complaint(login(role.dsn)), "ReadOnlyServer", "read-only", "SET default_transaction_read_only = off")
    database.execute(f"ALTER ROLE {role.name} RESET default_transaction_read_only")
    assert complaints(login(role.dsn)) == []


@pytest.fixture
def standby(pg_database: Database) -> Iterator[Server]:
    """A streaming standby of the server, which has the table already."""
    pg_database.execute(RUN)
    with pg_database.server.standby() as made:
        copy = Database(made, pg_database.name)
        until("the table has come over", lambda: copy.query("SELECT to_regclass('run')") != [(None,)])
        yield made


def test_a_standby_until_it_is_promoted(pg_database: Database, standby: Server) -> None:
    name, primary = pg_database.name, pg_database.server
    info = login(standby.dsn(name))
    check(complaint(info), "ReadOnlyServer", "the server is read-only (a standby", repr(name), "primary")
    wanted = login_by_uri(standby.dsn(name, target_session_attrs="read-write"))
    check(complaint(wanted), "ReadOnlyServer", "session is read-only", "connect through the primary")
    both = primary.dsn(name, target_session_attrs="read-write").replace("@", f"@{standby.host}:{standby.port},")
    assert complaints(login_by_uri(both)) == []
    Database(standby, name).execute("SELECT pg_promote()")
    assert complaints(info, premake=3) == []
    assert complaints(wanted, premake=4) == []


def test_an_overlapping_partition_counts_and_only_the_rest_is_made(database: Database) -> None:
    database.execute(f"""{RUN};
        CREATE TABLE summer PARTITION OF run FOR VALUES FROM ('2026-06-01Z') TO ('2026-09-01Z');
        CREATE TABLE turn PARTITION OF run FOR VALUES FROM ('2027-11-01Z') TO ('2028-02-01Z')""")
    with session(login(database.dsn)) as connection:
        report = maintain(connection, policy(premake=2), now=NOW)
    assert [each.error for each in report.outcomes] == [None] * 4
    (notice,) = findings(report)
    assert (notice.reason, notice.error) == ("OffGrid", None)
    assert "summer" in notice.message
    assert "turn" in notice.message
    database.execute("INSERT INTO run SELECT generate_series('2026-01-01Z', '2028-12-31Z', '1 day'::interval)")
    assert complaints(login(database.dsn)) == []


GERMAN = {
    "55P03": ("TableBusy", "konnte Sperre nicht setzen"),
    "42501": ("InsufficientPrivilege", "keine Berechtigung"),
    "25006": ("ReadOnlyServer", "kann nicht in einer Read-Only-Transaktion ausgeführt werden"),
    "42P17": ("TableChanged", "Partition überlappt"),
    "23514": ("DefaultHasRows", "Partitions-Constraint wäre verletzt"),
    "53100": ("StatementFailed", "auf dem Gerät ist kein Speicherplatz mehr verfügbar"),
    "57P01": ("DatabaseUnreachable", "Verbindung wird abgebrochen"),
    "0A000": ("StatementRejected", "nicht unterstützt"),
}


@pytest.mark.parametrize(("state", "reason", "words"), [(state, *expected) for state, expected in GERMAN.items()])
def test_what_the_server_says_is_judged_by_sqlstate_in_any_language(
    pg_database: Database, state: str, reason: str, words: str
) -> None:
    pg_database.execute(f"""{RUN};
        CREATE FUNCTION speak() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION '{words}' USING ERRCODE = '{state}'; END $$;
        CREATE EVENT TRIGGER speaks ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION speak()""")
    error = complaint(login(pg_database.dsn), patience=0)
    check(error, reason, "partition public.run_2026", *([] if reason == "TableBusy" else [words]))
    pg_database.execute("DROP EVENT TRIGGER speaks")
    assert complaints(login(pg_database.dsn)) == []
