"""What a PartitionPolicy's status holds: the shapes, and their share of ``crds/partitionpolicies.yaml``.

Filled by the package `status`. Every list is bounded and the whole stays under 64 KiB. Moments of partitions are
written in the key's domain (see `calendar.iso`). Nothing in it tells the time of the last reconcile: a policy
that has converged is not written again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from .approval import ApprovedPlan
from .forecast import Forecast
from .types import Count, Model

MAX_PARTITIONS = 200
MAX_PLAN = 50
MAX_FINDINGS = 20
MAX_FAILING = 10
MAX_NEXT = 17
"""Characters of ``next.text``, so that ``kubectl get ppol`` is at most 120 columns wide."""
MAX_MESSAGE, MAX_REASON = 1024, 128
"""Characters of one message, and of a reason; what is longer is cut, a message with an ellipsis."""
MAX_WARNINGS = 18
"""Characters of ``summary.warnings``, a column of kubectl."""

FOR_EVER = "MAXVALUE"
"""``summary.coveredUntil`` where the last partition has no upper bound."""

From = Annotated[str | None, Field(alias="from", description="Lower bound, included; absent: MINVALUE or DEFAULT.")]
To = Annotated[str | None, Field(alias="to", description="Upper bound, excluded; absent: MAXVALUE or DEFAULT.")]
Message = Annotated[str, Field(max_length=MAX_MESSAGE)]
Moment = Annotated[str | None, Field(json_schema_extra={"format": "date-time"})]

NOT_OBSERVED: Final = -1
"""Without it, kstatus calls an object current that has no status yet, and GitOps tools wait for nothing."""
ObservedGeneration = Annotated[
    int | None,
    Field(
        ge=NOT_OBSERVED,
        description="The metadata.generation last worked on; -1: none yet.",
        # Of the API server, which answers for the operator until that has written a status. It is never written.
        json_schema_extra={"default": NOT_OBSERVED},
    ),
]


class ConditionType(StrEnum):
    """Ready, Reconciling and Stalled follow kstatus; the others are of Partwarden."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DATABASE_REACHABLE = "DatabaseReachable"
    PARTITIONS_AHEAD = "PartitionsAhead"
    DEFAULT_PARTITION_EMPTY = "DefaultPartitionEmpty"
    WITHIN_THRESHOLDS = "WithinThresholds"
    ARCHIVES_HEALTHY = "ArchivesHealthy"


