"""Whatever exists, whatever the policy, the hold and the clock: what retention promises."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from partwarden.api.approval import PlanApproval
from partwarden.api.policy import Mode, TableSpec
from partwarden.api.retention import DefaultPartition, OnExpire, Retention
from partwarden.api.types import Interval
from partwarden.planner.actions import (
    Action,
    AttachDetached,
    ConfirmDetached,
    CreateDefault,
    CreatePartition,
    DetachPartition,
    DropDetached,
    FinalizeDetach,
)
from partwarden.planner.calendar import Grid, Range, merge
from partwarden.planner.drop_preconditions import Archives
from partwarden.planner.inventory import Detached, Inventory, Partition, Reference, RelationKind
from partwarden.planner.keys import TYPES, Codec, KeyType
from partwarden.planner.marker import Marker, Phase
from partwarden.planner.plan import Plan, make_plan
from support import values

pytestmark = pytest.mark.slow

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe", "Antarctica/Troll"]
SPAN = {
    Interval.HOUR: timedelta(hours=1),
    Interval.DAY: timedelta(days=1),
    Interval.WEEK: timedelta(days=7),
    Interval.MONTH: timedelta(days=30),
    Interval.QUARTER: timedelta(days=91),
    Interval.YEAR: timedelta(days=365),
}
AGES = {
    Interval.HOUR: ("h", 1, 9),
    Interval.DAY: ("d", 1, 9),
    Interval.WEEK: ("w", 1, 9),
    Interval.MONTH: ("mo", 1, 9),
    Interval.QUARTER: ("mo", 3, 27),
    Interval.YEAR: ("y", 1, 9),
}
CODECS = [Codec(each, encoding) for encoding, types in TYPES.items() for each in types]
ORDER: tuple[tuple[type[Action], ...], ...] = (
    (CreatePartition,),
    (AttachDetached,),
    (CreateDefault,),
    (FinalizeDetach,),
    (ConfirmDetached,),
    (DetachPartition,),
    (DropDetached,),
)
ROUNDS = 4
"""Reconciles after which nothing may be left to do: make or finish, confirm, drop or attach, and one to see that."""


@dataclass(frozen=True)
class World:
    """A policy with retention, what exists, and what is held."""

    policy: TableSpec
    found: Inventory
    held: frozenset[str]
    codec: Codec

    @property
    def retention(self) -> Retention:
        assert self.policy.retention is not None
        return self.policy.retention

    def plan(self, found: Inventory | None = None) -> Plan:
        seen = found or self.found
        return make_plan(self.policy, seen, seen.now, self.held)

    def is_held(self, name: str) -> bool:
        return name in self.held or f"public.{name}" in self.held

    def wall(self, moment: datetime) -> datetime:
        """The policy's wall clock."""
        return (
            moment if moment.tzinfo is None else moment.astimezone(ZoneInfo(self.policy.timezone)).replace(tzinfo=None)
        )

    def is_old(self, piece: Range, now: datetime) -> bool:
        """By the plainest reckoning: it ended before this time of the wall clock, so many hours or dates ago."""
        assert piece.upper is not None
        count, unit = int(self.retention.keep_for.rstrip("hdwmoy")), self.retention.keep_for.lstrip("0123456789")
        if unit == "h":
            past = now - timedelta(hours=count)
            return piece.upper <= (past if self.codec.aware else self.wall(past))
        wall = self.wall(now)
        if unit in ("d", "w"):
            return self.wall(piece.upper) <= wall - timedelta(days=count * (7 if unit == "w" else 1))
        year, month = divmod(wall.year * 12 + wall.month - 1 - count * (12 if unit == "y" else 1), 12)
        day = min(wall.day, monthrange(year, month + 1)[1])
        return self.wall(piece.upper) <= wall.replace(year=year, month=month + 1, day=day)

    def here(self, now: datetime) -> datetime:
        """``now`` in the key's domain."""
        return now if self.codec.aware else self.wall(now)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    interval = draw(st.sampled_from(list(Interval)))
    codec = draw(st.sampled_from([each for each in CODECS if (each.type, interval) != (KeyType.DATE, Interval.HOUR)]))
    zone = draw(st.sampled_from(ZONES))
    # What is drawn around it ends before 2038, when no integer of seconds is left.
    now = draw(st.datetimes(datetime(2011, 12, 1), datetime(2027, 1, 1))).replace(tzinfo=UTC)  # noqa: DTZ001
    near = st.integers(-9, 9).map(lambda steps: (now + steps * SPAN[interval]).date().isoformat())
    unit, least, most = AGES[interval]
    drop = draw(st.booleans())
    policy = values.spec(
        key_encoding=codec.encoding,
        interval=interval,
        timezone=zone,
        premake=draw(st.integers(0, 3)),
        start_from=draw(st.none() | near),
        ensure=draw(st.lists(near, max_size=3)),
        default_partition=DefaultPartition(ensure=draw(st.booleans())),
        retention=Retention(
            keep_for=f"{draw(st.integers(least, most))}{unit}",
            on_expire=OnExpire.DROP if drop else OnExpire.DETACH,
            drop_without_archive=drop,
            grace=draw(st.sampled_from(["0s", "90m", "24h"])),
            max_retirements=10_000,
        ),
    )
    grid = Grid(interval, ZoneInfo(zone) if codec.aware else None)
    here = now if codec.aware else now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    partitions = draw(attached(grid, codec, here, now))
    outside = draw(outsiders(grid, codec, here, now))
    names = [each.name for each in partitions] + [each.name for each in outside]
    held = draw(st.lists(st.sampled_from(names), max_size=3)) if names else []
    pointed = draw(st.lists(st.sampled_from(partitions), max_size=2)) if partitions else []
    found = values.inventory(
        *partitions,
        now=now,
        parent=values.parent(codec.type),
        detached=tuple(outside),
        references={each.oid: (Reference("public.other", 3),) for each in pointed},
    )
    prefix = draw(st.sampled_from(["", "public."]))
    return World(policy, found, frozenset(prefix + name for name in held), codec)


