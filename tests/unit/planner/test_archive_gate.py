"""What must be proven before a partition leaves and before its table goes, whatever happens in between."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from partwarden.api.archive import Fingerprint
from partwarden.api.destination import PVC
from partwarden.api.retention import Approval, ArchiveSettings, OnExpire, Retention
from partwarden.planner.actions import DetachPartition, DropDetached
from partwarden.planner.archive_gate import ArchiveRequest, CheckRequest
from partwarden.planner.drop_preconditions import (
    AFTER_DETACH,
    LAST,
    MOST_ROUNDS,
    Archives,
    ArchiveState,
    CheckState,
    server_label,
)
from partwarden.planner.plan import Plan, make_plan
from support import values

YEAR = (datetime(2018, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC))
(OLD,) = values.years(2018)
CLAIM = ArchiveSettings(pvc=PVC(claim_name="archives"))
GRACE = timedelta(hours=24)
EVENTS = (
    *("reconcile", "prove", "check", "wait", "change"),
    *("hold", "release", "approve", "withdraw", "fail", "damage", "forget"),
)
WAY = ("reconcile", "prove", "reconcile", "wait", "wait", "reconcile", "check", "reconcile")
"""By which a partition goes where nothing comes in between."""
DETACHED = WAY.index("wait")
"""So many events of it, and the partition is detached; nothing was read since the proof."""
FREE = WAY.index("check")
"""So many, and nothing but the last reading keeps the table."""


HERE, ELSEWHERE = server_label(values.SERVER.identity), server_label("2/5")


def fingerprint(content: int) -> Fingerprint:
    return Fingerprint(algorithm="test", rows=content, content=f"{content:064x}")


@dataclass
class Life:
    """One expired partition and its archives. Each event happens at its own moment."""

    approval: Approval = Approval.AUTOMATIC
    on_expire: OnExpire = OnExpire.DROP
    now: datetime = values.NOW
    content: int = 1
    since: datetime | None = None
    dropped: bool = False
    held: bool = False
    approved: bool = False
    rounds: dict[int, ArchiveState] = field(default_factory=dict)
    asked: dict[str, tuple[str, int]] = field(default_factory=dict)
    """The check that is asked for of an archive, and at which reconcile it was first."""
    began: dict[str, int] = field(default_factory=dict)
    """At which reconcile the last check of an archive that ended was asked for."""
    reconciles: int = 0
    opened: int | None = None
    """The reconcile from which on nothing but the proof has kept the table."""
    doubts: int = 0

    def plan(self) -> Plan:
        retention = Retention(
            keep_for="5y", on_expire=self.on_expire, archive=CLAIM, grace="24h", approval=self.approval
        )
        spec = values.spec(retention=retention, premake=0, start_from="2026-01-01")
        around = values.years(2026)
        if self.since is None:
            found = values.inventory(OLD, *around, now=self.now)
        else:
            table = values.detached(OLD.name, *YEAR, self.since, oid=OLD.oid)
            found = values.inventory(*around, now=self.now, detached=(table,))
        states = tuple(state for _, state in sorted(self.rounds.items()))
        archives = Archives({OLD.oid: states} if states else {}, frozenset({OLD.name} if self.approved else ()))
        return make_plan(spec, found, self.now, frozenset({OLD.name} if self.held else ()), archives)

    def reconcile(self) -> None:
        self.reconciles += 1
        free = self.since is not None and self.on_expire is OnExpire.DROP and not self.held
        free = free and self.since is not None and self.since + GRACE <= self.now
        free = free and (self.approval is Approval.AUTOMATIC or self.approved)
        self.opened = (self.opened or self.reconciles) if free else None
        plan = self.plan()
        wanted = {each.archive: each.token for each in plan.retired.gate.requests if isinstance(each, CheckRequest)}
        kept = {name: held for name, held in self.asked.items() if wanted.get(name) == held[0]}
        self.asked = {name: kept.get(name, (token, self.reconciles)) for name, token in wanted.items()}
        for request in plan.retired.gate.requests:
            if isinstance(request, CheckRequest) and request.void:
                self.doubt(request.archive)
            if isinstance(request, ArchiveRequest):
                assert request.oid == OLD.oid
                assert request.round not in self.rounds
                self.rounds[request.round] = ArchiveState(f"archive-{request.round}", request.round, HERE, oid=OLD.oid)
        for action in plan.actions:
            if isinstance(action, DetachPartition):
                self.detach()
            elif isinstance(action, DropDetached):
                self.drop(action)

    def detach(self) -> None:
        latest = self.rounds[max(self.rounds)]
        assert latest.proven
        assert latest.check is None or latest.check.ok
        assert not self.held
        self.since = self.now

    def drop(self, action: DropDetached) -> None:
        latest = self.rounds[max(self.rounds)]
        assert self.opened is not None, "something else keeps it still"
        assert latest.proven
        assert action.archive == latest.name
        assert action.fingerprint is not None
        assert action.fingerprint == latest.fingerprint
        assert latest.check is not None
        assert latest.check.ok
        assert self.began[latest.name] >= self.opened, "read before all of what allows it"
        assert latest.check.completed is not None
        assert self.now - latest.check.completed <= timedelta(hours=24), "read more than a day ago"
        if action.fingerprint == fingerprint(self.content):
            self.dropped = True
        else:
            self.doubts += 1
            self.doubt(latest.name)

    def doubt(self, name: str) -> None:
        """What is written down of the archive's last check, so that it counts no more."""
        for number, state in self.rounds.items():
            if state.name == name and state.check is not None:
                self.rounds[number] = replace(state, doubt=f"not {state.check.token}"[-200:])

    def prove(self) -> None:
        for number, state in self.rounds.items():
            if not state.proven:
                made = replace(state, proven=True, fingerprint=fingerprint(self.content), error=None)
                self.rounds[number] = replace(made, location=f"pvc://archives/{number}")

    def fail(self) -> None:
        for number, state in self.rounds.items():
            if not state.proven:
                self.rounds[number] = replace(state, error=("DestinationFull", "no space is left"))

    def check(self, damaged: bool = False) -> None:
        """Every reading that is asked for ends."""
        for number, state in self.rounds.items():
            if state.name not in self.asked:
                continue
            token, self.began[state.name] = self.asked[state.name]
            found = CheckState(token, ok=True, completed=self.now)
            if damaged:
                found = CheckState(token, ok=False, reason="ArchiveDamaged", message="one byte is another")
            elif state.fingerprint != fingerprint(self.content):
                found = CheckState(token, ok=False, reason="ContentsChanged", message="it was changed since")
            self.rounds[number] = replace(state, check=found)

    def happen(self, event: str) -> None:
        match event:
            case "wait":
                self.now += timedelta(hours=13)
            case "change":
                self.content += 1
            case "hold" | "release":
                self.held = event == "hold"
            case "approve" | "withdraw":
                self.approved = event == "approve"
            case "damage":
                self.check(damaged=True)
            case "forget":
                # The user deletes the PartitionArchives.
                self.rounds, self.asked = {}, {}
            case _:
                getattr(self, event)()