class ConditionStatus(StrEnum):
    """Kubernetes' three-valued logic."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class State(StrEnum):
    """Where a partition stands. The first three are managed: their bounds are exactly one interval."""

    PAST = "Past"
    CURRENT = "Current"
    FUTURE = "Future"
    DEFAULT = "Default"
    UNMANAGED = "Unmanaged"
    LEGACY = "Legacy"
    SPLITTING = "Splitting"
    DETACH_PENDING = "DetachPending"
    EXPIRED = "Expired"
    HELD = "Held"
    DETACHED = "Detached"
    """Not a partition any more: a table that waits for its grace to end, or for a person."""


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "Error"
    """It keeps partitions from being created: Ready is False."""
    WARNING = "Warning"
    """Something of the policy is stuck, and the coverage is safe: Ready is True, with ConvergedWithWarnings."""
    NOTICE = "Notice"
    """It stops nothing."""


class Condition(Model):
    """One aspect of the policy's state, in the form that Kubernetes' tools expect."""

    type: str = Field(max_length=316, description="Ready, Stalled, PartitionsAhead and so on.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: str = Field(min_length=1, max_length=MAX_REASON, description="CamelCase, for programs.")
    message: Message = Field(description="For people: what was found, on which object, and the way out.")
    last_transition_time: str = Field(
        description="When the status last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int | None = Field(None, ge=0, description="The metadata.generation that this speaks of.")


class PartitionStatus(Model):
    """One partition, as last observed."""

    name: str = Field(description="Name, with its schema in front where that is not the table's.")
    from_: From = None
    to: To = None
    rows: Count | None = Field(
        None, description="The planner's estimate, two significant digits; absent before the first ANALYZE."
    )
    bytes: Count = Field(description="Size on disk with indexes and TOAST, two significant digits.")
    state: State = Field(
        description="Past, Current, Future; Default, DetachPending; Legacy: the table that was converted; Splitting: "
        "has a part of an interval that leaves that table; Unmanaged: not exactly one interval; Expired: older than "
        "retention.keepFor, and attached still; Held: the same, and kept by a hold; Detached: a table of its own now."
    )
    kind: str | None = Field(None, description="Absent for a plain table; else what it is, such as a foreign table.")
    oid: Count | None = Field(
        None,
        description="OID of the table, where it is Expired, Held or Detached: `name@oid` in an annotation means this "
        "very table.",
    )
    over_threshold: bool | None = Field(
        None, description="true where it is larger than spec.thresholds.partitionSize; else absent."
    )
    expires_at: Moment = Field(
        None,
        description="When all of it is older than retention.keepFor; absent without retention, and for what never is.",
    )
    drop_after: Moment = Field(
        None,
        description="The earliest moment at which the policy may drop it; absent where it never does, and while it is "
        "Expired: its grace begins when it is detached.",
    )
    held: bool | None = Field(None, description="true where a hold names it, expired or not; else absent.")
    restored: bool | None = Field(None, description="true where it is of an archive: retention leaves it alone.")
    archive: str | None = Field(None, description="The PartitionArchive that counts for it, proven or not.")


class PlannedAction(Model):
    """One step of what the policy does by itself: due, or still to come. With `mode: Plan`, what it would do."""

    action: str = Field(description="What will be done, such as CreatePartition.")
    partition: str = Field(description="Name of the partition.")
    from_: From = None
    to: To = None
    reason: str = Field(description="Why.")
    lock: str = Field(description="The heaviest lock it takes on something that others use, and on what.")
    rows: Count | None = Field(
        None, description="The planner's estimate, two significant digits; absent where it is not known."
    )
    bytes: Count | None = Field(
        None, description="Size on disk with indexes and TOAST, two significant digits; absent for what is not there."
    )
    not_before: Moment = Field(
        None, description="The earliest moment of it; absent: now, or as soon as what it waits for has come."
    )
    waits_for: list[str] = Field(
        default=[], max_length=8, description="What it waits for beside the time, such as `Archive: …`, `Hold: …`."
    )


class NextAction(Model):
    """The next action of a policy, or its next drop."""

    action: str = Field(description="What will be done, as in status.plan, such as CreatePartition.")
    object: str = Field(description="The partition or table, with its schema in front where that is not the table's.")
    at: Moment = Field(
        None,
        description="The earliest moment of it; absent: now, or as soon as what it waits for has come. That of the "
        "next drop may be past.",
    )
    waits_for: list[str] = Field(
        default=[], max_length=8, description="What it waits for beside the time, such as Archive or Approval."
    )
    text: str = Field(max_length=MAX_NEXT, description="Action and object for people, such as `drop run_2018`.")
    when: str = Field(
        description="The moment for people, by the clock of spec.timezone: `2026-12-01`, `2026-12-01 13:30`, `now` or "
        "`waits: Archive`."
    )


class LongAction(Model):
    """An action that takes long, while it does."""

    action: str = Field(description="What is done, as in status.plan, such as DropDetached.")
    object: str = Field(description="The table, with its schema, that it is done to.")
    since: str = Field(description="When it began.", json_schema_extra={"format": "date-time"})
    bytes: Count = Field(description="Size of that table with indexes and TOAST, two significant digits.")
    size: str = Field(description="The same for people, such as 12.3Gi.")


class FindingStatus(Model):
    """Something that the user should know."""

    reason: str = Field(description="CamelCase, for programs.")
    object: str = Field(description="What it was found on: a table, a partition or a range.")
    message: Message = Field(description="What was found, and how to resolve it.")
    severity: Severity | None = Field(
        None,
        description="Error: it keeps the policy from being Ready; Warning: something is stuck, and the coverage is "
        "safe; Notice: it stops nothing. Absent from what older versions wrote.",
    )


class Largest(Model):
    """The largest partition."""

    name: str = Field(description="Name, with its schema in front where that is not the table's.")
    bytes: Count = Field(description="Size on disk with indexes and TOAST, two significant digits.")
    size: str = Field(description="The same for people, such as 12.3Gi.")


class Summary(Model):
    """Totals over all partitions, listed or not."""

    table: str = Field(description="The table with its schema.")
    key: str = Field(description="The partition key column.")
    interval: str | None = Field(None, description="Length of one partition, also where spec.interval is left out.")
    partitions: Count = Field(description="How many partitions the table has.")
    managed: Count = Field(description="How many of them are exactly one interval.")
    expired: Count | None = Field(
        None, description="How many are older than retention.keepFor; absent without retention."
    )
    detached: Count | None = Field(
        None,
        description="How many tables were detached and are there still; none of the other numbers counts them. Absent "
        "without retention.",
    )
    listed: Count = Field(description="How many of the partitions status.partitions shows.")
    pending: Count = Field(description="How many actions are due; status.plan shows them first.")
    missing: Count = Field(description="How many of the wanted ranges no partition holds yet.")
    rows: Count | None = Field(
        None, description="The planner's estimate in all, two significant digits; absent before the first ANALYZE."
    )
    default_rows: Count | None = Field(
        None,
        description="How many rows the DEFAULT partition holds, counted; a lower limit above 200,000. Absent where "
        "there is none, or they were not counted.",
    )
    total_bytes: Count = Field(description="Size on disk in all, with indexes and TOAST, two significant digits.")
    size: str = Field(description="The same for people, such as 12.3Gi.")
    covered_until: str | None = Field(
        None, description="End of the unbroken coverage that holds now, or MAXVALUE; absent when nothing holds now."
    )
    runway_days: int | None = Field(
        None,
        description="Whole days of unbroken coverage after the current interval ends: inserts succeed at least so long "
        "even if nothing is created any more. Absent where coverage has no end; 0 when nothing holds now.",
    )
    ahead: int | None = Field(
        None,
        description="Whole intervals of unbroken coverage after the current one, at most 1000. Absent where coverage "
        "has no end; 0 when nothing holds now.",
    )
    runs_out_at: Moment = Field(
        None,
        description="coveredUntil as an instant, also of a key without a time zone; when nothing holds now, the moment "
        "since which. Absent where coverage has no end.",
    )
    creation_due_at: Moment = Field(
        None,
        description="When the first range without a partition comes to be wanted, by interval and premake: past where "
        "one is missing. Absent where coverage has no end.",
    )
    oldest_expired_at: Moment = Field(
        None,
        description="When that partition expired which expired first, of those that are attached still, that no "
        "hold keeps and no user has attached again; absent where there is none.",
    )
    largest: Largest | None = Field(None, description="The largest partition.")
    warnings: str | None = Field(
        None,
        max_length=MAX_WARNINGS,
        description="How many findings are warnings, and the worst of them in few words, such as `2: rows in DEFAULT`; "
        "absent where there is none.",
    )
    failing_archives: list[str] = Field(
        default=[],
        max_length=MAX_FAILING,
        description="Archives of dropped tables that are damaged, or could not be read again: name and reason.",
    )
    oldest_verified_at: Moment = Field(
        None, description="When the archive of the policy was last proven that was not for the longest time."
    )
    verification_due_at: Moment = Field(
        None, description="When that one is read again at the latest, by verifyEvery; absent without that."
    )
    forecast: Forecast | None = Field(None, description="What is to be expected; absent until a range has passed.")


class PartitionPolicyStatus(Model):
    """State of the policy, in kstatus terms: observedGeneration, Reconciling, Stalled, Ready."""

    observed_generation: ObservedGeneration = None
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Ready, Reconciling, Stalled, DatabaseReachable, PartitionsAhead, DefaultPartitionEmpty, "
        "WithinThresholds, ArchivesHealthy.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    summary: Summary | None = Field(None, description="Totals, as last observed.")
    partitions: list[PartitionStatus] = Field(
        default=[],
        max_length=MAX_PARTITIONS,
        description="Partitions as last observed, ascending: those nearest to now, and notable ones; before them "
        "detached tables.",
    )
    plan: list[PlannedAction] = Field(
        default=[],
        max_length=MAX_PLAN,
        description="All that the policy does by itself, in order, the first 50: what is due, then what follows.",
    )
    plan_digest: str | None = Field(
        None,
        max_length=16,
        description="What the annotation partwarden.dev/approve-plan has to name so that the plan is carried out; "
        "absent where nothing waits for that.",
    )
    approved_plan: ApprovedPlan | None = Field(
        None, description="The approved plan, while the annotation names it: also once all of it is done."
    )
    next: NextAction | None = Field(
        None, description="What the policy does next by itself: what is due, then what comes first; absent: nothing."
    )
    next_drop: NextAction | None = Field(
        None,
        description="The next drop of a partition or table that exists; absent where none of them will ever be dropped "
        "by the policy, as things stand.",
    )
    long_action: LongAction | None = Field(
        None,
        description="What takes long, while it does: partitions are created meanwhile, and the status is kept.",
    )
    findings: list[FindingStatus] = Field(
        default=[], max_length=MAX_FINDINGS, description="What the user should know, the worst first."
    )
