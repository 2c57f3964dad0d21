"""What allows a drop is one tuple of predicates: the plan, the status and the check under the lock cannot differ."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from partwarden.api.approval import ApprovedPlan, PlanApproval
from partwarden.api.archive import Fingerprint
from partwarden.api.destination import PVC
from partwarden.api.policy import Mode, TableSpec
from partwarden.api.retention import Approval, ArchiveSettings, OnExpire, Retention
from partwarden.api.status import ConditionType
from partwarden.errors import TableChanged
from partwarden.planner.actions import DropDetached
from partwarden.planner.context import PlanContext
from partwarden.planner.drop_preconditions import (
    APPROVAL,
    ARCHIVING,
    CHECKING,
    DROP_PRECONDITIONS,
    GRACE,
    HELD,
    OUTSIDE,
    PLAN_APPROVAL,
    POLICY,
    Archives,
    ArchiveState,
    CheckState,
    DropCase,
    last_reading,
    plan_basis,
    server_label,
    unmet,
)
from partwarden.planner.inventory import Detached
from partwarden.planner.marker import Phase
from partwarden.planner.plan import Plan, make_plan
from partwarden.planner.schedule import step_id
from partwarden.postgres import drop
from partwarden.postgres.table_state import TableState
from partwarden.status.conditions import reconciled
from support import values

NOW = values.NOW
HERE = server_label(values.SERVER.identity)
YEAR = (datetime(2018, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC))
TABLE = values.detached("run_2018", *YEAR, NOW - timedelta(hours=30))
CLAIM = ArchiveSettings(pvc=PVC(claim_name="archives"))
TAKEN = Fingerprint(algorithm="test", rows=1, content="0" * 64)
RETENTION = Retention(keep_for="5y", on_expire=OnExpire.DROP, archive=CLAIM, grace="24h", approval=Approval.MANUAL)


@dataclass(frozen=True)
class World:
    """One table that may go: each case takes away one thing that allows it."""

    retention: Retention = RETENTION
    held: frozenset[str] = frozenset()
    approved: frozenset[str] = frozenset({f"run_2018@{TABLE.oid}"})
    table: Detached = TABLE
    others: tuple[Detached, ...] = ()
    proven: bool = True
    refuted: bool = False
    read: timedelta | None = timedelta(hours=1)
    token: str | None = None
    step: str = ""
    plan_approval: PlanApproval = field(default_factory=PlanApproval)

    @property
    def archives(self) -> Archives:
        state = ArchiveState("run-2018", 0, HERE, TABLE.oid, proven=self.proven, fingerprint=TAKEN)
        if self.read is not None:
            token = self.token or last_reading(self._case(Archives()), state)
            check = CheckState(token, ok=not self.refuted, reason="ContentsChanged", completed=NOW - self.read)
            state = replace(state, check=check)
        return Archives({TABLE.oid: (state,)}, self.approved, self.plan_approval)

    @property
    def spec(self) -> TableSpec:
        mode = Mode.APPROVE if self.step else Mode.APPLY
        return values.spec(retention=self.retention, premake=0, start_from="2026-01-01", mode=mode)

    def plan(self) -> Plan:
        found = values.inventory(*values.years(2026), detached=(self.table, *self.others))
        return make_plan(self.spec, found, NOW, self.held, self.archives)

    def case(self) -> DropCase:
        return self._case(self.archives)

    def _case(self, archives: Archives) -> DropCase:
        return DropCase(
            table=self.table,
            now=NOW,
            read_now=NOW,
            cutoff=PlanContext.of(self.spec, values.inventory(*values.years(2026)), NOW, self.held).cutoff,
            retention=self.retention,
            held=self.held,
            archives=archives,
            outside=(self.table, *self.others),
            server=values.SERVER.identity,
            step=self.step,
        )


def marked(**fields: Any) -> Detached:
    return replace(TABLE, marker=replace(TABLE.marker, **fields))


STEP = step_id("DropDetached", TABLE.schema, TABLE.name, TABLE.oid, TABLE.marker.range)
DIGEST, BASIS = "0" * 16, plan_basis(RETENTION, values.SERVER.identity)


def plan_approval(named: str = DIGEST, basis: str = BASIS, step: str = STEP) -> PlanApproval:
    return PlanApproval(named, ApprovedPlan(digest=DIGEST, basis=basis, steps=[step]))


NAMESAKE = replace(values.detached("run_2018", *YEAR, oid=4711), schema="old")
KEPT: dict[str, tuple[World, str]] = {
    "its mark says Detaching": (World(table=marked(phase=Phase.DETACHING)), OUTSIDE),
    "not expired": (World(retention=RETENTION.model_copy(update={"keep_for": "9y"})), OUTSIDE),
    "held by name": (World(held=frozenset({"run_2018"})), HELD),
    "held by schema and name": (World(held=frozenset({"public.run_2018"})), HELD),
    "held by name and OID": (World(held=frozenset({f"run_2018@{TABLE.oid}"})), HELD),
    "the policy detaches only": (
        World(retention=RETENTION.model_copy(update={"on_expire": OnExpire.DETACH})),
        POLICY,
    ),
    "in its grace": (World(table=marked(since=NOW - timedelta(hours=23))), GRACE),
    "detached in the year 9999": (World(table=marked(since=datetime(9999, 12, 29, tzinfo=UTC))), GRACE),
    "not approved": (World(approved=frozenset()), APPROVAL),
    "an earlier table of its name is approved": (World(approved=frozenset({"run_2018@4711"})), APPROVAL),
    "a bare name that two tables bear": (
        World(approved=frozenset({"run_2018"}), others=(NAMESAKE,)),
        APPROVAL,
    ),
    "its plan is not approved": (World(step=STEP), PLAN_APPROVAL),
    "the approval of its plan was taken back": (World(step=STEP, plan_approval=plan_approval("")), PLAN_APPROVAL),
    "another plan is approved by now": (World(step=STEP, plan_approval=plan_approval("1" * 16)), PLAN_APPROVAL),
    "a plan of another policy or database": (
        World(step=STEP, plan_approval=plan_approval(basis="1" * 16)),
        PLAN_APPROVAL,
    ),
    "a plan that does not drop it": (World(step=STEP, plan_approval=plan_approval(step="1" * 12)), PLAN_APPROVAL),
    "not archived": (World(proven=False), ARCHIVING),
    "changed since it was archived": (World(refuted=True), ARCHIVING),
    "never read again": (World(read=None), CHECKING),
    "read before all else allowed it": (World(token="detached/2026-11-21T06:00:00Z"), CHECKING),
    "read more than a day ago": (World(read=timedelta(hours=24, seconds=1)), CHECKING),
}
GOES = {
    "approved by name and OID": World(),
    "approved by schema, name and OID": World(approved=frozenset({f"public.run_2018@{TABLE.oid}"})),
    "approved by a bare name of its own": World(approved=frozenset({"run_2018"})),
    "approved by its schema, beside a namesake": World(approved=frozenset({"public.run_2018"}), others=(NAMESAKE,)),
    "not to be approved": World(
        retention=RETENTION.model_copy(update={"approval": Approval.AUTOMATIC}), approved=frozenset()
    ),
    "of an approved plan": World(step=STEP, plan_approval=plan_approval()),
    "read a day ago": World(read=timedelta(hours=24)),
}


def drops(plan: Plan) -> list[DropDetached]:
    return [each for each in plan.actions if isinstance(each, DropDetached)]


def under_lock(action: DropDetached, case: DropCase) -> DropCase:
    """What the check under the lock says of an action that was planned when all was well."""
    standing = TableState(
        oid=TABLE.oid,
        plain=True,
        is_partition=False,
        parent=None,
        pending=False,
        bounds=None,
        owner=values.PARENT.owner,
        text="",
        mark=case.table.marker,
        has_children=False,
        now=NOW,
    )
    planned = replace(action, marker=case.table.marker, case=case)
    return drop._check(values.inventory(), planned, standing)


@pytest.mark.parametrize("what", KEPT)
def test_the_plan_the_status_and_the_check_under_the_lock_say_the_same(what: str) -> None:
    world, reason = KEPT[what]
    kept = unmet(world.case())
    assert kept is not None
    assert kept.reason == reason
    plan = world.plan()
    assert drops(plan) == []
    said = reconciled(
        values.spec(retention=world.retention), values.inventory(detached=(world.table, *world.others)), plan, []
    ).others[ConditionType.ARCHIVES_HEALTHY]
    if reason in (APPROVAL, CHECKING):
        assert (said.status, said.reason) == ("True", reason)
        assert "run_2018" in said.message
    (action,) = drops(World().plan())
    with pytest.raises(TableChanged, match="run_2018") as refused:
        under_lock(action, world.case())
    assert kept.message in str(refused.value)


@pytest.mark.parametrize("what", GOES)
def test_what_may_go_goes_by_all_three(what: str) -> None:
    world = GOES[what]
    assert unmet(world.case()) is None
    (action,) = drops(world.plan())
    assert action.case == world.case()
    assert under_lock(action, world.case()) == world.case()


def test_there_is_no_precondition_that_no_case_is_about() -> None:
    """Each is the only one that is not met, in a case of its own."""
    alone = set()
    for world, _ in KEPT.values():
        missed = [each for each in DROP_PRECONDITIONS if each(world.case()) is not None]
        if len(missed) == 1:
            alone.add(missed[0])
    assert [each.__name__ for each in DROP_PRECONDITIONS if each not in alone] in ([], ["archive_proven"])


def test_the_grace_is_judged_under_the_lock_by_the_servers_clock() -> None:
    (action,) = drops(World().plan())
    early = replace(action.case, table=marked(since=NOW + timedelta(days=9)))
    with pytest.raises(TableChanged, match=r"spec\.retention\.grace"):
        under_lock(action, early)


def test_a_table_that_was_named_by_a_person_needs_no_policy_but_is_kept_by_a_hold() -> None:
    case = DropCase(TABLE, NOW, NOW, asked_by_name=True)
    assert unmet(case) is None
    assert unmet(replace(case, held=frozenset({"run_2018"}))) is not None
    without = replace(case, asked_by_name=False)
    assert unmet(without) is not None


def test_where_the_policy_says_that_no_archive_is_needed_none_is_asked_for() -> None:
    retention = Retention(keep_for="5y", on_expire=OnExpire.DROP, drop_without_archive=True, grace="24h")
    world = World(retention=retention, read=None, proven=False)
    assert len(drops(world.plan())) == 1


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("run_2018", ""),
        ("public.run_2018", ""),
        (f"run_2018@{TABLE.oid}", ""),
        ("run_2026", ""),
        ("run_2017", "ApprovalMatchesNothing"),
        ("run_2018@4711", "ApprovalMatchesNothing"),
        ("other.run_2018", "ApprovalMatchesNothing"),
    ],
)
def test_an_approval_that_matches_nothing_is_a_finding(entry: str, reason: str) -> None:
    plan = World(approved=frozenset({entry})).plan()
    found = [each for each in plan.findings if each.reason.startswith("Approval")]
    assert [each.reason for each in found] == ([reason] if reason else [])
    assert all(repr(entry) in each.message and each.error is None for each in found)


def test_an_approval_that_names_two_tables_is_a_finding_that_names_both() -> None:
    plan = World(approved=frozenset({"run_2018"}), others=(NAMESAKE,)).plan()
    (found,) = [each for each in plan.findings if each.reason == "ApprovalAmbiguous"]
    assert f"public.run_2018@{TABLE.oid}" in found.message
    assert "old.run_2018@4711" in found.message
    assert drops(plan) == []
