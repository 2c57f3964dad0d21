"""What the dashboard for Grafana promises by itself: places, units, columns, and colours that mean something."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lab.chart import dashboard
from partwarden.archive.job_order import Task
from partwarden.controller.metrics import ARCHIVE_STATES
from partwarden.controller.workqueue import Result

PANELS: list[dict[str, Any]] = dashboard()["panels"]
TITLES = [each["title"] for each in PANELS]
WIDTH = 24
"""Columns of Grafana's grid."""
CLOCK = "Time"
BAD = {"red", "orange", "dark-red", "light-red", "dark-orange", "light-orange"}


def _panel(title: str) -> dict[str, Any]:
    return PANELS[TITLES.index(title)]


def _overridden(panel: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By the name of a column or a line: what is set for it."""
    return {
        each["matcher"]["options"]: {one["id"]: one["value"] for one in each["properties"]}
        for each in panel["fieldConfig"]["overrides"]
    }


def test_panels_are_told_apart() -> None:
    assert len({each["id"] for each in PANELS}) == len({*TITLES}) == len(PANELS)


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for each in PANELS:
        place = each["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        own = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not own & taken, each["title"]
        assert columns.stop <= WIDTH, each["title"]
        taken |= own


@pytest.mark.parametrize("panel", PANELS, ids=TITLES)
def test_a_panel_says_what_it_shows_and_in_what_unit(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all(each["matcher"]["id"] == "byName" for each in panel["fieldConfig"]["overrides"])
    references = [each["refId"] for each in panel["targets"]]
    assert len({*references}) == len(references)


TABLES = [each for each in PANELS if each["type"] == "table"]


@pytest.mark.parametrize("panel", TABLES, ids=[each["title"] for each in TABLES])
def test_every_query_of_a_table_is_a_column_with_a_name_and_a_place(panel: dict[str, Any]) -> None:
    merge, organize = (each["options"] for each in panel["transformations"])
    values = {f"Value #{each['refId']}" for each in panel["targets"]}
    assert merge == {}
    assert organize["excludeByName"] == {CLOCK: True}
    assert organize["renameByName"].keys() == values
    assert organize["indexByName"].keys() == {"namespace", "policy", *values}
    assert sorted(organize["indexByName"].values()) == list(range(len(values) + 2))
    columns = {"namespace", "policy", *organize["renameByName"].values()}
    assert len(columns) == len(values) + 2
    assert _overridden(panel).keys() <= columns
    assert {each["displayName"] for each in panel["options"]["sortBy"]} <= columns


def test_the_table_holds_every_policy_reconciled_or_not() -> None:
    """Only `partwarden_policy_suspended` has a sample of each."""
    queries = [each["expr"] for each in _panel("Policies")["targets"]]
    assert any("(partwarden_policy_suspended{" in each for each in queries)


CHARTS = [each for each in PANELS if each["type"] == "timeseries"]


@pytest.mark.parametrize("panel", CHARTS, ids=[each["title"] for each in CHARTS])
def test_a_line_that_is_coloured_or_moved_is_one_that_there_is(panel: dict[str, Any]) -> None:
    legends = [re.sub(r"{{\w+}}", r"\\w+", each["legendFormat"]) for each in panel["targets"]]
    assert all(any(re.fullmatch(each, name) for each in legends) for name in _overridden(panel))


WORDS = {
    "Reconciles per minute": ({each.value for each in Result}, {"Transient", "UserError"}),
    "Archives": ({*ARCHIVE_STATES}, {"Failing"}),
    "Ended Jobs": (
        {f"{task} {result}" for task in Task for result in ("Succeeded", "Failed")},
        {f"{task} Failed" for task in Task},
    ),
}


@pytest.mark.parametrize("title", WORDS)
def test_what_went_wrong_has_the_colour_of_it_and_nothing_else_does(title: str) -> None:
    """Left to itself, Grafana gives colours by the alphabet: Failing would be green."""
    words, wrong = WORDS[title]
    colours = {name: found["color"]["fixedColor"] for name, found in _overridden(_panel(title)).items()}
    assert colours.keys() == words
    assert len({*colours.values()}) == len(words)
    assert {name for name, colour in colours.items() if colour in BAD} == wrong
