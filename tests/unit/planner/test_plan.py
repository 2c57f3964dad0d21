"""Decisions by example: holes, pieces, limits, names that are taken, and who is in the way."""

import pickle
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from partwarden.api.types import Interval
from partwarden.errors import NameTaken, NameTooLong, TooManyPartitions, UnknownTimeZone
from partwarden.planner.actions import DropDetached
from partwarden.planner.calendar import Range, iso
from partwarden.planner.creation import MAX_CREATE
from partwarden.planner.inventory import RelationKind
from partwarden.planner.keys import KeyType
from partwarden.planner.plan import Plan
from support import values
from support.values import inventory, moment, naive, partition, plan, spec, years


def made(decided: Plan) -> list[tuple[str, str | None, str | None]]:
    return [(each.name, iso(each.range.lower), iso(each.range.upper)) for each in decided.creations]


def names(decided: Plan) -> list[str]:
    return list(decided.names)


def reasons(decided: Plan) -> list[str]:
    return [each.reason for each in decided.findings]


def test_an_empty_table_gets_the_current_and_the_next() -> None:
    decided = plan(spec(), inventory())
    assert made(decided) == [
        ("run_2026", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("run_2027", "2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"),
        ("run_2028", "2028-01-01T00:00:00Z", "2029-01-01T00:00:00Z"),
    ]
    assert [each.reason for each in decided.creations] == [
        "current Year",
        "1 of 2 ahead (spec.premake)",
        "2 of 2 ahead (spec.premake)",
    ]
    assert (decided.covered_until, decided.covered_for_ever, decided.blocked) == (None, False, False)
    assert decided.current == Range(moment("2026-01-01"), moment("2027-01-01"))
    assert decided.next_boundary == moment("2027-01-01")


def test_a_year_begins_where_the_zone_says() -> None:
    before = moment("2026-12-31T22:59:59")
    berlin = spec(timezone="Europe/Berlin", premake=0)
    assert made(plan(berlin, inventory(now=before))) == [("run_2026", "2025-12-31T23:00:00Z", "2026-12-31T23:00:00Z")]
    after = before + timedelta(seconds=1)
    assert made(plan(berlin, inventory(now=after))) == [("run_2027", "2026-12-31T23:00:00Z", "2027-12-31T23:00:00Z")]


@pytest.mark.parametrize("key_type", [KeyType.DATE, KeyType.TIMESTAMP])
def test_a_key_without_a_zone_has_the_wall_clock_of_the_policys_zone(key_type: KeyType) -> None:
    found = inventory(now=moment("2026-12-31T23:30"), parent=values.parent(key_type))
    decided = plan(spec(timezone="Europe/Berlin", premake=0), found)
    assert made(decided) == [("run_2027", "2027-01-01", "2028-01-01")]
    assert decided.next_boundary == moment("2027-12-31T23:00")


def test_a_clock_set_back_over_midnight_does_not_put_the_boundary_into_the_past() -> None:
    # At 00:01 local time (03:01 UTC) the clock went back to 23:01 of the day before.
    found = inventory(now=moment("2010-11-07T03:15"), parent=values.parent(KeyType.TIMESTAMP))
    decided = plan(spec(timezone="America/Goose_Bay", interval=Interval.DAY), found)
    assert decided.next_boundary > found.now


def test_holes_are_filled_from_the_oldest_partition_on_and_come_last() -> None:
    decided = plan(spec(premake=1), inventory(*years(2019, 2021, 2024)))
    assert names(decided) == ["run_2026", "run_2027", "run_2020", "run_2022", "run_2023", "run_2025"]
    assert {each.reason for each in decided.creations[2:]} == {"hole between existing partitions"}


def test_nothing_is_made_before_the_oldest_partition() -> None:
    assert plan(spec(), inventory(*years(2025, 2026, 2027, 2028))).creations == ()


def test_start_from_makes_partitions_before_the_oldest() -> None:
    decided = plan(spec(start_from="2023-05-17", premake=0), inventory(*years(2025, 2026)))
    assert names(decided) == ["run_2023", "run_2024"]
    assert {each.reason for each in decided.creations} == {"since 2023-05-17 (spec.startFrom)"}


def test_start_from_leaves_older_holes_alone() -> None:
    assert plan(spec(start_from="2025-01-01", premake=0), inventory(*years(2019, 2025, 2026))).creations == ()


def test_start_from_in_the_future_changes_nothing() -> None:
    assert names(plan(spec(start_from="2031-01-01", premake=0), inventory())) == ["run_2026"]


def test_wanted_dates_are_made_whether_past_or_far_ahead() -> None:
    decided = plan(spec(premake=0, ensure=["2031-06-01", "2031-12-31", "2024-02-29", "2026-01-01"]), inventory())
    assert [(each.name, each.reason) for each in decided.creations] == [
        ("run_2026", "current Year"),
        ("run_2031", "for 2031-06-01 (spec.ensure)"),
        ("run_2024", "for 2024-02-29 (spec.ensure)"),
    ]


def test_years_between_now_and_a_far_date_are_not_made() -> None:
    found = inventory(*years(2026, 2027, 2028, 2031))
    assert plan(spec(ensure=["2031-06-01"]), found).creations == ()
    assert plan(spec(ensure=["2031-06-01"]), found).covered_until == moment("2029-01-01")


def test_what_an_odd_partition_leaves_is_cut_at_the_boundaries() -> None:
    odd = partition("odd", moment("2026-03-05T07:30"), moment("2027-02-01"))
    decided = plan(spec(premake=1), inventory(odd))
    assert made(decided) == [
        ("run_2026_20260101", "2026-01-01T00:00:00Z", "2026-03-05T07:30:00Z"),
        ("run_2027_20270201", "2027-02-01T00:00:00Z", "2028-01-01T00:00:00Z"),
    ]
    assert reasons(decided) == ["OffGrid"]
    assert decided.managed == frozenset()


def test_a_change_from_years_to_months_begins_where_the_years_end() -> None:
    found = inventory(*years(2025, 2026), now=moment("2026-12-15"))
    decided = plan(spec(interval=Interval.MONTH), found)
    assert names(decided) == ["run_2027_01", "run_2027_02"]
    assert decided.findings[0].message == (
        "not one Month of UTC each: run_2025, run_2026; what they hold counts as covered, only the rest is created, "
        "and they are left alone"
    )


def test_the_piece_that_holds_now_comes_first() -> None:
    odd = partition("odd", moment("2026-02-01"), moment("2026-03-01"))
    decided = plan(spec(premake=0), inventory(odd))
    assert [iso(each.range.lower) for each in decided.creations] == ["2026-03-01T00:00:00Z", "2026-01-01T00:00:00Z"]


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (None, "2026-01-01", ["run_2026"]),
        ("2027-01-01", None, ["run_2026"]),
        (None, None, []),
    ],
)
def test_unbounded_partitions_cover_what_they_hold(lower: str | None, upper: str | None, expected: list[str]) -> None:
    wide = partition("wide", lower and moment(lower), upper and moment(upper))  # type: ignore[arg-type]
    decided = plan(spec(premake=1 if lower else 0), inventory(wide))
    assert names(decided) == expected
    assert decided.managed == frozenset()


