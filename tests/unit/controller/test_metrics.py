"""The metrics: every number that a status holds, under labels that are bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from partwarden.api.forecast import Forecast
from partwarden.api.status import Summary
from partwarden.archive.job_order import Task
from partwarden.controller.metrics import ARCHIVE_STATES, MOMENTS, NUMBERS, Metrics, Sources, families
from partwarden.controller.workqueue import Backlog, Result
from partwarden.kube.cache import Store, parse_policy

KEY = ("orchestrator", "run")
STATUS: dict[str, Any] = {
    "conditions": [
        {"type": "Ready", "status": "True"},
        {"type": "PartitionsAhead", "status": "False"},
        {"type": "DatabaseReachable", "status": "Unknown"},
    ],
    "summary": {
        **{
            "partitions": 9,
            "managed": 8,
            "pending": 2,
            "missing": 1,
            "totalBytes": 4096,
            "runwayDays": 365,
            "ahead": 1,
        },
        **{"runsOutAt": "2028-01-01T00:00:00Z", "creationDueAt": "2026-01-01T00:00:00Z"},
        "oldestExpiredAt": "2025-01-01T00:00:00Z",
    },
    "nextDrop": {"action": "DropDetached", "object": "run_2018", "at": "2026-12-01T13:30:00Z"},
    "findings": [
        {"reason": "DefaultHasRows", "severity": "Warning"},
        {"reason": "OffGrid", "severity": "Notice"},
        {"reason": "OffGrid", "severity": "Notice"},
    ],
}


def samples(*policies: tuple[tuple[str, str], bool, dict[str, Any]]) -> dict[tuple[str, ...], float]:
    """By metric, without its prefix, and its labels but for those of the only policy."""
    found = [sample for family in families(policies) for sample in family.samples]
    return {(each.name.removeprefix("partwarden_policy_"), *_more(each)): float(each.value) for each in found}


def _more(sample: Sample) -> Iterator[str]:
    labels = dict(sample.labels)
    assert (labels.pop("namespace"), labels.pop("policy")) == KEY
    yield from labels.values()


def test_a_status_in_numbers() -> None:
    assert samples((KEY, False, STATUS)) == {
        ("runway_days",): 365,
        ("partitions",): 9,
        ("managed_partitions",): 8,
        ("pending_actions",): 2,
        ("missing_ranges",): 1,
        ("bytes",): 4096,
        ("ahead_intervals",): 1,
        ("covered_until_timestamp_seconds",): 1830297600,
        ("creation_due_timestamp_seconds",): 1767225600,
        ("oldest_expired_timestamp_seconds",): 1735689600,
        ("next_drop_timestamp_seconds",): 1796131800,
        ("condition", "Ready"): 1,
        ("condition", "PartitionsAhead"): 0,
        ("findings", "DefaultHasRows", "Warning"): 1,
        ("findings", "OffGrid", "Notice"): 2,
        ("suspended",): 0,
    }


def test_what_is_not_known_has_no_sample() -> None:
    assert samples((KEY, True, {})) == {("suspended",): 1}


def test_a_forecast_in_numbers_its_days_as_midnights() -> None:
    expected = {"partitions": 3, "bytesPerDay": 100, "nextArchiveSeconds": 60, "claimFull": "2027-01-02"}
    assert samples((KEY, False, {"summary": {"partitions": 9, "forecast": expected}})) == {
        ("partitions",): 9,
        ("forecast_bytes_per_day",): 100,
        ("forecast_next_archive_seconds",): 60,
        ("forecast_claim_full_timestamp_seconds",): datetime(2027, 1, 2, tzinfo=UTC).timestamp(),
        ("suspended",): 0,
    }


def test_moments_stay_while_a_policy_is_suspended() -> None:
    assert samples((KEY, True, STATUS))["covered_until_timestamp_seconds",] == 1830297600


def test_a_drop_without_a_moment_has_no_sample() -> None:
    waits = STATUS | {"nextDrop": {"action": "DropDetached", "object": "run_2018", "waitsFor": ["Detach"]}}
    assert ("next_drop_timestamp_seconds",) not in samples((KEY, False, waits))


def test_coverage_without_end_is_an_endless_runway() -> None:
    endless = samples((KEY, False, {"summary": {"coveredUntil": "MAXVALUE"}}))
    assert endless["runway_days",] == endless["covered_until_timestamp_seconds",] == math.inf
    assert ("creation_due_timestamp_seconds",) not in endless
    assert samples((KEY, False, {"summary": {"runwayDays": 0}}))["runway_days",] == 0


def test_every_number_is_one_of_the_summary() -> None:
    both = (*Summary.model_fields.items(), *Forecast.model_fields.items())
    fields = {field.alias or name for name, field in both}
    assert {each.field for each in (*NUMBERS, *MOMENTS)} <= fields | {"nextDrop"}


def _scrape(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """By name and the labels' values, in the order of the labels' names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for each in family.samples:
            found.setdefault(each.name, {})[tuple(value for _, value in sorted(each.labels.items()))] = float(
                each.value
            )
    return found


