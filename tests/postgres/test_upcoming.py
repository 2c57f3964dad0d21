"""On real servers: what a plan says comes next happens at its moment, and not a second before."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from lab.postgres import Database
from partwarden.planner.upcoming import Upcoming
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import maintain, observe_and_plan
from support.meanwhile import NOW, policy
from support.retirement import DROP, LONG_AGO, YEARS, edit_mark, expired

SECOND = timedelta(seconds=1)
TYPES = pytest.mark.parametrize("key", ["timestamptz", "timestamp", "date"])
ZONE = "America/Sao_Paulo"
TABLE = """
    CREATE TABLE run (at {key} NOT NULL) PARTITION BY RANGE (at);
    CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01{zone}') TO ('2026-01-01{zone}');
    CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01{zone}') TO ('2027-01-01{zone}');
    CREATE TABLE run_2027 PARTITION OF run FOR VALUES FROM ('2027-01-01{zone}') TO ('2028-01-01{zone}');
"""


def done(database: Database, now: datetime, fields: dict[str, Any]) -> list[tuple[str, str]]:
    """What a run at that moment does."""
    with session(from_dsn(database.dsn)) as connection:
        outcomes = maintain(connection, policy(**fields), now=now).outcomes
    assert not [each.error for each in outcomes if each.error]
    return [(type(each.action).__name__, each.action.name) for each in outcomes]


def coming(database: Database, now: datetime, fields: dict[str, Any]) -> Upcoming:
    with session(from_dsn(database.dsn)) as connection:
        return observe_and_plan(connection, policy(**fields), now)[1].upcoming


@TYPES
@pytest.mark.parametrize(
    ("fields", "action"),
    [({"premake": 1}, "CreatePartition"), ({"premake": 1, "retention": {"keepFor": "10mo"}}, "DetachPartition")],
    ids=["a creation", "an expiry"],
)
def test_the_next_action_is_done_at_its_moment(
    pg_database: Database, key: str, fields: dict[str, Any], action: str
) -> None:
    fields = {"timezone": ZONE, **fields}
    pg_database.execute(TABLE.format(key=key, zone=f" {ZONE}" if key == "timestamptz" else ""))
    found = coming(pg_database, NOW, fields).next
    assert found
    assert found.not_before
    assert found.action == action
    assert done(pg_database, found.not_before - SECOND, fields) == []
    assert (found.action, found.name) in done(pg_database, found.not_before, fields)


def test_the_next_drop_is_that_of_the_table_whose_grace_ends_first(pg_database: Database) -> None:
    pg_database.execute(YEARS)
    expired(pg_database)
    found = coming(pg_database, NOW, DROP).next_drop
    assert found
    assert (found.action, found.name, found.not_before) == ("DropDetached", "run_2018", LONG_AGO + timedelta(hours=1))
    edit_mark(pg_database, since=NOW - timedelta(minutes=30))
    found = coming(pg_database, NOW, DROP).next_drop
    assert found
    assert found.not_before == NOW + timedelta(minutes=30)
    assert done(pg_database, found.not_before - SECOND, DROP) == []
    assert done(pg_database, found.not_before, DROP) == [("DropDetached", "run_2018")]
