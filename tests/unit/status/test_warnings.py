"""What each finding means for Ready: an error, a warning or a notice; and how the worst of them is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from partwarden import errors
from partwarden.api.destination import PVC
from partwarden.api.policy import UNREAD, TableSpec
from partwarden.api.retention import Approval, ArchiveSettings, Format, OnExpire, Retention
from partwarden.api.status import MAX_WARNINGS, Severity
from partwarden.planner.actions import Outcome
from partwarden.planner.archive_gate import WAITING
from partwarden.planner.default_rows import DefaultRows
from partwarden.planner.drop_preconditions import UNKNOWN, Archives
from partwarden.planner.findings import Finding
from partwarden.planner.forecast import Measured
from partwarden.planner.inventory import Fate, Inventory, Reference, RelationKind, Tie
from partwarden.planner.plan import make_plan
from partwarden.status.conditions import make_status, reconciled
from partwarden.status.events import changed
from partwarden.status.warnings import NOTICES, ROWS_AT_STAKE, STUCK, Graded, chosen, in_few_words
from support import reference, values

OLD = values.years(2019)[0]
NOW = values.NOW


@pytest.mark.slow
def test_every_finding_that_is_no_error_has_one_class() -> None:
    """A new one must be classified: it stops nothing, or a user would want to know of it."""
    classes = [*ROWS_AT_STAKE, *STUCK, *NOTICES]
    assert len(classes) == len(set(classes))
    assert set(classes) - errors.REASONS.keys() == reference.finding_names() | WAITING.keys()


def policy(**fields: Any) -> TableSpec:
    retention = Retention(
        keep_for="5y",
        on_expire=OnExpire.DROP,
        drop_without_archive=True,
        grace="1h",
        approval=fields.pop("by", "Automatic"),
    )
    return values.spec(premake=0, start_from="2026-01-01", retention=retention, **fields)


def here(*partitions: Any, **fields: Any) -> Inventory:
    return values.inventory(*partitions, *values.years(2026), **fields)


def status_of(
    spec: TableSpec, found: Inventory, *wrong: errors.PartwardenError, held: str = "", archives: Archives = UNKNOWN
) -> dict[str, Any]:
    plan = make_plan(spec, found, found.now, frozenset(filter(None, [held])), archives)
    outcomes = [Outcome(action, error) for action, error in zip(plan.actions, wrong, strict=False)]
    return make_status(reconciled(spec, found, plan, outcomes), {}, 1, NOW)


def ready(status: dict[str, Any]) -> tuple[str, str]:
    (found,) = [each for each in status["conditions"] if each["type"] == "Ready"]
    return found["status"], found["reason"]


def severities(status: dict[str, Any]) -> dict[str, str]:
    return {each["reason"]: each["severity"] for each in status.get("findings", [])}


def test_parquet_that_no_job_can_make_is_a_warning_before_anything_expires_and_heals() -> None:
    retention = Retention(keep_for="5y", archive=ArchiveSettings(pvc=PVC(claim_name="a"), formats=list(Format)))
    spec = values.spec(premake=0, start_from="2026-01-01", retention=retention)
    found = here()
    plan = make_plan(spec, found, found.now)
    assert not plan.retired.expired
    lacks, has = (
        make_status(reconciled(spec, found, plan, [], Measured(no_parquet=each)), {}, 1, NOW) for each in (True, False)
    )
    assert (ready(lacks), ready(has)) == (("True", "ConvergedWithWarnings"), ("True", "Converged"))
    assert severities(lacks) == {"ParquetUnavailable": "Warning"}
    assert lacks["summary"]["warnings"] == "1: no Parquet"
    (archives,) = [each for each in lacks["conditions"] if each["type"] == "ArchivesHealthy"]
    assert (archives["status"], archives["reason"]) == ("False", "ParquetUnavailable")
    assert archives["message"].startswith("spec.retention.archive.formats asks for Parquet, and the image of")
    assert [each.reason for each in changed(has, lacks)] == ["ParquetUnavailable"]


DETACHED = values.detached(
    "run_2018", datetime(2018, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC), NOW - timedelta(hours=2)
)
SEQUENCE = Tie("default of public.other.id", Fate.REFUSES, 7, way_out="drop that default")
STRAY = DefaultRows(elsewhere=7)


def wrong_with_retention() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "RowsReferenced", status_of(policy(), here(OLD, references={OLD.oid: (Reference("public.step", 7),)}))
    yield "ExpiredLeftAlone", status_of(policy(), here(replace(OLD, kind=RelationKind.FOREIGN)))
    yield "TableBusy", status_of(policy(), here(OLD), errors.TableBusy("process 7 reads it"))
    yield "StatementRejected", status_of(policy(), here(OLD), errors.StatementRejected("no"))
    yield "ObjectsTied", status_of(policy(), here(detached=(DETACHED,), ties={DETACHED.oid: (SEQUENCE,)}))
    yield "HoldMatchesNothing", status_of(policy(), here(), held="run_2O18")
    yield "AnnotationTooLong", status_of(policy(), here(), held=UNREAD)
    yield "DefaultHasRows", status_of(policy(), here(values.default(), default_rows=STRAY))


STUCK_BESIDE = dict(wrong_with_retention())


@pytest.mark.parametrize(("reason", "status"), [*STUCK_BESIDE.items()], ids=[*STUCK_BESIDE])
def test_what_is_stuck_beside_the_coverage_is_a_warning(reason: str, status: dict[str, Any]) -> None:
    assert ready(status) == ("True", "ConvergedWithWarnings")
    assert severities(status)[reason] == "Warning"
    assert status["findings"][0]["reason"] == reason
    assert status["summary"]["warnings"].startswith("1: ")
    said = {each["type"]: each for each in status["conditions"]}
    assert said["Ready"]["message"].startswith(status["findings"][0]["message"])
    assert (said["Stalled"]["status"], said["Reconciling"]["status"]) == ("False", "False")


def test_the_same_error_keeps_a_policy_from_being_ready_where_a_partition_cannot_be_created() -> None:
    status = status_of(policy(), values.inventory(), errors.StatementRejected("no"))
    assert ready(status) == ("False", "StatementRejected")
    assert severities(status) == {"StatementRejected": "Error"}
    assert "warnings" not in status["summary"]


def test_missing_partitions_come_before_any_warning() -> None:
    references = {OLD.oid: (Reference("public.step", 7),)}
    status = status_of(policy(), values.inventory(OLD, references=references))
    assert ready(status) == ("False", "PartitionsMissing")
    assert status["summary"]["warnings"] == "1: rows referenced"


def test_an_approval_that_was_used_is_no_warning() -> None:
    """The annotation still names the table that was dropped, and another one waits."""
    approved = Archives(approved=frozenset({"run_2017"}))
    status = status_of(policy(by=Approval.MANUAL), here(detached=(DETACHED,)), archives=approved)
    assert ready(status) == ("True", "Converged")
    assert severities(status) == {"WaitsForApproval": "Notice", "ApprovalMatchesNothing": "Notice"}


def test_what_waits_for_the_user_by_the_users_own_wish_is_no_warning() -> None:
    waits = status_of(policy(by=Approval.MANUAL), here(detached=(DETACHED,)))
    assert (ready(waits), severities(waits)) == (("True", "Converged"), {"WaitsForApproval": "Notice"})
    held = status_of(policy(), here(OLD), held="run_2019")
    assert (ready(held), severities(held)) == (("True", "Converged"), {})
    kept = status_of(policy(), here(replace(OLD, kind=RelationKind.FOREIGN)), held="run_2019")
    assert (ready(kept), severities(kept)) == (("True", "Converged"), {})


def test_the_worst_warning_is_named_and_the_others_are_counted() -> None:
    foreign = replace(OLD, kind=RelationKind.FOREIGN)
    status = status_of(policy(), here(foreign, values.default(), default_rows=STRAY), held="run_2O18")
    assert [each["reason"] for each in status["findings"]] == [
        "HoldMatchesNothing",
        "DefaultHasRows",
        "ExpiredLeftAlone",
    ]
    (message,) = [each["message"] for each in status["conditions"] if each["type"] == "Ready"]
    assert "names 'run_2O18', but" in message
    assert "(and 2 more: see status.findings); " in message
    assert status["summary"]["warnings"] == "3: unknown hold"


def test_each_warning_is_one_event_when_it_comes() -> None:
    fine = status_of(policy(), here())
    for reason, status in STUCK_BESIDE.items():
        found = [each for each in changed(fine, status) if each.reason == reason]
        assert [each.type for each in found] == ["Warning"], reason
        assert changed(status, status) == []
    many = values.years(2018, 2019)
    one, two = (
        status_of(policy(), here(*some, references={each.oid: (Reference("public.step", 7),) for each in some}))
        for some in (many[:1], many)
    )
    assert [each.reason for each in changed(fine, one)] == ["RowsReferenced"]
    assert changed(one, two) == changed(two, fine) == []


def test_what_older_versions_wrote_is_no_event_once_more() -> None:
    status = status_of(policy(), here(replace(OLD, kind=RelationKind.FOREIGN)))
    older = {**status, "findings": [{"reason": each["reason"], "message": "…"} for each in status["findings"]]}
    assert changed(older, status) == []


REASONS = some.sampled_from([*sorted(errors.REASONS), *STUCK, *NOTICES])
FINDINGS = some.builds(Finding, REASONS, some.text(), some.text())
FOUND = some.lists(some.builds(Graded, some.sampled_from(Severity), FINDINGS))


@given(FOUND, some.integers(1, 25))
def test_no_reason_is_left_out_while_another_has_two_places(found: list[Graded], at_most: int) -> None:
    kept = chosen(found, at_most)
    assert len(kept) == min(at_most, len(found))
    places = iter(found)
    assert all(any(each is other for other in places) for each in kept)
    reasons, listed = {each.finding.reason for each in found}, [each.finding.reason for each in kept]
    assert set(listed) == reasons or len(listed) == len(set(listed))


@given(some.lists(REASONS, max_size=2000))
def test_the_column_of_kubectl_is_short(reasons: list[str]) -> None:
    words = in_few_words(reasons)
    assert (words is None) == (not reasons)
    if words is not None:
        assert words.startswith(f"{len(reasons)}: ")
        assert len(words) <= MAX_WARNINGS