def lived(*events: str, **fields: Any) -> Life:
    life = Life(**fields)
    for each in events:
        if not life.dropped:
            life.happen(each)
    return life


@given(
    st.lists(st.sampled_from(EVENTS), max_size=60),
    st.sampled_from(list(Approval)),
    st.sampled_from(list(OnExpire)),
)
@example(list(WAY), Approval.AUTOMATIC, OnExpire.DROP)
@example([*WAY[:-1], "hold", "reconcile", "release", "reconcile", "reconcile"], Approval.AUTOMATIC, OnExpire.DROP)
@example(
    ["approve", *WAY[:-1], "withdraw", "reconcile", "approve", "reconcile", "reconcile"], Approval.MANUAL, OnExpire.DROP
)
def test_nothing_leaves_unproven_and_nothing_goes_that_was_not_read_after_all_else(
    events: list[str], approval: Approval, on_expire: OnExpire
) -> None:
    """What is asserted is in `Life.detach` and `Life.drop`."""
    life = lived(*events, approval=approval, on_expire=on_expire)
    if life.dropped:
        assert on_expire is OnExpire.DROP
        assert approval is Approval.AUTOMATIC or life.approved
        assert life.rounds[max(life.rounds)].fingerprint == fingerprint(life.content)


@given(st.lists(st.sampled_from([each for each in EVENTS if each != "damage"]), max_size=20))
def test_whatever_came_before_it_goes_in_the_end_once_it_is_left_in_peace(events: list[str]) -> None:
    life = lived(*events, "forget", "release", "approve", approval=Approval.MANUAL)
    for each in (*("reconcile", "prove", "reconcile", "check", "wait", "wait") * 3, "reconcile", "check", "reconcile"):
        if not life.dropped:
            life.happen(each)
    assert life.dropped


