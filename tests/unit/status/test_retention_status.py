"""What the conditions say while old partitions go: only what is due and not done makes a policy unready."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from partwarden.api.policy import Mode, TableSpec
from partwarden.api.retention import Approval, OnExpire, Retention
from partwarden.api.status import ConditionType
from partwarden.errors import DatabaseUnreachable, TableBusy
from partwarden.planner.actions import Outcome
from partwarden.planner.default_rows import DefaultRows
from partwarden.planner.inventory import Detached, Inventory, Partition, Reference, RelationKind
from partwarden.planner.marker import Marker, Phase
from partwarden.planner.plan import make_plan
from partwarden.status.conditions import PolicyStatusUpdate, failed, make_status, reconciled
from partwarden.status.events import changed
from support import values


def policy(**fields: Any) -> TableSpec:
    retention = Retention(keep_for="5y", on_expire=OnExpire.DROP, drop_without_archive=True)
    return values.spec(premake=0, start_from="2026-01-01", retention=retention, **fields)


def gone(hours: float) -> Detached:
    lower, upper = datetime(2018, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)
    return values.detached("run_2018", lower, upper, values.NOW - timedelta(hours=hours))


def verdict(spec: TableSpec, found: Inventory, *errors: TableBusy) -> PolicyStatusUpdate:
    made = make_plan(spec, found, found.now)
    return reconciled(spec, found, made, [Outcome(made.actions[place], error) for place, error in enumerate(errors)])


def here(*partitions: Partition, **fields: Any) -> Inventory:
    return values.inventory(*partitions, *values.years(2026), **fields)


def test_while_the_grace_runs_the_policy_is_ready() -> None:
    said = verdict(policy(), here(detached=(gone(hours=23),)))
    assert (said.ready.status, said.ready.reason) == ("True", "Converged")


def test_what_is_due_and_not_done_is_in_progress() -> None:
    said = verdict(policy(), here(*values.years(2019, 2020), detached=(gone(hours=24),)))
    assert (said.ready.status, said.ready.reason, said.reconciling) == ("False", "InProgress", True)
    assert said.ready.message.startswith("2 partitions to detach, 1 table to drop; ")
    assert said.others[ConditionType.PARTITIONS_AHEAD].status == "True"


def test_missing_partitions_are_reported_before_it() -> None:
    said = verdict(policy(), values.inventory(*values.years(2019)))
    assert said.ready.reason == "PartitionsMissing"
    assert said.ready.message.startswith("1 partition to create, 1 partition to detach; ")


def test_a_plan_that_is_not_executed_says_what_it_would_do() -> None:
    said = verdict(policy(mode=Mode.PLAN), here(*values.years(2019)))
    assert said.ready.reason == "PlanPending"
    assert said.ready.message.startswith("1 partition to detach; ")


def test_the_lock_holder_is_reported_and_the_policy_is_retried() -> None:
    said = verdict(policy(), here(*values.years(2019)), TableBusy("process 7 reads it"))
    assert (said.ready.status, said.ready.reason) == ("True", "ConvergedWithWarnings")
    assert said.ready.message.startswith("process 7 reads it; ")
    assert [each.reason for each in said.errors] == ["TableBusy"]


def test_rows_that_others_point_to_wait_for_a_person() -> None:
    old = values.years(2019)[0]
    said = verdict(policy(), here(old, references={old.oid: (Reference("public.step", 7),)}))
    assert (said.ready.reason, said.reconciling, said.stalled) == ("ConvergedWithWarnings", False, False)
    assert "public.step (7)" in said.ready.message
    assert [each.reason for each in said.errors] == ["RowsReferenced"]


def test_a_partition_that_came_back_from_an_archive_is_listed_as_that() -> None:
    """Young enough for the policy, or not: retention leaves it alone, and no other is called so."""
    for year in (2019, 2025):
        (old,) = values.years(year)
        mark = Marker(old.oid, 1000, "public.run", values.bounds(old), Phase.RESTORED, values.NOW)
        said = verdict(policy(), here(replace(old, marker=mark)))
        listed = make_status(said, {}, 1, values.NOW)["partitions"]
        assert [(each["name"], each.get("restored")) for each in listed] == [(old.name, True), ("run_2026", None)]


def test_days_that_change_nothing_write_nothing() -> None:
    """No age, no cutoff and no rest of a grace stands in a status."""
    first, second = (
        make_status(
            verdict(policy(), here(detached=(gone(hours=1),), now=values.NOW + timedelta(hours=hours))),
            {},
            1,
            values.NOW,
        )
        for hours in (0, 22)
    )
    assert first == second


def test_the_oid_is_shown_of_what_an_annotation_may_name() -> None:
    """`name@oid`: of what has expired, and of what was detached."""
    said = verdict(policy(), here(*values.years(2019), detached=(gone(hours=1),)))
    assert said.table is not None
    shown = {each.name: each.oid for each in said.table.partitions}
    assert shown == {"run_2018": gone(hours=1).oid, "run_2019": values.years(2019)[0].oid, "run_2026": None}


def status_of(spec: TableSpec, found: Inventory, *held: str) -> dict[str, Any]:
    made = make_plan(spec, found, found.now, frozenset(held))
    return make_status(reconciled(spec, found, made, []), {}, 1, values.NOW)


def test_a_hold_that_matches_nothing_is_one_warning_for_each_set_of_names() -> None:
    right, wrong, more = (status_of(policy(), here(), *names) for names in (["run_2026"], ["a"], ["a", "b"]))
    (notice,) = changed(right, wrong)
    assert (notice.type, notice.reason) == ("Warning", "HoldMatchesNothing")
    assert "partwarden.dev/hold names 'a', but no partition" in notice.message
    assert changed(wrong, wrong) == []
    (notice,) = changed(wrong, more)
    assert "names 'a', 'b', but" in notice.message
    assert changed(more, right) == []


def test_retention_that_is_stuck_although_all_is_ready_is_one_warning() -> None:
    foreign = [replace(each, kind=RelationKind.FOREIGN) for each in values.years(2018, 2019)]
    fine, one, two = (status_of(policy(), here(*foreign[:count])) for count in range(3))
    assert {each["type"]: each["status"] for each in one["conditions"]}["Ready"] == "True"
    (notice,) = changed(fine, one)
    assert (notice.type, notice.reason) == ("Warning", "ExpiredLeftAlone")
    assert "run_2018" in notice.message
    assert [each["reason"] for each in two["findings"]] == ["ExpiredLeftAlone"]
    assert changed(one, two) == []
    assert changed(two, fine) == []


def test_findings_that_are_events_are_never_pushed_out_of_the_list() -> None:
    old = values.years(*range(1990, 2015))
    references = {each.oid: (Reference("public.step", 7),) for each in old}
    said = verdict(policy(holds=["run_2O18"]), here(*old, references=references))
    assert said.table is not None
    reasons = [each.reason for each in said.table.findings]
    assert reasons == ["HoldMatchesNothing", *["RowsReferenced"] * 19]


def rows_in_default(count: int | None) -> dict[str, Any]:
    rows = None if count is None else DefaultRows(groups=((values.bounds(values.years(2018)[0]), count),) * bool(count))
    return status_of(values.spec(premake=0), here(values.default(), default_rows=rows))


def test_rows_that_land_in_default_are_one_warning_also_after_an_outage() -> None:
    empty, some, more = rows_in_default(0), rows_in_default(7), rows_in_default(8)
    (notice,) = [each for each in changed(empty, some) if each.reason == "DefaultHasRows"]
    assert notice.type == "Warning"
    assert "DEFAULT partition public.run_default holds 2018 (7 rows)" in notice.message
    assert "DefaultHasRows" not in [each.reason for each in changed(some, more)]
    away = make_status(failed(DatabaseUnreachable("no answer"), False), some, 1, values.NOW)
    assert "DefaultHasRows" not in [each.reason for each in changed(away, more)]
    assert ("Normal", "Empty") in [(each.type, each.reason) for each in changed(more, empty)]
    away = make_status(failed(DatabaseUnreachable("no answer"), False), empty, 1, values.NOW)
    assert ("Warning", "DefaultHasRows") in [(each.type, each.reason) for each in changed(away, some)]


def manual(spec_of: TableSpec, *tables: Detached) -> dict[str, Any]:
    """The status while these tables wait for an approval."""
    return make_status(verdict(spec_of, here(detached=tables)), {}, 1, values.NOW)


def test_each_table_that_waits_for_an_approval_is_one_event() -> None:
    retention = Retention(
        keep_for="5y", on_expire=OnExpire.DROP, drop_without_archive=True, approval=Approval.MANUAL, grace="1h"
    )
    spec = values.spec(premake=0, start_from="2026-01-01", retention=retention)
    other = values.detached(
        "a; b", datetime(2017, 1, 1, tzinfo=UTC), datetime(2018, 1, 1, tzinfo=UTC), gone(9).marker.since
    )
    before, one, two = manual(spec, gone(hours=0)), manual(spec, gone(hours=9)), manual(spec, gone(hours=9), other)
    assert changed(before, before) == []
    (notice,) = changed(before, one)
    assert (notice.type, notice.reason) == ("Normal", "WaitsForApproval")
    assert f"run_2018@{gone(9).oid}" in notice.message
    assert changed(one, one) == []
    (notice,) = changed(one, two)
    assert "a; b@" in notice.message
    assert changed(two, two) == []
    assert changed(two, one) == changed(before, one)


def test_rows_in_default_that_keep_a_policy_from_being_ready_are_one_event() -> None:
    no = [
        {"type": kind, "status": "False", "reason": "DefaultHasRows", "message": kind}
        for kind in ("DefaultPartitionEmpty", "Ready")
    ]
    (found,) = changed({}, {"conditions": no})
    assert (found.type, found.reason, found.message) == ("Warning", "DefaultHasRows", "Ready")
