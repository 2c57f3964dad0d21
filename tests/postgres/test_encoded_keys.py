"""Partitions of keys that encode time: rows at their edges lie where the server's own arithmetic says."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.api.retention import KeyEncoding
from partwarden.api.types import Interval
from partwarden.cli.main import main
from partwarden.planner.calendar import iso
from partwarden.planner.keys import Codec, KeyType
from support.complaints import check, complaint, login
from support.encoded import ENCODED, HIGHEST, LOWEST, Key, bounds, created, keep, lands
from support.meanwhile import findings

NOW = datetime(2026, 10, 24, 21, 30, tzinfo=UTC)
"""Shortly before Europe's clocks are set back."""

keys = pytest.mark.parametrize("key", ENCODED, ids=lambda key: f"{key}-{key.column}")


@keys
def test_rows_at_the_edges(database: Database, key: Key) -> None:
    """One tick before each bound a row belongs to the partition before, at it to the next."""
    for interval in Interval:
        database.execute(f"DROP TABLE IF EXISTS run; {key.table}")
        fields = {"keyEncoding": key.encoding, "interval": interval.value, "timezone": "Europe/Berlin", "premake": 3}
        report = keep(database, NOW, **fields)
        names = created(report)
        assert len(names) == 4
        held = [each.action.range for each in report.outcomes if each.action.range]
        edges = [f"timestamptz '{iso(each.lower)}'" for each in held] + [f"timestamptz '{iso(held[-1].upper)}'"]
        assert lands(database, [key.before(each) for each in edges]) == [None, *names]
        assert lands(database, [key.value(each) for each in edges]) == [*names, None]
        if key.encoding == "UUIDv7":
            assert lands(database, [key.value(each, LOWEST) for each in edges]) == [*names, None]
        # The second observation asks for a plan of a query, the third remembers the answer.
        assert [
            (each.outcomes, each.round_trips) for each in (keep(database, NOW, **fields), keep(database, NOW, **fields))
        ] == [((), 2), ((), 1)]


@keys
def test_names_are_in_local_time(database: Database, key: Key) -> None:
    database.execute(key.table)
    fields = {"keyEncoding": key.encoding, "timezone": "Europe/Berlin"}
    assert created(keep(database, NOW, interval="Hour", premake=4, **fields)) == [
        "run_2026_10_24_23",
        "run_2026_10_25_00",
        "run_2026_10_25_01",
        "run_2026_10_25_02",
        "run_2026_10_25_02b",
    ]


@keys
def test_every_row_between_the_bounds_finds_its_partition(database: Database, key: Key) -> None:
    database.execute(key.table)
    report = keep(database, NOW, keyEncoding=key.encoding, interval="Week", timezone="America/Havana", premake=5)
    held = report.after.current
    moment = "moment + interval '1 hour' * random()"
    database.execute(f"""SET TimeZone = 'America/Havana';
        INSERT INTO run (key, note) SELECT {key.value("at")}, date_trunc('week', at)
        FROM (SELECT date_trunc('second', {moment}) AS at
              FROM generate_series(timestamptz '{iso(held.lower)}', timestamptz '{iso(report.after.covered_until)}'
                                   - interval '2 hours', '37 minutes') moment) rows""")
    assert database.query("""
        SELECT count(*) > 1000, count(DISTINCT tableoid), count(DISTINCT note), count(DISTINCT (tableoid, note))
        FROM run""") == [(True, 6, 6, 6)]