def made(store: Store, archives: list[tuple[str, str]] | None = None) -> Metrics:
    queues = {"policies": lambda: Backlog(3, 1.5, (0.1, 0.2))}
    return Metrics(Sources(store, lambda: archives or [], queues), wall=lambda: 1000.0)


def _policy(name: str, version: int = 1) -> dict[str, Any]:
    meta = {"namespace": "ns", "name": name, "uid": name, "generation": 1, "resourceVersion": str(version)}
    return {"metadata": meta | {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}, "status": STATUS}


def test_a_scrape_shows_what_there_is_now() -> None:
    store = Store()
    metrics = made(store, [("ns", "Proven"), ("ns", "Proven"), ("other", "Failing")])
    store.put(parse_policy(_policy("a")))
    store.put(parse_policy(_policy("b")))
    for result in (Result.CONVERGED, Result.CONVERGED, Result.TRANSIENT):
        metrics.reconciled(("ns", "a"), result, 0.02, result is Result.CONVERGED)
    metrics.job_ended(Task.ARCHIVE, True, 61.0)
    metrics.job_ended(Task.CHECK, False, None)
    found = _scrape(metrics)
    assert set(found["partwarden_policy_runway_days"]) == {("ns", "a"), ("ns", "b")}
    assert found["partwarden_policy_last_success_timestamp_seconds"] == {("ns", "a"): 1000}
    reconciles = {labels[0]: count for labels, count in found["partwarden_reconciles_total"].items()}
    assert reconciles == {"Converged": 2, "InProgress": 0, "Transient": 1, "UserError": 0}
    assert found["partwarden_reconcile_duration_seconds_count"] == {(): 3}
    assert found["partwarden_archive_jobs_total"]["Succeeded", Task.ARCHIVE.value] == 1
    assert found["partwarden_archive_jobs_total"]["Failed", Task.CHECK.value] == 1
    assert found["partwarden_archive_job_duration_seconds_sum"][Task.ARCHIVE.value,] == 61
    assert found["partwarden_archives"]["ns", "Proven"] == 2
    assert found["partwarden_archives"]["other", "Failing"] == 1
    assert found["partwarden_queue_depth"] == {("policies",): 3}
    assert found["partwarden_workers_busy"] == {("policies",): 2}
    store.remove(("ns", "a"))
    later = _scrape(metrics)
    assert set(later["partwarden_policy_runway_days"]) == {("ns", "b")}
    assert later.get("partwarden_policy_last_success_timestamp_seconds", {}) == {}


def test_before_anything_has_happened_the_counters_are_there() -> None:
    found = _scrape(made(Store()))
    assert set(found["partwarden_archive_jobs_total"].values()) == {0}
    assert set(found["partwarden_reconciles_total"].values()) == {0}
    assert ("0.1.0",) in found["partwarden_build_info"]


def test_all_states_of_archives_are_reported_where_there_are_any() -> None:
    found = _scrape(made(Store(), [("ns", "Working")]))["partwarden_archives"]
    assert {labels[1] for labels in found} == set(ARCHIVE_STATES)


def test_what_is_no_moment_in_one_status_takes_no_metric_from_the_others() -> None:
    odd = {"summary": {"forecast": {"claimFull": "x", "thresholdReached": "9999-99-99"}, "runsOutAt": "soon"}}
    assert samples((KEY, False, odd | {"nextDrop": {"at": 7}})) == {("suspended",): 0}
