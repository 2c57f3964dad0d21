"""Plan what happens to expired partitions: finish pending detaches, detach, drop.

An expired partition is detached with a marker in its comment; its table is dropped after the grace, if the policy says
Drop. `archive_gate` says what must be proven before either. Whatever is not certain stays: nothing is decided by a
name, but for a hold, which only ever keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..api import policy
from ..api.retention import OnExpire, Unaligned
from ..errors import ObjectsTied, RowsReferenced
from .actions import (
    Action,
    AttachDetached,
    ConfirmDetached,
    CreateDefault,
    DetachPartition,
    DropDetached,
    FinalizeDetach,
)
from .archive_gate import ArchiveGate, check_archives
from .calendar import BoundedRange
from .context import PlanContext
from .creation import Wanted
from .drop_preconditions import DropCase, named
from .findings import Finding, along, join_names, refusing
from .inventory import Detached, Partition, RelationKind
from .keys import literals
from .marker import Phase

PENDING = "its detach began and did not end: its rows are invisible, and nothing else can be detached"
HOLD_MATCHES_NOTHING = "HoldMatchesNothing"
ANNOTATION_TOO_LONG = "AnnotationTooLong"
LEFT_ALONE = "ExpiredLeftAlone"
SKIPPED = (
    "not exactly one spec.interval, and spec.retention.unaligned is Keep; set it to Expire, or name those that shall "
    "stay in spec.holds"
)
BY_USER = {
    Phase.RESTORED: "restored from an archive",
    Phase.DETACHED: "detached once, and attached again by other means",
}
"""What the mark of a partition says of it: we attach again only together with taking the mark away."""
INTERRUPTED = "its detach was interrupted after the table had left: its grace begins once that is written down"

Expired = tuple[Partition, BoundedRange]
Staying = tuple[Partition, BoundedRange, Finding | None]


@dataclass(frozen=True, slots=True)
class Retired:
    """``expired`` and ``kept`` are OIDs of partitions: past their time, and of those the ones that a hold keeps.

    ``decided`` is False where the policy has no ``retention``. ``staying``: the expired that are not to be detached,
    the oldest first, each with the finding that says why; None: a hold keeps it.
    """

    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    expired: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()
    staying: tuple[Staying, ...] = ()
    decided: bool = False
    gate: ArchiveGate = field(default_factory=ArchiveGate)


def retired(context: PlanContext, wanted: Wanted) -> Retired:
    """Nothing at all where the policy has no ``retention``."""
    if context.spec.retention is None:
        return Retired()
    # Safe whatever the length and the grid: each row lies before the upper bound, which lies before the cutoff, and so
    # before now less keepFor. What the policy's interval is now says nothing of the age of a row. Whether a key says
    # when at all, `may_expire` asks.
    past = [each for each in context.ranged if context.has_expired(each[1]) and not each[0].detach_pending]
    dated = [(each, held) for each, piece in past if (held := context.may_expire(piece))]
    expired = sorted(dated, key=lambda each: (each[1].upper, each[0].oid))
    returning = {each.oid for each in wanted.actions if isinstance(each, AttachDetached)}
    outside = [each for each in context.detached if each.oid not in returning]
    going, staying = _sort_out(context, expired)
    # By their bounds they have expired, and only `unaligned: Keep` leaves them out of all of the above.
    skipped = [
        (each, held, Finding(LEFT_ALONE, each.name, SKIPPED))
        for each, piece in past
        if context.retention.unaligned is Unaligned.KEEP and (held := piece.bounded) and not context.is_held(each)
        if not context.may_expire(piece)
    ]
    gate = check_archives(context, going, sorted(outside, key=lambda each: (each.marker.range.upper, each.oid)))
    return Retired(
        actions=(
            # First: while one is pending, its rows are invisible and no other can be detached concurrently. Also those
            # that another tool began or that a hold names: PostgreSQL knows no way back from a pending detach.
            # Safe: the partition was cut off when the detach began, and finishing makes its rows, invisible through the
            # parent, a table of their own again. No row goes.
            *(finalization(each, PENDING) for each in context.inventory.partitions if each.detach_pending),
            # The grace begins late rather than early: at the confirmation, not at the unknown end of the detach.
            *(
                confirmation(each, INTERRUPTED)
                for each in outside
                if each.marker.phase is Phase.DETACHING and not context.is_held(each)
            ),
            *_detachments(context, wanted, gate.partitions_to_detach),
            *_drops(context, gate.tables_to_drop),
        ),
        findings=(
            *gate.troubles,
            *_why_staying(context, [*staying, *skipped]),
            *_tied(context, [*(each for each, _ in going), *outside]),
            *gate.notes,
            *_annotations(context),
        ),
        expired=frozenset(each.oid for each, _ in expired),
        kept=frozenset(each.oid for each, _ in expired if context.is_held(each)),
        staying=tuple(staying),
        decided=True,
        gate=gate,
    )


def _sort_out(context: PlanContext, expired: list[Expired]) -> tuple[list[Expired], list[Staying]]:
    """Those to be detached, and those that are not, each with why. A hold is no finding: it is in the state."""
    going, staying = list[Expired](), list[Staying]()
    for each, held in expired:
        if context.is_held(each):
            staying.append((each, held, None))
        elif (why := why_left_alone(each)) is not None:
            staying.append((each, held, Finding(LEFT_ALONE, each.name, why)))
        elif references := context.inventory.references.get(each.oid):
            counted = ", ".join(
                f"{some.table} ({some.rows}{' or more' if some.at_least else ''})" for some in references
            )
            error = RowsReferenced(
                f"partition {each} has expired, but rows of other tables point to its rows by foreign keys, so it "
                f"stays: {counted}; delete those rows or let them point elsewhere"
            )
            staying.append((each, held, Finding.of(str(each), error)))
        else:
            going.append((each, held))
    return going, staying


def _why_staying(context: PlanContext, staying: Iterable[Staying]) -> Iterator[Finding]:
    """One finding for all that are left alone for the same reason."""
    alone: dict[str, list[str]] = {}
    for *_, why in staying:
        if why is not None and why.reason == LEFT_ALONE:
            alone.setdefault(why.message, []).append(why.object)
        elif why is not None:
            yield why
    for message, names in alone.items():
        left = f"expired, but left alone: {join_names(names)}: {message}"
        yield Finding(LEFT_ALONE, str(context.parent), left)


def why_left_alone(each: Partition) -> str | None:
    """Why the partition is never detached by a plan; None if it may be."""
    if each.kind is RelationKind.PARTITIONED:
        return "partitioned themselves; detach them by hand"
    if each.kind is not RelationKind.TABLE:
        return "no plain tables, their rows lie elsewhere; detach them by hand"
    if "owner" in each.differs:
        return (
            "not owned by the parent's owner, whose marks alone count; change that by ALTER TABLE … OWNER TO, or "
            "detach them by hand"
        )
    if each.marker is not None and (what := BY_USER.get(each.marker.phase)):
        return (
            f"{what}; to keep them, name them in spec.holds; to let them expire, take the line that begins with "
            "partwarden.dev/detached out of their comments"
        )
    return None


def finalization(each: Partition, reason: str) -> FinalizeDetach:
    """Finish the detach of a partition that is pending."""
    lock = f"ACCESS EXCLUSIVE on {each}"
    return FinalizeDetach(schema=each.schema, name=each.name, range=each.range, oid=each.oid, reason=reason, lock=lock)


def confirmation(each: Detached, reason: str) -> ConfirmDetached:
    """Write into the mark of a table that it is detached."""
    return ConfirmDetached(
        schema=each.schema,
        name=each.name,
        range=each.marker.range,
        oid=each.oid,
        marker=each.marker,
        reason=reason,
        lock=f"SHARE UPDATE EXCLUSIVE on {each}",
    )


def _detachments(context: PlanContext, wanted: Wanted, going: Iterable[Expired]) -> Iterator[DetachPartition]:
    """The oldest first.

    Safe: the whole range lies before the cutoff, so no row of it is younger than the policy keeps; no hold names it and
    no row points into it; where the policy wants an archive, there is one that was read back and was equal. No row
    goes: the table stays, and a longer ``keepFor`` attaches it again.
    """
    concurrently = detaches_concurrently(context, wanted.actions)
    return (detachment(context, each, held, concurrently=concurrently) for each, held in going)


def detaches_concurrently(context: PlanContext, actions: Iterable[Action]) -> bool:
    """Whether PostgreSQL detaches concurrently: not where there is a DEFAULT partition, or ``actions`` make one."""
    return context.inventory.default is None and not any(isinstance(each, CreateDefault) for each in actions)


def detachment(context: PlanContext, each: Partition, held: BoundedRange, *, concurrently: bool) -> DetachPartition:
    """Detach an expired partition. ``concurrently``: as `detaches_concurrently`."""
    return DetachPartition(
        schema=each.schema,
        name=each.name,
        range=held,
        bounds=literals(each.bounds),
        oid=each.oid,
        concurrently=concurrently,
        reason=f"older than {context.retention.keep_for} (spec.retention.keepFor)",
        lock=f"{'SHARE UPDATE' if concurrently else 'ACCESS'} EXCLUSIVE on {context.parent}",
    )


def drop_lock(table: Detached) -> str:
    """The heaviest lock that a drop takes."""
    return f"ACCESS EXCLUSIVE on {table}, and on what its foreign keys point to"


def _drops(context: PlanContext, cases: Iterable[DropCase]) -> Iterator[DropDetached]:
    """The oldest first.

    Safe: it is no partition, its mark names it by OID and says that we detached it, and `DROP_PRECONDITIONS` are met:
    the grace has passed since, no hold names it, a wanted approval is there, and its range has expired by the policy as
    it reads now, which says Drop. The policy says that no archive is needed; or one was read back after all of that,
    and was equal to the table. Whatever of that is no longer so when it is done stops it there.
    """
    retention = context.retention
    for case in cases:
        each, state = case.table, case.archive if retention.archive is not None else None
        ties = context.inventory.ties.get(each.oid, ())
        if refusing(each, ties):
            continue
        proof = f", and archived in {state.location}" if state else ""
        tied = f"; {said}" if (said := along(ties)) else ""
        yield DropDetached(
            schema=each.schema,
            name=each.name,
            range=each.marker.range,
            oid=each.oid,
            marker=each.marker,
            case=case,
            archive=state.name if state else "",
            fingerprint=state.fingerprint if state else None,
            ties=ties,
            large_objects=retention.large_objects,
            reason=f"older than {retention.keep_for} (spec.retention.keepFor), and detached for {retention.grace} "
            f"(spec.retention.grace){proof}{tied}",
            lock=drop_lock(each),
        )


def _tied(context: PlanContext, tables: Iterable[Partition | Detached]) -> Iterator[Finding]:
    """What goes with a table, or keeps it, is said as soon as the table is to leave: long before it is dropped."""
    if context.retention.on_expire is not OnExpire.DROP:
        return
    for each in tables:
        ties = context.inventory.ties.get(each.oid, ())
        if error := refusing(each, ties):
            # Until it is detached nothing fails.
            yield Finding(error.reason, str(each), str(error), error if isinstance(each, Detached) else None)
        elif said := along(ties):
            yield Finding(ObjectsTied.__name__, str(each), f"when table {each} is dropped: {said}")


def _annotations(context: PlanContext) -> Iterator[Finding]:
    """A name that is misspelt keeps, or approves, nothing, and one that several tables bear approves none of them."""
    known = {name for each in (*context.inventory.partitions, *context.inventory.detached) for name in each.names}
    subject, hold, approval = str(context.parent), policy.ANNOTATION, policy.APPROVAL
    no_table = f"but no partition, nor a table detached from {context.parent}, is called so"
    listed = frozenset(context.spec.holds)
    for found, annotation, effect in (
        (context.held, hold, "every table is held: nothing is detached, attached again or dropped"),
        (context.archives.approved, approval, "it approves nothing"),
    ):
        if policy.UNREAD in found:
            message = (
                f"the annotation {annotation} has more than {policy.MOST_NAMES:,} names or "
                f"{policy.LONGEST_ANNOTATION:,} characters, and is not read, so that {effect}; take out names"
            )
            yield Finding(ANNOTATION_TOO_LONG, subject, message)
    for where, held in ((f"the annotation {hold}", context.held - listed), ("spec.holds", listed)):
        # One for all of them: a status lists few findings, and these must not push out others.
        if names := [repr(name) for name in sorted(held - known - {policy.UNREAD})]:
            message = f"{where} names {join_names(names)}, {no_table}, so that it holds nothing: correct the name"
            yield Finding(HOLD_MATCHES_NOTHING, subject, f"{message}, or take it out")
    for name in sorted(context.archives.approved - {policy.UNREAD}):
        called = named(name, context.detached)
        if name not in known:
            message = f"{no_table}, or has that OID: correct the name, or take it out"
            yield Finding("ApprovalMatchesNothing", subject, f"the annotation {approval} names {name!r}, {message}")
        elif len(called) > 1:
            message = (
                f"the annotation {approval} names {name!r}, which may be any of "
                f"{join_names([f'{each}@{each.oid}' for each in called])}: it approves none of them; name the one that "
                "is meant, with its OID"
            )
            yield Finding("ApprovalAmbiguous", subject, message)
