"""A policy whose interval was changed: what exists stays, one filler leads to the next boundary, nothing overlaps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from partwarden.api.policy import TableSpec
from partwarden.api.types import Interval
from partwarden.planner.calendar import Grid, Range
from partwarden.planner.inventory import Inventory
from partwarden.planner.keys import TYPES, Codec
from partwarden.planner.plan import make_plan
from support import values

ZONES = ["UTC", "Europe/Berlin", "America/Havana", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]
CODECS = [Codec(each, encoding) for encoding, types in TYPES.items() for each in types if each != "date"]

intervals = st.sampled_from(list(Interval))
# Two rows of four years after it end before 2038, when no integer of seconds is left.
clocks = st.datetimes(datetime(2011, 12, 1), datetime(2029, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))  # noqa: DTZ001


def policy(interval: Interval, zone: str, codec: Codec, premake: int) -> TableSpec:
    return values.spec(interval=interval, timezone=zone, key_encoding=codec.encoding, premake=premake)


def kept(found: Inventory, spec: TableSpec, now: datetime) -> Inventory:
    """The table once everything is done that the policy wants at that moment."""
    return values.after(found, make_plan(spec, found, now).creations)


def ranges(found: Inventory) -> list[Range]:
    return sorted((each.range for each in found.partitions if each.range), key=lambda each: str(each.lower))


def check_change(old: TableSpec, new: TableSpec, codec: Codec, then: datetime, now: datetime) -> list[Range]:
    """Keeps a table by the old policy, then by the new one. Returns what the new one made that is not one interval."""
    before = kept(values.inventory(parent=values.parent(codec.type)), old, then)
    plan = make_plan(new, before, now)
    after = kept(before, new, now)
    assert after.partitions[: len(before.partitions)] == before.partitions
    whole = ranges(after)
    assert all(left.upper and right.lower and left.upper <= right.lower for left, right in pairwise(whole))
    assert not plan.findings or [each.reason for each in plan.findings] == ["OffGrid"]
    again = make_plan(new, after, now)
    assert again.creations == ()
    assert again.missing == ()
    grid = Grid(new.interval, ZoneInfo(new.timezone) if codec.aware else None)
    return [each.range for each in plan.creations if each.range.lower and grid.cell(each.range.lower) != each.range]


@given(
    intervals, intervals, st.sampled_from(ZONES), st.sampled_from(CODECS), clocks, st.integers(0, 3), st.integers(0, 3)
)
def test_when_the_table_ends_now_one_filler_leads_to_the_next_boundary(
    interval: Interval, other: Interval, zone: str, codec: Codec, then: datetime, premake: int, later: int
) -> None:
    """The moment that the last partition of the old interval ends, whatever is wanted from then on."""
    old, new = (policy(each, zone, codec, premake) for each in (interval, other))
    first = kept(values.inventory(parent=values.parent(codec.type)), old, then)
    end = make_plan(old, first, then).covered_until
    assert end is not None
    now = (end if end.tzinfo else end.replace(tzinfo=UTC)) + timedelta(days=later)
    fillers = check_change(old, new, codec, then, now)
    following = [each for each in fillers if each.lower is not None and each.lower >= end]
    assert len(following) <= 1
    assert all(each.lower == end for each in following)
    if (interval, other) in NESTED:
        assert following == []


NESTED = {
    (longer, shorter)
    for row in ((Interval.YEAR, Interval.QUARTER, Interval.MONTH, Interval.DAY), (Interval.WEEK, Interval.DAY))
    for place, longer in enumerate(row)
    for shorter in row[place:]
}
"""Where every boundary of the first is one of the second. (Hours are not: a day may begin within one.)"""


@given(
    intervals,
    intervals,
    st.sampled_from(ZONES),
    st.sampled_from(CODECS),
    clocks,
    st.timedeltas(timedelta(0), timedelta(days=800)),
)
@example(Interval.YEAR, Interval.MONTH, "UTC", CODECS[1], datetime(2026, 5, 5, tzinfo=UTC), timedelta(0))
@example(Interval.MONTH, Interval.WEEK, "UTC", CODECS[1], datetime(2026, 5, 5, tzinfo=UTC), timedelta(days=40))
def test_at_any_time_a_change_of_interval_leaves_no_overlap_and_covers_now(
    interval: Interval, other: Interval, zone: str, codec: Codec, then: datetime, later: timedelta
) -> None:
    old, new = (policy(each, zone, codec, 1) for each in (interval, other))
    for now in (then, then + min(later, 150 * LENGTH[min(interval, other, key=LENGTH.__getitem__)])):
        check_change(old, new, codec, then, now)


LENGTH = {
    Interval.HOUR: timedelta(hours=1),
    Interval.DAY: timedelta(days=1),
    Interval.WEEK: timedelta(weeks=1),
    Interval.MONTH: timedelta(days=30),
    Interval.QUARTER: timedelta(days=90),
    Interval.YEAR: timedelta(days=365),
}


@given(st.sampled_from(ZONES), clocks, st.lists(intervals, min_size=2, max_size=6))
def test_an_interval_may_change_again_and_again(zone: str, now: datetime, row: list[Interval]) -> None:
    codec, found = CODECS[1], values.inventory()
    for interval in row:
        before, found = found, kept(found, policy(interval, zone, codec, 1), now)
        assert found.partitions[: len(before.partitions)] == before.partitions
        now += LENGTH[interval]
    whole = ranges(found)
    assert all(left.upper and right.lower and left.upper <= right.lower for left, right in pairwise(whole))
