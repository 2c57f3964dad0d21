"""The DEFAULT partition: made where it is wanted, its rows counted by the calendar of the policy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lab.postgres import Database
from partwarden.api.policy import TableSpec
from partwarden.api.status import ConditionStatus, ConditionType
from partwarden.planner.calendar import Range
from partwarden.planner.default_rows import DefaultRows
from partwarden.postgres.engine import Report
from partwarden.status.conditions import reconciled
from support.meanwhile import RUN, findings, keep, reasons

REST = "CREATE TABLE rest PARTITION OF run DEFAULT;"


def rows(report: Report) -> DefaultRows:
    assert report.inventory.default_rows is not None
    return report.inventory.default_rows


def condition(report: Report, **fields: Any) -> tuple[str, str, str]:
    spec = TableSpec.model_validate({"table": {"name": "run"}, **fields})
    update = reconciled(spec, report.inventory, report.after, report.outcomes)
    said = update.others[ConditionType.DEFAULT_PARTITION_EMPTY]
    return said.status, said.reason, said.message


def day(year: int, month: int = 1, number: int = 1) -> datetime:
    return datetime(year, month, number, tzinfo=UTC)


def test_a_default_partition_is_created_after_the_others_and_like_them(database: Database) -> None:
    owner = database.new_role()
    database.execute(f"""{RUN} ALTER TABLE run OWNER TO {owner.name}; GRANT CREATE ON SCHEMA public TO {owner.name};
        GRANT SELECT ON run TO PUBLIC; CREATE INDEX ON run (submitted_at); ALTER TABLE run ENABLE ROW LEVEL SECURITY""")
    report = keep(database.dsn, premake=1, defaultPartition={"ensure": True})
    assert [type(each.action).__name__ for each in report.outcomes] == [
        "CreatePartition",
        "CreatePartition",
        "CreateDefault",
    ]
    assert reasons(report) == ["created"] * 3
    assert condition(report) == (ConditionStatus.TRUE, "Empty", "DEFAULT partition public.run_default is empty")
    about = """SELECT pg_get_expr(relpartbound, oid), pg_get_userbyid(relowner), relacl::text, relrowsecurity,
        (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) FROM pg_class c WHERE relname = '{}'"""
    (made,), (sibling,) = database.query(about.format("run_default")), database.query(about.format("run_2026"))
    assert made[0] == "DEFAULT"
    assert made[1:] == sibling[1:]
    database.execute("INSERT INTO run VALUES ('1999-01-01Z')")
    assert reasons(keep(owner.dsn, premake=1, defaultPartition={"ensure": True})) == []


def test_a_default_partition_of_any_name_is_enough(database: Database) -> None:
    database.execute(f"{RUN} {REST}")
    report = keep(database.dsn, premake=0, defaultPartition={"ensure": True})
    assert [each.action.name for each in report.outcomes] == ["run_2026"]


def test_a_table_without_default_is_not_queried_unless_one_is_asked_for(database: Database) -> None:
    database.execute(RUN)
    report = keep(database.dsn, premake=0)
    assert report.inventory.default is None
    assert report.inventory.default_rows is None
    assert condition(report)[:2] == (ConditionStatus.TRUE, "NoDefaultPartition")


def test_a_taken_or_overlong_default_name_is_reported_and_delays_nothing_else(database: Database) -> None:
    long = "t" * 56
    database.execute(f"{RUN} CREATE VIEW run_default AS SELECT 1; {RUN.replace('run', long)}")
    report = keep(database.dsn, premake=0, defaultPartition={"ensure": True})
    assert reasons(report) == ["created"]
    (finding,) = findings(report)
    assert finding.reason == "NameTaken"
    assert "public.run_default" in finding.message
    report = keep(
        database.dsn, premake=0, table={"name": long}, nameFormat="t_{year}", defaultPartition={"ensure": True}
    )
    assert reasons(report) == ["created"]
    assert [each.reason for each in findings(report)] == ["NameTooLong"]


def test_rows_are_counted_by_interval_and_reported_with_the_dates_to_ensure(database: Database) -> None:
    database.execute(f"""{RUN.replace("NOT NULL", "")} {REST}
        CREATE TABLE old PARTITION OF run FOR VALUES FROM ('2020-03-01Z') TO ('2020-06-01Z');
        INSERT INTO run SELECT '2019-05-01Z' FROM generate_series(1, 1204);
        INSERT INTO run VALUES ('2020-01-01Z'), ('2020-07-01Z'), ('2021-12-31 23:59:59.999999Z'), (NULL),
                               ('infinity'), ('-infinity'), ('0044-03-15Z BC')""")
    report = keep(database.dsn, premake=0, startFrom="2026-01-01")
    assert rows(report).groups == (
        (Range(day(2019), day(2020)), 1204),
        (Range(day(2020), day(2020, 3)), 1),
        (Range(day(2020, 6), day(2021)), 1),
        (Range(day(2021), day(2022)), 1),
    )
    assert (rows(report).elsewhere, rows(report).total, rows(report).whole) == (4, 1211, True)
    assert condition(report) == (
        ConditionStatus.FALSE,
        "DefaultHasRows",
        "DEFAULT partition public.rest holds 2019 (1,204 rows), 2020 (2 rows), 2021 (1 row), 4 rows elsewhere (NULL, "
        'infinite, beyond the calendar), 1,211 rows in all; set spec.ensure: ["2019..2021"] to have partitions '
        "made for them, and set spec.defaultPartition.drain to Auto, or move the rows elsewhere",
    )
    # It is no reason not to be Ready.
    assert not [each for each in report.after.findings if each.error]


@pytest.mark.parametrize("interval", ["Hour", "Day", "Week", "Month", "Quarter", "Year"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"])
def test_the_count_agrees_with_the_servers_own_calendar(database: Database, interval: str, zone: str) -> None:
    database.execute(f"""{RUN} {REST} INSERT INTO run
        SELECT '2024-03-25Z'::timestamptz + n * interval '7 hours 13 minutes' FROM generate_series(1, 3000) n""")
    report = keep(database.dsn, interval=interval, timezone=zone, premake=0, startFrom="2026-10-24")
    counted = [(held.lower, count) for held, count in rows(report).groups]
    truth = database.query(
        f"SELECT date_trunc('{interval}', submitted_at, '{zone}'), count(*) FROM run GROUP BY 1 ORDER BY 1"
    )
    if interval == "Hour":
        # An hour that the clock repeats has two partitions, and date_trunc has one of them.
        assert sum(count for _, count in counted) == 3000
        assert len(counted) >= len(truth)
    else:
        assert counted == truth


@pytest.mark.parametrize(
    ("key", "encoding", "value"),
    [
        ("date", "Native", "{}::date"),
        ("timestamp", "Native", "{}::timestamp"),
        ("bigint", "EpochSeconds", "extract(epoch FROM {}::timestamptz)::bigint"),
        ("integer", "EpochSeconds", "extract(epoch FROM {}::timestamptz)::int"),
        ("bigint", "EpochMilliseconds", "(extract(epoch FROM {}::timestamptz) * 1000)::bigint"),
        (
            "uuid",
            "UUIDv7",
            "overlay(lpad(to_hex((extract(epoch FROM {}::timestamptz) * 1000)::bigint), 12, '0')"
            " || '7fff8fffffffffffffff' placing '7' from 13)::uuid",
        ),
    ],
)
def test_rows_of_every_kind_of_key_are_counted_and_moved(
    database: Database, key: str, encoding: str, value: str
) -> None:
    moments = ["2019-12-31 23:59:59Z", "2020-01-01Z", "2020-12-31 23:59:59Z", "2021-01-01Z"]
    database.execute(f"""CREATE TABLE run (at {key} NOT NULL) PARTITION BY RANGE (at); {REST}
        INSERT INTO run VALUES {", ".join(f"({value.format(repr(each))})" for each in moments)}""")
    before = database.query("SELECT at::text FROM run ORDER BY 1")
    fields: dict[str, Any] = {"keyEncoding": encoding, "premake": 0, "startFrom": "2026-01-01"}
    report = keep(database.dsn, **fields)
    assert [(held.lower.year, count) for held, count in rows(report).groups] == [
        (2019, 1),
        (2020, 2),
        (2021, 1),
    ]
    report = keep(database.dsn, **fields, ensure=["2020-05-05"], defaultPartition={"drain": "Auto"})
    assert reasons(report) == ["created"]
    assert database.query("SELECT count(*) FROM run_2020") == [(2,)]
    assert database.query("SELECT count(*) FROM rest") == [(2,)]
    assert database.query("SELECT at::text FROM run ORDER BY 1") == before


def test_a_count_that_reaches_its_limit_is_reported_as_at_least(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(f"""{RUN} {REST} INSERT INTO run SELECT '2019-05-01Z' FROM generate_series(1, 500);
        INSERT INTO run VALUES ('2026-05-01Z'), ('2026-05-02Z')""")
    monkeypatch.setattr("partwarden.postgres.inspection.MAX_ROWS", 100)
    report = keep(database.dsn, premake=0, mode="Plan")
    assert not rows(report).whole
    assert "2019 (at least 101 rows)" in condition(report)[2]
    # What is to be made is asked for by itself.
    (finding,) = [each for each in report.after.findings if each.error]
    assert "2 rows of its range" in finding.message


def test_many_intervals_are_named_in_part_and_counted_in_all(database: Database) -> None:
    database.execute(f"""{RUN} {REST} INSERT INTO run
        SELECT '1950-01-01Z'::timestamptz + n * interval '30 days' FROM generate_series(0, 900) n""")
    report = keep(database.dsn, interval="Month", premake=0, startFrom="2026-10-01")
    message = condition(report, interval="Month")[2]
    assert "1950-01 (2 rows)" in message
    assert "901 rows in all" in message
    assert "more intervals" in message
    assert len(message) < 1024


def test_hours_far_apart_are_counted_separately(database: Database) -> None:
    database.execute(
        f"{RUN} {REST} INSERT INTO run VALUES ('0101-02-03 04:05Z'), ('2020-06-01 10:30Z'), ('9000-01-01Z')"
    )
    report = keep(database.dsn, interval="Hour", premake=0, startFrom="2026-10-24")
    assert [held.lower for held, _ in rows(report).groups] == [
        datetime(101, 2, 3, 4, tzinfo=UTC),
        datetime(2020, 6, 1, 10, tzinfo=UTC),
        datetime(9000, 1, 1, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        ("REVOKE ALL ON rest FROM {role}", 'GRANT SELECT ON "public"."rest"'),
        ("ALTER TABLE rest ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "row security"),
    ],
)
def test_an_unreadable_default_partition_is_unknown_and_never_called_empty(
    database: Database, ddl: str, words: str
) -> None:
    owner = database.new_role()
    database.execute(f"""{RUN} {REST} INSERT INTO run VALUES ('2001-01-01Z');
        ALTER TABLE run OWNER TO {owner.name}; ALTER TABLE rest OWNER TO {owner.name};
        GRANT CREATE ON SCHEMA public TO {owner.name}; {ddl.format(role=owner.name)}""")
    report = keep(owner.dsn, premake=0)
    status, reason, message = condition(report)
    assert (status, reason) == (ConditionStatus.UNKNOWN, "InsufficientPrivilege")
    assert words in message


def test_a_locked_default_partition_is_unknown_and_waited_for_briefly(database: Database) -> None:
    database.execute(
        f"{RUN} {REST} CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z')"
    )
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE rest")
        report = keep(database.dsn, premake=0)
        assert condition(report)[:2] == (ConditionStatus.UNKNOWN, "TableBusy")
        assert reasons(report) == []
    assert condition(keep(database.dsn, premake=0))[1] == "Empty"