@keys
def test_rows_of_the_default_partition_are_counted_by_their_key(database: Database, key: Key) -> None:
    inside = [key.value("timestamptz '2027-01-01Z'"), key.before("timestamptz '2028-01-01Z'")]
    outside = [key.before("timestamptz '2026-01-01Z'"), key.value("timestamptz '2028-01-01Z'")]
    rows = ", ".join(f"({value})" for value in [*inside, *outside])
    database.execute(f"{key.table} CREATE TABLE rest PARTITION OF run DEFAULT; INSERT INTO run (key) VALUES {rows}")
    report = keep(database, NOW, keyEncoding=key.encoding, premake=1)
    assert created(report) == ["run_2026"]
    (error,) = [each.error for each in report.after.findings if each.error]
    check(error, "DefaultHasRows", "2 rows", "public.rest")
    assert database.query("SELECT count(*) FROM ONLY rest") == [(4,)]


def test_an_ambiguous_integer_encoding_is_left_to_the_user(database: Database) -> None:
    key, later = Key("EpochSeconds", "integer"), datetime(2036, 6, 1, tzinfo=UTC)
    database.execute(key.table)
    report = keep(database, later, keyEncoding="EpochSeconds", premake=3)
    assert created(report) == ["run_2036", "run_2037"]
    for each in findings(report):
        assert each.error
        check(each.error, "KeyOutOfRange", "2038-01-19T03:14:07Z", "TO (MAXVALUE)")
    assert len(findings(report)) == 2
    first = key.literal(database, "2038-01-01Z")
    database.execute(f"CREATE TABLE last PARTITION OF run FOR VALUES FROM ('{first}') TO (MAXVALUE)")
    report = keep(database, later, keyEncoding="EpochSeconds", premake=3)
    assert [each.reason for each in findings(report)] == ["OffGrid"]
    assert report.after.covered_for_ever
    assert lands(database, [key.before("timestamptz '2038-01-01Z'"), "2147483647"]) == ["run_2037", "last"]


def test_dates_before_1970_are_no_uuids_and_the_rest_goes_on(database: Database) -> None:
    key = Key("UUIDv7", "uuid")
    database.execute(key.table)
    report = keep(database, NOW, keyEncoding="UUIDv7", premake=0, startFrom="1969-06-01")
    assert created(report) == ["run_2026", *(f"run_{year}" for year in range(1970, 2026))]
    assert [(each.reason, each.object) for each in findings(report)] == [
        ("KeyOutOfRange", "[1969-01-01T00:00:00Z, 1970-01-01T00:00:00Z)")
    ]
    assert lands(database, [key.value("timestamptz '1970-01-01Z'")]) == ["run_1970"]


@pytest.mark.parametrize(
    ("column", "encoding", "way_out", "then"),
    [
        ("uuid", None, "set spec.keyEncoding to UUIDv7", "UUIDv7"),
        ("bigint", None, "set spec.keyEncoding to EpochSeconds or EpochMilliseconds", "EpochMilliseconds"),
        ("integer", "EpochMilliseconds", "set spec.keyEncoding to EpochSeconds", "EpochSeconds"),
        ("timestamptz", "UUIDv7", "leave spec.keyEncoding out", None),
    ],
)
def test_a_key_in_another_encoding(
    pg_database: Database, column: str, encoding: str | None, way_out: str, then: str | None
) -> None:
    pg_database.execute(Key("", column).table)
    found = complaint(login(pg_database.dsn), keyEncoding=encoding)
    check(found, "UnsupportedKeyType", "public.run is partitioned by 'key' of type", way_out)
    assert len(created(keep(pg_database, NOW, keyEncoding=then))) == 3


