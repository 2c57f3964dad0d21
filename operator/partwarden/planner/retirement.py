"""Plan what happens to expired partitions: finish pending detaches, detach, drop.

An expired partition is detached with a marker in its comment; its table is dropped after the grace, if the policy says
Drop. `archive_gate` says what must be proven before either. Whatever is not certain stays: nothing is decided by a
name, but for a hold, which only ever keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..api import policy
from ..api.retention import OnExpire
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
from .inventory import Detached, Partition, Reference, RelationKind
from .keys import literals
from .marker import Phase


@dataclass(frozen=True, slots=True)
class Retired:
    """``expired`` and ``kept`` are OIDs of partitions: past their time, and of those the ones that a hold keeps.

    ``decided`` is False where the policy has no ``retention``.
    """

    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    expired: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()
    decided: bool = False
    gate: ArchiveGate = field(default_factory=ArchiveGate)


def retired(context: PlanContext, wanted: Wanted) -> Retired:
    """Nothing at all where the policy has no ``retention``."""
    if context.spec.retention is None:
        return Retired()
    expired = sorted(_expired(context), key=lambda each: (each[1].upper, each[0].oid))
    returning = {each.oid for each in wanted.actions if isinstance(each, AttachDetached)}
    outside = [each for each in context.detached if each.oid not in returning]
    free = [each for each in outside if not context.is_held(each)]
    going, staying = _sort_out(context, expired)
    gate = check_archives(context, going, sorted(outside, key=lambda each: (each.marker.range.upper, each.oid)))
    return Retired(
        actions=(
            # First: while one is pending, its rows are invisible and no other can be detached concurrently.
            *_finalizations(context),
            *_confirmations(free),
            *_detachments(context, wanted, gate.partitions_to_detach),
            *_drops(context, gate.tables_to_drop),
        ),
        findings=(
            *gate.troubles,
            *staying,
            *_tied(context, [*(each for each, _ in going), *outside]),
            *gate.notes,
            *_holds_of_nothing(context),
            *_approvals(context),
        ),
        expired=frozenset(each.oid for each, _ in expired),
        kept=frozenset(each.oid for each, _ in expired if context.is_held(each)),
        decided=True,
        gate=gate,
    )


def _expired(context: PlanContext) -> Iterator[tuple[Partition, BoundedRange]]:
    """Partitions of exactly one interval that lies before the cutoff, and so before now: DEFAULT, unbounded ones and
    those off the grid are never among them."""
    for each, held in context.ranged:
        if context.has_expired(held) and not each.detach_pending and (cell := context.cell_of(held)):
            yield each, cell


def _sort_out(
    context: PlanContext, expired: list[tuple[Partition, BoundedRange]]
) -> tuple[list[tuple[Partition, BoundedRange]], list[Finding]]:
    """Those to be detached, and why the others are not. A hold is no finding: it is in the partition's state."""
    going, findings = [], []
    alone: dict[str, list[str]] = {}
    for each, held in expired:
        if context.is_held(each):
            continue
        if (why := why_left_alone(each)) is not None:
            alone.setdefault(why, []).append(each.name)
        elif references := context.inventory.references.get(each.oid, ()):
            findings.append(Finding.of(str(each), _referenced(each, references)))
        else:
            going.append((each, held))
    for why, names in alone.items():
        left = f"expired, but left alone: {join_names(names)}: {why}"
        findings.append(Finding("ExpiredLeftAlone", str(context.parent), left))
    return going, findings


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
    if each.marker is not None and each.marker.phase is Phase.RESTORED:
        return (
            "restored from an archive; to let them expire, take the line that begins with partwarden.dev/detached out "
            "of their comments"
        )
    if each.marker is not None and each.marker.phase is Phase.DETACHED:
        # We attach again only together with taking the mark away.
        return (
            "detached once, and attached again by other means; to let them expire, take the line that begins with "
            "partwarden.dev/detached out of their comments"
        )
    return None


def _referenced(each: Partition, references: Iterable[Reference]) -> RowsReferenced:
    counted = ", ".join(
        f"{reference.table} ({reference.rows}{' or more' if reference.at_least else ''})" for reference in references
    )
    return RowsReferenced(
        f"partition {each} has expired, but rows of other tables point to its rows by foreign keys, so it stays: "
        f"{counted}; delete those rows or let them point elsewhere"
    )


def _finalizations(context: PlanContext) -> Iterator[FinalizeDetach]:
    """Also those that another tool began or that a hold names: PostgreSQL knows no way back from a pending detach.

    Safe: the partition was cut off when the detach began, and finishing makes its rows, invisible through the
    parent, a table of their own again. No row goes.
    """
    reason = "its detach began and did not end: its rows are invisible, and nothing else can be detached"
    for each in context.inventory.partitions:
        if each.detach_pending:
            yield finalization(each, reason)


def finalization(each: Partition, reason: str) -> FinalizeDetach:
    """Finish the detach of a partition that is pending."""
    lock = f"ACCESS EXCLUSIVE on {each}"
    return FinalizeDetach(schema=each.schema, name=each.name, range=each.range, oid=each.oid, reason=reason, lock=lock)