def cut(grid: Grid, codec: Codec, cell: Range) -> datetime:
    """A place within a cell that is no boundary."""
    assert cell.lower is not None
    assert cell.upper is not None
    return cell.lower + (timedelta(days=1) if codec.type is KeyType.DATE else (cell.upper - cell.lower) / 3)


@st.composite
def attached(draw: st.DrawFn, grid: Grid, codec: Codec, here: datetime, now: datetime) -> list[Partition]:
    """Between some of a row of bounds, most of them of the grid; DEFAULT perhaps."""
    bounds = set()
    for steps in draw(st.sets(st.integers(-12, 4), min_size=2, max_size=12)):
        cell = grid.cell(here + steps * SPAN[grid.interval])
        assert cell.lower is not None
        assert cell.upper is not None
        off = draw(st.integers(0, 9)) == 0
        bounds |= {cut(grid, codec, cell)} if off else {cell.lower, cell.upper}
    ends: list[datetime | None] = [*sorted(bounds)]
    if draw(st.integers(0, 9)) == 0:
        ends = [None, *ends]
    if draw(st.integers(0, 9)) == 0:
        ends = [*ends, None]
    found: list[Partition] = []
    for number, (lower, upper) in enumerate(pairwise(ends)):
        if draw(st.integers(0, 3)) == 0:
            continue
        each = values.partition(f"old {number}", lower, upper, codec)
        kind = draw(st.sampled_from([RelationKind.TABLE] * 6 + [RelationKind.FOREIGN, RelationKind.PARTITIONED]))
        pending = draw(st.integers(0, 9)) == 0 and not any(other.detach_pending for other in found)
        phase = draw(st.sampled_from([None] * 4 + list(Phase)))
        marker = None
        if phase is not None and each.range is not None and lower is not None and upper is not None:
            marker = Marker(each.oid, values.PARENT.oid, "public.run", each.range, phase, now - timedelta(days=1))
        found.append(replace(each, kind=kind, detach_pending=pending, marker=marker))
    # PostgreSQL allows no concurrent detach beside a DEFAULT partition.
    if draw(st.integers(0, 3)) == 0 and not any(each.detach_pending for each in found):
        found.append(values.default("old default"))
    return draw(st.permutations(found))


@st.composite
def outsiders(draw: st.DrawFn, grid: Grid, codec: Codec, here: datetime, now: datetime) -> list[Detached]:
    found = []
    for number, steps in enumerate(draw(st.lists(st.integers(-12, 3), max_size=5))):
        cell = grid.cell(here + steps * SPAN[grid.interval])
        assert cell.lower is not None
        assert cell.upper is not None
        upper = cut(grid, codec, cell) if draw(st.integers(0, 5)) == 0 else cell.upper
        since = now - draw(st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(hours=24), timedelta(days=30)]))
        phase = draw(st.sampled_from([Phase.DETACHED, Phase.DETACHED, Phase.DETACHING]))
        if cell.lower < upper:
            found.append(values.detached(f"out {number}", cell.lower, upper, since, phase=phase))
    return found


