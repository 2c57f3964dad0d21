"""What must be proven before an expired partition may be detached, and before its table may be dropped. Pure.

An archive is asked for, then its proof is waited for, then the partition may leave. Afterwards the archive is read
again, and the table with it; and once more when nothing else keeps the table, so that the last reading is younger than
all that allows the drop. Which reading it was is told by a token and by no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..api.retention import OnLargeObjects
from ..errors import ArchiveDamaged, ContentsChanged
from .archives import MOST_ROUNDS, ArchiveRequest, ArchiveState, CheckRequest, Request
from .calendar import Range
from .context import PlanContext
from .drop_preconditions import (
    APPROVAL,
    ARCHIVING,
    CHECKING,
    LAST,
    OUTSIDE,
    DropCase,
    after_detach,
    last_reading,
    unmet,
)
from .findings import Finding, listed, pointing
from .inventory import Detached, Partition

MOST_AT_ONCE = 20
"""Archives of one table that are asked for and not yet proven: the oldest partitions first."""

WAITING = {
    ARCHIVING: "expired, and detached or dropped only once an archive in {where} was read back and is equal: {names}",
    CHECKING: "detached, and archived in {where}: archive and table are being read once more, and compared: {names}",
    APPROVAL: "detached, and dropped once the annotation partwarden.dev/approve-drop of the policy names it "
    "(spec.retention.approval is Manual): {names}",
}
"""What is waited for, in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """``troubles`` keep a table from leaving until somebody mends them; ``notes`` say what else is waited for."""

    requests: tuple[Request, ...] = ()
    troubles: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()


@dataclass(slots=True)
class Gate:
    """Asks of each table in turn; what it found is in `result`."""

    context: PlanContext
    _requests: list[Request] = field(default_factory=list)
    _troubles: list[Finding] = field(default_factory=list)
    _names: dict[str, list[str]] = field(default_factory=dict)
    _unproven: int = 0

    def may_leave(self, expired: Iterable[tuple[Partition, Range]]) -> Iterator[tuple[Partition, Range]]:
        """Those of the partitions that may be detached: all of them where the policy wants no archive."""
        for each, held in expired:
            if not self._wants_archive:
                yield each, held
            elif self._points(each, "archived"):
                continue
            elif (state := self._proven(each)) is not None:
                if state.check is None or state.check.ok:
                    yield each, held
                else:
                    # It was attached again since: whoever mends what is wrong with the archive is seen by another look.
                    self._check(each, state, state.check.token)

    def may_go(self, outside: Iterable[Detached]) -> Iterator[DropCase]:
        """Those of the detached tables that may be dropped: all of `DROP_PRECONDITIONS` are met.

        An archive is known of each that the policy wants one of.
        """
        for each in outside:
            case = self._case(each)
            kept = unmet(case)
            if kept is not None and kept.reason == OUTSIDE:
                continue
            if self._wants_archive and self._points(each, "dropped"):
                continue
            if kept is None:
                yield case
                continue
            if kept.reason == APPROVAL:
                self._names.setdefault(APPROVAL, []).append(f"{each.name}@{each.oid}")
            if self._wants_archive:
                self._compare(case, free=kept.reason in (ARCHIVING, CHECKING))

    def result(self) -> Waiting:
        """What is to be asked for, and what to say."""
        parent, retention = str(self.context.parent), self.context.spec.retention
        where = retention.archive if retention else None
        notes = [
            Finding(reason, parent, text.format(where=where, names=listed(names)))
            for reason, text in WAITING.items()
            if (names := self._names.get(reason))
        ]
        return Waiting(tuple(self._requests), tuple(self._troubles), tuple(notes))

    @property
    def _wants_archive(self) -> bool:
        retention = self.context.spec.retention
        return retention is not None and retention.archive is not None

    def _points(self, each: Partition | Detached, not_done: str) -> bool:
        """Whether rows point to large objects, which no archive would bring back, and the policy does not say that it
        goes on without them."""
        retention = self.context.spec.retention
        columns = self.context.inventory.large_objects.get(each.oid)
        if not columns or retention is None or retention.large_objects is OnLargeObjects.LEAVE_OUT:
            return False
        self._troubles.append(Finding.of(str(each), pointing(each, columns, not_done)))
        return True

    def _case(self, each: Detached) -> DropCase:
        return DropCase(
            table=each,
            now=self.context.now,
            read_now=self.context.now,
            cutoff=self.context.cutoff,
            retention=self.context.spec.retention,
            held=self.context.held,
            archives=self.context.archives,
            outside=self.context.detached,
            server=self.context.inventory.server.identity,
        )

    def _proven(self, each: Partition | Detached) -> ArchiveState | None:
        """The archive that was equal to the table when it was made; None, and what is to be done, where none was."""
        state = self.context.archives.latest(each.oid)
        if state is not None and state.proves(each.oid):
            return state
        if state is None:
            self._archive(each, 0)
        elif state.refuted and state.round + 1 < MOST_ROUNDS:
            self._archive(each, state.round + 1)
        elif state.refuted:
            self._trouble(
                each,
                ContentsChanged.__name__,
                f"changed after each of {MOST_ROUNDS} archives of it: let nobody write into it, then delete its "
                "PartitionArchives, and it is archived again",
            )
        else:
            self._unproven += 1
            self._names.setdefault(ARCHIVING, []).append(each.name)
            if state.error is not None:
                self._trouble(each, state.error[0], f"archive {state.name}: {state.error[1]}")
        return None

    def _compare(self, case: DropCase, free: bool) -> None:
        """Ask for the reading that is due. ``free``: nothing but the proof keeps the table."""
        each = case.table
        if self.context.is_held(each) and case.archive is None:
            return
        if (state := self._proven(each)) is None:
            return
        # While anything else keeps the table, the token is another one, and a reading for the drop is void: what was
        # read before a hold was taken away, or before an approval, is never taken for the last reading.
        token = last_reading(case, state) if free else after_detach(each)
        if not state.passed(token):
            self._check(each, state, token)

    def _archive(self, each: Partition | Detached, number: int) -> None:
        self._unproven += 1
        self._names.setdefault(ARCHIVING, []).append(each.name)
        if self._unproven <= MOST_AT_ONCE:
            self._requests.append(ArchiveRequest(each.oid, each.schema, each.name, number))

    def _check(self, each: Partition | Detached, state: ArchiveState, token: str) -> None:
        last = state.check.token if state.check else ""
        void = last.startswith(LAST) and not token.startswith(LAST)
        self._requests.append(CheckRequest(state.name, token, void))
        if state.check is not None and not state.check.ok:
            found = f"archive {state.name}: {state.check.message}"
            if state.check.reason == ArchiveDamaged.__name__:
                found += f"; find out why, then delete PartitionArchive {state.name}, and another archive is made"
            self._trouble(each, state.check.reason, found)
        else:
            self._names.setdefault(CHECKING, []).append(each.name)
            if state.error is not None:
                self._trouble(each, state.error[0], f"archive {state.name}: {state.error[1]}")

    def _trouble(self, each: Partition | Detached, reason: str, message: str) -> None:
        self._troubles.append(Finding(reason, str(each), f"{each.name} stays: {message}"))
