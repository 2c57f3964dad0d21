"""ArgoCD's health check, run as ArgoCD runs it, over everything that a status can say; and its page in the docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lupa  # type: ignore[import-untyped]
import pytest
import yaml

from partwarden.api.crd import definition
from support.statuses import STATES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
LUA = (ROOT / "charts" / "partwarden" / "files" / "argocd" / "health.lua").read_text()
PAGE = (ROOT / "docs" / "how-to" / "argocd.md").read_text()


def health(status: dict[str, Any] | None, generation: int = 1, check: str = LUA) -> tuple[str, str]:
    """Status and message."""
    runtime = lupa.LuaRuntime(unpack_returned_tuples=True)
    body = {"metadata": {"generation": generation}} | ({} if status is None else {"status": status})
    runtime.globals().obj = runtime.table_from(body, recursive=True)
    found = runtime.execute(check)
    return found.status, found.message


def kstatus(status: dict[str, Any]) -> str:
    """As its documentation has it, for a generation that was observed."""
    says = {each["type"]: each["status"] for each in status["conditions"]}
    if says.get("Reconciling") == "True":
        return "InProgress"
    if says.get("Stalled") == "True":
        return "Failed"
    return "Current" if says.get("Ready") == "True" else "InProgress"


MEANS = {"Healthy": "Current", "Progressing": "InProgress", "Suspended": "InProgress", "Degraded": "Failed"}


@pytest.mark.parametrize("name", STATES)
def test_it_agrees_with_kstatus_and_with_ready(name: str) -> None:
    status = STATES[name]
    found, message = health(status)
    assert MEANS[found] == kstatus(status)
    (ready,) = [each for each in status["conditions"] if each["type"] == "Ready"]
    assert (found == "Healthy") == (ready["status"] == "True")
    assert message == f"{ready['reason']}: {ready.get('message', '')}"


def test_all_four_are_told_apart() -> None:
    assert {health(status)[0] for status in STATES.values()} == set(MEANS)
    assert health(STATES["converged"])[0] == "Healthy"
    assert health(STATES["pending"])[0] == "Progressing"
    assert health(STATES["plan"])[0] == health(STATES["suspended"])[0] == "Suspended"
    assert health(STATES["TableNotFound True"])[0] == health(STATES["archive damaged"])[0] == "Degraded"


@pytest.mark.parametrize("name", ["warnings", "outage outlasted"])
def test_a_table_with_warnings_is_healthy_or_degraded_as_the_user_chooses(name: str) -> None:
    found, message = health(STATES[name])
    assert found == "Healthy"
    assert message.startswith("ConvergedWithWarnings: ")
    stricter = LUA.replace('with_warnings = "Healthy"', 'with_warnings = "Degraded"')
    assert health(STATES[name], check=stricter)[0] == "Degraded"
    others = [status for each, status in STATES.items() if each not in ("warnings", "outage outlasted")]
    assert [health(status, check=stricter) for status in others] == [health(status) for status in others]


@pytest.mark.parametrize("status", [None, {}, {"conditions": []}, {"observedGeneration": -1}])
def test_a_policy_never_reconciled_is_in_progress(status: dict[str, Any] | None) -> None:
    assert health(status) == ("Progressing", "the operator has not reconciled it yet")


def test_an_edit_not_yet_reconciled_is_in_progress() -> None:
    status = STATES["converged"]
    assert health(status, status["observedGeneration"] + 1)[0] == "Progressing"


BLOCKS = [yaml.safe_load_all(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def test_the_page_shows_this_very_check_and_applications_in_order() -> None:
    (settings,), applications = (list(block) for block in BLOCKS)
    kinds = [definition()["spec"]["names"]["kind"], "PartitionArchive", "PartitionRestore"]
    assert settings["data"] == {f"resource.customizations.health.partwarden.dev_{kind}": LUA for kind in kinds}
    waves = [each["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] for each in applications]
    assert waves == ["0", "1"]
    assert (ROOT / applications[0]["spec"]["source"]["path"] / "Chart.yaml").is_file()
