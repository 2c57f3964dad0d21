"""A conversion that has read a whole table for nothing rests, and its status says since when and until when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from partwarden.controller.conversion_rests import COSTLY, LONGEST, ConversionRests
from partwarden.controller.database_work import WorkReport, WorkRequest
from partwarden.errors import StatementRejected, TableBusy
from partwarden.kube.cache import StoredPolicy, parse_policy
from partwarden.status import conversion
from partwarden.status.conditions import PolicyStatusUpdate
from support import values
from unit.controller.test_policy_reconciler import Fixture as Reconciler
from unit.status.test_conversion_status import PLAIN

REFUSED = conversion.failing(PLAIN, StatementRejected("not yet"))
BUSY = conversion.failing(PLAIN, TableBusy("later"))


class Fixture:
    """A clock that is set."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.rests = ConversionRests(lambda: self.seconds)

    def note(self, update: PolicyStatusUpdate, wasted: float, boundary: float | None = None) -> PolicyStatusUpdate:
        return self.rests.note(policy(), WorkReport(update=update, wasted=wasted, boundary=boundary), values.NOW)


def policy(**metadata: Any) -> StoredPolicy:
    about = {"namespace": "one", "name": "run", "uid": "u", "generation": 1, "resourceVersion": "1"}
    about |= {"creationTimestamp": "2026-01-01T00:00:00Z"}
    return parse_policy({"metadata": about | metadata, "spec": {"table": {"name": "run"}}})


@pytest.mark.parametrize(
    ("update", "wasted", "boundary", "seconds"),
    [
        (REFUSED, 60.0, None, 1200.0),
        (BUSY, 60.0, None, 180.0),
        (REFUSED, 3600 * 10.0, None, LONGEST),
        # A CHECK that stands is attended to long before its range ends.
        (BUSY, 3600.0, 3600.0, 1800.0),
    ],
)
def test_it_rests_by_the_time_that_was_lost(
    update: PolicyStatusUpdate, wasted: float, boundary: float | None, seconds: float
) -> None:
    made = Fixture()
    kept = made.note(update, wasted, boundary)
    assert made.rests.of(policy()) == kept
    assert kept.ready == update.ready
    assert kept.errors == update.errors
    assert kept.table is not None
    message = kept.table.findings[-1].message
    until = values.NOW + timedelta(seconds=seconds)
    for moment in (values.NOW, until):
        assert moment.strftime("%Y-%m-%dT%H:%M:%SZ") in message
    assert made.rests.remaining(policy().key) == pytest.approx(seconds)
    made.seconds += seconds - 1
    assert made.rests.of(policy()) == kept
    made.seconds += 1
    assert made.rests.remaining(policy().key) is None
    assert made.rests.of(policy()) is None


@pytest.mark.parametrize(
    "edited",
    [
        {"generation": 2},
        {"uid": "another"},
        {"annotations": {"partwarden.dev/approve-plan": "0123456789abcdef"}},
    ],
    ids=str,
)
def test_an_edit_and_an_approval_end_it(edited: dict[str, Any]) -> None:
    made = Fixture()
    made.note(REFUSED, 60.0)
    assert made.rests.of(policy(**edited)) is None
    assert made.rests.of(policy()) is None


def test_what_is_read_in_a_moment_is_read_at_each_try() -> None:
    made = Fixture()
    assert made.note(REFUSED, COSTLY / 2) is REFUSED
    assert made.rests.of(policy()) is None


def test_a_deleted_policy_is_forgotten() -> None:
    made = Fixture()
    made.note(REFUSED, 60.0)
    made.rests.forget(policy().key)
    assert made.rests.of(policy()) is None


def test_the_next_reconcile_gets_what_the_status_stays_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, given = Reconciler(monkeypatch), list[PolicyStatusUpdate | None]()

    def execute(request: WorkRequest, _: object) -> WorkReport:
        given.append(request.rests)
        return WorkReport(update=request.rests or REFUSED, wasted=0.0 if request.rests else 60.0)

    made.reconciler._execute = execute
    made.reconcile()
    status = made.api.policies["one", "run"]["status"]
    assert "ConversionRests" in [each["reason"] for each in status["findings"]]
    made.reconcile()
    assert made.api.policies["one", "run"]["status"] is status
    made.apply(premake=3)
    made.reconcile()
    assert [each is None for each in given] == [True, False, True]


def test_a_partitioned_table_says_what_its_conversion_still_waits_for() -> None:
    rests = conversion.resting(REFUSED, timedelta(minutes=5), values.NOW, values.NOW + timedelta(hours=1))
    still = conversion.still_resting(conversion.undone(PLAIN), rests)
    assert (still.ready.reason, still.stalled) == ("StatementRejected", True)
    assert still.table is not None
    assert [each.reason for each in still.table.findings] == ["ConversionRests"]
