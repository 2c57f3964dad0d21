"""Tables with expired years, and their state after a run, on real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from lab.operator import until
from lab.postgres import Database
from partwarden.planner import marker
from partwarden.planner.drop_preconditions import UNKNOWN, Archives
from partwarden.planner.marker import Marker
from partwarden.planner.recheck import NEVER, Recheck
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import Report, maintain
from support.meanwhile import NOW, keep, policy, unbroken
from support.statements import watch

YEARS = """
    CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY, submitted_at timestamptz NOT NULL, note text,
        PRIMARY KEY (id, submitted_at)) PARTITION BY RANGE (submitted_at);
    CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z');
    CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
    INSERT INTO run (submitted_at, note)
      SELECT at, 'row' FROM generate_series('2018-01-01Z', '2018-12-31Z', '1 day'::interval) at;
    INSERT INTO run (submitted_at, note) VALUES ('2026-03-03Z', 'young');
"""
"""Of `meanwhile.NOW`'s year, and 365 rows of one that expired."""
ROWS = 365
DEFAULT = "CREATE TABLE run_rest PARTITION OF run DEFAULT; INSERT INTO run (submitted_at) VALUES ('1999-09-09Z');"
FORMS = pytest.mark.parametrize("form", [YEARS, YEARS + DEFAULT], ids=["concurrently", "with DEFAULT"])
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
CHANGES = {
    "attached by hand": "ALTER TABLE run ATTACH PARTITION run_2018 FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z')",
    "made anew": """CREATE TABLE other (LIKE run_2018 INCLUDING ALL); DROP TABLE run_2018;
        ALTER TABLE other RENAME TO run_2018""",
    "mark taken away": "COMMENT ON TABLE run_2018 IS 'keep'",
    "partition of another": """CREATE TABLE other (LIKE run) PARTITION BY RANGE (submitted_at);
        ALTER TABLE other ATTACH PARTITION run_2018 FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z')""",
}
"""By which the detached table of 2018 is not any more what a plan was made for."""

DETACH: dict[str, Any] = {"startFrom": "2026-01-01", "premake": 0, "retention": {"keepFor": "5y"}}
"""Fields of a policy by which the year 2018 has expired, and nothing is to be made."""
DROP: dict[str, Any] = {
    **DETACH,
    "retention": {"keepFor": "5y", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "1h"},
}
KEEP_ALL: dict[str, Any] = {**DETACH, "retention": {"keepFor": "50y"}}


def verbs(report: Report) -> list[tuple[str, str]]:
    """Each action's verb, and "done" or the reason of its error."""
    return [(each.action.verb, each.error.reason if each.error else "done") for each in report.outcomes]


def why(report: Report) -> str:
    """The message of the first action that failed."""
    return str(next(each.error for each in report.outcomes if each.error))


def keep_before(
    dsn: str,
    text: str,
    what: Callable[[], object],
    *,
    nth: int = 1,
    archives: Archives = UNKNOWN,
    recheck: Recheck = NEVER,
    **fields: Any,
) -> Report:
    """Like `keep`, with a call right before SQL that contains this text is sent the nth time."""
    seen = 0

    def before(query: str) -> None:
        nonlocal seen
        seen += text in query
        if seen == nth:
            seen += 1
            what()

    with session(from_dsn(dsn)) as connection:
        watch(connection, before)
        report = maintain(connection, policy(**fields), now=NOW, patience=10.0, archives=archives, recheck=recheck)
    assert seen > nth, f"nothing with {text!r} in it was sent {nth} times"
    return unbroken(report)


def converge(database: Database, **fields: Any) -> list[tuple[str, str]]:
    """Run until nothing is left to do. Returns the actions."""
    done: list[tuple[str, str]] = []
    for _ in range(5):
        report = keep(database.dsn, **fields)
        if not report.outcomes:
            return done
        done += verbs(report)
    raise AssertionError(f"there is no end to it: {done}")


def comment(database: Database, table: str = "run_2018") -> str | None:
    """The comment on the table; None where the table or the comment does not exist."""
    ((text,),) = database.query(f"SELECT obj_description(to_regclass('{table}'), 'pg_class')")
    return None if text is None else str(text)


def mark(database: Database, table: str = "run_2018") -> Marker | None:
    """The operator's mark on the table."""
    return marker.read(comment(database, table))[1]


def edit_mark(database: Database, table: str = "run_2018", **changes: Any) -> None:
    """Edit the mark of the table by hand."""
    text, held = marker.read(comment(database, table))
    assert held is not None
    set_comment(database, marker.write(text, replace(held, **changes)), table)


def set_comment(database: Database, text: str | None, table: str = "run_2018") -> None:
    """Set the comment on the table."""
    with database.connect() as connection:
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(sql.Identifier(*table.split(".")), text))


def expired(database: Database) -> None:
    """Detach 2018, with a mark of long ago."""
    keep(database.dsn, **DETACH)
    edit_mark(database, since=LONG_AGO)


def attached(database: Database, table: str = "run_2018") -> bool | None:
    """Whether it is a partition whose detach is not pending; None when it is pending, or there is no such table."""
    rows = database.query(
        "SELECT CASE WHEN i.inhrelid IS NULL THEN false WHEN NOT i.inhdetachpending THEN true END FROM pg_class c "
        f"LEFT JOIN pg_inherits i ON i.inhrelid = c.oid WHERE c.oid = to_regclass('{table}')"
    )
    return bool(rows[0][0]) if rows and rows[0][0] is not None else None


def rows_of_2018(database: Database) -> int:
    """The number of rows of 2018, in partitions and in detached tables."""
    ((found,),) = database.query(
        "SELECT count(DISTINCT id) FROM (SELECT id, submitted_at FROM run UNION ALL "
        "SELECT id, submitted_at FROM run_2018) r WHERE submitted_at < '2019-01-01Z' AND submitted_at >= '2018-01-01Z'"
    )
    return int(str(found))


@contextmanager
def reading(database: Database, what: str = "SELECT count(*) FROM run", mode: str = "") -> Iterator[psycopg.Connection]:
    """A transaction with a write that stays open."""
    with database.connect() as connection:
        connection.execute("SET application_name = 'month''s end'")
        connection.execute(f"BEGIN {mode}; {what}".encode())
        yield connection
        connection.execute("ROLLBACK")


def leave_pending(database: Database, table: str = "run_2018") -> None:
    """A concurrent detach by hand that stays pending."""
    detach = f"ALTER TABLE run DETACH PARTITION {table} CONCURRENTLY".encode()
    pending = f"SELECT FROM pg_inherits WHERE inhdetachpending AND inhrelid = '{table}'::regclass"
    with reading(database), database.connect() as connection, ThreadPoolExecutor(1) as pool:
        detaching = pool.submit(connection.execute, detach)
        until("the detach is pending", lambda: database.query(pending))
        connection.cancel()
        assert isinstance(detaching.exception(), psycopg.errors.QueryCanceled)
