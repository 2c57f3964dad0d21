"""What the conditions say, in kstatus terms, of every class of success and failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from partwarden import errors
from partwarden.api.approval import PlanApproval
from partwarden.api.crd import structural
from partwarden.api.policy import Mode
from partwarden.api.retention import Retention
from partwarden.api.status import ConditionType, PartitionPolicyStatus
from partwarden.planner.actions import Outcome
from partwarden.planner.calendar import Range
from partwarden.planner.drop_preconditions import Archives
from partwarden.planner.inventory import Inventory, Partition, RelationKind
from partwarden.planner.plan import make_plan
from partwarden.status import events
from partwarden.status.conditions import broken, failed, make_status, reconciled, suspended
from support import values
from support.samples import NOW, inventory, plan, spec, year

LATER = NOW + timedelta(hours=1)
COMPLETE = [year(number) for number in range(2024, 2029)]


def status_of(
    found: Inventory, previous: dict[str, Any] | None = None, now: datetime = NOW, **fields: Any
) -> dict[str, Any]:
    verdict = reconciled(spec(**fields), found, plan(found, **fields), ())
    return make_status(verdict, previous or {}, 3, now, "public.run")


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = [each for each in status["conditions"] if each["type"] == kind]
    return dict(found)


def says(status: dict[str, Any]) -> dict[str, str]:
    return {each["type"]: each["status"] for each in status["conditions"]}


def kstatus(status: dict[str, Any]) -> str:
    """What kstatus makes of it, for a generation that was observed."""
    conditions = says(status)
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready") == "True" else "InProgress"


def test_a_converged_policy_is_ready_and_says_how_far_it_is_covered() -> None:
    status = status_of(inventory(COMPLETE))
    assert says(status) == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "DatabaseReachable": "True",
        "PartitionsAhead": "True",
        "DefaultPartitionEmpty": "True",
        "WithinThresholds": "True",
        "ArchivesHealthy": "True",
    }
    ready = condition(status, "Ready")
    assert (ready["reason"], ready["message"]) == ("Converged", "5 partitions, covered until 2029-01-01T00:00:00Z")
    assert status["observedGeneration"] == ready["observedGeneration"] == 3
    assert kstatus(status) == "Current"


def test_nothing_differs_at_a_later_look_at_the_same_table() -> None:
    first = status_of(inventory(COMPLETE))
    assert status_of(inventory(COMPLETE, now=LATER), previous=first, now=LATER) == first


def test_only_a_condition_whose_status_changes_gets_a_new_time() -> None:
    first = status_of(inventory(COMPLETE))
    second = make_status(failed(errors.TableNotFound("gone"), connected=True), first, 3, LATER)
    times = {each["type"]: each["lastTransitionTime"] for each in second["conditions"]}
    changed = {"Ready", "Stalled", "PartitionsAhead", "DefaultPartitionEmpty", "WithinThresholds", "ArchivesHealthy"}
    assert {kind for kind, since in times.items() if since == "2026-06-15T13:00:00Z"} == changed
    assert {kind for kind, since in times.items() if since == "2026-06-15T12:00:00Z"} == set(times) - changed


ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PartwardenError)]
LEAVES = [kind for kind in ERRORS if kind not in (errors.PartwardenError, errors.UserError, errors.TransientError)]


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("connected", [True, False])
def test_a_mistake_is_stalled_and_an_outage_is_not(kind: type[errors.PartwardenError], connected: bool) -> None:
    status = make_status(failed(kind("what was found"), connected), {}, 1, NOW)
    mistake = issubclass(kind, errors.UserError)
    assert condition(status, "Ready")["reason"] == kind.__name__
    assert condition(status, "Ready")["message"] == "what was found"
    assert says(status)["Stalled"] == ("True" if mistake else "False")
    assert says(status)["Reconciling"] == ("False" if mistake else "True")
    assert kstatus(status) == ("Failed" if mistake else "InProgress")


@pytest.mark.parametrize(
    ("error", "connected", "expected"),
    [
        (errors.SecretNotFound("x"), False, "Unknown"),
        (errors.ClusterUnavailable("x"), False, "Unknown"),
        (errors.DatabaseUnreachable("x"), False, "False"),
        (errors.DatabaseUnreachable("lost on the way"), True, "False"),
        (errors.AuthenticationFailed("x"), False, "False"),
        (errors.TLSMismatch("x"), False, "False"),
        (errors.DatabaseNotFound("x"), False, "False"),
        (errors.TableNotFound("x"), True, "True"),
        (errors.PolicyConflict("x"), True, "True"),
    ],
    ids=str,
)
def test_whether_the_database_was_reached(error: errors.PartwardenError, connected: bool, expected: str) -> None:
    status = make_status(failed(error, connected), {}, 1, NOW)
    assert says(status)["DatabaseReachable"] == expected
    assert says(status)["PartitionsAhead"] == "Unknown"


def test_an_outage_keeps_what_was_last_seen_of_the_table() -> None:
    first = status_of(inventory(COMPLETE))
    second = make_status(failed(errors.DatabaseUnreachable("down"), False), first, 3, LATER, "public.run")
    assert (second["summary"], second["partitions"]) == (first["summary"], first["partitions"])


@pytest.mark.parametrize(
    ("error", "table"), [(errors.TableNotFound("gone"), "public.run"), (errors.SecretNotFound("gone"), "public.other")]
)
def test_what_is_not_true_of_the_table_any_more_is_taken_away(error: errors.PartwardenError, table: str) -> None:
    first = status_of(inventory(COMPLETE))
    second = make_status(failed(error, isinstance(error, errors.TableNotFound)), first, 3, LATER, table)
    assert not {"summary", "partitions", "plan", "next", "nextDrop", "findings"} & set(second)


def test_mode_plan_counts_what_it_would_do_and_is_neither_stalled_nor_reconciling() -> None:
    status = status_of(inventory(COMPLETE[:2]), mode="Plan")
    ready = condition(status, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PlanPending")
    assert ready["message"].startswith("3 partitions to create")
    assert (says(status)["Stalled"], says(status)["Reconciling"]) == ("False", "False")
    assert [each["partition"] for each in status["plan"]] == ["run_2026", "run_2027", "run_2028"]
    assert condition(status, "PartitionsAhead")["reason"] == "PlanPending"
    assert status_of(inventory(COMPLETE), mode="Plan")["conditions"][0]["status"] == "True"


def test_suspended_says_unknown_and_keeps_the_rest() -> None:
    first = status_of(inventory(COMPLETE))
    second = make_status(suspended(), first, 4, LATER, "public.run")
    assert (condition(second, "Ready")["status"], condition(second, "Ready")["reason"]) == ("Unknown", "Suspended")
    assert (says(second)["Stalled"], says(second)["Reconciling"]) == ("False", "False")
    assert second["partitions"] == first["partitions"]


def test_suspended_says_of_the_table_what_was_observed() -> None:
    seen = inventory(COMPLETE[:2])
    status = make_status(suspended(reconciled(spec(), seen, plan(seen), ())), {}, 4, LATER, "public.run")
    assert (condition(status, "Ready")["status"], condition(status, "Ready")["reason"]) == ("Unknown", "Suspended")
    assert (says(status)["Stalled"], says(status)["Reconciling"]) == ("False", "False")
    assert says(status)["DatabaseReachable"] == "True"
    assert (says(status)["PartitionsAhead"], len(status["plan"])) == ("False", 3)
    assert status["next"]["object"] == "run_2026"


def test_an_unforeseen_error_is_ours_and_says_nothing_about_the_database() -> None:
    first = status_of(inventory(COMPLETE))
    second = make_status(broken("KeyError"), first, 3, LATER, "public.run")
    assert condition(second, "Ready")["reason"] == "InternalError"
    assert kstatus(second) == "InProgress"
    assert condition(second, "DatabaseReachable") == condition(first, "DatabaseReachable")


def outcomes_of(found: Inventory, *wrong: errors.PartwardenError | None) -> list[Outcome]:
    return [Outcome(action, error) for action, error in zip(plan(found).actions, wrong, strict=True)]


@pytest.mark.parametrize(
    ("wrong", "reason", "meaning"),
    [
        ((None, errors.TableBusy("busy"), None), "TableBusy", "InProgress"),
        ((errors.DefaultHasRows("rows"), errors.TableBusy("busy"), None), "DefaultHasRows", "Failed"),
        ((errors.TableBusy("busy"), errors.DefaultHasRows("rows"), None), "TableBusy", "InProgress"),
    ],
)
def test_the_first_failure_is_the_reason_and_all_are_listed(
    wrong: tuple[errors.PartwardenError | None, ...], reason: str, meaning: str
) -> None:
    found = inventory(COMPLETE[:2])
    verdict = reconciled(spec(), found, plan(found), outcomes_of(found, *wrong))
    status = make_status(verdict, {}, 1, NOW)
    assert condition(status, "Ready")["reason"] == reason
    assert kstatus(status) == meaning
    assert [each["reason"] for each in status["findings"]] == [type(each).__name__ for each in wrong if each]
    ahead = condition(status, "PartitionsAhead")
    assert (ahead["status"], ahead["reason"]) == ("False", reason)
    assert "[2026-01-01T00:00:00Z, 2027-01-01T00:00:00Z)" in ahead["message"]


def test_what_blocks_everything_is_named_before_anything_else() -> None:
    found = inventory(COMPLETE, may_own=False)
    status = status_of(found)
    assert condition(status, "Ready")["reason"] == "NotOwner"
    assert kstatus(status) == "Failed"
    assert says(status)["PartitionsAhead"] == "True"


def test_a_notice_is_listed_and_stops_nothing() -> None:
    odd = replace(year(2020), range=replace(year(2020).range or NotImplemented, lower=datetime(2020, 2, 1, tzinfo=UTC)))
    status = status_of(inventory([odd, *[year(number) for number in range(2021, 2029)]]))
    assert says(status)["Ready"] == "True"
    assert [each["reason"] for each in status["findings"]] == ["OffGrid"]


def test_work_left_without_a_failure_is_in_progress() -> None:
    status = status_of(inventory(COMPLETE[:4]))
    assert condition(status, "Ready")["reason"] == "PartitionsMissing"
    assert kstatus(status) == "InProgress"


def many(count: int) -> list[Partition]:
    """Of the days since 2010, with names as long as PostgreSQL allows, some foreign."""
    kinds = (RelationKind.TABLE, RelationKind.FOREIGN)
    days = [datetime(2010, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(count + 1)]
    return [
        Partition(
            *(number + 1, "public", f"{number:0>63}", Range(lower, upper), "…"),
            kind=kinds[number % 7 == 0],
            rows=10**9,
            bytes=10**15,
        )
        for number, (lower, upper) in enumerate(pairwise(days))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 200, 1000, 10_000])
def test_a_status_is_bounded_and_totals_count_everything(count: int) -> None:
    status = status_of(inventory(many(count)), interval="Day", premake=1000)
    assert len(json.dumps(status, ensure_ascii=False).encode()) < 64 * 1024
    assert status["summary"]["partitions"] == count
    assert status["summary"]["totalBytes"] == count * 10**15
    assert status["summary"]["listed"] == len(status["partitions"]) <= 200
    if count == 10_000:
        assert {"Past", "Current", "Future"} <= {each["state"] for each in status["partitions"]}


@pytest.mark.slow
def test_the_longest_messages_still_fit() -> None:
    found = inventory(many(10_000))
    wide = errors.StatementRejected("ü" * 5000)
    outcomes = [Outcome(action, wide) for action in plan(inventory(COMPLETE[:2])).actions] * 10
    status = make_status(reconciled(spec(), found, plan(found, interval="Day"), outcomes), {}, 1, NOW)
    assert len(json.dumps(status, ensure_ascii=False).encode()) < 64 * 1024


def statuses() -> Iterator[dict[str, Any]]:
    yield status_of(inventory(COMPLETE))
    yield status_of(inventory(COMPLETE[:2]), mode="Plan")
    yield status_of(inventory(COMPLETE, may_own=False))
    yield make_status(failed(errors.TransientError("x"), False), {}, 0, NOW)
    yield make_status(suspended(), {}, 1, NOW)


def test_what_is_written_is_what_the_model_and_so_the_crd_describe() -> None:
    for status in statuses():
        again = PartitionPolicyStatus.model_validate_json(json.dumps(status))
        assert again.model_dump(mode="json", by_alias=True, exclude_none=True) == {
            "partitions": [],
            "plan": [],
            "findings": [],
            **status,
        }
    assert set(structural(PartitionPolicyStatus)["properties"]) >= set(status_of(inventory(COMPLETE)))


def test_every_condition_is_always_said() -> None:
    for status in statuses():
        assert set(says(status)) == set(ConditionType)


def test_messages_and_events_are_one_line_whatever_names_hold() -> None:
    forged = "run\n2026 \x1b[2J\x9b\u2028\u202e"
    verdict = failed(errors.TableNotFound(f"table {forged} does not exist"), connected=True)
    status = make_status(verdict, {}, 1, NOW)
    assert condition(status, "Ready")["message"].startswith("table run\\n2026 ")
    assert all(each["message"].isprintable() for each in status["conditions"])
    assert all(each.message.isprintable() for each in events.changed({}, status))
    found = inventory([replace(year(2026), name=forged, differs=("grants",)), *COMPLETE[3:]])
    findings = status_of(found)["findings"]
    assert findings
    assert all(each["message"].isprintable() and each["object"].isprintable() for each in findings)


RECORD = {"digest": "0" * 16, "basis": "1" * 16, "steps": ["2" * 12]}


@pytest.mark.parametrize("error", [errors.TableNotFound("gone"), errors.DatabaseUnreachable("down")])
def test_no_error_makes_an_approval_of_a_plan_forgotten(error: errors.PartwardenError) -> None:
    first = {"observedGeneration": 3, "planDigest": "f" * 16, "approvedPlan": RECORD}
    second = make_status(failed(error, connected=True), first, 3, LATER, "public.run")
    assert (second["planDigest"], second["approvedPlan"]) == ("f" * 16, RECORD)
    assert make_status(failed(error, connected=True), second, 3, LATER, "public.run") == second
    # Of another spec it was another plan that waited.
    edited = make_status(failed(error, connected=True), first, 4, LATER, "public.run")
    assert (edited.get("planDigest"), edited["approvedPlan"]) == (None, RECORD)


def test_in_mode_plan_no_plan_begins() -> None:
    old = values.years(*range(2004, 2029))
    fields: dict[str, Any] = {"retention": Retention(keep_for="5y", max_retirements=1), "mode": Mode.PLAN}
    digest = make_plan(spec(**fields), inventory(old), NOW).gate.digest
    named = make_plan(spec(**fields), inventory(old), NOW, archives=Archives(plan=PlanApproval(digest)))
    assert named.gate.begins
    said = reconciled(spec(**fields), inventory(old), named, ()).ready
    assert (said.reason, "begins" in said.message, "is approved" in said.message) == ("PlanPending", False, False)
