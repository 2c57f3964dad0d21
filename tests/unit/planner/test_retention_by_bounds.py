"""Whatever the lengths of partitions and the policy's calendar: which of them expire, and which interval they show."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.policy import TableSpec
from partwarden.api.retention import KeyEncoding, Retention, Unaligned
from partwarden.api.types import Interval
from partwarden.errors import IntervalMismatch
from partwarden.planner.actions import CreatePartition, DetachPartition
from partwarden.planner.calendar import Grid, Range
from partwarden.planner.context import cutoff
from partwarden.planner.inventory import Inventory, Partition, RelationKind
from partwarden.planner.keys import TYPES, Codec, KeyType
from partwarden.planner.marker import Marker, Phase
from partwarden.planner.plan import make_plan
from support import values

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]
CODECS = [Codec(each, encoding) for encoding, types in TYPES.items() for each in types]
SECOND = timedelta(seconds=1)


@st.composite
def tables(draw: st.DrawFn) -> tuple[TableSpec, Inventory, Codec]:
    """A policy with retention, and partitions between moments of any kind, some of them of a calendar."""
    interval = draw(st.sampled_from(list(Interval)))
    codec = draw(st.sampled_from([each for each in CODECS if (each.type, interval) != (KeyType.DATE, Interval.HOUR)]))
    zone = draw(st.sampled_from(ZONES))
    now = draw(st.datetimes(datetime(2012, 1, 1), datetime(2027, 1, 1))).replace(tzinfo=UTC)  # noqa: DTZ001
    keep_for = f"{draw(st.integers(1, 40))}{draw(st.sampled_from(['h', 'd', 'w', 'mo']))}"
    spec = values.spec(
        interval=interval,
        timezone=zone,
        key_encoding=codec.encoding,
        premake=draw(st.integers(0, 2)),
        retention=Retention(keep_for=keep_for, unaligned=draw(st.sampled_from(list(Unaligned)))),
    )
    here = now if codec.aware else now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    past = cutoff(keep_for, now, Grid.of(spec), codec)
    grids = [Grid(each, ZoneInfo(zone) if codec.aware else None) for each in Interval]
    ends = {draw(st.sampled_from([past, past + SECOND, past - SECOND]))}
    for _ in range(draw(st.integers(1, 12))):
        moment = draw(st.sampled_from([here, past])) + timedelta(hours=draw(st.integers(-20_000, 3000)))
        cell = draw(st.sampled_from(grids)).cell(moment)
        ends |= draw(st.sampled_from([{moment}, {cell.lower}, {cell.lower, cell.upper}]))
    ends = {each.replace(microsecond=0) for each in ends}
    if codec.type is KeyType.DATE:
        ends = {each.replace(hour=0, minute=0, second=0) for each in ends}
    bounds: list[datetime | None] = [*sorted(ends)]
    bounds = [*draw(st.sampled_from([[], [None]])), *bounds, *draw(st.sampled_from([[], [None]]))]
    found = [
        _partition(draw, f"old {number}", Range(lower, upper), codec, now)
        for number, (lower, upper) in enumerate(pairwise(bounds))
        if draw(st.integers(0, 3))
    ]
    found += [values.default()] if draw(st.booleans()) else []
    return spec, values.inventory(*found, now=now, parent=values.parent(codec.type)), codec


def _partition(draw: st.DrawFn, name: str, held: Range, codec: Codec, now: datetime) -> Partition:
    each = values.partition(name, held.lower, held.upper, codec)
    phase = draw(st.sampled_from([None] * 5 + list(Phase)))
    kind = draw(st.sampled_from([RelationKind.TABLE] * 6 + list(RelationKind)))
    mark = None
    if phase is not None and held.bounded is not None:
        mark = Marker(each.oid, values.PARENT.oid, "public.run", held.bounded, phase, now)
    return replace(each, kind=kind, marker=mark, differs=draw(st.sampled_from([(), (), (), ("owner",)])))


def says_when(held: Range, codec: Codec) -> bool:
    """A number or a UUID shows by its bounds alone that it is a moment."""
    assert held.lower is not None
    assert held.upper is not None
    quarters = all((each.minute % 15, each.second) == (0, 0) for each in (held.lower, held.upper))
    return quarters or codec.encoding is KeyEncoding.NATIVE


@given(tables(), st.data())
def test_exactly_what_has_two_bounds_and_lies_before_the_cutoff_expires(
    table: tuple[TableSpec, Inventory, Codec], data: st.DataObject
) -> None:
    spec, found, codec = table
    retention = spec.retention
    assert retention is not None
    held = frozenset(data.draw(st.lists(st.sampled_from([each.name for each in found.partitions] or ["none"]))))
    plan = make_plan(spec, found, found.now, held)
    past = cutoff(retention.keep_for, found.now, Grid.of(spec), codec)
    grid = Grid.of(spec, aware=codec.aware)
    old = {
        each.oid: each
        for each in found.partitions
        if each.range is not None and each.range.lower is not None and each.range.upper is not None
        if each.range.upper <= past
        if (retention.unaligned is Unaligned.EXPIRE and says_when(each.range, codec))
        or grid.cell(each.range.lower) == each.range
    }
    assert plan.retired.expired == old.keys()
    going = {action.oid for action in plan.actions if isinstance(action, DetachPartition)}
    assert going == {
        oid
        for oid, each in old.items()
        if each.kind is RelationKind.TABLE and each.name not in held and not each.differs
        if each.marker is None or each.marker.phase is Phase.DETACHING
    }


@pytest.mark.slow
@given(tables(), st.sampled_from(list(Interval)), st.sampled_from(ZONES))
def test_no_row_that_is_young_goes_whatever_interval_and_time_zone_become(
    table: tuple[TableSpec, Inventory, Codec], interval: Interval, zone: str
) -> None:
    """And what is made is never what has just left, nor over what stays."""
    spec, found, codec = table
    retention = spec.retention
    assert retention is not None
    interval = Interval.DAY if codec.type is KeyType.DATE and interval is Interval.HOUR else interval
    changed = values.spec(interval=interval, timezone=zone, key_encoding=codec.encoding, premake=0, retention=retention)
    here = found.now if codec.aware else found.now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    for _ in range(2):
        plan = make_plan(changed, found, found.now)
        past = cutoff(retention.keep_for, found.now, Grid.of(changed), codec)
        gone = [action.range for action in plan.actions if isinstance(action, DetachPartition)]
        assert all(each.upper <= past <= here for each in gone)
        made = [action for action in plan.actions if isinstance(action, CreatePartition)]
        assert not any(new.range.overlaps(old) for new in made for old in gone)
        found = values.after(found, [*made, *(each for each in plan.actions if isinstance(each, DetachPartition))])


# The interval that is left out.


NOON, DAY = datetime(2026, 11, 22, 12, tzinfo=UTC), timedelta(days=1)


def days(count: int) -> list[Partition]:
    starts = [NOON.replace(hour=0) - number * DAY for number in range(count)]
    return [values.partition(f"run_{each:%Y_%m_%d}", each, each + DAY) for each in starts]


def test_an_interval_that_is_left_out_and_not_what_the_partitions_show_is_refused() -> None:
    found = values.inventory(*days(30), values.default())
    with pytest.raises(IntervalMismatch) as refused:
        make_plan(values.spec(), found, found.now)
    assert str(refused.value) == (
        "cannot tell the interval of public.run: spec.interval is left out, which means Year, but its 12 newest "
        "partitions are each one Day long: run_2026_11_22, run_2026_11_21, run_2026_11_20 and 9 more; write "
        "spec.interval: Day to go on with those, or spec.interval: Year to change to that one"
    )


@pytest.mark.parametrize("interval", list(Interval))
def test_an_interval_that_is_written_is_obeyed_whatever_the_partitions_show(interval: Interval) -> None:
    found = values.inventory(*days(30))
    assert make_plan(values.spec(interval=interval), found, found.now).interval is interval


def test_a_copy_of_the_spec_still_knows_whether_the_interval_was_written() -> None:
    assert values.spec(interval="Year").model_copy(update={"premake": 0}).says_interval
    assert not values.spec(premake=1).model_copy(update={"premake": 0}).says_interval
    assert not TableSpec.model_validate({"table": {"name": "run"}, "interval": None}).says_interval


@pytest.mark.parametrize(
    "partitions",
    [
        [],
        days(2),
        [*days(11), values.partition("week", NOON + DAY, NOON + 8 * DAY)],
        values.years(*range(2010, 2027)),
        [values.partition(f"run_{each}", NOON - (each + 2) * DAY, NOON - each * DAY) for each in range(0, 20, 2)],
    ],
    ids=["none", "too few", "mixed", "years", "two days each"],
)
def test_what_shows_no_other_interval_is_never_refused(partitions: list[Partition]) -> None:
    found = values.inventory(*partitions)
    assert make_plan(values.spec(premake=0), found, found.now).interval is Interval.YEAR


@pytest.mark.parametrize(
    "interval",
    # There are many hours.
    [
        pytest.param(each, marks=[pytest.mark.slow] if each is Interval.HOUR else [])
        for each in Interval
        if each is not Interval.YEAR
    ],
)
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Pacific/Apia"])
def test_an_interval_of_another_time_zone_is_one_as_well(interval: Interval, zone: str) -> None:
    """The midnights of Berlin in summer are at 22:00 of UTC."""
    cells = Grid(interval, ZoneInfo(zone)).cells(NOON - 1500 * DAY, NOON)
    found = values.inventory(*(values.partition(f"run_{n}", c.lower, c.upper) for n, c in enumerate(cells)))
    with pytest.raises(IntervalMismatch, match=f"each one {interval} long"):
        make_plan(values.spec(), found, found.now)


def test_only_the_newest_partitions_count() -> None:
    """Of a table that went from months to years long ago, and back to days."""
    found = values.inventory(*days(12), *values.years(2019, 2020))
    with pytest.raises(IntervalMismatch, match=r"spec\.interval: Day"):
        make_plan(values.spec(), found, found.now)
    mixed = values.inventory(*days(11), *values.years(2019))
    assert make_plan(values.spec(premake=0), mixed, mixed.now).interval is Interval.YEAR