def test_coverage_without_end_is_said() -> None:
    decided = plan(spec(), inventory(*years(2026), partition("rest", moment("2027-01-01"), None)))
    assert (decided.covered_for_ever, decided.covered_until) == (True, None)


def test_the_default_partition_is_no_coverage_but_makes_the_lock_heavier() -> None:
    decided = plan(spec(), inventory(values.default()))
    assert names(decided) == ["run_2026", "run_2027", "run_2028"]
    assert {each.lock for each in decided.creations} == {"ACCESS EXCLUSIVE on public.run_default"}
    assert {each.lock for each in plan(spec(), inventory()).creations} == {"SHARE UPDATE EXCLUSIVE on public.run"}


def test_foreign_partitions_cover_what_they_hold() -> None:
    (foreign,) = years(2026)
    found = inventory(partition("far", foreign.range.lower, foreign.range.upper, kind=RelationKind.FOREIGN))  # type: ignore[union-attr]
    assert names(plan(spec(premake=1), found)) == ["run_2027"]


def test_a_detach_that_never_ended_is_in_the_way_where_its_range_is_wanted() -> None:
    pending = partition("half", moment("2026-01-01"), moment("2027-01-01"), detach_pending=True)
    decided = plan(spec(premake=0), inventory(pending))
    assert decided.creations == ()
    assert decided.covered_until is None
    assert [(each.reason, each.error is not None) for each in decided.findings] == [("DetachPending", True)]
    old = partition("old", moment("2020-01-01"), moment("2021-01-01"), detach_pending=True)
    decided = plan(spec(premake=0), inventory(old, *years(2021, 2022, 2023, 2024, 2025, 2026)))
    assert [(each.reason, each.error is not None) for each in decided.findings] == [("DetachPending", False)]


