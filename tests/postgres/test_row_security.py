"""Row security: grants on a new partition open no way round the parent's policies."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.cli.main import main
from support.archived import use_client
from support.meanwhile import keep, reasons

TENANTS = """
    CREATE TABLE run (at date, tenant text) PARTITION BY RANGE (at);
    CREATE POLICY own ON run USING (tenant = current_user);
    GRANT SELECT, INSERT ON run TO PUBLIC;
"""


def test_a_partition_shows_no_role_more_than_its_parent_does(database: Database) -> None:
    tenant = database.new_role()
    database.execute(f"{TENANTS} ALTER TABLE run ENABLE ROW LEVEL SECURITY")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    database.execute(f"INSERT INTO run VALUES ('2026-02-01', '{tenant.name}'), ('2026-02-01', 'another tenant')")
    with psycopg.connect(tenant.dsn, autocommit=True) as connection:
        assert connection.execute("SELECT tenant FROM run").fetchall() == [(tenant.name,)]
        assert connection.execute("SELECT tenant FROM run_2026").fetchall() == []
        connection.execute(b"INSERT INTO run VALUES ('2026-03-01', current_user)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO run_2026 VALUES ('2026-03-01', 'another tenant')")


@pytest.mark.parametrize(("enabled", "forced"), [(False, False), (True, False), (True, True), (False, True)])
def test_row_security_is_as_the_parents(database: Database, enabled: bool, forced: bool) -> None:
    owner = database.new_role()
    database.execute(f"""{TENANTS} ALTER TABLE run OWNER TO {owner.name};
        GRANT CREATE ON SCHEMA public TO {owner.name};
        ALTER TABLE run {"ENABLE" if enabled else "DISABLE"} ROW LEVEL SECURITY,
                        {"FORCE" if forced else "NO FORCE"} ROW LEVEL SECURITY;
        CREATE TABLE rest PARTITION OF run DEFAULT""")
    assert reasons(keep(owner.dsn, premake=0)) == ["created"]
    flags = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = 'run_2026'"
    assert database.query(flags) == [(enabled, forced)]


def test_rows_of_default_that_a_policy_hides_from_the_owner_are_found_all_the_same(database: Database) -> None:
    owner = database.new_role()
    database.execute(f"""{TENANTS} CREATE TABLE rest PARTITION OF run DEFAULT;
        INSERT INTO run VALUES ('2026-02-01', 'another');
        ALTER TABLE run OWNER TO {owner.name}; ALTER TABLE rest OWNER TO {owner.name};
        GRANT CREATE ON SCHEMA public TO {owner.name};
        ALTER TABLE run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY""")
    findings = keep(owner.dsn, premake=0).after.findings
    assert [each.reason for each in findings if each.error] == ["DefaultHasRows"]


def test_a_superuser_that_acts_for_an_owner_who_sees_not_all_rows_is_refused_with_the_way_out(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that way leads out."""
    use_client(monkeypatch)
    owner = database.new_role()
    database.execute(f"""{TENANTS} ALTER TABLE run OWNER TO {owner.name};
        GRANT CREATE ON SCHEMA public TO {owner.name};
        ALTER TABLE run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY""")
    keep(database.dsn, premake=0)
    commands = (["stats", "--exact"], ["archive", "--partition", "run_2026", "--to", str(tmp_path)])
    for arguments in commands:
        refused = CliRunner().invoke(main, [*arguments, "--dsn", database.dsn], catch_exceptions=False)
        assert refused.exit_code == 1, refused.output
        assert "ALTER TABLE … NO FORCE ROW LEVEL SECURITY where the table is read as its owner" in refused.output
    database.execute("ALTER TABLE run_2026 NO FORCE ROW LEVEL SECURITY")
    for arguments in commands:
        done = CliRunner().invoke(main, [*arguments, "--dsn", database.dsn], catch_exceptions=False)
        assert done.exit_code == 0, done.output