def test_the_whole_way_and_that_it_is_no_shorter() -> None:
    assert lived(*WAY).dropped
    for left_out in range(len(WAY)):
        if WAY[left_out] != "reconcile":
            assert not lived(*WAY[:left_out], *WAY[left_out + 1 :]).dropped, WAY[left_out]


def test_a_reading_does_for_a_day_whatever_the_calendar_says_and_no_longer() -> None:
    read = lived(*WAY[:-1])
    for hours, dropped in ((0, True), (1, True), (24, True), (25, False)):
        life = replace(read, rounds=dict(read.rounds), now=read.now + timedelta(hours=hours))
        life.reconcile()
        assert life.dropped is dropped, hours
        if not dropped:
            asked = dict(life.asked)
            life.happen("wait")
            life.reconcile()
            assert life.asked == asked, "a Job of hours is asked for anew while it runs"
            life.check()
            life.reconcile()
            assert life.dropped


def test_a_job_that_runs_over_midnight_is_not_asked_for_anew() -> None:
    evening = values.NOW.replace(hour=23, minute=59)
    life = lived(*WAY[:DETACHED], now=evening - timedelta(hours=26))
    life.now = evening
    life.reconcile()
    asked = dict(life.asked)
    for _ in range(3):
        life.now += timedelta(minutes=2)
        life.reconcile()
        assert life.asked == asked
    life.check()
    life.reconcile()
    assert life.dropped


@pytest.mark.parametrize("completed", [None, timedelta(days=400)], ids=["unknown", "in the future"])
def test_a_reading_of_a_moment_that_cannot_be_is_as_good_as_old(completed: timedelta | None) -> None:
    life = lived(*WAY[:-1])
    state = life.rounds[0]
    assert state.check is not None
    moment = None if completed is None else life.now + completed
    life.rounds[0] = replace(state, check=replace(state.check, completed=moment))
    life.reconcile()
    assert not life.dropped
    life.check()
    life.reconcile()
    assert life.dropped


def test_what_is_only_to_be_detached_is_archived_detached_and_kept() -> None:
    life = lived(*WAY, "wait", "reconcile", "check", "reconcile", on_expire=OnExpire.DETACH)
    assert life.since is not None
    assert not life.dropped
    assert life.plan().retired.gate.requests == ()


def reasons(life: Life) -> list[tuple[str, bool]]:
    waiting = life.plan().retired.gate
    return [*((each.reason, True) for each in waiting.troubles), *((each.reason, False) for each in waiting.notes)]


def test_what_is_waited_for_is_said() -> None:
    assert reasons(lived("reconcile")) == [("Archiving", False)]
    assert reasons(lived("reconcile", "fail")) == [("DestinationFull", True), ("Archiving", False)]
    assert reasons(lived(*WAY[:DETACHED])) == []
    assert reasons(lived(*WAY[:FREE], approval=Approval.MANUAL)) == [("WaitsForApproval", False)]
    assert reasons(lived(*WAY[:FREE])) == [("CheckingArchives", False)]
    assert reasons(lived(*WAY[:FREE], "damage")) == [("ArchiveDamaged", True)]
    assert reasons(lived(*WAY[:DETACHED], on_expire=OnExpire.DETACH)) == [("CheckingArchives", False)]
    assert reasons(lived(*WAY[:DETACHED], "reconcile", "check", on_expire=OnExpire.DETACH)) == []


