"""What waits for an approval of the plan: more retirements at once than the policy allows, and all of it where the
policy says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from partwarden.api.approval import APPROVE_PLAN, MOST_STEPS, PlanApproval, parse, read
from partwarden.api.archive import Fingerprint
from partwarden.api.destination import PVC
from partwarden.api.policy import Mode, TableSpec
from partwarden.api.retention import ArchiveSettings, OnExpire, Retention
from partwarden.api.types import Interval
from partwarden.errors import UnsafePlan
from partwarden.planner.actions import (
    Action,
    ConfirmDetached,
    CreatePartition,
    DetachPartition,
    DropDetached,
    FinalizeDetach,
)
from partwarden.planner.archive_gate import ArchiveRequest
from partwarden.planner.context import PlanContext
from partwarden.planner.drop_preconditions import Archives, ArchiveState, CheckState, server_label
from partwarden.planner.inventory import Fate, Inventory, Partition, Reference, Tie
from partwarden.planner.marker import Marker, Phase
from partwarden.planner.plan import Plan, make_plan
from partwarden.planner.plan_gate import APPROVAL, most_retirements
from partwarden.planner.schedule import WaitsFor
from support import values

NOW = values.NOW
DAY = timedelta(days=1)
DROP = Retention(keep_for="5y", on_expire=OnExpire.DROP, drop_without_archive=True, grace="24h", max_retirements=3)
DETACH = Retention(keep_for="5y", max_retirements=3)
ARCHIVED = Retention(
    keep_for="5y", on_expire=OnExpire.DROP, archive=ArchiveSettings(pvc=PVC(claim_name="archives")), max_retirements=3
)
OLD = values.years(2010, 2011, 2012, 2013)
HERE = (*OLD, *values.years(2026))
RETIRED = DetachPartition | DropDetached


def spec(retention: Retention = DROP, **fields: Any) -> TableSpec:
    return values.spec(retention=retention, **{"premake": 1, "start_from": "2026-01-01", **fields})


def planned(policy: TableSpec, found: Inventory, approval: PlanApproval | None = None, **fields: Any) -> Plan:
    return make_plan(policy, found, found.now, archives=Archives(plan=approval or PlanApproval()), **fields)


def kinds(plan: Plan) -> list[type[Action]]:
    return [type(each) for each in plan.actions]


def approved(policy: TableSpec, found: Inventory) -> PlanApproval:
    """The annotation names the plan, and a reconcile has recorded it."""
    waits = planned(policy, found)
    begins = planned(policy, found, PlanApproval(waits.gate.digest))
    assert begins.gate.begins
    assert begins.actions == waits.actions
    return PlanApproval(waits.gate.digest, begins.gate.record)


def test_as_many_as_the_policy_allows_are_retired_at_once() -> None:
    plan = planned(spec(), values.inventory(*HERE[1:]))
    assert kinds(plan) == [CreatePartition, DetachPartition, DetachPartition, DetachPartition]
    assert (plan.gate.digest, plan.gate.waiting) == ("", ())


def test_of_one_more_none_is_retired_and_partitions_are_created() -> None:
    plan = planned(spec(), values.inventory(*HERE))
    assert kinds(plan) == [CreatePartition]
    waiting = [(each.action, each.name) for each in plan.steps if APPROVAL in each.waits_for]
    assert waiting == [(kind, each.name) for kind in ("DetachPartition", "DropDetached") for each in OLD]
    assert (plan.gate.excess, plan.gate.most) == (4, 3)


@pytest.mark.parametrize(
    ("interval", "said", "most"),
    [(Interval.HOUR, None, 72), (Interval.DAY, None, 10), (Interval.YEAR, None, 10), (Interval.HOUR, 4, 4)],
)
def test_unless_the_policy_says_it_ten_or_three_days_worth_go_at_once(
    interval: Interval, said: int | None, most: int
) -> None:
    policy = spec(DROP.model_copy(update={"max_retirements": said}), interval=interval)
    assert most_retirements(policy) == most


def test_what_waits_for_its_archive_only_counts_and_none_is_requested() -> None:
    plan = planned(spec(ARCHIVED), values.inventory(*HERE))
    assert plan.retired.gate.requests == ()
    assert (plan.gate.excess, kinds(plan)) == (4, [CreatePartition])
    few = planned(spec(ARCHIVED), values.inventory(*HERE[1:]))
    assert [type(each) for each in few.retired.gate.requests] == [ArchiveRequest] * 3


def detached(since: datetime, *years: Partition) -> Inventory:
    tables = [values.detached(each.name, values.bounds(each).lower, values.bounds(each).upper, since) for each in years]
    return values.inventory(*values.years(2026, 2027), detached=tuple(tables))


def test_tables_in_their_grace_do_not_count_and_those_whose_grace_is_over_do() -> None:
    assert planned(spec(), detached(NOW, *OLD)).gate.digest == ""
    over = planned(spec(), detached(NOW - 2 * DAY, *OLD))
    assert (over.actions, over.gate.excess) == ((), 4)
    assert kinds(planned(spec(), detached(NOW - 2 * DAY, *OLD[1:]))) == [DropDetached] * 3


def test_what_a_hold_keeps_does_not_count() -> None:
    plan = make_plan(spec(), values.inventory(*HERE), NOW, held=frozenset({"run_2010"}))
    assert len([each for each in plan.actions if isinstance(each, DetachPartition)]) == 3


def test_one_approval_is_enough_from_the_detach_to_the_drop() -> None:
    policy, found = spec(), values.inventory(*HERE)
    approval = approved(policy, found)
    done: list[type[Action]] = []
    for _ in range(8):
        plan = planned(policy, found, approval)
        # One at a time, as if it was interrupted after each: what is left is another plan.
        found = values.after(found, plan.actions[:1])
        done += kinds(plan)[:1]
        if not plan.actions:
            found = replace(found, now=found.now + DAY)
        approval = replace(approval, recorded=plan.gate.record)
    assert done == [CreatePartition, *[DetachPartition] * 4, *[DropDetached] * 2]
    assert found.detached != ()


def test_what_is_done_of_an_approved_plan_leaves_its_record() -> None:
    policy, found = spec(DETACH), values.inventory(*HERE)
    approval = approved(policy, found)
    plan = planned(policy, found, approval)
    assert plan.gate.record == approval.recorded
    rest = planned(policy, values.after(found, plan.actions[:2]), approval)
    assert rest.gate.record is not None
    assert len(rest.gate.record.steps) == 3
    done = planned(policy, values.after(found, plan.actions), approval).gate.record
    assert done is not None
    assert (done.digest, done.steps) == (approval.named, [])


def test_a_new_partition_is_the_same_plan_and_another_that_expires_is_not() -> None:
    one = planned(spec(), values.inventory(*HERE)).gate.digest
    assert planned(spec(premake=4), values.inventory(*HERE)).gate.digest == one
    assert planned(spec(), values.inventory(*HERE, *values.years(2009))).gate.digest != one
    # The same table, made anew, and the same name in another database.
    again = replace(OLD[0], oid=99)
    assert planned(spec(), values.inventory(again, *HERE[1:])).gate.digest != one
    elsewhere = replace(values.SERVER, identity="2/7")
    assert planned(spec(), values.inventory(*HERE, server=elsewhere)).gate.digest != one


@pytest.mark.parametrize("change", [{"grace": "0s"}, {"keep_for": "4y"}, {"on_expire": OnExpire.DETACH}])
def test_an_approval_does_not_outlast_an_edit_of_the_retention(change: dict[str, Any]) -> None:
    found = values.inventory(*HERE)
    approval = approved(spec(), found)
    edited = spec(DROP.model_copy(update=change))
    plan = planned(edited, found, approval)
    assert plan.gate.record is not None
    assert (plan.gate.record.steps, kinds(plan)) == ([], [CreatePartition])
    assert plan.gate.digest not in ("", approval.named)


def test_another_max_and_other_jobs_leave_an_approval_as_it_is() -> None:
    found = values.inventory(*HERE)
    approval = approved(spec(), found)
    plan = planned(spec(DROP.model_copy(update={"max_retirements": 2})), found, approval)
    assert kinds(plan) == [CreatePartition, *[DetachPartition] * 4]


@pytest.mark.parametrize(
    "approval",
    [
        lambda one: replace(one, named=""),
        lambda one: replace(one, named="0" * 16),
        lambda one: replace(one, recorded=None),
    ],
    ids=["taken back", "of another plan", "lost from the status"],
)
def test_without_annotation_or_record_what_is_left_waits_again(approval: Any) -> None:
    policy, found = spec(), values.inventory(*HERE, *values.years(2009, 2008))
    given = approved(policy, found)
    rest = values.after(found, planned(policy, found, given).actions[:3])
    assert kinds(planned(policy, rest, given)) == [DetachPartition] * 4
    plan = planned(policy, rest, approval(given))
    assert (plan.actions, plan.gate.excess) == ((), 4)


def test_beside_an_approved_plan_as_many_go_as_without_one() -> None:
    policy, found = spec(), values.inventory(*HERE)
    approval = approved(policy, found)
    few = replace(found, partitions=(*found.partitions, *values.years(2009, 2008, 2007)))
    assert kinds(planned(policy, few, approval)).count(DetachPartition) == 7
    many = replace(few, partitions=(*few.partitions, *values.years(2006)))
    plan = planned(policy, many, approval)
    assert {each.name for each in plan.actions if isinstance(each, DetachPartition)} == {each.name for each in OLD}
    assert plan.gate.excess == 4
    # What is approved next is all that is left, so that nothing of the first is lost.
    both = PlanApproval(plan.gate.digest, planned(policy, many, PlanApproval(plan.gate.digest)).gate.record)
    assert kinds(planned(policy, many, both)).count(DetachPartition) == 8


def test_an_archive_is_made_and_read_for_an_approved_retirement() -> None:
    policy, found = spec(ARCHIVED), values.inventory(*HERE)
    approval = approved(policy, found)
    assert len(planned(policy, found, approval).retired.gate.requests) == 4
    label, taken = server_label(values.SERVER.identity), Fingerprint(algorithm="test", rows=1, content="0" * 64)
    states = {each.oid: (ArchiveState(each.name, 0, label, each.oid, proven=True, fingerprint=taken),) for each in OLD}
    detaching = make_plan(policy, found, NOW, archives=Archives(states, plan=approval))
    assert kinds(detaching).count(DetachPartition) == 4
    late = replace(values.after(found, detaching.actions), now=NOW + 2 * DAY)
    reading = make_plan(policy, late, late.now, archives=Archives(states, plan=approval))
    assert len(reading.retired.gate.requests) == 4
    tokens = {each.archive: each.token for each in reading.retired.gate.requests}  # type: ignore[union-attr]
    states = {
        oid: (replace(one, check=CheckState(tokens[one.name], ok=True, completed=late.now)),)
        for oid, (one,) in states.items()
    }
    dropping = make_plan(policy, late, late.now, archives=Archives(states, plan=approval))
    drops = [each for each in dropping.actions if isinstance(each, DropDetached)]
    assert len(drops) == 4
    assert all(each.case.step for each in drops)


def test_a_reading_that_voids_an_earlier_one_waits_for_nothing() -> None:
    """It is what keeps a table that a hold has kept meanwhile from going by what was read before."""
    policy, found = spec(ARCHIVED, mode=Mode.APPROVE), detached(NOW - 2 * DAY, OLD[0])
    (table,) = found.detached
    label, taken = server_label(values.SERVER.identity), Fingerprint(algorithm="test", rows=1, content="0" * 64)
    state = ArchiveState("a", 0, label, table.oid, proven=True, fingerprint=taken, check=CheckState("drop/x", ok=True))
    plan = make_plan(policy, found, NOW, frozenset({table.name}), Archives({table.oid: (state,)}))
    assert [each.void for each in plan.retired.gate.requests] == [True]  # type: ignore[union-attr]
    state = replace(state, check=None)
    assert make_plan(policy, found, NOW, archives=Archives({table.oid: (state,)})).retired.gate.requests == ()


def test_in_mode_approve_nothing_is_done_of_a_plan_that_is_not_approved() -> None:
    pending = replace(OLD[0], detach_pending=True)
    policy, found = spec(mode=Mode.APPROVE), values.inventory(pending, *HERE[2:])
    plan = planned(policy, found)
    assert plan.actions == ()
    assert {each.action for each in plan.gate.waiting} >= {"CreatePartition", "DetachPartition", "FinalizeDetach"}
    assert all(APPROVAL in each.waits_for for each in plan.steps)
    done = planned(policy, found, approved(policy, found))
    assert kinds(done) == [CreatePartition, FinalizeDetach, *[DetachPartition] * 2]


def test_in_mode_approve_what_comes_later_needs_its_own_approval() -> None:
    policy, found = spec(DETACH, mode=Mode.APPROVE), values.inventory(*HERE[3:])
    approval = approved(policy, found)
    rest = values.after(found, planned(policy, found, approval).actions)
    assert planned(policy, rest, approval).gate.digest == ""
    next_year = replace(rest, now=datetime(2027, 1, 2, tzinfo=UTC))
    plan = planned(policy, next_year, approval)
    assert (plan.actions, [each.action for each in plan.gate.waiting]) == ((), ["CreatePartition"])


def test_a_detach_that_was_approved_is_finished_without_another_approval() -> None:
    policy, found = spec(mode=Mode.APPROVE), values.inventory(*HERE[3:])
    approval = approved(policy, found)
    old = OLD[3]
    mark = Marker(old.oid, values.PARENT.oid, str(values.PARENT), values.bounds(old), Phase.DETACHING, NOW)
    halfway = replace(found, partitions=(replace(old, detach_pending=True, marker=mark), *found.partitions[1:]))
    assert FinalizeDetach in kinds(planned(policy, halfway, approval))
    gone = values.after(halfway, planned(policy, halfway, approval).actions)
    assert ConfirmDetached in kinds(planned(policy, gone, approval))


def test_a_hold_keeps_what_is_approved_and_the_approval_outlasts_it() -> None:
    policy, found = spec(), values.inventory(*HERE)
    approval = approved(policy, found)
    held = planned(policy, found, approval, held=frozenset({"run_2010"}))
    assert "run_2010" not in {each.name for each in held.actions}
    assert held.gate.record == approval.recorded
    assert kinds(planned(policy, found, approval)).count(DetachPartition) == 4


def test_what_was_held_when_the_plan_was_approved_is_not_of_it() -> None:
    policy, found = spec(mode=Mode.APPROVE), values.inventory(*HERE)
    held = frozenset({"run_2010"})
    waits = planned(policy, found, held=held)
    record = planned(policy, found, PlanApproval(waits.gate.digest), held=held).gate.record
    plan = planned(policy, found, PlanApproval(waits.gate.digest, record))
    assert {each.name for each in plan.gate.waiting} == {"run_2010"}
    assert kinds(plan).count(DetachPartition) == 3


@pytest.mark.slow
def test_of_a_plan_beyond_a_thousand_steps_the_rest_needs_the_next_approval() -> None:
    start = datetime(2010, 1, 1, tzinfo=UTC)
    days = [values.partition(f"d{n}", start + n * DAY, start + (n + 1) * DAY) for n in range(MOST_STEPS + 200)]
    policy = spec(DETACH, interval=Interval.DAY, start_from="2026-11-22", premake=0)
    found = values.inventory(
        *days, values.partition("now", datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC))
    )
    approval = approved(policy, found)
    assert approval.recorded is not None
    assert len(approval.recorded.steps) == MOST_STEPS
    plan = planned(policy, found, approval)
    assert (len(plan.actions), plan.gate.excess, plan.gate.begins) == (MOST_STEPS, 200, False)
    rest = values.after(found, plan.actions)
    assert (planned(policy, rest, approval).actions, planned(policy, rest, approval).gate.excess) == ((), 200)
    assert len(planned(policy, rest, approved(policy, rest)).actions) == 200


def status_of(plan: Plan, generation: int = 1) -> dict[str, Any]:
    """What of a status the next plan reads."""
    record = plan.gate.record
    said = {"approvedPlan": record.model_dump(by_alias=True)} if record else {}
    return {"observedGeneration": generation, "planDigest": plan.gate.open, **said}


@pytest.mark.parametrize("policy", [spec(DETACH), spec(DETACH, mode=Mode.APPROVE)], ids=["Apply", "Approve"])
def test_an_approval_is_of_one_run_also_where_the_same_plan_comes_back(policy: TableSpec) -> None:
    found = values.inventory(*HERE)
    approval = approved(policy, found)
    done = planned(policy, values.after(found, planned(policy, found, approval).actions), approval)
    assert done.gate.digest == ""
    # The database is restored to before.
    used = read(approval.named, status_of(done), 1)
    again = planned(policy, found, used)
    assert [each for each in again.actions if not isinstance(each, CreatePartition)] == []
    assert (again.gate.digest, again.gate.begins, again.gate.is_used) == (approval.named, False, True)
    assert again.gate.record == done.gate.record
    # Taken away, and set once more.
    gone = planned(policy, found, read("", status_of(again), 1))
    assert gone.gate.record is None
    assert planned(policy, found, read(approval.named, status_of(gone), 1)).gate.begins


def test_an_edit_and_its_reverse_do_not_bring_an_approval_back() -> None:
    policy, found = spec(), values.inventory(*HERE)
    approval = approved(policy, found)
    longer = planned(spec(DROP.model_copy(update={"keep_for": "50y"})), found, approval)
    plan = planned(policy, found, read(approval.named, status_of(longer), 1))
    assert (kinds(plan), plan.gate.is_used) == ([CreatePartition], True)


def test_what_was_detached_by_an_approval_and_is_attached_again_counts_anew() -> None:
    policy, found = spec(), values.inventory(*HERE)
    approval = approved(policy, found)
    done = planned(policy, values.after(found, planned(policy, found, approval).actions), approval)
    assert done.gate.record is not None
    assert len(done.gate.record.steps) == len(OLD)
    restored = planned(policy, found, read(approval.named, status_of(done), 1))
    assert (kinds(restored), restored.gate.excess) == ([CreatePartition], len(OLD))


def test_taken_back_an_approval_stops_also_the_few_that_are_left_until_the_spec_is_edited() -> None:
    policy, found = spec(), values.inventory(*HERE, *values.years(2009))
    approval = approved(policy, found)
    first = planned(policy, found, approval)
    rest = values.after(found, first.actions[:4])
    halfway = planned(policy, rest, approval)
    stopped = planned(policy, rest, read("", status_of(halfway), 1))
    assert stopped.actions == ()
    assert (stopped.gate.excess, stopped.gate.record) == (2, None)
    assert stopped.gate.open != ""
    # Days later, when the grace of those that were detached is over, too.
    later = replace(rest, now=NOW + 2 * DAY)
    still = planned(policy, later, read("", status_of(stopped), 1))
    assert (still.actions, still.gate.open != "") == ((), True)
    taken = planned(policy, rest, read(stopped.gate.open, status_of(stopped), 1))
    assert taken.gate.begins
    assert kinds(planned(policy, rest, read(stopped.gate.open, status_of(taken), 1))) == [DetachPartition] * 2
    # Edited, it is planned afresh.
    assert kinds(planned(policy, rest, read("", status_of(stopped), 2))) == [DetachPartition] * 2
    with pytest.raises(UnsafePlan, match="2 partitions are retired at once, more than 0"):
        planned(policy, rest).check_invariants(context(policy, rest, PlanApproval(pending=True)))


def test_a_plan_that_waits_does_not_go_by_the_limit_once_a_hold_makes_it_smaller() -> None:
    policy, found = spec(), values.inventory(*HERE)
    waits = status_of(planned(policy, found))
    plan = planned(policy, found, read("", waits, 1), held=frozenset({"run_2010"}))
    assert (kinds(plan), plan.gate.excess, plan.gate.open != "") == ([CreatePartition], 3, True)
    # Nothing left: what comes later is judged by the limit again.
    every = planned(policy, found, read("", waits, 1), held=frozenset(each.name for each in OLD))
    assert every.gate.open == ""


@pytest.mark.parametrize("where", ["attached", "detached"])
def test_tables_whose_last_reading_failed_count_and_are_of_the_plan(where: str) -> None:
    found = values.inventory(*HERE) if where == "attached" else detached(NOW - 2 * DAY, *OLD)
    label, taken = server_label(values.SERVER.identity), Fingerprint(algorithm="test", rows=1, content="0" * 64)
    failed = CheckState("drop/x", ok=False, reason="DestinationDenied", message="denied")
    tables = (*found.partitions[:4], *found.detached)[-4:] if where == "detached" else OLD
    states = {
        each.oid: (ArchiveState(each.name, 0, label, each.oid, proven=True, fingerprint=taken, check=failed),)
        for each in tables
    }
    policy = spec(ARCHIVED.model_copy(update={"grace": "24h"}))
    plan = make_plan(policy, found, NOW, archives=Archives(states))
    assert (plan.gate.excess, len({each.oid for each in plan.gate.waiting})) == (4, 4)
    assert len(plan.requests) == 4
    given = PlanApproval(
        plan.gate.digest,
        make_plan(policy, found, NOW, archives=Archives(states, plan=PlanApproval(plan.gate.digest))).gate.record,
    )
    assert len(make_plan(policy, found, NOW, archives=Archives(states, plan=given)).retired.gate.requests) == 4


def test_what_ties_keep_does_not_fill_the_limit() -> None:
    found = detached(NOW - 2 * DAY, *OLD)
    tie = Tie("trigger t", Fate.REFUSES, 1, way_out="drop it")
    tied = replace(found, ties={found.detached[0].oid: (tie,)})
    assert planned(spec(), found).actions == ()
    assert kinds(planned(spec(), tied)) == [DropDetached] * 3


def test_what_waits_is_due_still_so_that_it_is_read_before_it_is_approved() -> None:
    policy, found = spec(mode=Mode.APPROVE), values.inventory(*HERE)
    plan = planned(policy, found)
    assert (plan.actions, [type(each) for each in plan.due]) == ((), [CreatePartition, *[DetachPartition] * 4])
    assert plan.names == ("run_2027",)
    referenced = replace(found, references={OLD[0].oid: (Reference("public.a", 1),)})
    assert kinds(planned(spec(), referenced)).count(DetachPartition) == 3


@pytest.mark.parametrize("retention", [DROP, ARCHIVED], ids=["without an archive", "archived"])
def test_a_plan_that_retires_what_is_not_approved_is_refused(retention: Retention) -> None:
    del retention
    found = values.inventory(*HERE)
    approval = approved(spec(), found)
    plan = planned(spec(), found, approval)
    plan.check_invariants(context(spec(), found, approval))
    with pytest.raises(UnsafePlan, match="4 partitions are retired at once, more than 3"):
        plan.check_invariants(context(spec(), found, PlanApproval()))
    with pytest.raises(UnsafePlan, match="is of no approved plan"):
        plan.check_invariants(context(spec(mode=Mode.APPROVE), found, approval))
    assert all(isinstance(each, RETIRED | CreatePartition) for each in plan.actions)


def test_in_mode_approve_a_drop_that_does_not_ask_again_is_refused() -> None:
    policy, found = spec(mode=Mode.APPROVE), detached(NOW - 2 * DAY, OLD[0])
    approval = approved(policy, found)
    plan = planned(policy, found, approval)
    (drop,) = plan.actions
    assert isinstance(drop, DropDetached)
    unasked = replace(plan, actions=(replace(drop, case=replace(drop.case, step="")),))
    with pytest.raises(UnsafePlan, match="without asking again"):
        unasked.check_invariants(context(policy, found, approval))


def context(policy: TableSpec, found: Inventory, approval: PlanApproval) -> PlanContext:
    return PlanContext.of(policy, found, found.now, frozenset(), Archives(plan=approval))


@pytest.mark.parametrize(
    "text", ["", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef, 0123456789abcdef", "x" * 99_999, "\0"]
)
def test_what_is_no_digest_approves_nothing(text: str) -> None:
    assert parse({APPROVE_PLAN: text}) == ""
    assert parse(None) == ""
    assert parse({APPROVE_PLAN: " 0123456789abcdef\n"}) == "0123456789abcdef"


@pytest.mark.parametrize(
    "recorded",
    [
        None,
        "all",
        [],
        {"digest": "0" * 16},
        {"digest": "0" * 16, "basis": "0" * 16, "steps": ["*"]},
        {"digest": "0" * 16, "basis": "0" * 16, "steps": ["0" * 12] * (MOST_STEPS + 1)},
        {"digest": "0" * 16, "basis": "0" * 16, "steps": {"0" * 12: 1}},
        {"digest": "0" * 17, "basis": "0" * 16, "steps": []},
    ],
)
def test_a_record_that_is_not_of_the_shape_is_none(recorded: object) -> None:
    assert read("0" * 16, {"approvedPlan": recorded}, 1) == PlanApproval("0" * 16)


def test_the_wait_is_one_for_the_user() -> None:
    assert APPROVAL.on is WaitsFor.APPROVAL
