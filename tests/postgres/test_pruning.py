"""Whether a query for one interval is planned on its partition alone, as the role's own settings would have it."""

from __future__ import annotations

import pytest

from lab.postgres import Database
from partwarden.planner.findings import Finding
from partwarden.postgres import inspection
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import observe_and_plan
from partwarden.postgres.inspection import Memory
from support.meanwhile import NOW, keep, policy

TABLE = """
CREATE TABLE run (submitted_at timestamptz NOT NULL, kind int) PARTITION BY RANGE (submitted_at);
CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
CREATE TABLE run_rest PARTITION OF run DEFAULT;
"""


@pytest.fixture
def table(database: Database) -> Database:
    """run with two years and DEFAULT."""
    database.execute(TABLE)
    return database


def found(dsn: str) -> list[Finding]:
    return [each for each in keep(dsn, premake=0).after.findings if each.reason.startswith("Pruning")]


def test_working_pruning_yields_no_finding(table: Database) -> None:
    assert found(table.dsn) == []
    table.execute(
        "CREATE TABLE run_2024 PARTITION OF run FOR VALUES FROM ('2024-01-01Z') TO ('2025-01-01Z') "
        "PARTITION BY RANGE (kind)"
    )
    table.execute("CREATE TABLE run_2024_a PARTITION OF run_2024 DEFAULT")
    assert found(table.dsn) == []


def test_working_pruning_is_checked_once_and_again_after_partitions_change(table: Database) -> None:
    memory = Memory()
    with session(from_dsn(table.dsn)) as connection:
        inventory, plan = observe_and_plan(connection, policy(premake=0), NOW)

        def trips() -> int:
            before = connection.round_trips
            assert inspection.check_pruning(connection, inventory, plan, memory) is inventory
            return connection.round_trips - before

        assert [trips(), trips()] == [1, 0]
        table.execute("CREATE TABLE run_2024 PARTITION OF run FOR VALUES FROM ('2024-01-01Z') TO ('2025-01-01Z')")
        inventory, plan = observe_and_plan(connection, policy(premake=0), NOW)
        assert [trips(), trips()] == [1, 0]


@pytest.mark.parametrize(
    ("statement", "who"),
    [
        ("ALTER DATABASE {database} SET enable_partition_pruning = off", "it is set so for database '{database}'"),
        ("ALTER ROLE {role} SET enable_partition_pruning = 'False'", "it is set so for role '{role}'"),
        (
            "ALTER ROLE {role} IN DATABASE {database} SET enable_partition_pruning = off",
            "it is set so for role '{role}' in database '{database}'",
        ),
    ],
)
def test_disabled_pruning_is_reported_at_every_reconcile_until_enabled(
    table: Database, statement: str, who: str
) -> None:
    role = table.new_role()
    table.execute(f"ALTER TABLE run OWNER TO {role.name}; GRANT CREATE ON SCHEMA public TO {role.name}")
    names = {"role": role.name, "database": table.name}
    table.execute(statement.format(**names))
    first, second = found(role.dsn), found(role.dsn)
    assert first == second
    (finding,) = first
    assert (finding.reason, finding.object, finding.error) == ("PruningDisabled", "public.run", None)
    assert f"off for role '{role.name}' in database '{table.name}'" in finding.message
    assert who.format(**names) in finding.message
    table.execute(statement.format(**names).split(" SET ")[0] + " RESET enable_partition_pruning")
    assert found(role.dsn) == []


def test_another_role_that_has_it_off_is_named(table: Database) -> None:
    other = table.new_role()
    table.execute(f"ALTER ROLE {other.name} SET enable_partition_pruning = off")
    keep(table.dsn, premake=0)
    table.execute("CREATE TABLE run_2024 PARTITION OF run FOR VALUES FROM ('2024-01-01Z') TO ('2025-01-01Z')")
    (finding,) = found(table.dsn)
    assert finding.message.startswith(f"enable_partition_pruning is off for role '{other.name}':")


def test_a_plan_that_scans_more_is_reported_with_what_it_scans(table: Database) -> None:
    with session(from_dsn(table.dsn)) as connection:
        inventory, plan = observe_and_plan(connection, policy(premake=0), NOW)
        explained = [
            {
                "Plan": {
                    "Node Type": "Append",
                    "Plans": [
                        {"Schema": "public", "Relation Name": "run_2026"},
                        {"Schema": "public", "Relation Name": "run_2025"},
                    ],
                }
            }
        ]
        assert list(inspection._needless(inventory, plan, explained)) == ["public.run_2025"]


def test_default_is_rightly_scanned_where_the_interval_is_not_covered(table: Database) -> None:
    table.execute("ALTER TABLE run DETACH PARTITION run_2026; INSERT INTO run VALUES ('2026-05-05Z')")
    assert found(table.dsn) == []


def test_a_locked_or_unreadable_table_does_not_fail_the_observation(table: Database) -> None:
    role = table.new_role()
    table.execute(
        f"ALTER TABLE run OWNER TO {role.name}; GRANT CREATE ON SCHEMA public TO {role.name}; "
        f"REVOKE SELECT ON run FROM {role.name}"
    )
    assert found(role.dsn) == []
    with table.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
        assert found(table.dsn) == []
