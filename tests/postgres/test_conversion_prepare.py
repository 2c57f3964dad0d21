"""What is done before a table is swapped: found again after each interruption, and taken away again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.api.policy import Table, TableSpec
from partwarden.api.types import Interval
from partwarden.errors import DatabaseUnreachable, StatementFailed, StatementRejected, TableBusy, TableChanged
from partwarden.planner.conversion_plan import ConversionPlan
from partwarden.planner.conversion_rules import CHECK, Wanted
from partwarden.postgres import conversion_prepare
from partwarden.postgres.connection import Session, run, session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_engine import observe_conversion
from partwarden.postgres.conversion_facts import read_table
from partwarden.postgres.conversion_prepare import abandon, prepare
from support.meanwhile import Interrupted, kill_others

WANTED = Wanted(TableSpec(table=Table(name="run"), key="at", interval=Interval.MONTH), widen_keys=True)
RUN = """CREATE TABLE run (id bigint PRIMARY KEY, code text UNIQUE, at timestamptz);
    INSERT INTO run SELECT n, n, now() - n * interval '1 hour' FROM generate_series(1, 500) n"""


def made(database: Database) -> dict[str, bool]:
    """Whether each of what a conversion makes is valid."""
    rows = database.query(
        "SELECT relname, indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname ~ '_wide$' "
        "UNION ALL SELECT conname, convalidated FROM pg_constraint WHERE conname = %s",
        CHECK,
    )
    return {str(name): bool(valid) for name, valid in rows}


def definition(database: Database) -> list[tuple[object, ...]]:
    return database.query(
        "SELECT indexrelid, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'run'::regclass "
        "UNION ALL SELECT oid, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'run'::regclass ORDER BY 1"
    )


def patience(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def work(connection: Session, change: Callable[[ConversionPlan], ConversionPlan] = lambda plan: plan) -> list[str]:
    """Plans and prepares; what was done."""
    plan, done = observe_conversion(connection, WANTED), list[str]()
    assert plan.refusals == ()
    prepare(connection, change(plan), patience(), lambda text, _: done.append(text))
    return done


def give_up(database: Database) -> list[str]:
    done = list[str]()
    with session(from_dsn(database.dsn)) as connection:
        table = read_table(connection, WANTED.spec.table, "at", CHECK)
        abandon(connection, table, patience(), lambda text, _: done.append(text))
    return done


def test_each_step_is_done_once_and_taken_away_again(database: Database) -> None:
    database.execute(RUN)
    before = definition(database)
    with session(from_dsn(database.dsn)) as connection:
        assert [each.split(" ")[0] for each in work(connection)] == ["built"] * 2 + ["added", "validated"]
        there = made(database)
        assert len(there) == 3
        assert all(there.values())
        assert work(connection) == []
    assert len(give_up(database)) == 3
    assert definition(database) == before
    assert give_up(database) == []


def test_a_session_that_ends_before_any_round_trip_is_gone_on_from(database: Database) -> None:
    database.execute(RUN)
    before, seen = definition(database), set[tuple[tuple[str, bool], ...]]()
    for trip in itertools.count(1):
        try:
            with session(from_dsn(database.dsn)) as connection:
                connection.__class__ = Interrupted
                assert isinstance(connection, Interrupted)
                connection.before = (connection.round_trips + trip, lambda: kill_others(database))
                work(connection)
            break
        except DatabaseUnreachable:
            seen.add(tuple(made(database).items()))
    assert len(seen) > 3
    with session(from_dsn(database.dsn)) as connection:
        assert work(connection) == []
    give_up(database)
    assert definition(database) == before


def test_an_invalid_index_that_was_left_is_built_again_and_one_of_others_is_not_touched(database: Database) -> None:
    database.execute(RUN)
    name = "run_pkey_wide"
    database.execute(f"CREATE UNIQUE INDEX {name} ON run (id, at)")
    database.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass")
    with session(from_dsn(database.dsn)) as connection:
        work(connection)
    assert made(database)[name]
    give_up(database)
    database.execute(f"CREATE INDEX {name} ON run (code)")
    with session(from_dsn(database.dsn)) as connection:
        plan = observe_conversion(connection, WANTED)
        assert [each.object for each in plan.refusals] == [f"index {name}"]
    assert give_up(database) == []
    assert made(database) == {name: True}


def test_an_index_that_others_made_meanwhile_is_refused(database: Database) -> None:
    database.execute(RUN)
    with session(from_dsn(database.dsn)) as connection:
        plan = observe_conversion(connection, WANTED)
        assert plan.conversion is not None
        name = plan.conversion.widened[0].index
        database.execute(f"CREATE INDEX {name} ON run (code)")
        with pytest.raises(StatementRejected, match=f"index {name} is not as"):
            prepare(connection, plan, patience(), lambda *_: None)
    assert made(database) == {name: True}


def test_others_read_and_write_while_rows_are_validated(database: Database) -> None:
    database.execute(RUN)
    with session(from_dsn(database.dsn)) as connection, database.connect() as writer:
        # A validation that has begun stops there, with the lock that it keeps while it reads.
        original, wrote = conversion_prepare._alter, list[int]()

        def alter(session: Session, table: object, *changes: object) -> None:
            original(session, table, *changes)  # type: ignore[arg-type]
            if "VALIDATE" in str(changes):
                writer.execute("SET lock_timeout = '50ms'")
                writer.execute("INSERT INTO run VALUES (1000, 'new', now())")
                writer.execute("UPDATE run SET code = 'other' WHERE id = 5")
                wrote.extend(row[0] for row in writer.execute("SELECT count(*) FROM run"))

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(conversion_prepare, "_alter", alter)
            work(connection)
        assert wrote == [501]


def test_a_check_whose_range_ends_soon_is_moved(database: Database) -> None:
    ended = "CHECK (at IS NOT NULL AND at >= '2020-01-01Z' AND at < '2026-01-01Z') NOT VALID"
    database.execute(f"{RUN}; ALTER TABLE run ADD CONSTRAINT {CHECK} {ended}")
    with session(from_dsn(database.dsn)) as connection:
        done = work(connection)
    assert any(each.startswith("added CHECK") for each in done)
    database.execute("INSERT INTO run VALUES (2000, 'later', now())")


def test_a_row_beyond_the_range_that_comes_meanwhile_is_planned_anew(database: Database) -> None:
    database.execute(RUN)
    with session(from_dsn(database.dsn)) as connection:
        plan = observe_conversion(connection, WANTED)
        database.execute("INSERT INTO run VALUES (2000, 'early', '2019-01-01Z')")
        with pytest.raises(TableChanged, match="planned again"):
            prepare(connection, plan, patience(), lambda *_: None)
        assert work(connection)[-1] == "validated the CHECK"


def test_a_range_that_ends_too_soon_is_planned_anew_before_anything_is_refused(database: Database) -> None:
    database.execute(RUN)
    with session(from_dsn(database.dsn)) as connection:
        with pytest.raises(TableChanged, match="ends too soon"):
            work(connection, lambda plan: replace(plan, until=plan.now + timedelta(minutes=5)))
        assert CHECK not in made(database)


def test_a_lock_that_another_keeps_is_named_and_nothing_is_waited_for_long(database: Database) -> None:
    database.execute(RUN)
    with session(from_dsn(database.dsn)) as connection:
        plan = observe_conversion(connection, WANTED)
        assert plan.conversion is not None
        # Indexes wait for no lock of a reader, and for its transaction only where that has a snapshot.
        narrow = replace(plan, conversion=replace(plan.conversion, widened=()))
        with database.connect() as other:
            other.autocommit = False
            other.execute("SELECT FROM run")
            with pytest.raises(TableBusy, match=r"cannot convert public\.run: cannot lock public\.run: held by pid"):
                prepare(connection, narrow, 0.0, lambda *_: None)
        assert CHECK not in made(database)
        work(connection)


def test_a_validation_that_takes_too_long_leaves_no_check(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute(RUN)
    monkeypatch.setattr(conversion_prepare, "SLACK", 10 * 365 * 86400.0)
    original = conversion_prepare._alter

    def slow(session: Session, table: object, *changes: object) -> None:
        if "VALIDATE" in str(changes):
            run(session, "SELECT pg_sleep(60)")
        original(session, table, *changes)  # type: ignore[arg-type]

    monkeypatch.setattr(conversion_prepare, "_alter", slow)
    with session(from_dsn(database.dsn)) as connection, pytest.raises(StatementFailed, match="taken away again"):
        work(connection)
    assert CHECK not in made(database)


def test_what_was_made_anew_meanwhile_is_left_alone(database: Database) -> None:
    database.execute(RUN)
    with session(from_dsn(database.dsn)) as connection:
        plan = observe_conversion(connection, WANTED)
        database.execute(f"DROP TABLE run; {RUN}")
        with pytest.raises(TableChanged, match="made anew"):
            prepare(connection, plan, patience(), lambda *_: None)
        with pytest.raises(TableChanged, match="made anew"):
            abandon(connection, plan.table, patience(), lambda *_: None)
    until("nothing is made", lambda: not made(database))