def _confirmations(outside: Iterable[Detached]) -> Iterator[ConfirmDetached]:
    """The grace begins late rather than early: at the confirmation, not at the unknown end of the detach."""
    reason = "its detach was interrupted after the table had left: the grace begins now"
    for each in outside:
        if each.marker.phase is Phase.DETACHING:
            yield confirmation(each, reason)


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


def _detachments(
    context: PlanContext, wanted: Wanted, going: Iterable[tuple[Partition, BoundedRange]]
) -> Iterator[DetachPartition]:
    """The oldest first.

    Safe: the whole range lies before the cutoff, so no row of it is younger than the policy keeps; no hold names it and
    no row points into it; where the policy wants an archive, there is one that was read back and was equal. No row
    goes: the table stays, and a longer ``keepFor`` attaches it again.
    """
    assert context.spec.retention is not None
    # PostgreSQL detaches concurrently only where there is no DEFAULT partition, and one may be made just before.
    makes_default = any(isinstance(each, CreateDefault) for each in wanted.actions)
    concurrently = context.inventory.default is None and not makes_default
    lock = f"{'SHARE UPDATE' if concurrently else 'ACCESS'} EXCLUSIVE on {context.parent}"
    for each, held in going:
        yield DetachPartition(
            schema=each.schema,
            name=each.name,
            range=held,
            bounds=literals(each.bounds),
            oid=each.oid,
            concurrently=concurrently,
            reason=f"older than {context.spec.retention.keep_for} (spec.retention.keepFor)",
            lock=lock,
        )


def _drops(context: PlanContext, cases: Iterable[DropCase]) -> Iterator[DropDetached]:
    """The oldest first.

    Safe: it is no partition, its mark names it by OID and says that we detached it, and `DROP_PRECONDITIONS` are met:
    the grace has passed since, no hold names it, a wanted approval is there, and its range has expired by the policy as
    it reads now, which says Drop. The policy says that no archive is needed; or one was read back after all of that,
    and was equal to the table. Whatever of that is no longer so when it is done stops it there.
    """
    retention = context.spec.retention
    assert retention is not None
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
            lock=f"ACCESS EXCLUSIVE on {each}, and on what its foreign keys point to",
        )


def _tied(context: PlanContext, tables: Iterable[Partition | Detached]) -> Iterator[Finding]:
    """What goes with a table, or keeps it, is said as soon as the table is to leave: long before it is dropped."""
    retention = context.spec.retention
    if retention is None or retention.on_expire is not OnExpire.DROP:
        return
    for each in tables:
        ties = context.inventory.ties.get(each.oid, ())
        if error := refusing(each, ties):
            # Until it is detached nothing fails.
            yield Finding(error.reason, str(each), str(error), error if isinstance(each, Detached) else None)
        elif said := along(ties):
            yield Finding(ObjectsTied.__name__, str(each), f"when table {each} is dropped: {said}")


def _holds_of_nothing(context: PlanContext) -> Iterator[Finding]:
    """A misspelt name keeps nothing, and the user must learn of it."""
    tables: list[Partition | Detached] = [*context.inventory.partitions, *context.inventory.detached]
    known = {name for each in tables for name in policy.names(each.schema, each.name, each.oid)}
    yield from _unread_annotations(context)
    for name in sorted(context.held - known - {policy.UNREAD}):
        yield Finding(
            "HoldMatchesNothing",
            str(context.parent),
            f"the annotation partwarden.dev/hold names {name!r}, but no partition, nor a table detached from "
            f"{context.parent}, is called so",
        )


def _unread_annotations(context: PlanContext) -> Iterator[Finding]:
    for annotation, found, effect in (
        (policy.ANNOTATION, context.held, "every table is held: nothing is detached, attached again or dropped"),
        (policy.APPROVAL, context.archives.approved, "it approves nothing"),
    ):
        if policy.UNREAD in found:
            yield Finding(
                "AnnotationTooLong",
                str(context.parent),
                f"the annotation {annotation} has more than {policy.MOST_NAMES:,} names or "
                f"{policy.LONGEST_ANNOTATION:,} characters, and is not read, so that {effect}; take out names",
            )


def _approvals(context: PlanContext) -> Iterator[Finding]:
    """A name that is misspelt approves nothing, and one that several tables bear approves none of them."""
    tables: list[Partition | Detached] = [*context.inventory.partitions, *context.inventory.detached]
    known = {name for each in tables for name in policy.names(each.schema, each.name, each.oid)}
    for entry in sorted(context.archives.approved - {policy.UNREAD}):
        found = named(entry, context.detached)
        if entry not in known:
            yield Finding(
                "ApprovalMatchesNothing",
                str(context.parent),
                f"the annotation {policy.APPROVAL} names {entry!r}, but no partition, nor a table detached from "
                f"{context.parent}, is called so, or has that OID: correct the name, or take it out",
            )
        elif len(found) > 1:
            several = join_names([f"{each}@{each.oid}" for each in found])
            yield Finding(
                "ApprovalAmbiguous",
                str(context.parent),
                f"the annotation {policy.APPROVAL} names {entry!r}, which may be any of {several}: it approves none of "
                "them; name the one that is meant, with its OID",
            )
