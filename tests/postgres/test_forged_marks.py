"""A mark in a comment counts only where the table's owner is the parent's: every role may write one on its tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lab.postgres import Database
from partwarden.archive import table_lookup
from partwarden.planner import marker
from partwarden.planner.calendar import BoundedRange
from partwarden.planner.marker import Marker, Phase
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.meanwhile import findings, keep
from support.retirement import (
    DETACH,
    DROP,
    KEEP_ALL,
    LONG_AGO,
    YEARS,
    attached,
    comment,
    edit_mark,
    keep_before,
    mark,
    verbs,
    why,
)

FORGED = """
    CREATE TABLE forged (LIKE run INCLUDING ALL);
    CREATE FUNCTION thief() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER thief BEFORE INSERT ON forged FOR EACH ROW EXECUTE FUNCTION thief();
"""


def forge(database: Database, phase: Phase = Phase.DETACHED, year: int = 2017) -> None:
    """A stranger's table with a trigger, and a mark as Partwarden would have written it."""
    stranger = database.new_role()
    database.execute(f"{FORGED} ALTER TABLE forged OWNER TO {stranger.name}")
    ((oid, parent),) = database.query("SELECT 'forged'::regclass::oid::int8, 'run'::regclass::oid::int8")
    held = BoundedRange(datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))
    assert isinstance(oid, int)
    assert isinstance(parent, int)
    forged = Marker(oid, parent, "public.run", held, phase, LONG_AGO)
    with session(from_dsn(stranger.dsn)) as connection:
        written = marker.write("", forged)
        connection.execute(f"COMMENT ON TABLE forged IS $mark${written}$mark$".encode())


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("fields", [DETACH, DROP, KEEP_ALL], ids=["detach", "drop", "attach again"])
def test_a_forged_mark_is_neither_attached_nor_dropped_nor_confirmed_nor_counted(
    database: Database, phase: Phase, fields: dict[str, Any]
) -> None:
    database.execute(YEARS)
    forge(database, phase)
    written = comment(database, "forged")
    for _ in range(2):
        report = keep(database.dsn, **fields)
        assert {each.action.name for each in report.outcomes} <= {"run_2018"}
        assert "forged" not in {each.name for each in report.inventory.detached}
        assert [(each.reason, each.error) for each in findings(report)] == [("MarkNotCounted", None)]
        assert "public.forged" in findings(report)[0].message
    assert attached(database, "forged") is False
    assert comment(database, "forged") == written


def test_an_archive_of_a_table_with_a_forged_mark_is_not_one_of_the_parent(database: Database) -> None:
    database.execute(YEARS)
    forge(database)
    keep(database.dsn, **DETACH)
    with session(from_dsn(database.dsn)) as connection:
        assert table_lookup.find(connection, "public", "forged").parent is None
        parent = table_lookup.find(connection, "public", "run_2018").parent
        assert parent is not None
        assert str(parent) == "public.run"


@pytest.mark.parametrize("fields", [DROP, KEEP_ALL], ids=["drop", "attach again"])
def test_the_owner_is_asked_for_again_under_the_lock(database: Database, fields: dict[str, Any]) -> None:
    database.execute(YEARS)
    keep(database.dsn, **DETACH)
    edit_mark(database, since=LONG_AGO)
    stranger = database.new_role()
    give = f"ALTER TABLE run_2018 OWNER TO {stranger.name}"
    report = keep_before(database.dsn, "pg_try_advisory_xact_lock", lambda: database.execute(give), **fields)
    assert [result for _, result in verbs(report)] == ["TableChanged"]
    assert attached(database) is False


def test_a_table_that_was_given_to_another_owner_is_given_back_and_counts_again(database: Database) -> None:
    database.execute(YEARS)
    keep(database.dsn, **DETACH)
    stranger = database.new_role()
    database.execute(f"ALTER TABLE run_2018 OWNER TO {stranger.name}")
    report = keep(database.dsn, **DETACH)
    assert report.inventory.detached == ()
    assert [each.reason for each in findings(report)] == ["MarkNotCounted"]
    database.execute("ALTER TABLE run_2018 OWNER TO postgres")
    assert [each.name for each in keep(database.dsn, **DETACH).inventory.detached] == ["run_2018"]


def test_a_partition_of_another_owner_is_left_alone_and_named(database: Database) -> None:
    stranger = database.new_role()
    database.execute(f"{YEARS} ALTER TABLE run_2018 OWNER TO {stranger.name}")
    report = keep(database.dsn, **DETACH)
    assert report.outcomes == ()
    (said,) = [each.message for each in report.after.findings if each.reason == "ExpiredLeftAlone"]
    assert "run_2018: not owned by the parent's owner" in said
    database.execute("ALTER TABLE run_2018 OWNER TO postgres")
    assert verbs(keep(database.dsn, **DETACH)) == [("detach", "done")]
    assert mark(database) is not None


def test_a_parent_that_was_given_away_since_it_was_observed_is_observed_again(database: Database) -> None:
    database.execute(YEARS)
    new = database.new_role()
    give = f"GRANT CREATE ON SCHEMA public TO {new.name}; ALTER TABLE run OWNER TO {new.name}"
    report = keep_before(
        database.dsn, "pg_try_advisory_xact_lock", lambda: database.execute(give), startFrom="2026-01-01", premake=1
    )
    assert verbs(report) == [("create", "TableChanged")]
    assert "given to another owner" in why(report)
    assert verbs(keep(database.dsn, startFrom="2026-01-01", premake=1)) == [("create", "done")]
    assert database.query("SELECT tableowner::text FROM pg_tables WHERE tablename = 'run_2027'") == [(new.name,)]


def test_a_superuser_login_is_a_notice_with_the_statements_that_make_a_better_role(database: Database) -> None:
    owner = database.new_role()
    database.execute(f"{YEARS} ALTER TABLE run OWNER TO {owner.name}")
    database.execute(f"ALTER TABLE run_2018 OWNER TO {owner.name}; ALTER TABLE run_2026 OWNER TO {owner.name}")
    report = keep(database.dsn, startFrom="2018-01-01", premake=1)
    (finding,) = [each for each in report.after.findings if each.reason == "SuperuserLogin"]
    assert finding.error is None
    for words in ("CREATE ROLE partwarden LOGIN", f'GRANT "{owner.name}" TO partwarden', "ON SCHEMA"):
        assert words in finding.message
    better = database.new_role()
    statements = finding.message.partition("fewer rights: ")[2].split("; ")[1:]
    assert len(statements) == 2
    for each in statements:
        database.execute(each.replace("partwarden", better.name))
    again = keep(better.dsn, startFrom="2018-01-01", premake=2)
    assert (verbs(again)[-1], again.after.findings) == (("create", "done"), ())


def test_where_a_superuser_owns_the_table_a_better_role_owns_it(database: Database) -> None:
    database.execute("CREATE TABLE run (submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at)")
    report = keep(database.dsn, premake=0)
    (finding,) = [each for each in report.after.findings if each.reason == "SuperuserLogin"]
    assert 'ALTER TABLE "public"."run" OWNER TO partwarden' in finding.message
    assert 'GRANT "postgres"' not in finding.message
