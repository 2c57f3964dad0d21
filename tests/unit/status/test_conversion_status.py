"""What a status says of a table that is not partitioned: what forbids its conversion, what is left of it, and that no
row is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from partwarden.api.retention import Retention, Unaligned
from partwarden.api.status import State
from partwarden.errors import StatementRejected, TableBusy
from partwarden.planner.actions import DetachPartition
from partwarden.planner.calendar import BoundedRange
from partwarden.planner.conversion_plan import ConversionPlan
from partwarden.planner.conversion_rules import Refusal, Wanted
from partwarden.planner.conversion_steps import conversion_digest, standing
from partwarden.planner.inventory import Partition
from partwarden.planner.marker import ConvertedMark
from partwarden.planner.plain_table import Leftover, PlainTable
from partwarden.planner.plan import make_plan
from partwarden.status import conversion
from partwarden.status.conditions import PolicyStatusUpdate, make_status
from partwarden.status.details import partitions_of
from support import values

NOW = datetime(2026, 12, 15, 10, tzinfo=UTC)
PLAIN = PlainTable(
    server=values.SERVER,
    now=NOW,
    parent=values.parent(),
    kind="r",
    persistence="p",
    is_partition=False,
    typed=None,
    access_method="heap",
    forced=False,
    bytes=5_123_456_789,
    heap=4 << 30,
    rows=123_456,
    key=None,
    columns=("id",),
)
LEFT = Leftover(condition="…", validated=True, lower="2019-01-01 00:00:00+00", upper="2027-01-01 00:00:00+00")


def status_of(update: PolicyStatusUpdate) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    status = make_status(update, {"planDigest": "0123456789abcdef", "observedGeneration": 1}, 1, NOW)
    return status, {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


def test_each_refusal_is_a_finding_and_the_user_must_act() -> None:
    refusals = (Refusal("index a", "it is invalid", "drop it"), Refusal("rule b", "it is one", "drop it"))
    found = standing(PLAIN, LEFT, "it cannot be taken away")
    status, said = status_of(conversion.forbidden(ConversionPlan(PLAIN, refusals), [found]))
    assert said["Ready"] == ("False", "ConversionRefused")
    assert said["Stalled"][0] == "True"
    assert said["PartitionsAhead"][0] == "Unknown"
    assert [(each["object"], each["severity"]) for each in status["findings"]] == [
        ("index a", "Error"),
        ("rule b", "Error"),
        ("public.run", "Warning"),
    ]
    assert "from 2027-01-01 00:00:00+00 on" in status["findings"][2]["message"]
    assert status["summary"]["warnings"] == "1: CHECK stands"
    assert status["summary"]["coveredUntil"] == "MAXVALUE"
    # That of another plan.
    assert "planDigest" not in status


@pytest.mark.parametrize(("error", "stalled"), [(StatementRejected("no"), "True"), (TableBusy("later"), "False")])
def test_what_passes_is_tried_again_and_what_does_not_is_stalled(error: Any, stalled: str) -> None:
    _, said = status_of(conversion.failing(PLAIN, error))
    assert said["Ready"] == ("False", error.reason)
    assert (said["Stalled"][0], said["Reconciling"][0]) == (stalled, "False" if stalled == "True" else "True")


def test_undone_is_what_was_asked_for() -> None:
    status, said = status_of(conversion.undone(PLAIN))
    assert (said["Ready"], said["Reconciling"][0], said["Stalled"][0]) == (("True", "Undone"), "False", "False")
    assert (status["summary"]["size"], status["summary"]["rows"]) == ("4.7Gi", 120_000)


def test_an_approval_is_of_one_table_and_of_what_is_done_to_it() -> None:
    spec = values.spec(key="submitted_at")
    plan, wanted = ConversionPlan(PLAIN), Wanted(spec)
    others = [
        (ConversionPlan(replace(PLAIN, parent=replace(PLAIN.parent, oid=1))), wanted),
        (ConversionPlan(replace(PLAIN, server=replace(PLAIN.server, identity="other"))), wanted),
        (plan, Wanted(spec, legacy_name="other")),
        (plan, Wanted(values.spec(key="ended_at"))),
    ]
    digests = {conversion_digest(*each) for each in [(plan, wanted), *others]}
    assert len(digests) == len(others) + 1
    later = replace(PLAIN, bytes=1, rows=2, now=datetime(2027, 1, 1, tzinfo=UTC))
    assert conversion_digest(ConversionPlan(later), wanted) in digests


def legacy(first: int, last: int) -> Partition:
    """The partition that was the plain table."""
    wide, parent = values.years(first)[0], values.parent()
    ends = BoundedRange(datetime(first, 1, 1, tzinfo=UTC), datetime(last + 1, 1, 1, tzinfo=UTC))
    return replace(wide, range=ends, converted=ConvertedMark(wide.oid, parent.oid))


def test_the_converted_partition_is_legacy_and_covers() -> None:
    spec, found = values.spec(premake=0), values.inventory(legacy(2010, 2026))
    plan = make_plan(spec, found, values.NOW)
    (shown,) = partitions_of(found, plan)
    assert shown.state is State.LEGACY
    assert plan.covered_until == datetime(2027, 1, 1, tzinfo=UTC)
    assert plan.missing == ()
    assert "OffGrid" not in {each.reason for each in plan.findings}


@pytest.mark.parametrize(("last", "unaligned", "goes"), [(2019, "Expire", 1), (2022, "Expire", 0), (2019, "Keep", 0)])
def test_it_expires_as_a_whole_once_its_youngest_possible_row_is_old_enough(
    last: int, unaligned: Unaligned, goes: int
) -> None:
    spec = values.spec(premake=0, start_from="2026-01-01", retention=Retention(keep_for="5y", unaligned=unaligned))
    found = values.inventory(legacy(2010, last), *values.years(2026))
    actions = [each for each in make_plan(spec, found, values.NOW).actions if isinstance(each, DetachPartition)]
    assert len(actions) == goes