def kinds(actions: Iterable[Action]) -> list[int]:
    return [next(place for place, types in enumerate(ORDER) if isinstance(each, types)) for each in actions]


def coverage(found: Inventory) -> list[Range]:
    """What can be read and written."""
    return merge(each.range for each in found.partitions if each.range is not None and not each.detach_pending)


def settle(world: World, found: Inventory) -> Inventory:
    """After as many reconciles as are allowed; nothing is left to do then."""
    for _ in range(ROUNDS):
        actions = world.plan(found).actions
        if not actions:
            return found
        found = values.after(found, actions)
    raise AssertionError(f"still to do: {world.plan(found).actions}")


@given(worlds())
def test_only_what_is_old_plain_free_and_of_the_grid_is_detached(world: World) -> None:
    found = world.found
    by_oid = {each.oid: each for each in found.partitions}
    plan = world.plan()
    grid = Grid(world.policy.interval, ZoneInfo(world.policy.timezone) if world.codec.aware else None)
    for action in plan.actions:
        if not isinstance(action, DetachPartition):
            continue
        each = by_oid[action.oid]
        assert each.range is not None
        assert each.range == action.range
        assert world.is_old(action.range, found.now)
        assert not action.range.contains(world.here(found.now))
        assert action.range.lower is not None
        assert grid.cell(action.range.lower) == action.range
        assert each.kind is RelationKind.TABLE
        assert not each.detach_pending
        assert not world.is_held(each.name)
        assert not found.references.get(each.oid)
        assert each.marker is None or each.marker.phase is Phase.DETACHING
        assert each.oid in plan.retired.expired - plan.retired.kept


@given(worlds())
def test_only_what_is_old_ours_free_and_past_its_grace_is_dropped(world: World) -> None:
    found = world.found
    by_oid = {each.oid: each for each in found.detached}
    for action in world.plan().actions:
        if isinstance(action, DropDetached):
            each = by_oid[action.oid]
            assert world.retention.on_expire is OnExpire.DROP
            assert each.marker == action.marker
            assert each.marker.phase is Phase.DETACHED
            assert each.marker.since + world.retention.grace_period <= found.now
            assert world.is_old(each.marker.range, found.now)
            assert not world.is_held(each.name)


@given(worlds())
def test_nothing_comes_back_or_is_made_that_would_go_again(world: World) -> None:
    for action in world.plan().actions:
        if isinstance(action, CreatePartition | AttachDetached):
            assert not world.is_held(action.name)
            # By its own reckoning: the plain one may be a little ahead of it.
            assert action.range.upper is not None
            again = values.inventory(
                values.partition(action.name, action.range.lower, action.range.upper, world.codec),
                now=world.found.now,
                parent=world.found.parent,
            )
            assert not world.plan(again).retired.expired


@given(worlds())
def test_every_prefix_of_a_plan_is_safe(world: World) -> None:
    """No overlap, nothing that is held or young goes, and now stays covered: `values.after` refuses the rest."""
    here = world.here(world.found.now)
    state, was_covered = world.found, any(each.contains(here) for each in coverage(world.found))
    for action in world.plan().actions:
        before = state
        state = values.after(state, [action])
        was_covered = was_covered or any(each.contains(here) for each in coverage(before))
        assert not was_covered or any(each.contains(here) for each in coverage(state))
        remaining = {each.oid for each in state.partitions}
        for each in before.partitions:
            if each.oid not in remaining and not each.detach_pending:
                assert isinstance(action, DetachPartition)
                assert each.range is not None
                assert world.is_old(each.range, state.now)
        for oid in tables(before) - tables(state):
            # A detach that was pending and is not ours leaves a table that nothing here knows.
            assert isinstance(action, DropDetached | FinalizeDetach)
            assert action.oid == oid


def tables(found: Inventory) -> set[int]:
    """OIDs of all that holds rows."""
    return {each.oid for each in found.partitions} | {each.oid for each in found.detached}


@given(worlds())
def test_now_is_covered_in_the_end_and_nothing_is_left_to_do(world: World) -> None:
    here = world.here(world.found.now)
    settled = settle(world, world.found)
    assert any(each.contains(here) for each in coverage(settled))
    assert world.plan(settled).actions == ()
    assert not any(each.detach_pending for each in settled.partitions)


