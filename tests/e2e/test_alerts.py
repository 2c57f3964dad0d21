"""The alerts of the chart, evaluated by promtool: valid rules that fire when and only when they should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.chart import of_kind, render
from lab.helm import Helm
from lab.prometheus import Promtool

POLICY = 'namespace="orchestrator",policy="run"'
LABELS = {"namespace": "orchestrator", "policy": "run"}
HEALTHY = {
    "partwarden_build_info{}": "1x1600",
    f"partwarden_policy_suspended{{{POLICY}}}": "0x1600",
    f"partwarden_policy_covered_until_timestamp_seconds{{{POLICY}}}": f"{700 * 86400}x1600",
    f"partwarden_policy_creation_due_timestamp_seconds{{{POLICY}}}": f"{200 * 86400}x1600",
    f'partwarden_policy_condition{{{POLICY},condition="Ready"}}': "1x1600",
    f'partwarden_policy_condition{{{POLICY},condition="PartitionsAhead"}}': "1x1600",
    f'partwarden_policy_condition{{{POLICY},condition="DatabaseReachable"}}': "1x1600",
    f'partwarden_policy_findings{{{POLICY},reason="OffGrid",severity="Notice"}}': "3x1600",
    f"partwarden_policy_default_rows{{{POLICY}}}": "0x1600",
    f"partwarden_policy_last_success_timestamp_seconds{{{POLICY}}}": "0+60x1600",
    'partwarden_archives{namespace="orchestrator",state="Failing"}': "0x1600",
}
"""A minute between two samples."""
COVERED, DUE = list(HEALTHY)[2:4]
OVERDUE = -7200
"""Seconds before the series begin at which a partition was due."""
MISSING = {
    DUE: f"{OVERDUE}x1600",
    f'partwarden_policy_condition{{{POLICY},condition="PartitionsAhead"}}': "0x1600",
    f'partwarden_policy_condition{{{POLICY},condition="Ready"}}': "0x1600",
}
CLAIM_FULL = f"partwarden_policy_forecast_claim_full_timestamp_seconds{{{POLICY}}}"
VERIFICATION_DUE = f"partwarden_policy_verification_due_timestamp_seconds{{{POLICY}}}"
WARNINGS = {f'partwarden_policy_findings{{{POLICY},reason="LargeObjects",severity="Warning"}}': "2x1600"}
NEVER = 10_000_000
"""Seconds before the series begin at which the last success was."""


@dataclass(frozen=True)
class Case:
    """The series that differ from `HEALTHY`, and the alerts that fire after ``minutes``, by name: severity, summary."""

    series: Mapping[str, str | None]
    fire: dict[str, tuple[str, str]]
    minutes: int = 90


NOT_READY = {"PartwardenPolicyNotReady": ("warning", "orchestrator/run is not Ready")}
AHEAD = {
    "PartwardenPartitionsMissing": ("warning", "orchestrator/run: partitions that should exist are missing"),
}
SHORT = {"PartwardenRunwayShort": ("critical", "orchestrator/run: 3d 0h 0m 0s until inserts fail")}
DOWN = {"PartwardenDown": ("critical", "Prometheus scrapes no Partwarden")}
BUILD = "partwarden_build_info{}"
SUSPENDED = {
    f"partwarden_policy_suspended{{{POLICY}}}": "1x1600",
    f'partwarden_policy_condition{{{POLICY},condition="Ready"}}': None,
}
CASES = {
    "all is well": Case({}, {}),
    # Each hour covers one more, and the next is due.
    "by the hour, all is well": Case({COVERED: "86400x59 90000x59 93600x59", DUE: "3600x59 7200x59 10800x59"}, {}),
    "covered for ever": Case({COVERED: "+Inf", DUE: None}, {}),
    "missing for a moment": Case(MISSING, {}, minutes=10),
    "missing": Case(MISSING, NOT_READY | AHEAD),
    "missing, and soon": Case(MISSING | {COVERED: f"{3 * 86400 + 5400}x1600"}, NOT_READY | AHEAD | SHORT),
    "suspended, and soon": Case(SUSPENDED | {COVERED: f"{3 * 86400 + 5400}x1600", DUE: f"{OVERDUE}x1600"}, SHORT),
    # Nothing is scraped from the first hour on, when the next partition is due twenty minutes later.
    "no operator, and soon": Case(
        dict.fromkeys(HEALTHY) | {COVERED: f"{3 * 86400 + 7200}x60", DUE: "4800x60", BUILD: "1x60"}, DOWN | SHORT, 120
    ),
    "no operator, and nothing due": Case(
        dict.fromkeys(HEALTHY) | {COVERED: f"{3 * 86400 + 7200}x60", DUE: "9000x60", BUILD: "1x60"}, DOWN, 120
    ),
    "a partition expired long ago and stays": Case(
        {f"partwarden_policy_oldest_expired_timestamp_seconds{{{POLICY}}}": f"{5400 - 10 * 86400}x1600"},
        {
            "PartwardenRetentionLate": (
                "warning",
                "orchestrator/run: a partition expired 10d 0h 0m 0s ago and stays",
            )
        },
    ),
    "a partition expired just now": Case(
        {f"partwarden_policy_oldest_expired_timestamp_seconds{{{POLICY}}}": "0x1600"}, {}
    ),
    "rows in DEFAULT": Case(
        {f"partwarden_policy_default_rows{{{POLICY}}}": "12x1600"},
        {"PartwardenDefaultHasRows": ("warning", "orchestrator/run: 12 rows are in the default partition")},
    ),
    "not ready": Case({f'partwarden_policy_condition{{{POLICY},condition="Ready"}}': "0x1600"}, NOT_READY),
    "an outage that the table outlasts": Case(
        {f'partwarden_policy_condition{{{POLICY},condition="DatabaseReachable"}}': "0x1600"},
        {"PartwardenDatabaseUnreachable": ("warning", "orchestrator/run: the database cannot be reached")},
    ),
    "warnings for some hours": Case(WARNINGS, {}),
    "warnings for a day": Case(
        WARNINGS,
        {"PartwardenWarnings": ("warning", "orchestrator/run: 2 warnings, though the table is covered")},
        minutes=1500,
    ),
    "suspended": Case(SUSPENDED, {}),
    "no success for a day": Case(
        {f"partwarden_policy_last_success_timestamp_seconds{{{POLICY}}}": f"-{NEVER}x1600"},
        {
            "PartwardenNoSuccess": (
                "warning",
                "orchestrator/run had no successful reconcile for more than 25 hours",
            )
        },
    ),
    "no operator is scraped": Case(dict.fromkeys(HEALTHY), DOWN),
    "an archive fails": Case(
        {'partwarden_archives{namespace="orchestrator",state="Failing"}': "2x1600"},
        {"PartwardenArchiveFailing": ("warning", "2 archives in orchestrator fail, or are damaged")},
    ),
    "an archive is to be read again today": Case({VERIFICATION_DUE: "0x200"}, {}),
    "an archive was to be read again days ago": Case(
        {VERIFICATION_DUE: f"{5400 - 3 * 86400}x200"},
        {
            "PartwardenVerificationLate": (
                "warning",
                "orchestrator/run: an archive was to be read again 3d 0h 0m 0s ago",
            )
        },
    ),
    "a claim is full in some months": Case({CLAIM_FULL: f"{90 * 86400}x200"}, {}),
    "a claim is full soon": Case(
        {CLAIM_FULL: f"{12 * 86400}x200"},
        {"PartwardenClaimFilling": ("warning", "orchestrator/run: 12 days until archives fill their claim")},
    ),
}
WHERE: dict[str, dict[str, str]] = {
    "PartwardenDown": {},
    "PartwardenArchiveFailing": {"namespace": "orchestrator", "state": "Failing"},
    "PartwardenPartitionsMissing": LABELS | {"condition": "PartitionsAhead"},
    "PartwardenPolicyNotReady": LABELS | {"condition": "Ready"},
    "PartwardenDatabaseUnreachable": LABELS | {"condition": "DatabaseReachable"},
}


@pytest.fixture(scope="module")
def rules(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules of the chart's PrometheusRule, as a file."""
    alerts = {"enabled": True, "runbooks": "https://git.example.com/monitor.md"}
    (rule,) = of_kind(render(helm, {"monitoring": {"prometheusRule": alerts}}), "PrometheusRule")
    file = tmp_path_factory.mktemp("rules") / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    return file


