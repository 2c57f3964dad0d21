"""A table that is covered for long outlasts an outage: Ready turns False only after a share of that time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from partwarden import errors
from partwarden.api.policy import TableSpec
from partwarden.api.status import ConditionType
from partwarden.planner.calendar import iso
from partwarden.status.conditions import failed, find, make_status, reconciled, suspended
from partwarden.status.events import changed
from partwarden.status.outage import endure
from partwarden.status.warnings import OUTAGE
from support.samples import NOW, inventory, plan, spec, year

COMPLETE = [year(number) for number in range(2024, 2029)]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DOWN = errors.DatabaseUnreachable("cannot connect to database 'orders': connection refused")


def well(until: datetime | str | None = None, **fields: Any) -> dict[str, Any]:
    """The status of a table that is Ready, and covered until then."""
    found = inventory(COMPLETE)
    status = make_status(reconciled(spec(), found, plan(found), ()), {}, 1, NOW, "public.run")
    if until is not None:
        status["summary"]["coveredUntil"] = iso(until) if isinstance(until, datetime) else until
    return status | fields


def after(
    previous: dict[str, Any],
    now: datetime,
    error: errors.PartwardenError = DOWN,
    policy: TableSpec | None = None,
    generation: int = 1,
    connected: bool = False,
) -> dict[str, Any]:
    update = endure(failed(error, connected), policy or spec(), previous, generation, now)
    return make_status(update, previous, generation, now, "public.run")


def ready(status: dict[str, Any]) -> tuple[str, str]:
    found = find(status, ConditionType.READY)
    return found["status"], found["reason"]


def test_a_table_by_the_year_stays_ready_for_a_day() -> None:
    first = after(well(), NOW)
    assert ready(first) == ("True", "ConvergedWithWarnings")
    message = find(first, ConditionType.READY)["message"]
    assert message.startswith("the table could not be observed since 2026-06-15T12:00:00Z: cannot connect to database")
    assert message.endswith("covered until 2029-01-01T00:00:00Z, so Ready turns False only at 2026-06-16T12:00:00Z")
    assert first["summary"]["warnings"] == "1: unreachable"
    said = {each["type"]: each["status"] for each in first["conditions"]}
    assert (said["DatabaseReachable"], said["PartitionsAhead"]) == ("False", "Unknown")
    assert (said["Reconciling"], said["Stalled"]) == ("False", "False")
    assert after(first, NOW + 23 * HOUR) == first, "nothing is written while nothing changes"
    last = after(first, NOW + DAY)
    assert ready(last) == ("False", "DatabaseUnreachable")
    assert "warnings" not in last["summary"]
    assert last.get("findings", []) == []
    assert after(last, NOW + 2 * DAY) == last


@pytest.mark.parametrize(
    ("interval", "until", "stays"),
    [
        ("Hour", 4 * HOUR, timedelta(minutes=24)),
        ("Hour", timedelta(minutes=59), None),
        ("Day", 3 * DAY, timedelta(hours=7, minutes=12)),
        ("Day", 30 * DAY, DAY),
        ("Month", 20 * DAY, None),
        ("Month", 90 * DAY, DAY),
        ("Year", timedelta(0), None),
    ],
)
def test_the_while_is_a_tenth_of_what_is_covered(interval: str, until: timedelta, stays: timedelta | None) -> None:
    policy, before = spec(interval=interval), well(NOW + until)
    first = after(before, NOW, policy=policy)
    if stays is None:
        assert ready(first) == ("False", "DatabaseUnreachable")
        return
    assert ready(after(first, NOW + stays - timedelta(seconds=1), policy=policy))[0] == "True"
    assert ready(after(first, NOW + stays, policy=policy))[0] == "False"


def test_a_table_that_is_covered_for_ever_stays_ready_for_a_day() -> None:
    first = after(well("MAXVALUE"), NOW)
    assert ready(after(first, NOW + DAY - HOUR))[0] == "True"
    assert ready(after(first, NOW + DAY))[0] == "False"


def test_a_key_without_a_zone_is_covered_until_a_moment_in_that_of_the_policy() -> None:
    policy = spec(interval="Hour", timezone="Asia/Tokyo")
    # 13 hours by the wall clock there, of which nine have passed: 4 hours.
    first = after(well((NOW + 13 * HOUR).replace(tzinfo=None)), NOW, policy=policy)
    assert ready(after(first, NOW + timedelta(minutes=23), policy=policy))[0] == "True"
    assert ready(after(first, NOW + timedelta(minutes=24), policy=policy))[0] == "False"


OUTAGES = [
    kind
    for kind in errors.REASONS.values()
    if (issubclass(kind, errors.TransientError) and kind is not errors.UnsafePlan)
    or kind in (errors.AuthenticationFailed, errors.TLSMismatch)
]


@pytest.mark.parametrize("kind", errors.REASONS.values(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("connected", [True, False])
def test_an_outage_passes_and_a_mistake_of_the_user_is_shown_at_once(
    kind: type[errors.PartwardenError], connected: bool
) -> None:
    error = kind("what was found")
    expected = ready(make_status(failed(error, connected), {}, 1, NOW))
    found = after(well(), NOW, error, connected=connected)
    assert ready(found) == (("True", "ConvergedWithWarnings") if kind in OUTAGES else expected)
    if kind in OUTAGES:
        assert after(found, NOW + HOUR, error, connected=connected) == found


def test_what_was_not_ready_or_was_edited_does_not_become_ready_by_an_outage() -> None:
    found = inventory(COMPLETE[:4])
    missing = make_status(reconciled(spec(), found, plan(found), ()), {}, 1, NOW, "public.run")
    for previous, generation in ((missing, 1), (well(), 2), ({}, 1), (make_status(suspended(), well(), 1, NOW), 1)):
        assert ready(after(previous, NOW, generation=generation)) == ("False", "DatabaseUnreachable")


def test_an_edit_during_the_outage_is_not_ready() -> None:
    first = after(well(), NOW)
    assert ready(after(first, NOW + HOUR, generation=2)) == ("False", "DatabaseUnreachable")


def test_an_invalid_policy_and_an_error_of_partwarden_are_no_outage() -> None:
    assert endure(failed(DOWN, False), None, well(), 1, NOW) == failed(DOWN, False)
    assert ready(after(well(), NOW, errors.UnsafePlan("it overlaps")))[0] == "False"


def test_the_warnings_from_before_are_counted_and_stay() -> None:
    earlier = {"reason": "RowsReferenced", "object": "public.run_2019", "message": "…", "severity": "Warning"}
    before = well(findings=[earlier])
    before["summary"]["warnings"] = "1: rows referenced"
    first = after(before, NOW)
    assert first["summary"]["warnings"] == "2: unreachable"
    assert [each["object"] for each in first["findings"]] == [OUTAGE, "public.run_2019"]
    assert find(first, ConditionType.READY)["message"].endswith(" (and 1 more: see status.findings)")
    other = after(first, NOW + HOUR, errors.StatementFailed("canceled"), connected=True)
    assert [each["reason"] for each in other["findings"]] == ["StatementFailed", "RowsReferenced"]
    last = after(other, NOW + 2 * DAY)
    assert (last["findings"], last["summary"]) == (before["findings"], before["summary"])


def test_it_is_one_warning_when_it_begins_one_when_ready_turns_false_and_its_end_is_said() -> None:
    before = well()
    first = after(before, NOW)
    (notice,) = changed(before, first)
    assert (notice.type, notice.reason) == ("Warning", "DatabaseUnreachable")
    assert changed(first, after(first, NOW + HOUR)) == []
    (notice,) = changed(first, before)
    assert (notice.type, notice.reason) == ("Normal", "Connected")
    last = after(first, NOW + DAY)
    (notice,) = changed(first, last)
    assert (notice.type, notice.reason) == ("Warning", "DatabaseUnreachable")
    (notice,) = changed(last, before)
    assert (notice.type, notice.reason) == ("Normal", "Healthy")


def test_a_status_that_was_tampered_with_gives_no_time() -> None:
    away = after(well(), NOW)
    for field, value in (("coveredUntil", "soon"), ("coveredUntil", 7), ("coveredUntil", None)):
        assert ready(after(well() | {"summary": {**well()["summary"], field: value}}, NOW))[0] == "False"
    for until in ("2029-01-01T00:00:00Z", "MAXVALUE"):
        conditions = [each | {"lastTransitionTime": "9999-12-31T23:59:59Z"} for each in away["conditions"]]
        summary = {**away["summary"], "coveredUntil": until}
        assert ready(after(away | {"conditions": conditions, "summary": summary}, NOW))[0] == "False"


@given(
    some.timedeltas(timedelta(days=-100), timedelta(days=2000)),
    some.lists(some.timedeltas(timedelta(0), timedelta(days=3)), min_size=1, max_size=6),
    some.sampled_from(["Hour", "Day", "Month", "Year"]),
)
def test_ready_never_turns_true_again_while_an_outage_lasts_and_ends_before_the_coverage(
    ahead: timedelta, pauses: list[timedelta], interval: str
) -> None:
    policy, status, now, seen = spec(interval=interval), well(NOW + ahead), NOW, ["True"]
    for pause in pauses:
        status = after(status, now, policy=policy)
        assert after(status, now, policy=policy) == status
        seen.append(ready(status)[0])
        assert seen[-1] == "False" or now < NOW + ahead
        now += pause
    assert seen == sorted(seen, reverse=True)
