"""A table is dropped only while it equals its archive: compared under the lock, on real servers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from lab.postgres import Database, Server
from partwarden.errors import DatabaseUnreachable
from partwarden.planner.archive_gate import ArchiveRequest, CheckRequest
from partwarden.planner.drop_preconditions import Archives, ArchiveState, CheckState
from partwarden.postgres import drop, fingerprint
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import observe_and_plan
from support.archived import here
from support.meanwhile import NOW, keep, keep_while, kill_others, policy
from support.retirement import (
    LONG_AGO,
    YEARS,
    attached,
    comment,
    edit_mark,
    keep_before,
    rows_of_2018,
    set_comment,
    verbs,
    why,
)

ROWS = 365
ARCHIVE: dict[str, Any] = {
    "startFrom": "2026-01-01",
    "premake": 0,
    "retention": {"keepFor": "5y", "onExpire": "Drop", "grace": "1h", "archive": {"pvc": {"claimName": "archives"}}},
}
LOCK = "IN ACCESS EXCLUSIVE MODE"
FIRST_LOCK = "IN SHARE UPDATE EXCLUSIVE MODE"
"""From here on there is no other DDL."""
CHANGES = {
    "a row more": "INSERT INTO run_2018 (id, submitted_at) OVERRIDING SYSTEM VALUE VALUES (-1, '2018-05-05Z')",
    "a row less": "DELETE FROM run_2018 WHERE submitted_at = '2018-05-05Z'",
    "another value": "UPDATE run_2018 SET note = 'other' WHERE submitted_at = '2018-05-05Z'",
    "a value for none": "UPDATE run_2018 SET note = NULL WHERE submitted_at = '2018-05-05Z'",
    "another column": "ALTER TABLE run_2018 ADD COLUMN more text",
    "all of it": "TRUNCATE run_2018",
}


def is_there(database: Database) -> bool:
    return database.query("SELECT to_regclass('run_2018') IS NOT NULL") == [(True,)]


def state(database: Database) -> ArchiveState:
    """An archive of 2018 as it is now, proven and not yet read again."""
    ((oid,),) = database.query("SELECT 'run_2018'::regclass::oid::int8")
    with session(from_dsn(database.dsn)) as connection:
        taken = fingerprint.take(connection, "public", "run_2018")
    assert isinstance(oid, int)
    return ArchiveState("run-2018-0", 0, here(database), oid, True, taken, location="pvc://archives/2018")


def known(made: ArchiveState, check: CheckState | None = None) -> Archives:
    assert made.oid is not None
    return Archives({made.oid: (replace(made, check=check),)})


def wanted(database: Database, archives: Archives) -> tuple[ArchiveRequest | CheckRequest, ...]:
    """What the plan asks for; it has nothing to do meanwhile."""
    with session(from_dsn(database.dsn)) as connection:
        _, plan = observe_and_plan(connection, policy(**ARCHIVE), NOW, archives=archives)
    assert plan.actions == ()
    return plan.retired.gate.requests


def read_again(database: Database, made: ArchiveState) -> Archives:
    """The same after the reading that is asked for, which found all as it was."""
    (asked,) = wanted(database, known(made))
    assert isinstance(asked, CheckRequest)
    return known(made, CheckState(asked.token, ok=True, completed=NOW))


def ready(database: Database) -> Archives:
    """2018 is archived, detached long ago, and was read again: nothing but the lock is between it and its end."""
    database.execute(YEARS)
    made = state(database)
    assert verbs(keep(database.dsn, archives=known(made), **ARCHIVE)) == [("detach", "done")]
    edit_mark(database, since=LONG_AGO)
    return read_again(database, made)


def test_a_table_stays_until_its_archive_is_proven_and_is_dropped_after_a_check(database: Database) -> None:
    database.execute(YEARS)
    assert [type(each) for each in wanted(database, Archives())] == [ArchiveRequest]
    assert attached(database) is True
    made = state(database)
    assert verbs(keep(database.dsn, archives=known(made), **ARCHIVE)) == [("detach", "done")]
    assert wanted(database, known(made)) == ()
    edit_mark(database, since=LONG_AGO)
    assert verbs(keep(database.dsn, archives=known(made), **ARCHIVE)) == []
    assert rows_of_2018(database) == ROWS
    assert verbs(keep(database.dsn, archives=read_again(database, made), **ARCHIVE)) == [("drop", "done")]
    assert not is_there(database)
    assert database.query("SELECT count(*) FROM run") == [(1,)]


def test_without_a_known_archive_nothing_is_detached_or_dropped(pg_database: Database) -> None:
    """As from the command line."""
    ready(pg_database)
    assert verbs(keep(pg_database.dsn, **ARCHIVE)) == []
    assert rows_of_2018(pg_database) == ROWS


@pytest.mark.parametrize("what", CHANGES)
def test_a_table_changed_since_the_last_check_is_not_dropped(database: Database, what: str) -> None:
    archives = ready(database)
    database.execute(CHANGES[what])
    before = database.query("SELECT * FROM run_2018 ORDER BY id")
    report = keep(database.dsn, archives=archives, **ARCHIVE)
    assert verbs(report) == [("drop", "ContentsChanged")]
    assert "cannot drop table public.run_2018: it holds" in why(report)
    assert database.query("SELECT * FROM run_2018 ORDER BY id") == before


def test_a_change_before_the_lock_is_detected_under_it(pg_database: Database) -> None:
    archives = ready(pg_database)
    report = keep_before(
        pg_database.dsn, LOCK, lambda: pg_database.execute(CHANGES["a row more"]), archives=archives, **ARCHIVE
    )
    assert verbs(report) == [("drop", "ContentsChanged")]
    assert rows_of_2018(pg_database) == ROWS + 1


def test_no_session_can_change_a_table_while_it_is_compared(pg_database: Database) -> None:
    archives = ready(pg_database)
    seen: list[str] = []

    def write() -> None:
        with pg_database.connect() as connection:
            connection.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                connection.execute(CHANGES["a row more"])
            seen.append("kept out")

    report = keep_before(pg_database.dsn, "sha256(", write, archives=archives, **ARCHIVE)
    assert (verbs(report), seen) == ([("drop", "done")], ["kept out"])


def test_a_table_interrupted_anywhere_is_whole_or_was_proven(pg: Server) -> None:
    trip, fewer = 1, False
    while not fewer:
        with pg.new_database() as database:
            archives = ready(database)
            try:
                keep_while(database.dsn, trip, lambda: kill_others(database), archives=archives, **ARCHIVE)
            except DatabaseUnreachable:
                if is_there(database):
                    assert rows_of_2018(database) == ROWS
            except AssertionError:
                fewer = True
            if is_there(database):
                assert verbs(keep(database.dsn, archives=archives, **ARCHIVE)) == [("drop", "done")]
            assert not is_there(database)
        trip += 1
    assert trip > 8


def test_a_table_that_was_renamed_is_the_same_and_goes_by_its_new_name(pg_database: Database) -> None:
    archives = ready(pg_database)
    pg_database.execute("ALTER TABLE run_2018 RENAME TO run_old")
    report = keep(pg_database.dsn, archives=archives, **ARCHIVE)
    assert verbs(report) == [("drop", "done")]
    assert pg_database.query("SELECT to_regclass('run_old') IS NULL") == [(True,)]


OTHERS = {
    "renamed": "ALTER TABLE run_2018 RENAME TO run_old; CREATE TABLE run_2018 (LIKE run_old)",
    "made anew": "CREATE TABLE held AS TABLE run_2018; DROP TABLE run_2018; ALTER TABLE held RENAME TO run_2018",
    "attached again": "ALTER TABLE run ATTACH PARTITION run_2018 FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z')",
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_table_under_the_same_name_is_not_dropped(pg_database: Database, what: str) -> None:
    """A mark on it, too, means nothing where the OID is another."""
    archives = ready(pg_database)
    text = comment(pg_database)

    def change() -> None:
        pg_database.execute(OTHERS[what])
        set_comment(pg_database, text)

    report = keep_before(pg_database.dsn, FIRST_LOCK, change, archives=archives, **ARCHIVE)
    assert verbs(report) == [("drop", "TableChanged")]
    assert is_there(pg_database)
    if what == "renamed":
        assert pg_database.query("SELECT count(*) FROM run_old") == [(ROWS,)]
    else:
        assert rows_of_2018(pg_database) == ROWS
        # Nor is it at the next reconcile, which sees that without a lock.
        assert verbs(keep(pg_database.dsn, archives=archives, **ARCHIVE)) == []
        assert rows_of_2018(pg_database) == ROWS


def test_a_comparison_that_exceeds_its_limit_is_rolled_back_and_reported(
    pg_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = ready(pg_database)
    pg_database.execute(
        "INSERT INTO run_2018 (id, submitted_at) OVERRIDING SYSTEM VALUE "
        "SELECT -number, '2018-05-05Z' FROM generate_series(1, 50000) number"
    )
    monkeypatch.setattr(drop, "READ_ALL_TIMEOUT", "1ms")
    report = keep(pg_database.dsn, archives=archives, **ARCHIVE)
    assert verbs(report) == [("drop", "StatementFailed")]
    assert "statement timeout" in why(report)
    assert rows_of_2018(pg_database) == ROWS + 50000