def test_promtool_accepts_the_alert_rules(promtool: Promtool, rules: Path) -> None:
    code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", str(rules))
    assert code == 0, said


@pytest.mark.parametrize("name", CASES)
def test_alerts_fire_when_and_only_when_they_should(promtool: Promtool, rules: Path, tmp_path: Path, name: str) -> None:
    case, runbooks = CASES[name], _runbooks(rules)
    series = {each: values for each, values in {**HEALTHY, **case.series}.items() if values is not None}
    expected: list[dict[str, Any]] = []
    for alert, runbook in runbooks.items():
        fires = []
        if alert in case.fire:
            severity, summary = case.fire[alert]
            annotations = {"summary": summary, "runbook_url": runbook}
            labels = {**WHERE.get(alert, LABELS), "severity": severity}
            fires = [{"exp_labels": labels, "exp_annotations": annotations}]
        expected.append({"eval_time": f"{case.minutes}m", "alertname": alert, "exp_alerts": fires})
    test = {"input_series": [{"series": each, "values": values} for each, values in series.items()]}
    whole = {"rule_files": [str(rules)], "evaluation_interval": "1m"}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({**whole, "tests": [{"interval": "1m", **test, "alert_rule_test": expected}]}))
    code, said = promtool("test", "rules", str(file))
    assert code == 0, said


def _runbooks(rules: Path) -> dict[str, str]:
    groups = yaml.safe_load(rules.read_text())["groups"]
    return {rule["alert"]: rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]}


def test_every_alert_has_a_case(rules: Path) -> None:
    assert {alert for case in CASES.values() for alert in case.fire} == set(_runbooks(rules))
