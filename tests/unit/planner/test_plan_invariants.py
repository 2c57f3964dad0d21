"""A plan that contradicts what it was made from is refused before anything of it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest

from partwarden.api.archive import Fingerprint
from partwarden.api.destination import PVC
from partwarden.api.retention import ArchiveSettings, OnExpire, Retention
from partwarden.errors import TransientError, UnsafePlan
from partwarden.planner.actions import AttachDetached, CreatePartition, DetachPartition, DropDetached
from partwarden.planner.archive_gate import CheckRequest
from partwarden.planner.calendar import Range
from partwarden.planner.context import PlanContext
from partwarden.planner.drop_preconditions import Archives, ArchiveState, CheckState, server_label
from partwarden.planner.keys import Bounds
from partwarden.planner.plan import Plan, make_plan
from support import values

T = TypeVar("T")
NOW = values.NOW
TAKEN = Fingerprint(algorithm="test", rows=1, content="0" * 64)
CLAIM = ArchiveSettings(pvc=PVC(claim_name="archives"))
OLD, PAST = values.years(2018, 2024)
TABLE = values.detached("run_2017", datetime(2017, 1, 1, tzinfo=UTC), datetime(2018, 1, 1, tzinfo=UTC))
TABLE = replace(TABLE, marker=replace(TABLE.marker, since=NOW - timedelta(days=9)))
ARCHIVED = Retention(keep_for="5y", on_expire=OnExpire.DROP, archive=CLAIM, grace="0s")
WITHOUT = Retention(keep_for="5y", on_expire=OnExpire.DROP, drop_without_archive=True, grace="0s")


def archive(name: str, oid: int) -> ArchiveState:
    return ArchiveState(name, 0, server_label(values.SERVER.identity), oid, proven=True, fingerprint=TAKEN)


def planned(retention: Retention) -> tuple[Plan, PlanContext]:
    """A plan that creates 2025 to 2027, detaches 2018 and drops 2017."""
    spec = values.spec(retention=retention, premake=1)
    found = values.inventory(OLD, PAST, detached=(TABLE,))
    archives = Archives()
    if retention.archive is not None:
        states = {oid: (archive(f"run-{oid}", oid),) for oid in (OLD.oid, TABLE.oid)}
        (request,) = make_plan(spec, found, NOW, archives=Archives(states)).retired.gate.requests
        assert isinstance(request, CheckRequest)
        check = CheckState(request.token, ok=True, completed=NOW)
        archives = Archives({**states, TABLE.oid: (replace(states[TABLE.oid][0], check=check),)})
    plan = make_plan(spec, found, NOW, archives=archives)
    assert {CreatePartition, DetachPartition, DropDetached} <= {type(action) for action in plan.actions}
    return plan, PlanContext.of(spec, found, NOW, frozenset(), archives)


def one(plan: Plan, kind: type[T]) -> T:
    return next(action for action in plan.actions if isinstance(action, kind))


def changed(plan: Plan, old: object, *new: object) -> Plan:
    """The plan with these actions instead of one."""
    actions = [part for action in plan.actions for part in (new if action is old else (action,))]
    return replace(plan, actions=tuple(actions))  # type: ignore[arg-type]


@pytest.mark.parametrize("retention", [ARCHIVED, WITHOUT], ids=["archived", "without an archive"])
def test_a_sound_plan_is_accepted(retention: Retention) -> None:
    plan, context = planned(retention)
    plan.check_invariants(context)


def overlaps_a_partition(plan: Plan) -> Plan:
    create = one(plan, CreatePartition)
    overlap = Range(values.bounds(PAST).upper - timedelta(1), create.range.upper)
    return changed(plan, create, replace(create, range=overlap))


def overlaps_another_new_one(plan: Plan) -> Plan:
    create = one(plan, CreatePartition)
    return changed(plan, create, create, replace(create, name="twin"))


def attaches_over_a_partition(plan: Plan) -> Plan:
    back = AttachDetached(
        schema="public", name="run_x", oid=5, range=values.bounds(OLD), bounds=Bounds("", ""), reason="", lock=""
    )
    return replace(plan, actions=(back, *plan.actions))


def creates_after_retiring(plan: Plan) -> Plan:
    create = one(plan, CreatePartition)
    return replace(plan, actions=(*(each for each in plan.actions if each is not create), create))


def detaches_what_is_young(plan: Plan) -> Plan:
    detach = one(plan, DetachPartition)
    return changed(plan, detach, replace(detach, name=PAST.name, oid=PAST.oid, range=values.bounds(PAST)))


def detaches_what_the_plan_does_not_call_expired(plan: Plan) -> Plan:
    return replace(plan, retired=replace(plan.retired, expired=frozenset()))


def detaches_other_bounds_than_the_catalog_shows(plan: Plan) -> Plan:
    detach = one(plan, DetachPartition)
    shorter = replace(detach.range, upper=detach.range.upper - timedelta(1))
    return changed(plan, detach, replace(detach, range=shorter))


def drops_what_is_young(plan: Plan) -> Plan:
    drop = one(plan, DropDetached)
    young = replace(TABLE, marker=replace(TABLE.marker, range=values.bounds(PAST)))
    return changed(plan, drop, replace(drop, range=values.bounds(PAST), case=replace(drop.case, table=young)))


def drops_in_the_grace(plan: Plan) -> Plan:
    drop = one(plan, DropDetached)
    retention = drop.case.retention
    assert retention is not None
    case = replace(drop.case, retention=retention.model_copy(update={"grace": "2160h"}))
    return changed(plan, drop, replace(drop, case=case))


BROKEN: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "overlaps a partition": (overlaps_a_partition, "overlaps"),
    "overlaps another new one": (overlaps_another_new_one, "overlaps"),
    "attaches over a partition": (attaches_over_a_partition, "overlaps"),
    "creates after retiring": (creates_after_retiring, "created after something is retired"),
    "detaches what is young": (detaches_what_is_young, "has not expired"),
    "detaches what is not called expired": (detaches_what_the_plan_does_not_call_expired, "has not expired"),
    "detaches other bounds": (detaches_other_bounds_than_the_catalog_shows, "no partition with those bounds"),
    "drops what is young": (drops_what_is_young, "has not expired"),
    "drops in the grace": (drops_in_the_grace, r"spec\.retention\.grace"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_plan_that_contradicts_what_it_was_made_from_is_refused(what: str) -> None:
    damage, message = BROKEN[what]
    plan, context = planned(WITHOUT)
    with pytest.raises(UnsafePlan, match=message) as refused:
        damage(plan).check_invariants(context)
    assert str(refused.value).startswith("cannot act on public.run: ")
    assert isinstance(refused.value, TransientError)


@pytest.mark.parametrize("name", [OLD.name, f"public.{TABLE.name}", f"{TABLE.name}@{TABLE.oid}"])
def test_nothing_that_is_held_is_touched(name: str) -> None:
    plan, context = planned(WITHOUT)
    with pytest.raises(UnsafePlan, match="is held: the annotation"):
        plan.check_invariants(replace(context, held=frozenset({name})))


def test_nothing_is_detached_or_dropped_without_a_proof() -> None:
    plan, context = planned(ARCHIVED)
    detach, drop = one(plan, DetachPartition), one(plan, DropDetached)
    with pytest.raises(UnsafePlan, match=f"no archive proves {detach}"):
        plan.check_invariants(replace(context, archives=Archives({TABLE.oid: context.archives.states[TABLE.oid]})))
    with pytest.raises(UnsafePlan, match=f"no archive proves {drop}"):
        plan.check_invariants(replace(context, archives=Archives({OLD.oid: context.archives.states[OLD.oid]})))


@pytest.mark.parametrize(
    "fingerprint", [None, TAKEN.model_copy(update={"rows": 2})], ids=["none", "of another archive"]
)
def test_a_drop_compares_with_the_archive_that_proves_it(fingerprint: Fingerprint | None) -> None:
    plan, context = planned(ARCHIVED)
    drop = one(plan, DropDetached)
    with pytest.raises(UnsafePlan, match=f"no archive proves {drop}"):
        changed(plan, drop, replace(drop, fingerprint=fingerprint)).check_invariants(context)


def test_without_an_archive_a_drop_needs_the_policys_word() -> None:
    plan, context = planned(WITHOUT)
    refuses = WITHOUT.model_copy(update={"drop_without_archive": False})
    with pytest.raises(UnsafePlan, match="no archive proves"):
        plan.check_invariants(replace(context, spec=context.spec.model_copy(update={"retention": refuses})))
