"""Gauges of policies, from their statuses: what ``kubectl get`` shows, as numbers. Pure."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily

from .status import FOR_EVER
from .workqueue import Key

ENDLESS = float("inf")
LABELS = ("namespace", "policy")


@dataclass(frozen=True, slots=True)
class Number:
    """A number of ``status.summary``, and the metric that tells it."""

    field: str
    metric: str
    help: str


NUMBERS = (
    Number("partitions", "partitions", "Partitions of the table."),
    Number("managed", "managed_partitions", "Partitions that are exactly one interval."),
    Number("expired", "expired_partitions", "Partitions older than retention.keepFor that are there still."),
    Number("detached", "detached_tables", "Tables that were detached and are there still."),
    Number("rows", "rows", "Rows of all partitions, by the planner's estimate."),
    Number("totalBytes", "bytes", "Size of all partitions on disk, with indexes and TOAST."),
    Number("defaultRows", "default_rows", "Rows in the DEFAULT partition, counted; a lower limit above 200,000."),
    Number("pending", "pending_actions", "Length of the plan: actions that are still to be done."),
    Number("missing", "missing_ranges", "Wanted ranges that no partition holds yet."),
)


def families(policies: Iterable[tuple[Key, bool, Mapping[str, Any]]]) -> list[GaugeMetricFamily]:
    """One family for each metric, of all policies: each with its key, whether it is suspended, and its status.

    What a status does not say has no sample.
    """
    runway = _family("runway_days", "Whole days for which partitions exist after the current one ends; +Inf: for ever.")
    numbers = {each.field: _family(each.metric, each.help) for each in NUMBERS}
    condition = _family("condition", "1: the condition is True, 0: False; absent while Unknown.", "condition")
    findings = _family("findings", "Findings of the last look, by reason.", "reason")
    paused = _family("suspended", "1 where spec.suspend is true, else 0.")
    for key, suspended, status in policies:
        paused.add_metric(key, suspended)
        summary: Mapping[str, Any] = status.get("summary") or {}
        if (days := _runway(summary)) is not None:
            runway.add_metric(key, days)
        for field, family in numbers.items():
            if (number := summary.get(field)) is not None:
                family.add_metric(key, number)
        for each in status.get("conditions") or []:
            if each["status"] != "Unknown":
                condition.add_metric([*key, each["type"]], each["status"] == "True")
        for reason, count in sorted(
            collections.Counter(each["reason"] for each in status.get("findings") or []).items()
        ):
            findings.add_metric([*key, reason], count)
    return [runway, *numbers.values(), condition, findings, paused]


def _family(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"partwarden_policy_{name}", text, labels=[*LABELS, *more])


def _runway(summary: Mapping[str, Any]) -> float | None:
    if summary.get("coveredUntil") == FOR_EVER:
        return ENDLESS
    days = summary.get("runwayDays")
    return None if days is None else float(days)
