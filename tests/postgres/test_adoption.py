"""Adoption of existing tables: by bounds alone, for all names, kinds and schemas of their partitions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from lab.postgres import Database
from partwarden.postgres.engine import Report
from partwarden.status.details import details, rough
from support.encoded import BY_OTHERS, ENCODED, LOWEST, NATIVE, Key, bounds, created, keep, lands
from support.meanwhile import findings

NOW = datetime(2026, 10, 24, 21, 30, tzinfo=UTC)
ODD = BY_OTHERS[1]
EDGES = (
    ("2000-01-01", "ancient", "archive.history"),
    ("2020-01-01", "archive.history", "run_p2020"),
    ("2021-01-01", "run_p2020", "run_p20210101"),
    ("2022-01-01", "run_p20210101", "far"),
    ("2023-01-01", "far", "first"),
    ("2024-01-01", "second", None),
    ("2025-03-01", None, '"Mixed Case"'),
    ("2025-09-01", '"Mixed Case"', None),
    ("2030-01-01", None, "tomorrow"),
)
"""Bounds, and where rows right before each and at it lie before anything is made."""
FILLED = {"2024-01-01": "run_2024", "2025-03-01": "run_2025_20250101", "2025-09-01": "run_2025_20250901"}
"""Where those lie afterwards that lay nowhere, but for what lies too far ahead."""

keys = pytest.mark.parametrize("key", [*NATIVE, *ENCODED, *BY_OTHERS], ids=lambda key: f"{key}-{key.column}")


def make(database: Database, key: Key) -> None:
    """A table as many years and several tools may leave it, and a row in every partition, at each end of it."""
    at = {moment: key.literal(database, f"{moment}Z") for moment, _, _ in EDGES} | {
        "mid": key.literal(database, "2023-07-01Z")
    }
    login = conninfo_to_dict(database.dsn)
    database.execute(f"""
        {key.table} CREATE SCHEMA archive; CREATE EXTENSION postgres_fdw;
        CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw
          OPTIONS (host '{login["host"]}', port '{login["port"]}', dbname '{login["dbname"]}');
        CREATE USER MAPPING FOR CURRENT_USER SERVER loop
          OPTIONS (user '{login["user"]}', password '{login["password"]}');
        CREATE TABLE remote (key {key.column}, note text);
        CREATE TABLE ancient PARTITION OF run FOR VALUES FROM (MINVALUE) TO ('{at["2000-01-01"]}');
        CREATE TABLE archive.history PARTITION OF run FOR VALUES FROM ('{at["2000-01-01"]}') TO ('{at["2020-01-01"]}');
        CREATE TABLE run_p2020 PARTITION OF run FOR VALUES FROM ('{at["2020-01-01"]}') TO ('{at["2021-01-01"]}');
        CREATE TABLE run_p20210101 (LIKE run);
        ALTER TABLE run ATTACH PARTITION run_p20210101 FOR VALUES FROM ('{at["2021-01-01"]}') TO ('{at["2022-01-01"]}');
        CREATE FOREIGN TABLE far PARTITION OF run FOR VALUES FROM ('{at["2022-01-01"]}') TO ('{at["2023-01-01"]}')
          SERVER loop OPTIONS (table_name 'remote');
        CREATE TABLE by_half PARTITION OF run FOR VALUES FROM ('{at["2023-01-01"]}') TO ('{at["2024-01-01"]}')
          PARTITION BY RANGE (key);
        CREATE TABLE first PARTITION OF by_half FOR VALUES FROM (MINVALUE) TO ('{at["mid"]}');
        CREATE TABLE second PARTITION OF by_half FOR VALUES FROM ('{at["mid"]}') TO (MAXVALUE);
        CREATE TABLE "Mixed Case" PARTITION OF run FOR VALUES FROM ('{at["2025-03-01"]}') TO ('{at["2025-09-01"]}');
        CREATE TABLE tomorrow PARTITION OF run FOR VALUES FROM ('{at["2030-01-01"]}') TO (MAXVALUE)""")
    check_edges(database, key, filled={})


def check_edges(database: Database, key: Key, filled: dict[str, str]) -> None:
    """Insert a row right before each bound and one at it, and read which partition holds them."""
    moments = [f"timestamptz '{moment}Z'" for moment, _, _ in EDGES]
    before = [place or filled.get(moment) for moment, place, _ in EDGES]
    behind = [place or filled.get(moment) for moment, _, place in EDGES]
    if filled:
        before[EDGES.index(("2030-01-01", None, "tomorrow"))] = None
    assert _whole(lands(database, [key.before(each) for each in moments])) == before
    assert _whole(lands(database, [key.value(each) for each in moments])) == behind
    if key.encoding == "UUIDv7":
        # The lowest UUID of that millisecond: below a bound that was copied from some row.
        expected = before if key is ODD else behind
        assert _whole(lands(database, [key.value(each, LOWEST) for each in moments])) == expected


def _whole(places: list[str | None]) -> list[str | None]:
    """Names without what a piece of a year bears whose bound was copied from some row: its microsecond."""
    return [place.split("t0000")[0].replace("run_2024_20240101", "run_2024") if place else None for place in places]


def policy(key: Key, **fields: Any) -> dict[str, Any]:
    return {"keyEncoding": key.encoding, "interval": "Year", "premake": 2, **fields}


def managed(report: Report) -> set[str]:
    return {each.name for each in report.inventory.partitions if each.oid in report.after.managed}


@keys
def test_existing_partitions_stay_and_the_rest_is_created_around_them(database: Database, key: Key) -> None:
    make(database, key)
    before = bounds(database)
    ((rows,),) = database.query("SELECT count(*) FROM run")
    report = keep(database, NOW, **policy(key))
    made = created(report)
    assert _whole(list(made)) == ["run_2026", "run_2027", "run_2028", *FILLED.values()]
    assert before.items() <= bounds(database).items()
    assert database.query("SELECT count(*) FROM run") == [(rows,)]
    check_edges(database, key, FILLED)
    assert keep(database, NOW, **policy(key)).outcomes == ()


@keys
def test_partitions_of_one_interval_are_managed_and_others_reported(database: Database, key: Key) -> None:
    make(database, key)
    report = keep(database, NOW, **policy(key))
    whole = {"run_2026", "run_2027", "run_2028"}
    if key is not ODD:
        whole |= {"run_p2020", "run_p20210101", "far", "by_half", "run_2024"}
    assert managed(report) == whole
    (notice,) = [each for each in report.after.findings if each.reason == "OffGrid"]
    assert notice.error is None
    assert notice.message.startswith("not one Year of UTC each: ")
    if key is not ODD:
        assert all(name in notice.message for name in ("ancient", "history", "Mixed Case", "tomorrow"))
    assert report.after.covered_until == datetime(
        2029, 1, 1, tzinfo=UTC if key.column not in ("timestamp", "date") else None
    )


@keys
def test_partitions_of_every_kind_are_listed_with_their_sizes(database: Database, key: Key) -> None:
    make(database, key)
    database.execute("ANALYZE first; ANALYZE second; ANALYZE ancient")
    report = keep(database, NOW, **policy(key))
    shown = {each.name: each for each in details(report.inventory, report.after, report.outcomes).partitions}
    assert {name: each.kind for name, each in shown.items() if each.kind} == {
        "far": "foreign table",
        "by_half": "partitioned table",
    }
    ((size,),) = database.query("SELECT pg_total_relation_size('first') + pg_total_relation_size('second')")
    ((rows,),) = database.query("SELECT count(*) FROM by_half")
    assert isinstance(size, int)
    assert isinstance(rows, int)
    assert (shown["by_half"].bytes, shown["by_half"].rows) == (rough(size), rough(rows))
    assert "archive.history" in shown
    assert shown["ancient"].from_ is None
    assert shown["ancient"].state == "Unmanaged"
    assert shown["tomorrow"].to is None


def test_a_table_of_pg_partman_goes_on_under_its_own_names(database: Database) -> None:
    """Days as that tool names them, its DEFAULT partition, and a hole."""
    database.execute("CREATE TABLE run (key timestamptz NOT NULL) PARTITION BY RANGE (key)")
    for day in (20, 21, 23, 24, 25):
        database.execute(
            f"CREATE TABLE run_p202610{day} PARTITION OF run "
            f"FOR VALUES FROM ('2026-10-{day}Z') TO ('2026-10-{day + 1}Z')"
        )
    database.execute("CREATE TABLE run_default PARTITION OF run DEFAULT")
    report = keep(database, NOW, interval="Day", premake=3)
    assert created(report) == ["run_2026_10_26", "run_2026_10_27", "run_2026_10_22"]
    assert len(report.after.managed) == 8
    assert findings(report) == ()
    named = keep(database, NOW, interval="Day", premake=4, nameFormat="{table}_p{year}{month}{day}")
    assert created(named) == ["run_p20261028"]


@keys
def test_retention_takes_whole_intervals_of_plain_tables_and_nothing_else(database: Database, key: Key) -> None:
    make(database, key)
    before = bounds(database)
    report = keep(database, NOW, **policy(key, retention={"keepFor": "2y"}))
    assert not [each.error for each in report.outcomes if each.error]
    gone = {name.split(" ")[1] for name in before.keys() - bounds(database).keys()}
    assert gone == (set() if key is ODD else {"run_p2020", "run_p20210101"})
    if key is ODD:
        return
    (notice, *_) = sorted(each.message for each in report.after.findings if each.reason == "ExpiredLeftAlone")
    assert "by_half" in notice
    for name in gone:
        assert database.query(f"SELECT count(*) > 0 FROM {name}") == [(True,)]
    # Kept longer again: the very tables come back, to where they were.
    back = keep(database, NOW, **policy(key, retention={"keepFor": "30y"}))
    assert not [each.error for each in back.outcomes if each.error]
    assert {name.split(" ")[1] for name in bounds(database)} >= gone
    assert before.keys() <= bounds(database).keys()
    check_edges(database, key, FILLED)