def test_the_servers_own_uuids(pg_database: Database) -> None:
    """PostgreSQL 18 makes them, and 17 could read them already."""
    pg_database.execute("""
        CREATE TABLE run (key uuid NOT NULL DEFAULT uuidv7(), note text) PARTITION BY RANGE (key)""")
    report = keep(pg_database, None, keyEncoding="UUIDv7", interval="Hour", premake=2)
    names = created(report)
    pg_database.execute("INSERT INTO run (note) SELECT 'now' FROM generate_series(1, 1000)")
    pg_database.execute("INSERT INTO run SELECT uuidv7(interval '1 hour'), 'next' FROM generate_series(1, 1000)")
    assert pg_database.query("SELECT note, tableoid::regclass::text, count(*) FROM run GROUP BY 1, 2 ORDER BY 2") in (
        [("now", names[0], 1000), ("next", names[1], 1000)],
        # The hour ended meanwhile.
        [("now", names[1], 1000), ("next", names[2], 1000)],
    )
    for left, right in pairwise(each.action.range for each in report.outcomes):
        assert left is not None
        assert right is not None
        assert left.upper == right.lower
        value = Key("UUIDv7", "uuid").value(f"timestamptz '{iso(left.upper)}'", HIGHEST)
        assert pg_database.query(f"SELECT uuid_extract_timestamp({value})") == [(left.upper,)]


@keys
def test_rows_of_the_default_partition_move_by_their_key(database: Database, key: Key) -> None:
    """What belongs in the new partition and nothing else, to the last tick."""
    inside = [key.value("timestamptz '2027-01-01Z'"), key.before("timestamptz '2028-01-01Z'")]
    outside = [key.before("timestamptz '2026-01-01Z'"), key.value("timestamptz '2028-01-01Z'")]
    rows = ", ".join(f"({value})" for value in [*inside, *outside])
    database.execute(f"{key.table} CREATE TABLE rest PARTITION OF run DEFAULT; INSERT INTO run (key) VALUES {rows}")
    report = keep(database, NOW, keyEncoding=key.encoding, premake=1, defaultPartition={"drain": "Auto"})
    assert sorted(created(report)) == ["run_2026", "run_2027"]
    assert database.query("SELECT tableoid::regclass::text, count(*) FROM run GROUP BY 1 ORDER BY 1") == [
        ("rest", 2),
        ("run_2027", 2),
    ]


def test_rows_of_the_millisecond_at_which_a_neighbour_with_odd_bits_begins_move(database: Database) -> None:
    """By the calendar they are the neighbour's, by its bounds the new partition's: else it is refused for ever."""
    key = Key("UUIDv7", "uuid")
    codec = Codec(KeyType.UUID, KeyEncoding.UUID_V7)
    begin, end = (codec.literal(datetime(year, 1, 1, tzinfo=UTC)) for year in (2027, 2028))
    odd, row = (begin.replace("-0000-0000-", bits) for bits in ("-7000-8000-", "-0000-0001-"))
    database.execute(f"""{key.table} CREATE TABLE rest PARTITION OF run DEFAULT;
        CREATE TABLE next PARTITION OF run FOR VALUES FROM ('{odd}') TO ('{end}');
        INSERT INTO run (key) VALUES ('{row}')""")
    report = keep(database, NOW, keyEncoding="UUIDv7", premake=0, defaultPartition={"drain": "Auto"})
    assert [each.error for each in report.outcomes] == [None]
    assert database.query("SELECT tableoid::regclass::text FROM run") == [("run_2026",)]
    assert keep(database, NOW, keyEncoding="UUIDv7", premake=0, defaultPartition={"drain": "Auto"}).outcomes == ()


@pytest.mark.parametrize(
    ("wrong", "right"), [("EpochSeconds", "EpochMilliseconds"), ("EpochMilliseconds", "EpochSeconds")]
)
def test_seconds_are_not_taken_for_milliseconds(pg_database: Database, wrong: str, right: str) -> None:
    """Nothing is made by the wrong one beside partitions that exist."""
    key = Key(right, "bigint")
    pg_database.execute(key.table)
    assert len(created(keep(pg_database, NOW, keyEncoding=right))) == 3
    before = bounds(pg_database)
    found = complaint(login(pg_database.dsn), keyEncoding=wrong)
    check(
        found,
        "InvalidSpec",
        f"spec.keyEncoding is {wrong}",
        "run_2026 FOR VALUES FROM",
        f"set spec.keyEncoding to {right}",
    )
    assert bounds(pg_database) == before
    assert keep(pg_database, NOW, keyEncoding=right).outcomes == ()


