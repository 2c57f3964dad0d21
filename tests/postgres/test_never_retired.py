"""Tables that are never detached nor dropped, although the policy says Drop without archive and grace.

Beside each case stands run_2015, which has expired and nothing protects: it goes, so the case shows something.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from lab.postgres import Database
from model.snapshot import SETUP
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import Report, maintain
from support.meanwhile import policy

CLOCK = "2026-11-22 12:00Z"
BASE = """
CREATE TABLE run (id bigint, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE run_2015 PARTITION OF run FOR VALUES FROM ('2015-01-01Z') TO ('2016-01-01Z');
CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z');
CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
CREATE TABLE run_2027 PARTITION OF run FOR VALUES FROM ('2027-01-01Z') TO ('2028-01-01Z');
INSERT INTO run VALUES (1, '2015-06-01Z'), (2, '2018-01-01Z'), (3, '2018-12-31 23:59:59Z'), (4, '2026-02-01Z'),
  (5, '2027-06-01Z');
"""
DROP = {"onExpire": "Drop", "dropWithoutArchive": True, "grace": "0s"}
ITEM = "CREATE TABLE item (id bigint, at timestamptz, FOREIGN KEY (id, at) REFERENCES {} ON DELETE CASCADE)"
MARK = (
    'partwarden.dev/detached {{"oid": {oid}, "parent": {parent}, "table": "public.run", '
    '"from": "2018-01-01T00:00:00Z", "to": "2019-01-01T00:00:00Z", "phase": "Detached", '
    '"since": "2020-01-01T00:00:00Z"}}'
)
RECREATED = """
DO $$ DECLARE mark text := obj_description('run_2018'::regclass); BEGIN
  DROP TABLE run_2018; CREATE TABLE run_2018 (LIKE run); EXECUTE format('COMMENT ON TABLE run_2018 IS %L', mark);
  INSERT INTO run_2018 VALUES (7, '2018-07-01Z'); END $$
"""


@dataclass(frozen=True)
class Case:
    """``before`` stands there from the beginning; with ``detached`` the operator has detached what expired, and then
    a user did that. ``kept`` is the table that stays, as a partition if it was one, but where it ``leaves``."""

    name: str
    kept: str
    before: str = ""
    detached: str | None = None
    leaves: bool = False
    keep_for: str = "5y"
    held: tuple[str, ...] = ()
    clock: str = CLOCK
    unaligned: str = "Expire"
    tells: str | None = None
    """The reason of a finding, or of a failed action."""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def partition(name: str, lower: str, upper: str, row: str) -> str:
    return f"CREATE TABLE {name} PARTITION OF run FOR VALUES FROM ({lower}) TO ({upper}); INSERT INTO run VALUES {row};"


STRANGER = "CREATE TABLE run_2017 (LIKE run); INSERT INTO run_2017 VALUES (9, '2017-06-01Z');"
COMMENTED = "DO $$ BEGIN EXECUTE format('COMMENT ON TABLE {} IS %L', {}); END $$"
OTHER_TABLES = COMMENTED.format("run_2017", f"'{MARK.format(oid=1, parent=1)}'")
OTHER_PARENTS = COMMENTED.format(
    "run_2017", f"replace('{MARK.format(oid='OID', parent=1)}', 'OID', 'run_2017'::regclass::oid::text)"
)
TEXT_AFTER = COMMENTED.format("run_2018", r"obj_description('run_2018'::regclass) || E'\nmine'")
REST = "CREATE TABLE run_rest PARTITION OF run DEFAULT; INSERT INTO run VALUES (9, '1999-01-01Z')"
OLD = ("'2000-01-01Z'", "'2010-01-01Z'", "(9, '2001-01-01Z')")
AN_HOUR_OFF = ("'2009-12-31 23:00Z'", "'2010-12-31 23:00Z'", "(9, '2010-01-01Z')")
ELSEWHERE = """
CREATE TABLE other (LIKE run) PARTITION BY RANGE (at); ALTER TABLE other ATTACH PARTITION run_2018 DEFAULT
"""
OTHER_ROWS = """
DO $$ DECLARE each name; BEGIN
  FOR each IN SELECT conname FROM pg_constraint WHERE conrelid = 'run_2018'::regclass AND contype = 'c' LOOP
    EXECUTE format('ALTER TABLE run_2018 DROP CONSTRAINT %I', each);
  END LOOP; END $$;
INSERT INTO run_2018 VALUES (9, '2026-11-22Z')
"""
BELOW = """
CREATE TABLE run_2017 PARTITION OF run FOR VALUES FROM ('2017-01-01Z') TO ('2018-01-01Z') PARTITION BY RANGE (at);
CREATE TABLE run_2017_all PARTITION OF run_2017 DEFAULT; INSERT INTO run VALUES (9, '2017-06-01Z')
"""
REFERENCE = "INSERT INTO item VALUES (2, '2018-01-01Z')"
VIEW = "CREATE VIEW old AS SELECT * FROM run_2018"
AGAIN = "ALTER TABLE run ATTACH PARTITION run_2018 FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z')"
CASES = [
    Case("current", "run_2026", keep_for="1h"),
    Case("future", "run_2027", keep_for="1h"),
    Case("DEFAULT", "run_rest", REST),
    Case("no lower bound", "old", partition("old", "MINVALUE", "'2015-01-01Z'", "(9, '1999-01-01Z')"), tells="OffGrid"),
    Case("no upper bound", "far", partition("far", "'2028-01-01Z'", "MAXVALUE", "(9, '2999-01-01Z')"), tells="OffGrid"),
    Case("off the grid", "old", partition("old", *OLD), unaligned="Keep", tells="OffGrid"),
    Case("an hour off the grid", "old", partition("old", *AN_HOUR_OFF), unaligned="Keep", tells="OffGrid"),
    Case("young and off the grid", "new", partition("new", "'2020-06-01Z'", "'2022-01-01Z'", "(9, '2020-06-01Z')")),
    Case("younger", "run_2021", partition("run_2021", "'2021-01-01Z'", "'2022-01-01Z'", "(9, '2021-01-01Z')")),
    Case(
        "younger by minutes",
        "run_2020",
        partition("run_2020", "'2020-01-01Z'", "'2021-01-01Z'", "(9, '2020-01-01Z')"),
        clock="2025-12-31 23:30Z",
    ),
    Case("partitioned itself", "run_2017", BELOW, tells="ExpiredLeftAlone"),
    Case("held", "run_2018", held=("run_2018",)),
    Case("held with its schema", "run_2018", held=("public.run_2018", "nothing")),
    Case("held when detached", "run_2018", detached="SELECT", held=("run_2018",)),
    Case("referenced", "run_2018", f"{ITEM.format('run')}; {REFERENCE}", tells="RowsReferenced"),
    Case(
        "referenced when detached",
        "run_2018",
        detached=f"{ITEM.format('run_2018')}; {REFERENCE}",
        tells="StatementRejected",
    ),
    Case("a view stands on it", "run_2018", VIEW, leaves=True, tells="StatementRejected"),
    Case("attached again by a user", "run_2018", detached=AGAIN, tells="ExpiredLeftAlone"),
    Case("attached to another", "run_2018", detached=ELSEWHERE),
    Case("a parent by now", "run_2018", detached="CREATE TABLE child () INHERITS (run_2018)"),
    Case("made anew", "run_2018", detached=RECREATED),
    Case("unmarked by a user", "run_2018", detached="COMMENT ON TABLE run_2018 IS 'mine'"),
    Case("text after the mark", "run_2018", detached=TEXT_AFTER),
    Case("a name of ours", "run_2017", STRANGER),
    Case("detached by a user", "run_2018", "ALTER TABLE run DETACH PARTITION run_2018"),
    Case("a mark of another table", "run_2017", f"{STRANGER} {OTHER_TABLES}"),
    Case("a mark of another parent", "run_2017", f"{STRANGER} {OTHER_PARENTS}"),
    Case("other rows by now", "run_2018", detached=OTHER_ROWS, tells="StatementRejected"),
]


def keep(database: Database, case: Case, **retention: Any) -> list[Report]:
    """Runs until nothing is done any more, and in any case twice."""
    spec = policy(
        premake=1, interval="Year", retention={"keepFor": case.keep_for, "unaligned": case.unaligned, **retention}
    )
    reports: list[Report] = []
    while len(reports) < 2 or any(each.error is None for each in reports[-1].outcomes):
        assert len(reports) < 8, "it never comes to an end"
        with session(from_dsn(database.dsn)) as connection:
            reports.append(maintain(connection, spec, patience=1, held=frozenset(case.held)))
    return reports


def state(database: Database, table: str) -> list[tuple[object, ...]]:
    return database.query(
        f"SELECT c.oid, c.relispartition, (SELECT array_agg(t::text ORDER BY t::text) FROM {table} t) "
        f"FROM pg_class c WHERE c.oid = '{table}'::regclass"
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_these_tables_are_never_detached_nor_dropped(database: Database, case: Case) -> None:
    database.execute(SETUP.format(now=case.clock))
    database.execute(f"{BASE} {case.before}")
    if case.detached is not None:
        keep(database, replace(case, held=()), onExpire="Detach")
        database.execute(case.detached)
    ((oid, attached, rows),) = state(database, case.kept)
    assert rows, "there are rows that could be lost"
    last = keep(database, case, **DROP)[-1]
    assert state(database, case.kept) == [(oid, attached and not case.leaves, rows)]
    assert database.query("SELECT to_regclass('run_2015')") == [(None,)]
    if "item" in case.before + (case.detached or ""):
        assert database.query("SELECT count(*) FROM item") == [(1,)]
    reasons = {each.reason for each in last.after.findings} | {
        each.error.reason for each in last.outcomes if each.error
    }
    assert case.tells is None or case.tells in reasons
