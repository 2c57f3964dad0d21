"""The benchmark's own arithmetic: limits, and what it reads from the API server."""

import json

import pytest

from lab.bench import figures
from lab.bench.figures import Figure
from lab.bench.idle import read_requests


@pytest.mark.parametrize(
    ("value", "limit", "kept"), [(1.3, 1.3, True), (1.31, 1.3, False), (0, 0, True), (9, None, True)]
)
def test_a_figure_is_kept_up_to_and_with_its_limit(value: float, limit: float | None, kept: bool) -> None:
    assert Figure("x", value, "s", limit).kept is kept


def test_programs_are_told_what_people_are(capsys: pytest.CaptureFixture[str]) -> None:
    measured = [Figure("provisioning", 1.666, "x", 1.3, "how"), Figure("memory", 106.0, "MB")]
    figures.as_table(measured, "a title")
    shown = capsys.readouterr().out
    assert "1.67 x" in shown
    assert "1.3  BROKEN" in shown
    assert "106 MB" in shown
    told = json.loads(figures.as_json(measured, {"PostgreSQL": "18.6"}))
    assert told["stoodOn"] == {"PostgreSQL": "18.6"}
    assert told["figures"][0] == {
        "name": "provisioning", "value": 1.666, "unit": "x", "limit": 1.3, "note": "how", "kept": False,
    }  # fmt: skip


def test_requests_are_added_up_by_verb_and_resource() -> None:
    metrics = """
# TYPE apiserver_request_total counter
apiserver_request_total{group="partwarden.dev",resource="partitionpolicies",subresource="status",verb="APPLY"} 2
apiserver_request_total{code="0",group="partwarden.dev",resource="partitionpolicies",verb="APPLY"} 1e+00
apiserver_request_total{code="200",group="",resource="secrets",subresource="",verb="GET"} 40
"""
    found = read_requests(metrics)
    assert found["APPLY", "partitionpolicies.partwarden.dev"] == 3
    assert found["GET", "secrets"] == 40
    assert found["PATCH", "partitionpolicies.partwarden.dev"] == 0