@given(worlds())
def test_when_the_grace_is_over_nothing_old_is_left_but_for_a_reason(world: World) -> None:
    settled = settle(world, world.found)
    later = settle(world, replace(settled, now=settled.now + timedelta(days=1)))
    plan = world.plan(later)
    assert plan.actions == ()
    reported = {each.object for each in plan.findings if each.reason == "RowsReferenced"}
    alone = " ".join(each.message for each in plan.findings if each.reason == "ExpiredLeftAlone")
    for each in later.partitions:
        if each.oid in plan.retired.expired - plan.retired.kept:
            assert str(each) in reported or each.kind is not RelationKind.TABLE or each.name in alone
    if world.retention.on_expire is OnExpire.DROP:
        over = later.now - world.retention.grace_period
        # What was restored from an archive stays until the user says otherwise.
        detached = [each for each in later.detached if each.marker.phase is not Phase.RESTORED]
        for table in [each for each in detached if each.marker.since <= over]:
            out_of_the_way = any(each.object == str(table) and each.reason == "CannotReturn" for each in plan.findings)
            assert world.is_held(table.name) or out_of_the_way


@given(worlds(), st.data())
def test_every_interruption_converges(world: World, data: st.DataObject) -> None:
    whole = world.plan().actions
    done = whole[: data.draw(st.integers(0, len(whole)))]
    interrupted = values.after(world.found, done)
    direct, detour = settle(world, world.found), settle(world, interrupted)
    assert _shape(detour) == _shape(direct)


def _shape(found: Inventory) -> tuple[set[tuple[str, Range | None]], set[tuple[str, Range]]]:
    return (
        {(each.name, each.range) for each in found.partitions},
        {(each.name, each.marker.range) for each in found.detached},
    )


@given(worlds(), st.data())
def test_one_failure_keeps_nothing_else_from_being_done(world: World, data: st.DataObject) -> None:
    """Every subset of a plan can be done: no action needs one before it."""
    # What was cut off from a part of a cell comes back only where the rest of the cell was made before.
    assume(not any(each.detach_pending for each in world.found.partitions))
    whole = world.plan().actions
    done = [each for each in whole if isinstance(each, CreateDefault) or data.draw(st.booleans())]
    rest, direct = settle(world, values.after(world.found, done)), settle(world, world.found)
    # Of two tables that were detached from one range either may come back, as it is known of which one first; with the
    # wrong one of both the rest of a cell is not needed.
    outside = [each.marker.range for each in world.found.detached]
    assume(not any(one.overlaps(other) for one, other in combinations(outside, 2)))
    assert _old(rest) == _old(direct)
    # What is before a hole may have left: then the hole need not be filled any more.
    if not any(isinstance(each, DetachPartition | FinalizeDetach) for each in whole):
        # Where a piece of a cell is made beside a pending detach, and the rest later, there are two in place of one.
        assert coverage(rest) == coverage(direct)


def _old(found: Inventory) -> tuple[set[str], set[str]]:
    """Where that is which was there before."""
    attached, outside = _shape(found)
    return {name for name, _ in attached if name[:3] in ("old", "out")}, {name for name, _ in outside}


@given(worlds())
def test_making_comes_before_retiring(world: World) -> None:
    order = kinds(world.plan().actions)
    assert order == sorted(order)
    detached = [each.range.upper for each in world.plan().actions if isinstance(each, DetachPartition)]
    assert detached == sorted(detached)


@given(worlds())
def test_creations_are_those_of_a_policy_that_finds_nothing_to_retire(world: World) -> None:
    """Whatever there is to be retired, what must exist is made all the same."""
    plan = world.plan()
    empty = replace(world.found, detached=(), references={})
    made = {each.range for each in world.plan(empty).actions if isinstance(each, CreatePartition)}
    wanted = {piece for piece in made if any(piece.overlaps(cell) for cell in plan.missing)}
    there = {each.range for each in plan.actions if isinstance(each, CreatePartition | AttachDetached)}
    assert wanted <= there


@given(worlds(), st.floats(0, 1, exclude_max=True))
def test_nothing_changes_before_the_next_reconcile(world: World, share: float) -> None:
    plan = world.plan()
    assert plan.next_boundary > world.found.now
    later = world.found.now + (plan.next_boundary - world.found.now) * share
    assume(later < plan.next_boundary)
    assert world.plan(replace(world.found, now=later)).actions == plan.actions


