"""The benchmark's own arithmetic: limits, and what it reads from the API server."""

import json
from datetime import timedelta
from itertools import pairwise

import pytest

from bench import conversion, figures, split, waits
from bench.__main__ import ALONE, PARTS, alone
from bench.figures import Figure
from bench.idle import read_requests
from bench.waits import OPERATIONS, Course, Operation, Watched
from lab.site import CRD
from partwarden.api.policy import TableSpec
from partwarden.errors import TableBusy
from partwarden.planner.actions import AnalyzeParent, Outcome


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
    written = json.loads(figures.as_json(measured, {"PostgreSQL": "18.6"}))
    assert written["stoodOn"] == {"PostgreSQL": "18.6"}
    assert written["figures"][0] == {
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


def test_months_are_counted_over_the_ends_of_years() -> None:
    found = [waits.month(number) for number in range(-14, 15)]
    assert found[14] == waits.THIS
    steps = {later - earlier for earlier, later in pairwise(found)}
    assert {each.day for each in found} == {1}
    assert min(steps) >= timedelta(days=28)
    assert max(steps) <= timedelta(days=31)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_every_operation_is_a_policy(operation: Operation) -> None:
    TableSpec.model_validate({"table": {"name": "run"}, "interval": "Month", **operation.fields})


def test_only_who_writes_into_a_moving_range_may_wait_for_long() -> None:
    watched = [Watched("writer", "", 9, 0.09), Watched("reader of all", "", 9, 0.03), Watched("reader of a month", "")]
    course = Course([*watched, Watched("writer into the range", "", 9, 0.9)], attempts=1, seconds=2.0)
    shown = {each.name: each for each in waits._figures(Operation("drain", (), {}, moved=True), course)}
    assert {name: (each.value, each.limit) for name, each in shown.items()} == {
        "drain: writer waits": (90.0, 100.0),
        "drain: reader waits": (30.0, 100.0),
        "drain: writer into its range waits": (900.0, 1000.0),
        "drain: until done": (2.0, None),
    }
    assert shown["drain: until done"].note == "1 attempt"


def test_waits_are_those_of_a_conversion_as_well_and_nothing_is_measured_twice() -> None:
    assert alone(["waits"]) == [waits.measure, conversion.measure]
    assert alone(["conversion", "fleet", "waits"]) == [conversion.measure, waits.measure]


def test_rows_move_in_the_time_of_the_reconciles_that_moved_them() -> None:
    course, step = split.Course(), AnalyzeParent(schema="public", name="run", reason="", lock="")
    for each in (
        Outcome(step, TableBusy("held"), 9.0),
        Outcome(step, TableBusy("held"), 9.0),
        Outcome(step, None, 2.0),
    ):
        course.add(each)
    (figure,) = course.figures("split", 3000)
    assert (figure.value, figure.note) == (1500.0, "3,000 rows; reconciles: 1, and 2 that failed; held")


def test_the_months_that_leave_have_passed_when_the_split_is_planned() -> None:
    # A conversion on the last day of a month keeps the next one in the table, too.
    assert waits.month(2) < split.LATER < waits.month(3)


def test_every_part_is_explained() -> None:
    text = (CRD.parent.parent / "docs/explanation/benchmarks.md").read_text()
    assert [part for part in (*ALONE, *PARTS) if f"| `{part}` |" not in text] == []
