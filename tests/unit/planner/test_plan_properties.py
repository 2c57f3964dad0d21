"""Whatever exists, whatever the policy and the clock: what every plan promises."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from partwarden.api.policy import TableSpec
from partwarden.api.types import Interval
from partwarden.planner.actions import CreatePartition
from partwarden.planner.calendar import BoundedRange, Grid, Range, merge, subtract
from partwarden.planner.creation import MAX_CREATE
from partwarden.planner.inventory import Inventory, Partition, RelationKind
from partwarden.planner.keys import TYPES, Codec, KeyType
from partwarden.planner.plan import Plan, make_plan
from support import values

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe"]
SPAN = {
    Interval.HOUR: timedelta(hours=1),
    Interval.DAY: timedelta(days=1),
    Interval.WEEK: timedelta(days=7),
    Interval.MONTH: timedelta(days=30),
    Interval.QUARTER: timedelta(days=91),
    Interval.YEAR: timedelta(days=365),
}
CODECS = [Codec(each, encoding) for encoding, types in TYPES.items() for each in types]
RANK = ("current", "ahead", "spec.ensure", "")
"""What the reason of an action holds, most urgent first; the last are holes."""


@st.composite
def situations(draw: st.DrawFn) -> tuple[TableSpec, Inventory]:
    """A policy, and a table with partitions on and off its grid, near the clock."""
    interval = draw(st.sampled_from(list(Interval)))
    codec = draw(st.sampled_from([each for each in CODECS if (each.type, interval) != (KeyType.DATE, Interval.HOUR)]))
    # What is drawn around it ends before 2038, when no integer of seconds is left.
    now = draw(st.datetimes(datetime(2011, 12, 1), datetime(2027, 1, 1))).replace(tzinfo=UTC)  # noqa: DTZ001
    near = st.integers(-8, 8).map(lambda steps: (now + steps * SPAN[interval]).date().isoformat())
    policy = values.spec(
        key_encoding=codec.encoding,
        interval=interval,
        timezone=draw(st.sampled_from(ZONES)),
        premake=draw(st.integers(0, 4)),
        start_from=draw(st.none() | near),
        ensure=draw(st.lists(near | st.tuples(near, near).map(lambda ends: "..".join(sorted(ends))), max_size=3)),
    )
    partitions = draw(inventories(policy, codec, now))
    return policy, values.inventory(*partitions, now=now, parent=values.parent(codec.type))


@st.composite
def inventories(draw: st.DrawFn, policy: TableSpec, codec: Codec, now: datetime) -> list[Partition]:
    """Partitions between some of a row of bounds: of the grid, off it, and perhaps without end on either side."""
    aware = codec.aware
    grid = Grid(policy.interval, ZoneInfo(policy.timezone) if aware else None)
    here = now if aware else now.replace(tzinfo=None)
    bounds: set[datetime | None] = set()
    for steps, off in draw(st.lists(st.tuples(st.integers(-9, 9), st.booleans()), max_size=8)):
        cell = grid.cell(here + steps * SPAN[policy.interval])
        assert cell.lower is not None
        bounds.add(
            cell.lower + timedelta(days=1) * off if codec.type is KeyType.DATE else cell.lower + off * _off(cell)
        )
    row = sorted(each for each in bounds if each is not None)
    ends: list[datetime | None] = [*row]
    if draw(st.booleans()) and draw(st.booleans()):
        ends = [None, *ends]
    if draw(st.booleans()) and draw(st.booleans()):
        ends = [*ends, None]
    found = []
    for number, (lower, upper) in enumerate(pairwise(ends)):
        if draw(st.booleans()):
            kind = draw(st.sampled_from([RelationKind.TABLE, RelationKind.FOREIGN, RelationKind.PARTITIONED]))
            pending = draw(st.sampled_from([False, False, False, True]))
            found.append(values.partition(f"old {number}", lower, upper, codec, kind=kind, detach_pending=pending))
    if draw(st.booleans()):
        found.append(values.default("old default"))
    return draw(st.permutations(found))


def _off(cell: Range) -> timedelta:
    assert cell.lower is not None
    assert cell.upper is not None
    return (cell.upper - cell.lower) / 3


def rank(action: CreatePartition) -> int:
    return next(place for place, word in enumerate(RANK) if word in action.reason)


def ranges(found: Inventory) -> set[Range]:
    return {each.range for each in found.partitions if each.range is not None}


@given(situations())
def test_a_plan_adds_only_what_nothing_holds(situation: tuple[TableSpec, Inventory]) -> None:
    policy, found = situation
    plan = values.plan(policy, found)
    result = values.after(found, plan.creations)
    assert result.partitions[: len(found.partitions)] == found.partitions
    assert len(set(plan.names)) == len(plan.names)


@given(situations())
def test_now_the_future_and_the_wanted_dates_are_held_afterwards(situation: tuple[TableSpec, Inventory]) -> None:
    policy, found = situation
    plan = values.plan(policy, found)
    held = merge(ranges(values.after(found, plan.creations)))
    assert not subtract(plan.current, held)
    assert not [piece for missing in plan.missing for piece in subtract(missing, held)]
    again = values.plan(policy, values.after(found, plan.creations))
    assert again.missing == ()
    pending = [each.range for each in found.partitions if each.detach_pending and each.range]
    if not any(each.overlaps(plan.current) for each in pending):
        assert again.covered_for_ever or (again.covered_until and again.covered_until >= plan.current.upper)


@given(situations())
def test_a_plan_leaves_nothing_for_the_next(situation: tuple[TableSpec, Inventory]) -> None:
    policy, found = situation
    again = values.plan(policy, values.after(found, values.plan(policy, found).creations))
    assert again.creations == ()


@given(situations(), st.data())
def test_every_interruption_converges_to_the_same(situation: tuple[TableSpec, Inventory], data: st.DataObject) -> None:
    policy, found = situation
    whole = values.plan(policy, found).creations
    done = data.draw(st.lists(st.sampled_from(whole), unique=True)) if whole else []
    prefix = whole[: data.draw(st.integers(0, len(whole)))]
    for finished in (prefix, done):
        interrupted = values.after(found, finished)
        rest = values.plan(policy, interrupted).creations
        assert {(each.range, each.name) for each in (*finished, *rest)} == {(each.range, each.name) for each in whole}
        assert values.plan(policy, values.after(interrupted, rest)).creations == ()


@given(situations())
def test_the_most_urgent_comes_first(situation: tuple[TableSpec, Inventory]) -> None:
    policy, found = situation
    plan = values.plan(policy, found)
    ranks = [rank(each) for each in plan.creations]
    assert ranks == sorted(ranks)
    aware = plan.codec.aware
    moment = found.now if aware else found.now.astimezone(ZoneInfo(policy.timezone)).replace(tzinfo=None)
    assert not any(each.range.contains(moment) for each in plan.creations[1:])


@given(situations(), st.floats(0, 1, exclude_max=True))
def test_nothing_changes_before_the_next_boundary(situation: tuple[TableSpec, Inventory], share: float) -> None:
    policy, found = situation
    plan = values.plan(policy, found)
    assert plan.next_boundary > found.now
    later = found.now + (plan.next_boundary - found.now) * share
    assume(later < plan.next_boundary)
    assert make_plan(policy, found, later).creations == plan.creations
    assert make_plan(policy, found, plan.next_boundary).current != plan.current


@given(situations())
def test_the_order_of_the_catalog_does_not_matter(situation: tuple[TableSpec, Inventory]) -> None:
    policy, found = situation
    turned = replace(found, partitions=tuple(reversed(found.partitions)))
    assert values.plan(policy, turned).creations == values.plan(policy, found).creations


@given(situations())
def test_bounds_decide_and_names_never(situation: tuple[TableSpec, Inventory]) -> None:
    policy, found = situation
    renamed = tuple(replace(each, name=f"new {place}") for place, each in enumerate(found.partitions))
    before, after = values.plan(policy, found), values.plan(policy, replace(found, partitions=renamed))
    assert [(each.name, each.range) for each in after.creations] == [
        (each.name, each.range) for each in before.creations
    ]
    assert after.managed == before.managed


@given(situations())
def test_managed_partitions_are_cells(situation: tuple[TableSpec, Inventory]) -> None:
    policy, found = situation
    result = values.after(found, values.plan(policy, found).creations)
    plan = values.plan(policy, result)
    aware = plan.codec.aware
    grid = Grid(policy.interval, ZoneInfo(policy.timezone) if aware else None)
    for each in result.partitions:
        bounded = each.range is not None and each.range.lower is not None and each.range.upper is not None
        cell = bounded and grid.cell(each.range.lower) == each.range  # type: ignore[arg-type, union-attr]
        assert (each.oid in plan.managed) == cell


@pytest.mark.slow
@given(situations(), st.integers(2, 20))
def test_the_past_is_filled_up_to_a_limit(situation: tuple[TableSpec, Inventory], years: int) -> None:
    policy, found = situation
    start = found.now - timedelta(days=366 * years)
    policy = policy.model_copy(update={"start_from": start.date().isoformat(), "ensure": []})
    plan: Plan = values.plan(policy, found)
    refused = [each for each in plan.findings if each.reason == "TooManyPartitions"]
    holes: list[Any] = [each for each in plan.creations if "spec.startFrom" in each.reason]
    assert len(holes) <= MAX_CREATE
    if refused:
        assert not holes
        assert policy.interval in (Interval.HOUR, Interval.DAY, Interval.WEEK)
    else:
        held = merge(ranges(values.after(found, plan.creations)))
        lower = min(each.range.lower for each in holes) if holes else plan.current.lower
        assert lower is not None
        assert not subtract(BoundedRange(lower, plan.current.upper), held)


@pytest.mark.slow
def test_situations_are_not_all_alike() -> None:
    """The strategy makes what it promises to make: actions of every rank, and pieces off the grid."""
    ranks: set[int] = set()
    states: set[bool] = set()

    @given(situations())
    @settings(max_examples=100, derandomize=True)
    def observe(situation: tuple[TableSpec, Inventory]) -> None:
        plan = values.plan(*situation)
        ranks.update(rank(each) for each in plan.creations)
        states.update(each.reason == "OffGrid" for each in plan.findings)

    observe()
    assert ranks == {0, 1, 2, 3}
    assert states == {True, False}
