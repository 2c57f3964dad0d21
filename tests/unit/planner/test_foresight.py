"""The plan has all that the policy will do by itself: what is done in the end is what it said, and when it said so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.archive import Fingerprint
from partwarden.api.destination import PVC
from partwarden.api.policy import Mode, TableSpec
from partwarden.api.retention import Approval, ArchiveSettings, DefaultPartition, OnExpire, Retention
from partwarden.planner.actions import FinalizeDetach
from partwarden.planner.archive_gate import ArchiveRequest, CheckRequest
from partwarden.planner.drop_preconditions import Archives, ArchiveState, CheckState, server_label
from partwarden.planner.foresight import ARCHIVE, CHECK
from partwarden.planner.inventory import (
    Detached,
    Inventory,
    Partition,
)
from partwarden.planner.marker import Marker, Phase
from partwarden.planner.plan import Plan, make_plan
from partwarden.planner.schedule import OF_USER, PlannedStep, digest
from support import values

HERE = server_label(values.SERVER.identity)
What = tuple[str, int | None, str]
"""Action, OID and name."""
CLAIM = ArchiveSettings(pvc=PVC(claim_name="archives"))
MOMENTS = (0, 29, 30, 60, 1379, 1380, 1439, 1440, 1500)
"""Minutes at which there is a reconcile: before each end of a grace, at it, and when all are over."""
STATES = ("absent", "attached", "detached", "free", "detaching", "pending", "pending of others", "restored")
YEARS = (*range(2017, 2021), *range(2023, 2027))


@dataclass
class World:
    """A table with its archives, which the operator changes as time goes on."""

    spec: TableSpec
    found: Inventory
    held: frozenset[str] = frozenset()
    approved: frozenset[str] = frozenset()
    states: dict[int, tuple[ArchiveState, ...]] = field(default_factory=dict)
    left: frozenset[str] = frozenset()
    """Names of tables whose detach others began: they are no partitions, and have their names still."""

    def plan(self, mode: Mode = Mode.APPLY) -> Plan:
        spec = self.spec.model_copy(update={"mode": mode})
        found = replace(self.found, taken=self.left.union(each.name for each in self.found.detached))
        return make_plan(spec, found, self.found.now, self.held, Archives(self.states, self.approved))

    def reconcile(self) -> Iterator[What]:
        """Do what is due; then the archive Jobs, all at once. Yields action, OID and name of what was done."""
        plan = self.plan()
        requests = plan.retired.gate.requests
        for action in plan.actions:
            yield type(action).__name__, getattr(action, "oid", None), action.name
        self.found = values.after(self.found, plan.actions)
        self.left |= {each.name for each in plan.actions if isinstance(each, FinalizeDetach)}
        names = {each.oid: each.name for each in (*self.found.partitions, *self.found.detached)}
        for request in requests:
            if isinstance(request, ArchiveRequest):
                print_ = Fingerprint(algorithm="test", rows=1, content=f"{request.oid:064x}")
                made = ArchiveState(f"archive-{request.oid}", 0, HERE, request.oid, True, print_, "pvc://archives")
                self.states[request.oid] = (made,)
                yield "ArchivePartition", request.oid, request.name
        for request in requests:
            if isinstance(request, CheckRequest):
                oid = int(request.archive.removeprefix("archive-"))
                check = CheckState(request.token, ok=True, completed=self.found.now)
                self.states[oid] = (replace(self.states[oid][0], check=check),)
                yield "CheckArchive", oid, names[oid]

    def live(self) -> Iterator[tuple[datetime, What]]:
        """All that is done until nothing comes any more, each with its moment."""
        for minutes in MOMENTS:
            self.found = replace(self.found, now=values.NOW + timedelta(minutes=minutes))
            while done := list(self.reconcile()):
                yield from ((self.found.now, each) for each in done)


def year(number: int) -> Partition:
    (found,) = values.years(number)
    return found


def mark(each: Partition, phase: Phase, since: datetime = values.NOW) -> Marker:
    return Marker(each.oid, values.PARENT.oid, str(values.PARENT), values.bounds(each), phase, since)


def table(number: int, hours: float, phase: Phase = Phase.DETACHED) -> Detached:
    each = year(number)
    marker = mark(each, phase, values.NOW - timedelta(hours=hours))
    return Detached(each.oid, each.schema, each.name, marker)


def inventory(states: dict[int, str], default: bool) -> Inventory:
    partitions, tables = [values.default()] if default else [], list[Detached]()
    for number, state in states.items():
        each = year(number)
        if state == "attached":
            partitions.append(each)
        elif state == "restored":
            partitions.append(replace(each, marker=mark(each, Phase.RESTORED)))
        elif state == "pending":
            partitions.append(replace(each, marker=mark(each, Phase.DETACHING), detach_pending=True))
        elif state == "pending of others":
            partitions.append(replace(each, detach_pending=True))
        elif state != "absent":
            hours = {"detached": 1, "free": 30, "detaching": 30}[state]
            tables.append(table(number, hours, Phase.DETACHING if state == "detaching" else Phase.DETACHED))
    return values.inventory(*partitions, detached=tuple(tables))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    states = {number: draw(st.sampled_from(STATES)) for number in YEARS}
    # PostgreSQL has one pending detach of a table at most, and none concurrently beside a DEFAULT partition.
    pending = [number for number, state in states.items() if state.startswith("pending")]
    states |= dict.fromkeys(pending[1:], "attached")
    default = not pending and draw(st.booleans())
    archive = draw(st.sampled_from((None, CLAIM)))
    drops = draw(st.booleans())
    retention = Retention(
        keep_for="5y",
        on_expire=OnExpire.DROP if drops else OnExpire.DETACH,
        archive=archive,
        drop_without_archive=drops and archive is None,
        grace=draw(st.sampled_from(("0s", "30m", "24h"))),
        approval=draw(st.sampled_from(list(Approval))),
    )
    spec = values.spec(retention=retention, premake=1, default_partition=DefaultPartition(ensure=default))
    names = st.frozensets(st.sampled_from([f"run_{number}" for number in YEARS]))
    return World(spec, inventory(states, default), draw(names), draw(names))


def by_itself(steps: tuple[PlannedStep, ...]) -> list[PlannedStep]:
    return [each for each in steps if not any(wait.on in OF_USER for wait in each.waits_for)]


def in_order(done: Iterable[What]) -> dict[str | int | None, list[What]]:
    """Those of each table, by its OID, and all of the engine; Jobs run beside it.

    Once each: a table that something else keeps may have been read before, and is read again once that is over.
    """
    ordered: dict[str | int | None, list[What]] = {}
    for each in dict.fromkeys(done):
        ordered.setdefault(each[1], []).append(each)
        if each[0] not in (ARCHIVE, CHECK):
            ordered.setdefault("engine", []).append(each)
    return ordered


@pytest.mark.slow
@given(worlds())
def test_what_is_done_is_what_the_plan_said_and_not_before_that_moment(world: World) -> None:
    """Same actions on same objects in the same order, and nothing else; what waits for the user is not done."""
    plan = world.plan(Mode.PLAN)
    assert plan.steps == world.plan().steps
    done = list(world.live())
    promised = [(each.action, each.oid, each.name) for each in by_itself(plan.steps)]
    assert in_order(each for _, each in done) == in_order(promised)
    moments = {(each.action, each.oid, each.name): each.not_before for each in plan.steps}
    assert all(moment >= (moments[each] or moment) for moment, each in done)
    assert by_itself(world.plan().steps) == []


@given(worlds())
def test_each_step_is_once_in_a_plan_and_what_is_due_comes_first(world: World) -> None:
    plan = world.plan()
    assert len({each.id for each in plan.steps}) == len(plan.steps)
    assert [(each.action, each.name) for each in plan.steps[: len(plan.actions)]] == [
        (type(each).__name__, each.name) for each in plan.actions
    ]
    assert all(each.is_due for each in plan.steps[: len(plan.actions)])
    assert digest(plan.steps) == digest(reversed(plan.steps))


@given(worlds(), st.timedeltas(timedelta(0), timedelta(minutes=59)))
def test_minutes_that_change_nothing_change_no_step(world: World, later: timedelta) -> None:
    """The moment of what has not begun is said to the hour: a status is written once in it."""
    hour = world.found.now.replace(minute=0, second=0, microsecond=0)
    plans = []
    for now in (hour, hour + later):
        world.found = replace(world.found, now=now)
        plans.append(world.plan())
    if plans[0].actions == plans[1].actions:
        assert [(each.id, each.not_before) for each in plans[0].steps if each.not_before is None or each.waits_for] == [
            (each.id, each.not_before) for each in plans[1].steps if each.not_before is None or each.waits_for
        ]


@pytest.mark.parametrize("mode", [Mode.APPLY, Mode.PLAN])
def test_what_is_asked_of_the_whole_table_is_asked_as_often_for_many_partitions_as_for_few(
    monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    asked = list[int]()

    def default(found: Inventory) -> None:
        asked.append(len(found.partitions))

    monkeypatch.setattr(Inventory, "default", property(default))
    for count in (20, 200):
        found = values.inventory(*values.years(*range(2020 - count, 2020), 2026, 2027, 2028))
        retention = {"keepFor": "5y", "onExpire": "Drop", "dropWithoutArchive": True, "maxRetirements": 1000}
        plan = values.plan(values.spec(mode=mode, retention=retention), found)
        assert len(plan.steps) >= 2 * count
    few, many = (sum(each == count + 3 for each in asked) for count in (20, 200))
    assert few == many