@given(worlds(), st.timedeltas(timedelta(0), timedelta(days=400)))
def test_what_has_expired_stays_expired(world: World, passed: timedelta) -> None:
    later = replace(world.found, now=world.found.now + passed)
    assert world.plan().retired.expired <= world.plan(later).retired.expired


@given(worlds(), st.integers(1, 5))
def test_who_keeps_longer_detaches_and_drops_less(world: World, more: int) -> None:
    count, unit = int(world.retention.keep_for.rstrip("hdwmoy")), world.retention.keep_for.lstrip("0123456789")
    longer = world.retention.model_copy(update={"keep_for": f"{count + more}{unit}"})
    patient = replace(world, policy=world.policy.model_copy(update={"retention": longer}))
    goes = DetachPartition | DropDetached
    assert {each.oid for each in patient.plan().actions if isinstance(each, goes)} <= {
        each.oid for each in world.plan().actions if isinstance(each, goes)
    }


def retired_tables(plan: Plan) -> set[int]:
    return {each.oid for each in plan.actions if isinstance(each, DetachPartition | DropDetached)}


@given(worlds(), st.integers(1, 6))
def test_no_more_than_the_policy_allows_are_retired_at_once_without_an_approval(world: World, most: int) -> None:
    fewer = world.retention.model_copy(update={"max_retirements": most})
    careful = replace(world, policy=world.policy.model_copy(update={"retention": fewer}))
    plan, free = careful.plan(), retired_tables(world.plan())
    assert retired_tables(plan) == (free if len(free) <= most else set())
    others = [each for each in world.plan().actions if not isinstance(each, DetachPartition | DropDetached)]
    assert [each for each in plan.actions if not isinstance(each, DetachPartition | DropDetached)] == others
    assert bool(plan.gate.digest) == (len(free) > most)


@given(worlds(), st.integers(1, 2), st.integers(0, 20))
def test_an_approved_plan_is_carried_out_however_it_is_interrupted(world: World, most: int, steps: int) -> None:
    fewer = world.retention.model_copy(update={"max_retirements": most})
    policy, found = world.policy.model_copy(update={"retention": fewer}), world.found
    approval = PlanApproval(make_plan(policy, found, found.now, world.held).gate.digest)
    allowed = retired_tables(world.plan())
    for _ in range(steps):
        plan = make_plan(policy, found, found.now, world.held, Archives(plan=approval))
        if plan.gate.digest:
            assert plan.gate.begins
        approval = replace(approval, recorded=plan.gate.record)
        assert retired_tables(plan) <= allowed
        found = values.after(found, plan.actions[:1])


@given(worlds())
def test_in_mode_approve_nothing_is_done_without_an_approval(world: World) -> None:
    careful = replace(world, policy=world.policy.model_copy(update={"mode": Mode.APPROVE}))
    plan = careful.plan()
    assert plan.actions == ()
    assert bool(plan.gate.digest) == bool(world.plan().actions) or plan.gate.waiting
    approval = PlanApproval(plan.gate.digest)
    record = make_plan(careful.policy, world.found, world.found.now, world.held, Archives(plan=approval)).gate.record
    known = Archives(plan=PlanApproval(plan.gate.digest, record))
    done = make_plan(careful.policy, world.found, world.found.now, world.held, known)
    assert done.actions == world.plan().actions


@given(worlds())
def test_without_retention_nothing_of_all_this_happens(world: World) -> None:
    plain = replace(world, policy=world.policy.model_copy(update={"retention": None}))
    assert set(kinds(plain.plan().actions)) <= {kinds_of for kinds_of, types in enumerate(ORDER) if types[0] in MAKING}


MAKING = (CreatePartition, CreateDefault)


@given(worlds())
def test_the_order_of_the_catalog_does_not_matter(world: World) -> None:
    turned = replace(
        world.found,
        partitions=tuple(reversed(world.found.partitions)),
        detached=tuple(reversed(world.found.detached)),
    )
    assert {*world.plan(turned).actions} == {*world.plan().actions}


def test_worlds_are_not_all_alike() -> None:
    """The strategy makes what it promises to make: actions of every kind, and every finding of retention."""
    seen: set[int] = set()
    reported: set[str] = set()

    @given(worlds())
    @settings(max_examples=300, derandomize=True)
    def observe(world: World) -> None:
        plan = world.plan()
        seen.update(kinds(plan.actions))
        reported.update(each.reason for each in plan.findings)

    observe()
    assert seen == set(range(len(ORDER)))
    assert reported >= {"RowsReferenced", "ExpiredLeftAlone", "CannotReturn", "EnsureExpired", "OffGrid"}
