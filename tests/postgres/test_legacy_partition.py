"""The first partition of a converted table under a policy: covered, never more than one, and retired as a whole."""

from __future__ import annotations

from datetime import UTC, datetime

from lab.postgres import Database
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import Report, maintain
from support.converted import AHEAD, ID, LEGACY, PLAIN, convert
from support.meanwhile import policy, unbroken
from support.retirement import LONG_AGO, edit_mark

FIELDS = {
    "interval": "Year",
    "premake": 2,
    "retention": {"keepFor": "1y", "onExpire": "Drop", "grace": "1h", "dropWithoutArchive": True},
}


def keep(database: Database, now: datetime) -> Report:
    with session(from_dsn(database.dsn)) as connection:
        report = unbroken(maintain(connection, policy(**FIELDS), now=now))
    assert [each.error for each in report.outcomes if each.error] == []
    return report


def test_it_goes_once_its_youngest_possible_row_is_old_enough_and_not_before(database: Database) -> None:
    """However old its rows are: it may have had one of the last moment of its range."""
    database.execute(f"{PLAIN} INSERT INTO run VALUES (2000, '2020-01-01Z')")
    convert(database, ID)
    database.execute(f"INSERT INTO run VALUES (3000, '{AHEAD[0].lower}')")
    report = keep(database, datetime(2027, 12, 31, 12, tzinfo=UTC))
    assert {each.action.name for each in report.outcomes} == {"run_2029"}
    assert database.query("SELECT count(*) FROM run") == [(1002,)]
    keep(database, datetime(2028, 1, 1, 12, tzinfo=UTC))
    assert database.query(f"SELECT count(*), (SELECT count(*) FROM run) FROM {LEGACY}") == [(1001, 1)]
    edit_mark(database, LEGACY, since=LONG_AGO)
    keep(database, datetime(2028, 1, 1, 12, tzinfo=UTC))
    assert database.query("SELECT count(*) FROM pg_class WHERE relname = %s", LEGACY) == [(0,)]