@pytest.mark.parametrize(
    ("column", "bounds", "encoding", "reason", "words"),
    [
        (
            "bigint",
            "(1735689600000000) TO (1767225600000000)",
            "EpochMilliseconds",
            "InvalidSpec",
            "look like microseconds since 1970, which cannot be managed",
        ),
        (
            "bigint",
            "(1735689600000000) TO (1767225600000000)",
            "EpochSeconds",
            "InvalidSpec",
            "look like microseconds since 1970, which cannot be managed",
        ),
        (
            "bigint",
            "(1735689600000000000) TO (1767225600000000000)",
            None,
            "UnsupportedKeyType",
            "look like nanoseconds since 1970, which cannot be managed",
        ),
        (
            "integer",
            "(20250101) TO (20260101)",
            None,
            "UnsupportedKeyType",
            "look like dates written as YYYYMMDD, which cannot be managed",
        ),
        (
            "integer",
            "(20250101) TO (20260101)",
            "EpochSeconds",
            "InvalidSpec",
            "look like dates written as YYYYMMDD, which cannot be managed",
        ),
        ("integer", "(202501) TO (202512)", "EpochSeconds", "InvalidSpec", "look like months written as YYYYMM"),
        ("integer", "(2025) TO (2026)", "EpochSeconds", "InvalidSpec", "look like years, which cannot be managed"),
        ("integer", "(20089) TO (20454)", "EpochSeconds", "InvalidSpec", "look like days since 1970, which cannot be"),
        ("integer", "(1735689600) TO (1767225600)", None, "UnsupportedKeyType", "set spec.keyEncoding to EpochSeconds"),
        ("bigint", "(MINVALUE) TO (1767225600000)", None, "UnsupportedKeyType", "keyEncoding to EpochMilliseconds"),
        ("bigint", "(17) TO (18)", None, "UnsupportedKeyType", "only seconds and milliseconds can be managed"),
    ],
)
def test_numbers_that_are_neither_seconds_nor_milliseconds(
    pg_database: Database, column: str, bounds: str, encoding: str | None, reason: str, words: str
) -> None:
    """Nothing is created beside partitions of another unit, and an encoding is advised only where the bounds fit it."""
    pg_database.execute(f"{Key('', column).table} CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM {bounds}")
    found = complaint(login(pg_database.dsn), keyEncoding=encoding)
    check(found, reason, words)
    for each in {"EpochSeconds", "EpochMilliseconds"} - {str(encoding)}:
        assert f"set spec.keyEncoding to {each}" not in str(found) or f"to {each}" in words
    assert pg_database.query("SELECT count(*) FROM pg_inherits") == [(1,)]


def test_the_example_of_the_docs_on_the_command_line(pg_database: Database) -> None:
    """The manifest of docs/reference/keys.md, its database left to --dsn."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "keys.md").read_text()
    (spec,) = re.findall(r"```yaml\n(spec:\n[^`]*keyEncoding[^`]*)```", page)
    head = "apiVersion: partwarden.dev/v1alpha1\nkind: PartitionPolicy\nmetadata: {name: event}\n"
    pg_database.execute("CREATE TABLE event (id uuid NOT NULL, note text) PARTITION BY RANGE (id)")
    arguments = ["apply", "-f", "-", "--dsn", pg_database.dsn, "--now", "2026-01-15T00:00:00Z"]
    result = CliRunner().invoke(main, arguments, input=head + spec, catch_exceptions=False)
    assert "by Month of UTC on id" in result.output
    assert "create  public.event_2026_01  2026-01-01  2026-02-01  current Month" in result.output
    assert result.exit_code == 0
    made = pg_database.query("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'event_2026_01'")
    assert made == [
        ("FOR VALUES FROM ('019b76da-a800-0000-0000-000000000000') TO ('019c167f-cc00-0000-0000-000000000000')",)
    ]
