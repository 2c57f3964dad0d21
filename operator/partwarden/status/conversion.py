"""The status of a policy whose table is not partitioned: what its conversion, or the way back, has come to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..api.policy import Mode, TableSpec
from ..api.status import (
    FOR_EVER,
    MAX_FINDINGS,
    MAX_PLAN,
    ConditionType,
    FindingStatus,
    PartitionPolicyStatus,
    Severity,
    Summary,
)
from ..api.types import ObjectKey
from ..errors import ConversionRefused, PartwardenError, UserError
from ..planner.conversion_plan import ConversionPlan
from ..planner.conversion_rules import Wanted
from ..planner.conversion_steps import RESTS, changes_of, conversion_digest, gate_of, rest, steps_of
from ..planner.findings import Finding
from ..planner.plain_table import PlainTable
from ..planner.plan_gate import PlanGate
from ..planner.schedule import PlannedStep, WaitsFor
from .approval import by_annotation, to_do, why_waiting
from .conditions import (
    CONVERTING,
    FALSE,
    OF_TABLE,
    PLAN_PENDING,
    TRUE,
    UNDONE,
    UNKNOWN,
    ConditionState,
    PolicyStatusUpdate,
    answered,
)
from .details import finding_status, human, planned, rough
from .next_action import next_step
from .warnings import Graded, chosen, in_few_words


@dataclass(frozen=True, slots=True)
class WayBack:
    """Why a partitioned table is not plain yet, as its policy asks."""

    ready: ConditionState
    step: PlannedStep
    digest: str = ""
    """What has to be approved first."""
    error: PartwardenError | None = None

    def alone(self) -> PolicyStatusUpdate:
        """The update where the table was not looked at for anything else."""
        return self.on(PolicyStatusUpdate(self.ready, reconciling=False, stalled=False, table=PartitionPolicyStatus()))

    def on(self, update: PolicyStatusUpdate) -> PolicyStatusUpdate:
        """The update of the partitioned table, with that."""
        stalled = isinstance(self.error, UserError)
        table = update.table and update.table.model_copy(
            update={
                "plan": [planned(self.step), *update.table.plan][:MAX_PLAN],
                "plan_digest": self.digest or update.table.plan_digest,
            }
        )
        return replace(
            update,
            ready=self.ready,
            reconciling=not stalled and self.ready.reason != PLAN_PENDING,
            stalled=stalled,
            table=table,
            errors=(*([self.error] if self.error else []), *update.errors),
        )


def queued(table: object, why: str) -> ConditionState:
    """Ready, while the conversion or the way back waits or goes on. ``why``: for people."""
    return ConditionState(FALSE, CONVERTING, f"{table} is being converted: {why}")


def failed(error: PartwardenError) -> ConditionState:
    """Ready, where a step has failed."""
    return ConditionState(FALSE, error.reason, str(error))


def with_error(update: PolicyStatusUpdate, error: PartwardenError) -> PolicyStatusUpdate:
    """The update of the partitioned table, whose conversion still has something to do that has failed."""
    stalled = isinstance(error, UserError)
    return replace(
        update, ready=failed(error), reconciling=not stalled, stalled=stalled, errors=(error, *update.errors)
    )


def still_resting(update: PolicyStatusUpdate, rests: PolicyStatusUpdate) -> PolicyStatusUpdate:
    """The update of the partitioned table, with what ``rests`` says that has failed, and until when it rests."""
    said = [each for each in (rests.table.findings if rests.table else []) if each.reason == RESTS]
    update = with_error(update, rests.errors[0]) if rests.errors else update
    return _with_findings(update, said)


def forbidden(plan: ConversionPlan, standing: Sequence[Finding] = ()) -> PolicyStatusUpdate:
    """Something keeps the table from being converted: the user must act. ``standing``: what is a warning beside it."""
    first = ConversionRefused(f"cannot convert {plan.table}: {plan.refusals[0]}")
    more = len(plan.refusals) - 1
    found = [
        Finding(first.reason, each.object, f"{each.why}; {each.way_out}", ConversionRefused(str(each)))
        for each in plan.refusals
    ]
    message = f"{first} (and {more} more: see status.findings)" if more else str(first)
    return _update(
        plan.table,
        ConditionState(FALSE, first.reason, message),
        stalled=True,
        found=[
            *(Graded(Severity.ERROR, each) for each in found),
            *(Graded(Severity.WARNING, each) for each in standing),
        ],
        errors=(first,),
    )


def waiting(
    spec: TableSpec, table: object, steps: tuple[PlannedStep, ...], gate: PlanGate, policy: ObjectKey | None
) -> ConditionState | None:
    """PlanPending, where the mode of the policy keeps the steps from being done; else None."""
    if spec.mode is Mode.PLAN:
        how = "spec.mode is Plan: read status.plan, then set it to Apply"
        return ConditionState(FALSE, PLAN_PENDING, f"{to_do(steps)}, {table}; {how}")
    if spec.mode is Mode.APPROVE and gate.digest:
        return ConditionState(FALSE, PLAN_PENDING, why_waiting(gate, by_annotation(gate, policy)))
    return None


def foreseen(
    wanted: Wanted, plan: ConversionPlan, named: str, policy: ObjectKey | None, found: Sequence[Finding] = ()
) -> PolicyStatusUpdate:
    """The table can be converted. ``named``: the digest that the user has approved; ``found``: what is a warning.

    Ready is PlanPending where the policy's mode keeps it from being done, else Converting.
    """
    steps, spec = steps_of(plan), wanted.spec
    gate = gate_of(steps, conversion_digest(plan, wanted), named)
    ready = waiting(spec, plan.table, steps, gate, policy)
    return _update(
        plan.table,
        ready or queued(plan.table, f"{to_do(steps)}: see status.plan"),
        reconciling=ready is None,
        steps=steps,
        digest=gate.digest if spec.mode is Mode.APPROVE else "",
        found=[
            *(Graded(Severity.WARNING, each) for each in found),
            *(Graded(Severity.NOTICE, each) for each in changes_of(plan)),
        ],
    )


def going_on(table: PlainTable, why: str, found: Sequence[Finding] = ()) -> PolicyStatusUpdate:
    """The table was not looked at closer, such as while another run converts it. ``why``: for people."""
    warnings = [Graded(Severity.WARNING, each) for each in found]
    return _update(table, queued(table, why), reconciling=True, found=warnings)


def failing(table: PlainTable, error: PartwardenError, found: Sequence[Finding] = ()) -> PolicyStatusUpdate:
    """A step of the conversion, or of the way back, has failed; what was done before it stays."""
    stalled = isinstance(error, UserError)
    ready, warnings = (
        ConditionState(FALSE, error.reason, str(error)),
        [Graded(Severity.WARNING, each) for each in found],
    )
    return _update(table, ready, reconciling=not stalled, stalled=stalled, found=warnings, errors=(error,))


def resting(update: PolicyStatusUpdate, took: timedelta, since: datetime, until: datetime) -> PolicyStatusUpdate:
    """The update, and that the table is not read again before ``until``: that took so long, and was wasted."""
    table = update.table.summary.table if update.table and update.table.summary else "the table"
    found = finding_status(Graded(Severity.NOTICE, rest(table, took.total_seconds(), since, until)))
    return _with_findings(update, [found])


def _with_findings(update: PolicyStatusUpdate, found: Sequence[FindingStatus]) -> PolicyStatusUpdate:
    if update.table is None:
        return update
    kept = update.table.findings[: MAX_FINDINGS - len(found)]
    return replace(update, table=update.table.model_copy(update={"findings": [*kept, *found]}))


def undone(table: PlainTable) -> PolicyStatusUpdate:
    """The table is plain, as the policy asks."""
    message = (
        f"{table} is not partitioned, as spec.convert.mode: Undo asks; nothing more is done: delete the policy, or set "
        "the mode to Attach"
    )
    return _update(table, ConditionState(TRUE, UNDONE, message))


def _update(
    table: PlainTable,
    ready: ConditionState,
    *,
    reconciling: bool = False,
    stalled: bool = False,
    steps: Sequence[PlannedStep] = (),
    digest: str = "",
    found: Sequence[Graded] = (),
    errors: tuple[PartwardenError, ...] = (),
) -> PolicyStatusUpdate:
    size, warnings = rough(table.bytes), [each.finding.reason for each in found if each.severity is Severity.WARNING]
    seen = PartitionPolicyStatus(
        summary=Summary(
            table=str(table),
            key=table.key.name if table.key else "",
            partitions=0,
            managed=0,
            listed=0,
            pending=len(steps),
            missing=0,
            rows=None if table.rows is None else rough(table.rows),
            total_bytes=size,
            size=human(size),
            # Every row has its place in a plain table; what a CHECK refuses is a warning of its own.
            covered_until=FOR_EVER,
            warnings=in_few_words(warnings),
        ),
        plan=[planned(each) for each in steps[:MAX_PLAN]],
        plan_digest=digest or None,
        next=next_step(steps[0], WaitsFor.APPROVAL if digest else "") if steps else None,
        findings=[finding_status(each) for each in chosen(found)],
    )
    unknown = ConditionState(UNKNOWN, ready.reason, "the table is not partitioned")
    return PolicyStatusUpdate(
        ready=ready,
        reconciling=reconciling,
        stalled=stalled,
        others=dict.fromkeys(OF_TABLE, unknown) | {ConditionType.DATABASE_REACHABLE: answered(table.server)},
        table=seen,
        errors=errors,
    )
