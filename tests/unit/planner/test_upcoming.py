"""What comes next and when: exact moments that do not change as time goes by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from partwarden.api.types import Interval
from partwarden.planner import upcoming
from partwarden.planner.calendar import Grid, Range, iso
from partwarden.planner.context import cutoff
from partwarden.planner.drop_preconditions import UNKNOWN, Archives, ArchiveState, server_label
from partwarden.planner.inventory import Inventory
from partwarden.planner.keys import Codec, KeyType
from partwarden.planner.marker import Phase
from partwarden.planner.plan import Plan, make_plan
from partwarden.planner.schedule import PlannedStep
from support import values
from support.values import detached, inventory, moment, partition, spec, years
from unit.planner.test_expiry import NAIVE, ages, codecs, zones

SECOND = timedelta(seconds=1)
DROP: dict[str, Any] = {"keepFor": "5y", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "24h"}
ARCHIVED: dict[str, Any] = {"keepFor": "5y", "onExpire": "Drop", "archive": {"pvc": {"claimName": "archives"}}}
walls = st.datetimes(datetime(1975, 1, 1), datetime(2035, 1, 1))  # noqa: DTZ001 - by a wall clock
midnights = walls.map(lambda each: each.replace(hour=0, minute=0, second=0, microsecond=0))


def searched(age: str, upper: datetime, clock: Grid, codec: Codec) -> datetime:
    """The first second at which the cutoff is not before ``upper``: by halves, with nothing known."""
    early, late = datetime(1970, 1, 1, tzinfo=UTC), datetime(2500, 1, 1, tzinfo=UTC)
    while late - early > SECOND:
        middle = early + (late - early) // (2 * SECOND) * SECOND
        early, late = (early, middle) if cutoff(age, middle, clock, codec) >= upper else (middle, late)
    return late


def bound(codec: Codec, wall: datetime, zone: str) -> datetime:
    return wall if not codec.aware else Grid(Interval.DAY, ZoneInfo(zone)).moment(wall)


@given(ages, zones, codecs, st.one_of(walls, midnights))
@example("1mo", "Europe/Berlin", NAIVE, datetime(2026, 1, 31))  # noqa: DTZ001
@example("1y", "UTC", NAIVE, datetime(2028, 2, 29))  # noqa: DTZ001
@example("3h", "Europe/Berlin", NAIVE, datetime(2026, 10, 25, 2, 30))  # noqa: DTZ001
@example("1d", "Pacific/Apia", NAIVE, datetime(2011, 12, 30))  # noqa: DTZ001
@example("24h", "America/Sao_Paulo", NAIVE, datetime(2018, 11, 4))  # noqa: DTZ001
def test_a_range_expires_at_the_first_second_at_which_the_cutoff_has_passed_it(
    age: str, zone: str, codec: Codec, wall: datetime
) -> None:
    clock, upper = Grid(Interval.DAY, ZoneInfo(zone)), bound(codec, wall, zone)
    found = upcoming._expiry_of(age, upper, clock, codec)
    assert found == searched(age, upper, clock, codec)


@pytest.mark.parametrize("key", [KeyType.TIMESTAMPTZ, KeyType.TIMESTAMP])
@pytest.mark.parametrize("age", ["5y", "18mo", "13w", "90d", "36h"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_the_calendar_finds_it_without_a_search(
    key: KeyType, age: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def counted(*args: Any) -> datetime:
        nonlocal calls
        calls += 1
        return cutoff(*args)

    monkeypatch.setattr(upcoming, "cutoff", counted)
    codec = Codec(key)
    grid = Grid(Interval.MONTH, ZoneInfo(zone) if codec.aware else None)
    cell = grid.cell(moment("2026-01-15") if codec.aware else values.naive("2026-01-15"))
    for number in range(12):
        assert upcoming._expiry_of(age, cell.upper, Grid(Interval.YEAR, ZoneInfo(zone)), codec)
        cell = grid.cell(cell.upper)
        assert calls <= 2 * (number + 1)


def test_what_lies_at_the_end_of_the_calendar_never_expires() -> None:
    clock = Grid(Interval.YEAR, ZoneInfo("UTC"))
    late = datetime(9990, 1, 1, tzinfo=UTC)
    assert upcoming._expiry_of("50y", late, clock, Codec(KeyType.TIMESTAMPTZ)) is None
    assert upcoming._expiry_of("400mo", late, clock, Codec(KeyType.TIMESTAMPTZ)) is None
    floor = Codec(KeyType.TIMESTAMPTZ).floor
    assert upcoming._expiry_of("5y", floor, clock, Codec(KeyType.TIMESTAMPTZ)) is None


def decided(found: Inventory, held: frozenset[str] = frozenset(), archives: Archives = UNKNOWN, **fields: Any) -> Plan:
    return make_plan(spec(**fields), found, found.now, held, archives)


def said(step: PlannedStep | None) -> tuple[str, str, str | None, list[str]] | None:
    return (
        None
        if step is None
        else (step.action, step.name, iso(step.not_before), [str(each.on) for each in step.waits_for])
    )


def test_without_retention_the_next_thing_is_the_next_creation() -> None:
    found = decided(inventory(*years(2026, 2027, 2028))).upcoming
    assert said(found.next) == ("CreatePartition", "run_2029", "2027-01-01T00:00:00Z", [])
    assert found.next_drop is None
    assert (found.ahead, found.runs_out) == (2, moment("2029-01-01"))


def test_what_is_due_comes_before_all_else() -> None:
    found = decided(inventory(*years(2026, 2028))).upcoming
    assert said(found.next) == ("CreatePartition", "run_2027", None, [])
    assert (found.ahead, found.runs_out, found.creation_due) == (0, moment("2027-01-01"), moment("2025-01-01"))


def test_where_nothing_holds_now_the_coverage_has_ended_already() -> None:
    found = decided(inventory(*years(2019, 2020)), start_from="2026-01-01").upcoming
    assert (found.ahead, found.runs_out, found.creation_due) == (0, moment("2021-01-01"), moment("2019-01-01"))
    empty = decided(inventory()).upcoming
    assert (empty.ahead, empty.runs_out, empty.creation_due) == (0, moment("2026-01-01"), moment("2024-01-01"))


def test_the_next_creation_is_due_when_the_next_interval_begins() -> None:
    found = decided(inventory(*years(2026, 2027, 2028))).upcoming
    assert found.next
    assert found.creation_due == found.next.not_before == moment("2027-01-01")


def test_what_exists_farther_ahead_puts_off_the_next_creation() -> None:
    found = decided(inventory(*years(2026, 2027, 2028, 2029, 2030, 2032))).upcoming
    assert said(found.next) == ("CreatePartition", "run_2031", "2029-01-01T00:00:00Z", [])
    assert found.ahead == 4


def test_a_piece_of_an_interval_is_a_creation_and_no_whole_interval_ahead() -> None:
    half = partition("run_half", moment("2029-01-01"), moment("2029-07-01"))
    found = decided(inventory(*years(2026, 2027, 2028), half)).upcoming
    assert found.next
    assert found.next.range == Range(moment("2029-07-01"), moment("2030-01-01"))
    assert found.next.not_before == moment("2027-01-01")
    assert (found.ahead, found.runs_out) == (2, moment("2029-07-01"))


def test_the_next_creation_begins_by_the_clock_of_the_policys_zone() -> None:
    found = inventory(
        *(
            partition(f"run_{year}", values.naive(f"{year}-01-01"), values.naive(f"{year + 1}-01-01"))
            for year in (2026, 2027, 2028)
        ),
        parent=values.parent(KeyType.TIMESTAMP),
    )
    coming = decided(found, timezone="Europe/Berlin").upcoming
    assert said(coming.next) == ("CreatePartition", "run_2029", "2026-12-31T23:00:00Z", [])
    assert coming.runs_out == moment("2028-12-31T23:00")


def test_coverage_without_end_needs_nothing_more() -> None:
    rest = partition("run_rest", moment("2027-01-01"), None)
    found = decided(inventory(*years(2026), rest), premake=1).upcoming
    assert (found.next, found.ahead, found.runs_out) == (None, None, None)


def test_coverage_far_ahead_is_counted_up_to_a_thousand_intervals() -> None:
    rest = partition("run_rest", moment("2027-01-01"), moment("9000-01-01"))
    found = decided(inventory(*years(2026), rest), premake=1, interval="Hour").upcoming
    assert found.ahead == upcoming.MOST_AHEAD
    assert found.next
    assert found.next.not_before == moment("8999-12-31T23:00")


def test_the_end_of_the_calendar_is_no_error() -> None:
    rest = partition("run_rest", moment("2027-01-01"), moment("9999-01-01"))
    assert decided(inventory(*years(2026), rest), premake=0).upcoming.next is None


def test_a_partition_shows_when_it_expires_and_when_it_may_be_dropped() -> None:
    found = inventory(*years(2022, 2023, 2024, 2025, 2026, 2027, 2028))
    coming = decided(found, retention=DROP).upcoming
    first = found.partitions[0]
    assert iso(coming.expires_at(first)) == "2028-01-01T00:00:00Z"
    assert iso(coming.drop_after(first)) == "2028-01-02T00:00:00Z"
    assert said(coming.next) == ("CreatePartition", "run_2029", "2027-01-01T00:00:00Z", [])
    assert said(coming.next_drop) == ("DropDetached", "run_2022", "2028-01-02T00:00:00Z", [])


def test_the_next_expiry_begins_with_the_archive() -> None:
    found = inventory(*years(*range(2021, 2030)))
    coming = decided(found, premake=0, retention=ARCHIVED | {"approval": "Manual"}).upcoming
    assert said(coming.next) == ("ArchivePartition", "run_2021", "2027-01-01T00:00:00Z", [])
    assert said(coming.next_drop) == ("DropDetached", "run_2021", "2027-01-02T00:00:00Z", ["Archive", "Approval"])


def test_nothing_is_dropped_where_the_policy_only_detaches() -> None:
    found = inventory(*years(2024, 2025, 2026, 2027, 2028))
    coming = decided(found, retention={"keepFor": "1y"}).upcoming
    assert coming.next_drop is None
    assert coming.drop_after(found.partitions[0]) is None
    assert said(coming.next) == ("DetachPartition", "run_2024", None, [])


def test_a_hold_puts_a_partition_out_of_what_comes_next_and_is_shown_before_it_expires() -> None:
    found = inventory(*years(2022, 2023, 2024, 2025, 2026, 2027, 2028))
    coming = decided(found, frozenset({"run_2022"}), retention=DROP).upcoming
    assert [coming.is_held(each) for each in found.partitions[:2]] == [True, False]
    assert said(coming.next_drop) == ("DropDetached", "run_2023", "2029-01-02T00:00:00Z", [])
    held = decided(found, frozenset({each.name for each in found.partitions}), retention=DROP).upcoming
    assert held.next_drop is None


def test_the_drop_of_a_detached_table_is_due_at_the_end_of_its_grace_and_says_so_also_later() -> None:
    table = detached("run_2018", moment("2018-01-01"), moment("2019-01-01"), moment("2026-11-22T12:00:00.5"))
    for now in ("2026-11-22T13:00", "2026-11-23T11:00", "2026-11-23T12:00:01", "2026-12-24T12:00"):
        found = inventory(*years(2026, 2027, 2028), now=moment(now), detached=(table,))
        coming = decided(found, retention=DROP).upcoming
        assert (said(coming.next_drop) or ())[:3] == ("DropDetached", "run_2018", "2026-11-23T12:00:01Z")
        assert iso(coming.expires_at(table)) == "2024-01-01T00:00:00Z"


def test_a_table_whose_detach_is_not_confirmed_or_that_was_restored_has_no_moment() -> None:
    table = detached("run_2018", moment("2018-01-01"), moment("2019-01-01"))
    for phase in (Phase.DETACHING, Phase.RESTORED):
        other = replace(table, marker=replace(table.marker, phase=phase))
        found = inventory(*years(2026, 2027, 2028), detached=(other,))
        assert decided(found, retention=DROP).upcoming.drop_after(other) is None


def test_the_grace_of_a_partition_that_is_attached_still_has_no_end_yet() -> None:
    found = inventory(*years(2018, 2026, 2027, 2028))
    coming = decided(found, start_from="2026-01-01", retention=DROP).upcoming
    assert coming.drop_after(found.partitions[0]) is None
    assert said(coming.next_drop) == ("DropDetached", "run_2018", None, ["Detach"])
    assert coming.oldest_expired == moment("2024-01-01")


def test_the_oldest_expired_is_of_those_that_no_hold_keeps() -> None:
    found = inventory(*years(2018, 2019, 2026, 2027, 2028))
    coming = decided(found, frozenset({"run_2018"}), start_from="2026-01-01", retention=DROP).upcoming
    assert coming.oldest_expired == moment("2025-01-01")
    assert decided(inventory(*years(2026, 2027, 2028)), retention=DROP).upcoming.oldest_expired is None


def test_a_table_names_the_archive_that_counts() -> None:
    found = inventory(*years(2018, 2026, 2027, 2028))
    oid, here = found.partitions[0].oid, server_label(found.server.identity)
    states = {oid: (ArchiveState("run-2018-0", 0, here, oid=oid), ArchiveState("run-2018-1", 1, here, oid=oid))}
    coming = decided(found, archives=Archives(states), start_from="2026-01-01", retention=ARCHIVED).upcoming
    assert [coming.archive(each) for each in found.partitions[:2]] == ["run-2018-1", None]


def moments() -> Iterator[datetime]:
    yield from (moment("2026-11-22T12:00") + minutes * timedelta(minutes=1) for minutes in range(0, 3000, 7))


@settings(max_examples=30)
@given(st.sampled_from([DROP, ARCHIVED, {"keepFor": "5y"}]), st.sampled_from(list(moments())))
def test_nothing_of_it_changes_while_time_goes_by_and_nothing_happens(retention: dict[str, Any], now: datetime) -> None:
    table = detached("run_2018", moment("2018-01-01"), moment("2019-01-01"), moment("2026-11-01"))
    expired = years(2019, 2026, 2027, 2028)
    first, later = (
        decided(
            inventory(*expired, now=each, detached=(table,)),
            frozenset({"run_2018"}),
            start_from="2026-01-01",
            retention=retention,
        ).upcoming
        for each in (moment("2026-11-22T12:00"), now)
    )
    assert (said(first.next), said(first.next_drop)) == (said(later.next), said(later.next_drop))
    assert (first.ahead, first.runs_out, first.oldest_expired) == (later.ahead, later.runs_out, later.oldest_expired)


def test_what_waits_for_an_approval_of_the_plan_is_not_next() -> None:
    found = inventory(*years(2018, 2026, 2027, 2028))
    coming = decided(found, start_from="2026-01-01", mode="Approve", retention=DROP).upcoming
    assert said(coming.next) == ("CreatePartition", "run_2029", "2027-01-01T00:00:00Z", [])
    assert coming.next_drop
    assert coming.next_drop.name == "run_2018"
    assert "Approval" in {str(each.on) for each in coming.next_drop.waits_for}


@pytest.mark.parametrize("phase", [Phase.RESTORED, Phase.DETACHED])
def test_what_a_user_attached_again_is_not_late(phase: Phase) -> None:
    (old,) = years(2018)
    marker = detached("run_2018", moment("2018-01-01"), moment("2019-01-01"), phase=phase).marker
    found = inventory(replace(old, marker=marker), *years(2026, 2027, 2028))
    plan = decided(found, start_from="2026-01-01", retention=DROP)
    assert plan.upcoming.oldest_expired is None
    assert "to keep them, name them in spec.holds" in plan.findings[0].message


@pytest.mark.parametrize(
    ("held", "fields"),
    [
        ({"run_2018"}, {}),
        (set(), {"mode": "Approve"}),
        (set(), {"retention": {**DROP, "maxRetirements": 1}}),
    ],
)
def test_no_step_changes_with_the_hours_while_a_detach_waits_for_the_user(
    held: set[str], fields: dict[str, Any]
) -> None:
    fields = {"start_from": "2026-01-01", "retention": DROP, **fields}
    first, later = (
        decided(inventory(*years(2018, 2019, 2026, 2027, 2028), now=moment(now)), frozenset(held), **fields)
        for now in ("2026-11-22T12:00", "2026-11-22T15:00")
    )
    steps = [(each.id, each.not_before) for each in first.steps if not held or each.name in held]
    assert steps == [(each.id, each.not_before) for each in later.steps if not held or each.name in held]
    assert "DropDetached" in {each.action for each in first.steps}
