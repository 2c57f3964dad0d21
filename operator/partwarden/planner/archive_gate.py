"""Decide what must be proven before an expired partition is detached, and before its table is dropped. Pure.

The states of a retired partition, from expired to dropped, where the policy has ``archive``:

=================  =============================  ==========================================  =====================
state              what is asked for              what moves it on                            who acts
=================  =============================  ==========================================  =====================
expired            ``ArchiveRequest``, round 0    the archive was read back and is equal      archive Job
proven             ``DetachPartition``            the table has left, its mark: ``Detached``  policy reconciler
kept               nothing; ``onExpire: Detach``  grace is over, an approval is given, no     the clock, the user
                   reads once: ``detached/…``     hold names the table (Detach: the end)
free               ``CheckRequest``, ``drop/…``   archive and table were read again, equal    archive Job
compared           ``DropDetached``               all preconditions met again under the       policy reconciler
                                                  lock, fingerprint equal: ``DROP TABLE``
dropped            nothing                        the PartitionArchive stays                  nothing
-----------------  -----------------------------  ------------------------------------------  ---------------------
changed            ``ArchiveRequest``, round + 1  as expired, `MOST_ROUNDS` archives at most  archive Job
damaged            the failed reading again       a reading that succeeds, or the user        archive Job, the user
                                                  deletes the PartitionArchive: expired
kept again         ``CheckRequest``, ``void``,    as kept: what was read for the drop before  archive Job
after a reading    ``detached/…``                 the hold or before the approval is void
=================  =============================  ==========================================  =====================

A partition stays attached until it is proven. A reading counts for the drop only if its token is the one of now: it was
asked for when nothing but the proof kept the table, and ended at most a day ago. A drop that finds other contents
under the lock changes the token, so that the table is compared anew. Without ``archive`` (``dropWithoutArchive``) every
expired partition may be detached, and the rest of `DROP_PRECONDITIONS` decides the drop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..api.retention import OnExpire, OnLargeObjects
from ..errors import ArchiveDamaged, ContentsChanged
from .calendar import BoundedRange
from .context import PlanContext
from .drop_preconditions import (
    APPROVAL,
    ARCHIVING,
    CHECKING,
    LAST,
    MOST_ROUNDS,
    OUTSIDE,
    ArchiveState,
    DropCase,
    Kept,
    after_detach,
    last_reading,
    unmet,
)
from .findings import Finding, join_names, pointing
from .inventory import Detached, Partition

MOST_AT_ONCE = 20
"""Archives of one table that are requested and not yet proven: the oldest partitions first."""

WAITING = {
    APPROVAL: "detached; dropped once the policy's annotation partwarden.dev/approve-drop names the table "
    "(spec.retention.approval is Manual): {names}",
    CHECKING: "detached, and archived in {where}; archive and table are being read again and compared: {names}",
    ARCHIVING: "expired; neither detached nor dropped before an archive in {where} is proven equal: {names}",
}
"""What a table waits for; what the user must do comes first."""


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """Make an archive of that table."""

    oid: int
    schema: str
    name: str
    round: int


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """Read the archive of that name again, and its table beside it."""

    archive: str
    token: str
    void: bool = False
    """Whether what was read of it so far counts no more, from now on: something keeps the table again."""


Request = ArchiveRequest | CheckRequest


@dataclass(frozen=True, slots=True)
class Step:
    """What is due for one table. ``waits``: reasons of `WAITING`, each with what the table is called there."""

    passes: bool = False
    request: Request | None = None
    trouble: Finding | None = None
    waits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ArchiveGate:
    """Which tables may leave and go, and what is still to be done for the others.

    ``troubles`` keep a table until they are fixed; ``notes`` say what else is waited for.
    """

    detaches: tuple[tuple[Partition, BoundedRange, Step], ...] = ()
    """Expired partitions that nothing else keeps, and what each needs before it is detached."""
    drops: tuple[tuple[DropCase, Step], ...] = ()
    """Tables that were detached, and what each needs before it is dropped."""
    requests: tuple[Request, ...] = ()
    troubles: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()

    @property
    def partitions_to_detach(self) -> Iterator[tuple[Partition, BoundedRange]]:
        """Those that pass."""
        return ((each, held) for each, held, step in self.detaches if step.passes)

    @property
    def tables_to_drop(self) -> Iterator[DropCase]:
        """Those that pass."""
        return (case for case, step in self.drops if step.passes)


def check_archives(
    context: PlanContext, expired: Sequence[tuple[Partition, BoundedRange]], detached: Sequence[Detached]
) -> ArchiveGate:
    """Sort out partitions that are to be detached and tables that are to be dropped, both the oldest first."""
    detaches = tuple((each, held, before_detach(context, each)) for each, held in expired)
    drops = tuple((case, _before_drop(context, case)) for case in (drop_case(context, each) for each in detached))
    steps = [*(step for *_, step in detaches), *(step for _, step in drops)]
    return ArchiveGate(
        detaches=detaches,
        drops=drops,
        requests=tuple(_requests(steps)),
        troubles=tuple(step.trouble for step in steps if step.trouble is not None),
        notes=tuple(_notes(context, steps)),
    )


def drop_case(context: PlanContext, table: Detached) -> DropCase:
    """All that the drop of the table is decided from."""
    return DropCase(
        table=table,
        now=context.now,
        read_now=context.now,
        cutoff=context.cutoff,
        retention=context.spec.retention,
        held=context.held,
        archives=context.archives,
        outside=context.detached,
        server=context.inventory.server.identity,
    )


def before_detach(context: PlanContext, partition: Partition) -> Step:
    """What an expired partition needs before it is detached."""
    if context.retention.archive is None:
        return Step(passes=True)
    if trouble := _large_objects(context, partition, "archive"):
        return Step(trouble=trouble)
    state = context.archives.latest(partition.oid)
    if state is None or not state.proves(partition.oid):
        return _archive(partition, state)
    if state.check is None or state.check.ok:
        return Step(passes=True)
    # It was attached again after a reading had failed: another reading sees whether the archive was repaired.
    return _read(partition, state, state.check.token)


def _before_drop(context: PlanContext, case: DropCase) -> Step:
    """It passes only if all of `DROP_PRECONDITIONS` are met."""
    table, kept, archive = case.table, unmet(case), context.retention.archive
    if kept is not None and kept.reason == OUTSIDE:
        return Step()
    if archive is not None and (trouble := _large_objects(context, table, "drop")):
        return Step(trouble=trouble)
    if kept is None:
        return Step(passes=True)
    step = _until_compared(context, case, kept) if archive is not None else Step()
    if kept.reason == APPROVAL:
        return replace(step, waits=((APPROVAL, f"{table.name}@{table.oid}"), *step.waits))
    return step


def _until_compared(context: PlanContext, case: DropCase, kept: Kept) -> Step:
    """The archive, or the reading, that a table needs next while ``kept`` keeps it."""
    table, state = case.table, case.archive
    if state is None and case.is_held:
        return Step()
    if state is None or not state.proves(table.oid):
        return _archive(table, state)
    if kept.reason == CHECKING:
        token = last_reading(case, state)
    elif context.retention.on_expire is OnExpire.DROP and state.check is None:
        # The last reading comes later and sees the same: none is needed before.
        return Step()
    else:
        # Something else keeps the table, so a reading for the drop is void: what was read before a hold was taken
        # away, or before an approval, is never taken for the last reading.
        token = after_detach(table)
    return Step() if state.passed(token) else _read(table, state, token)


def _archive(table: Partition | Detached, state: ArchiveState | None) -> Step:
    """The archive that a table needs which no archive proves: ``state`` is the latest one."""
    if state is None or (state.refuted and state.round + 1 < MOST_ROUNDS):
        number = 0 if state is None else state.round + 1
        request = ArchiveRequest(table.oid, table.schema, table.name, number)
        return Step(request=request, waits=((ARCHIVING, table.name),))
    if state.refuted:
        message = (
            f"changed after each of {MOST_ROUNDS} archives of it; stop what writes into it, then delete its "
            "PartitionArchives, and it is archived again"
        )
        return Step(trouble=_stays(table, ContentsChanged.__name__, message))
    return Step(trouble=_failure(table, state), waits=((ARCHIVING, table.name),))


def _read(table: Partition | Detached, state: ArchiveState, token: str) -> Step:
    check = state.check
    void = check is not None and check.token.startswith(LAST) and not token.startswith(LAST)
    request = CheckRequest(state.name, token, void)
    if check is None or check.ok:
        return Step(request=request, trouble=_failure(table, state), waits=((CHECKING, table.name),))
    message = f"archive {state.name}: {check.message}"
    if check.reason == ArchiveDamaged.__name__:
        message += f"; find out why, then delete PartitionArchive {state.name}, and another archive is made"
    return Step(request=request, trouble=_stays(table, check.reason, message))


def _failure(table: Partition | Detached, state: ArchiveState) -> Finding | None:
    return _stays(table, state.error[0], f"archive {state.name}: {state.error[1]}") if state.error else None


def _stays(table: Partition | Detached, reason: str, message: str) -> Finding:
    return Finding(reason, str(table), f"{table.name} stays: {message}")


def _large_objects(context: PlanContext, table: Partition | Detached, verb: str) -> Finding | None:
    """Refuse rows that point to large objects, which no archive brings back, unless the policy leaves them out."""
    columns = context.inventory.large_objects.get(table.oid)
    if not columns or context.retention.large_objects is OnLargeObjects.LEAVE_OUT:
        return None
    return Finding.of(str(table), pointing(verb, table, columns))


def _requests(steps: Iterable[Step]) -> Iterator[Request]:
    """All readings, and archives of the first `MOST_AT_ONCE` tables that have no proven one."""
    unproven = 0
    for step in steps:
        unproven += any(reason == ARCHIVING for reason, _ in step.waits)
        if isinstance(step.request, CheckRequest) or (step.request is not None and unproven <= MOST_AT_ONCE):
            yield step.request


def _notes(context: PlanContext, steps: Iterable[Step]) -> Iterator[Finding]:
    for reason, text in WAITING.items():
        if names := [name for step in steps for waits, name in step.waits if waits == reason]:
            message = text.format(where=context.retention.archive, names=join_names(names))
            yield Finding(reason, str(context.parent), message)
