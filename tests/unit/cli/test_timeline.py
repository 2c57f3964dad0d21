"""A table along time: what comes next for a partition, what is folded, how long coverage lasts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.status import State
from partwarden.api.types import Interval
from partwarden.cli.chart import Chart
from partwarden.cli.clock import period, when
from partwarden.cli.timeline import PLANNED, Coming, Entry, Fold
from partwarden.planner.calendar import Grid
from support.timelines import NOW, month, partition, policy, step, timeline


def at(year: int, month: int = 1, day: int = 1, hour: int = 0) -> datetime:
    """A moment of a wall clock."""
    return datetime(year, month, day, hour)  # noqa: DTZ001


def entry(name: str, found: dict[str, Any] | None = None) -> Entry:
    return next(each for each in timeline(found).entries if each.name == name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("run_2023_09", "drop in 20 h"),
        ("run_2023_10", "drop, waits: Approval"),
        ("run_2023_11", "archive now"),
        ("run_2027_03", "create now"),
    ],
)
def test_what_comes_next_is_said_with_its_moment_or_what_it_waits_for(name: str, expected: str) -> None:
    coming = entry(name).next
    assert coming is not None
    assert coming.words(NOW) == expected


def test_the_first_step_counts() -> None:
    found = policy()
    found["status"]["plan"].append(step("DetachPartition", partition(-36, "Expired")))
    coming = entry("run_2023_11", found).next
    assert coming is not None
    assert coming.verb == "archive"


def test_a_partition_that_the_plan_makes_has_its_place() -> None:
    made = entry("run_2027_03")
    assert (made.state, made.period, made.bytes) == (PLANNED, "2027-03", 0)


def test_what_comes_first_of_all_is_what_is_due() -> None:
    coming = timeline().coming
    assert coming is not None
    assert coming.name in ("run_2023_11", "run_2027_03")


def test_detached_tables_come_first_and_default_last() -> None:
    states = [each.state for each in timeline().entries]
    assert states[:3] == [State.DETACHED, State.DETACHED, State.EXPIRED]
    assert states[-2:] == [PLANNED, State.DEFAULT]


def test_an_archive_and_a_hold_are_known() -> None:
    assert entry("run_2023_09").archived
    assert entry("run_2023_12").held
    assert not entry("run_2024_01").archived


def test_far_ones_for_which_nothing_comes_are_folded() -> None:
    shown = list(timeline(policy(past=100, ahead=30)).folded())
    older, newer = [each for each in shown if isinstance(each, Fold)]
    assert (older.older, newer.older) == (True, False)
    assert older.bytes == sum(each.bytes for each in older.entries)
    assert len(shown) < 30


@given(past=st.integers(3, 150), ahead=st.integers(0, 40))
def test_folding_loses_no_partition_and_keeps_the_order(past: int, ahead: int) -> None:
    one = timeline(policy(past=past, ahead=ahead))
    unfolded = [each for some in one.folded() for each in (some.entries if isinstance(some, Fold) else [some])]
    assert unfolded == list(one.entries)


@pytest.mark.parametrize(
    ("interval", "until", "expected"),
    [
        ("Hour", "2026-11-20T13:00:00Z", "6 hours ahead"),
        ("Day", "2026-11-22T00:00:00Z", "1 day ahead"),
        ("Month", "2026-12-01T00:00:00Z", "0 months ahead"),
        ("Year", "2030-01-01T00:00:00Z", "3 years ahead"),
        ("Year", "2030-07-01T00:00:00Z", "3 years ahead"),
        ("Month", "2026-11-01T00:00:00Z", "now is not covered"),
        ("Month", "MAXVALUE", "covered for ever"),
        ("Hour", "9999-12-31T00:00:00Z", "at least 1,000 hours ahead"),
    ],
)
def test_the_runway_is_counted_in_intervals_from_now(interval: str, until: str, expected: str) -> None:
    found = policy(coveredUntil=until)
    found["spec"]["interval"] = interval
    assert timeline(found).runway == expected


def test_a_stopped_operator_does_not_keep_the_runway_long() -> None:
    assert timeline(policy(ahead=3), NOW + timedelta(days=62)).runway == "1 month ahead"


def test_the_cutoff_is_that_of_the_policy() -> None:
    assert timeline().cutoff == at(2024, 1, 20, 6).replace(tzinfo=UTC)


def test_times_are_those_of_the_policys_zone() -> None:
    found = policy()
    found["spec"]["timezone"] = "America/New_York"
    for each in found["status"]["partitions"][:-1]:
        each["from"], each["to"] = (each[end].replace("T00", "T05") for end in ("from", "to"))
    assert entry("run_2026_01", found).period == "2026-01"


def test_without_a_zone_in_the_database_of_zones_times_are_utc() -> None:
    found = policy()
    found["spec"]["timezone"] = "Mars/Olympus"
    assert timeline(found).zone == "UTC"


@given(st.text(), st.text())
def test_bounds_that_are_no_moments_are_none(lower: str, upper: str) -> None:
    found = policy()
    found["status"]["partitions"][0] |= {"from": lower, "to": upper}
    timeline(found).document()


def test_a_policy_that_was_never_reconciled_has_a_timeline() -> None:
    found = policy()
    found["status"] = {}
    one = timeline({**found, "status": {"partitions": [partition(-1, "Past"), partition(0, "Past")]}})
    assert one.runway == "not observed yet"


@given(st.sampled_from(Interval), st.datetimes(at(1900), at(2100)))
def test_a_whole_interval_is_called_by_its_period(interval: Interval, moment: datetime) -> None:
    cell = Grid(interval, None).cell(moment)
    words = period(cell.lower, cell.upper)
    assert "/" not in words
    assert words == period(cell.lower, cell.upper)
    following = Grid(interval, None).cell(cell.upper)
    assert words != period(following.lower, following.upper)


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (at(2026, 7, 1), at(2026, 10, 1), "2026-Q3"),
        (at(2026, 11, 16), at(2026, 11, 23), "2026-W47"),
        (at(2026, 11, 16, 7), at(2026, 11, 16, 8), "2026-11-16T07"),
        (at(2026, 7, 2), at(2026, 10, 1), "2026-07-02/2026-10-01"),
        (None, at(2026, 1, 1), "before 2026-01-01"),
        (at(2026, 1, 1), None, "from 2026-01-01"),
        (None, None, "everything"),
    ],
)
def test_ranges_are_short(lower: datetime | None, upper: datetime | None, expected: str) -> None:
    assert period(lower, upper) == expected


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (timedelta(seconds=-1), "now"),
        (timedelta(seconds=1), "in 1 h"),
        (timedelta(hours=47), "in 47 h"),
        (timedelta(days=2), "in 2 d"),
        (timedelta(days=99), "in 99 d"),
        (timedelta(days=100), "2027-02-28"),
    ],
)
def test_moments_are_said_from_now_on(left: timedelta, expected: str) -> None:
    assert when(NOW + left, NOW) == expected


def test_without_a_moment_it_comes_now() -> None:
    assert Coming("detach").words(NOW) == "detach now"


def test_as_data_nothing_is_folded() -> None:
    one = timeline(policy(past=100))
    document = one.document()
    assert len(document["partitions"]) == len(one.entries)
    assert document["intervalsAhead"] == 3
    assert document["partitions"][0]["next"] == {"action": "drop", "at": "2026-11-21T02:00:00Z", "waitsFor": []}
    assert document["partitions"][0]["from"] == month(-102)


def by_the_hour() -> dict[str, Any]:
    """Of a policy in Berlin, on the day on which 02:00 comes twice: it is 00:30, and five hours are ahead."""
    found = policy(coveredUntil="2026-10-25T04:00:00Z")
    found["spec"] |= {"interval": "Hour", "timezone": "Europe/Berlin"}
    found["status"]["plan"] = []
    hours = [f"2026-10-25T{hour:02}:00:00Z" for hour in range(5)]
    found["status"]["partitions"] = [
        {"name": f"run_{number}", "from": lower, "to": upper, "bytes": 1, "state": "Future"}
        for number, (lower, upper) in enumerate(pairwise(["2026-10-24T22:00:00Z", "2026-10-24T23:00:00Z", *hours]))
    ]
    return found


def test_hours_that_the_clock_shows_twice_are_two() -> None:
    one = timeline(by_the_hour(), datetime(2026, 10, 24, 22, 30, tzinfo=UTC))
    hours = [each.period.removeprefix("2026-10-25T") for each in one.entries]
    assert hours == ["00", "01", "02+02:00", "02+01:00", "03", "04"]
    assert one.ahead == 5
    assert Chart(one, 1).hidden == 0


def test_as_data_moments_are_those_of_the_status() -> None:
    found = by_the_hour()
    document = timeline(found).document()
    listed = [(each["from"], each["to"]) for each in document["partitions"] if each["state"] != PLANNED]
    assert listed == [(each["from"], each["to"]) for each in found["status"]["partitions"]]
    assert document["cutoff"].endswith("Z")


def test_a_key_without_a_zone_has_moments_without_one() -> None:
    found = policy(coveredUntil="2027-03-01")
    found["spec"]["timezone"] = "America/New_York"
    for each in [*found["status"]["partitions"][:-1], *found["status"]["plan"]]:
        each["from"], each["to"] = (each[end].removesuffix("Z").removesuffix("T00:00:00") for end in ("from", "to"))
    one = timeline(found)
    first = one.document()["partitions"][0]
    assert (first["period"], first["from"], first["next"]["at"]) == ("2023-09", "2023-09-01", "2026-11-21T02:00:00Z")
    assert one.runway == "3 months ahead"
    assert one.cutoff == at(2024, 1, 20, 1)


def test_where_all_steps_wait_the_first_of_them_comes_next() -> None:
    found = policy()
    found["status"]["plan"] = [step("DetachPartition", partition(-36, "Expired"), waitsFor=["Approval: of the plan"])]
    found["spec"].pop("retention")
    coming = timeline(found).coming
    assert coming is not None
    assert coming.next is not None
    assert coming.next.words(NOW) == "detach, waits: Approval"


def test_beyond_the_steps_that_a_status_has_the_expired_come_later() -> None:
    found = policy()
    found["status"]["plan"] = [step("CreatePartition", partition(number, "Future")) for number in range(4, 54)]
    coming = entry("run_2023_11", found).next
    assert timeline(found).cut
    assert coming is not None
    assert coming.words(NOW) == "later"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [({}, ""), ({"suspend": True}, "spec.suspend is true"), ({"mode": "Plan"}, "spec.mode is Plan")],
)
def test_it_is_said_where_nothing_of_what_comes_is_done(spec: dict[str, Any], expected: str) -> None:
    found = policy()
    found["spec"] |= spec
    assert timeline(found).idle == (expected and f"nothing of NEXT is done: {expected}")