def test_what_is_to_be_dropped_is_read_once_and_only_when_nothing_else_keeps_it() -> None:
    assert lived(*WAY[:DETACHED], "reconcile", "wait", "reconcile").asked == {}
    held = lived(*WAY[:DETACHED], "hold", "wait", "wait", "reconcile")
    assert held.asked == {}
    held.happen("release")
    held.reconcile()
    ((token, _),) = held.asked.values()
    assert token.startswith(LAST)


def test_a_hold_after_the_last_reading_makes_it_void_also_for_an_operator_that_has_not_seen_the_reading() -> None:
    life = lived(*WAY[:-1], "hold", "reconcile")
    ((token, _),) = life.asked.values()
    assert token.startswith(AFTER_DETACH)
    (request,) = life.plan().retired.gate.requests
    assert isinstance(request, CheckRequest)
    assert request.void
    life.check()
    # What is remembered in memory is lost: the status of the archive is not.
    life.rounds = {number: replace(state, doubt="") for number, state in life.rounds.items()}
    life.happen("release")
    life.reconcile()
    assert not life.dropped
    ((token, _),) = life.asked.values()
    assert token.startswith(LAST)


def test_a_damaged_archive_keeps_the_table_and_is_not_replaced() -> None:
    life = lived(*WAY[:FREE], "damage", "reconcile", "wait", "wait", "reconcile", "damage", "reconcile")
    assert list(life.rounds) == [0]
    assert not life.dropped


@pytest.mark.parametrize("on_expire", OnExpire)
def test_a_table_changed_after_the_proof_is_archived_again_and_not_without_end(on_expire: OnExpire) -> None:
    way = [*WAY[: FREE - 1], "reconcile"]
    life = lived(*way, "change", "check", "reconcile", on_expire=on_expire)
    assert list(life.rounds) == [0, 1]
    assert reasons(life) == [("Archiving", False)]
    again = lived(*way, *("change", "check", "reconcile", "prove", "reconcile") * 9, on_expire=on_expire)
    assert list(again.rounds) == list(range(MOST_ROUNDS))
    assert reasons(again) == [("ContentsChanged", True)]


def test_what_is_changed_after_the_last_reading_is_compared_anew() -> None:
    life = lived(*WAY[:-1], "change", "reconcile")
    assert life.doubts == 1
    assert not life.dropped
    life.reconcile()
    life.check()
    life.reconcile()
    assert list(life.rounds) == [0, 1]


@pytest.mark.parametrize(
    "wrong",
    [{"oid": OLD.oid + 1}, {"oid": None}, {"server": ELSEWHERE}, {"proven": False}, {"fingerprint": None}],
    ids=["of another table", "of an unknown table", "of another server", "not read back", "without a fingerprint"],
)
def test_an_archive_that_does_not_prove_this_table_counts_for_nothing(wrong: dict[str, Any]) -> None:
    for way in (WAY[:2], WAY[:-1]):
        life = lived(*way)
        life.rounds[0] = replace(life.rounds[0], **wrong)
        assert life.plan().actions == ()


def test_after_a_move_to_another_server_a_table_of_the_same_oid_is_archived_anew() -> None:
    life = lived(*WAY[:-1])
    life.rounds[0] = replace(life.rounds[0], server=ELSEWHERE)
    assert life.plan().actions == ()
    (request,) = life.plan().retired.gate.requests
    assert isinstance(request, ArchiveRequest)
    assert (request.oid, request.round) == (OLD.oid, 0)


def test_where_no_archive_is_known_nothing_leaves() -> None:
    assert Life().plan().actions == ()
    gone = Life(since=values.NOW - timedelta(days=9))
    assert gone.plan().actions == ()
    assert [type(each) for each in gone.plan().retired.gate.requests] == [ArchiveRequest]