def test_more_holes_than_the_limit_are_refused_but_the_rest_is_made() -> None:
    decided = plan(spec(interval=Interval.DAY, start_from="2020-01-01", premake=1), inventory())
    assert names(decided) == ["run_2026_11_22", "run_2026_11_23"]
    (finding,) = decided.findings
    assert isinstance(finding.error, TooManyPartitions)
    assert "2020-01-01T00:00:00Z and 2026-11-22T00:00:00Z" in finding.message


@pytest.mark.slow
def test_as_many_holes_as_the_limit_are_filled() -> None:
    day = moment("2026-11-22") - timedelta(days=MAX_CREATE)
    decided = plan(spec(interval=Interval.DAY, start_from=day.date().isoformat(), premake=0), inventory())
    assert len(decided.creations) == MAX_CREATE + 1
    assert decided.findings == ()


def test_a_date_a_thousand_years_ago_takes_no_time() -> None:
    decided = plan(spec(interval=Interval.HOUR, start_from="1000-01-01", premake=0), inventory())
    assert (len(decided.creations), reasons(decided)) == (1, ["TooManyPartitions"])


def test_a_name_of_another_relation_is_reported_and_the_rest_goes_on() -> None:
    decided = plan(spec(), inventory(taken=frozenset({"run_2027"})))
    assert names(decided) == ["run_2026", "run_2028"]
    (finding,) = decided.findings
    assert isinstance(finding.error, NameTaken)
    assert finding.object == "[2027-01-01T00:00:00Z, 2028-01-01T00:00:00Z)"
    assert "a relation or type of that name exists and is not a partition of public.run" in finding.message
    assert decided.missing == tuple(
        Range(datetime(year, 1, 1, tzinfo=values.NOW.tzinfo), datetime(year + 1, 1, 1, tzinfo=values.NOW.tzinfo))
        for year in (2026, 2027, 2028)
    )


def test_a_name_of_another_partition_is_reported_with_its_bounds() -> None:
    liar = partition("run_2026", moment("2019-01-01"), moment("2020-01-01"))
    decided = plan(spec(premake=0, start_from="2026-01-01"), inventory(liar))
    assert decided.creations == ()
    assert "a partition of that name holds FOR VALUES FROM ('2019-01-01T00:00:00Z')" in decided.findings[0].message


def test_a_partition_of_that_name_in_another_schema_is_not_in_the_way() -> None:
    away = partition("run_2026", moment("2025-01-01"), moment("2026-01-01"))
    found = inventory(replace(away, schema="archive"))
    assert names(plan(spec(premake=0), found)) == ["run_2026"]


def test_a_name_that_is_too_long_is_reported_with_the_limit() -> None:
    decided = plan(spec(name_format="{table}_" + "x" * 60 + "{year}", premake=1), inventory())
    assert decided.creations == ()
    assert [type(each.error) for each in decided.findings] == [NameTooLong, NameTooLong]
    assert "by 5 bytes" in decided.findings[0].message


def test_a_zone_that_does_not_exist() -> None:
    with pytest.raises(UnknownTimeZone):
        plan(spec(timezone="Mars/Olympus_Mons"), inventory())


def test_the_far_end_of_what_may_be_asked() -> None:
    policy = spec(premake=1000, ensure=["8999-12-31", "1000-01-01"], start_from="8999-12-31")
    decided = plan(policy, inventory(now=moment("7999-12-31")))
    assert names(decided)[-1] == "run_1000"
    assert naive("9000-01-01").year == max(each.range.upper.year for each in decided.creations if each.range.upper)


def test_a_plan_and_what_it_is_made_from_pass_between_processes() -> None:
    retention = {"keepFor": "5y", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "1h"}
    policy = spec(start_from="2026-01-01", retention=retention)
    left = values.detached("run_2017", moment("2017-01-01"), moment("2018-01-01"), values.NOW - timedelta(hours=2))
    found = inventory(*years(2018, 2026), detached=(left,), taken=frozenset({"run_2027"}))
    decided = plan(policy, found)
    assert [each.verb for each in decided.actions] == ["create", "detach", "drop"]
    assert "NameTaken" in reasons(decided)
    again, *made_from = pickle.loads(pickle.dumps((decided, policy, found)))  # noqa: S301 - written right here
    assert made_from == [policy, found]
    assert again.actions == decided.actions
    assert [each.case for each in again.actions if isinstance(each, DropDetached)] == [
        each.case for each in decided.actions if isinstance(each, DropDetached)
    ]
    # Errors are equal by what they say.
    assert repr(again) == repr(decided)
