"""The Events of a change of status: transitions only, so that a lasting failure is one Event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..api.policy import names
from ..api.status import ConditionStatus, ConditionType, Severity
from ..errors import DefaultHasRows, printable
from ..planner.actions import DropDetached, Outcome
from ..planner.drop_preconditions import APPROVAL
from ..planner.findings import join_names
from ..planner.retirement import HOLD_MATCHES_NOTHING
from .conditions import CONVERGED, CONVERTING, IN_PROGRESS, PLAN_PENDING, find

LONG_ACTION = "LongAction"
MAX_NAMES = 10
MAX_NOTE = 1000
"""Characters of an Event's message; the API server refuses more than 1,024 bytes in a note."""


KINDS = (
    ConditionType.DEFAULT_PARTITION_EMPTY,
    ConditionType.READY,
    ConditionType.WITHIN_THRESHOLDS,
    ConditionType.ARCHIVES_HEALTHY,
    ConditionType.DATABASE_REACHABLE,
)
"""Conditions of which a change is an Event."""
EACH = (APPROVAL, HOLD_MATCHES_NOTHING)
"""Findings of which other words, which name the tables, are another Event."""


class EventType(StrEnum):
    """The two that Kubernetes has."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Notice:
    """One Event to record on an object."""

    type: EventType
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DroppedTable:
    """A table that was dropped, and its PartitionArchive. ``names``: what an approval may call it."""

    oid: int
    archive: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class CompletedAction:
    """An action that succeeded, as Events and log lines say it. ``name``: of its table, with the schema.

    ``dropped`` is None unless it dropped a table that was archived.
    """

    reason: str
    past: str
    noun: str
    title: str
    name: str
    seconds: float
    dropped: DroppedTable | None = None

    @classmethod
    def of(cls, outcome: Outcome) -> CompletedAction:
        """The words of an outcome without an error."""
        action, gone = outcome.did or outcome.action, None
        if isinstance(action, DropDetached) and action.archive:
            gone = DroppedTable(action.oid, action.archive, names(action.schema, action.name, action.oid))
        return cls(action.done, action.past, action.noun, action.title, str(action), outcome.seconds, gone)


def done(actions: Sequence[CompletedAction]) -> list[Notice]:
    """One Event for all successful actions of each kind."""
    notices = []
    for kind in dict.fromkeys((each.reason, each.past, each.noun) for each in actions):
        reason, past, noun = kind
        titles = [each.title for each in actions if (each.reason, each.past, each.noun) == kind]
        what = noun if len(titles) == 1 else f"{len(titles)} {noun}s:"
        notices.append(Notice(EventType.NORMAL, reason, short(f"{past} {what} {join_names(titles, MAX_NAMES)}")))
    return notices


def changed(previous: Mapping[str, Any], status: Mapping[str, Any]) -> list[Notice]:
    """Conditions of `KINDS` that turned False or True again; another reason of a Ready that is False; new warnings, and
    what waits for an approval; an action that takes long."""
    found = {kind: each for kind in KINDS if (each := _changed(previous, status, kind))}
    # What keeps a policy from being Ready is one Event, with the words of Ready.
    ready = found.get(ConditionType.READY)
    if ready is not None:
        found.pop(ConditionType.DATABASE_REACHABLE, None)
    kept = [each for each in found.values() if each is ready or ready is None or each.reason != ready.reason]
    before, after, said = _noticed(previous), _noticed(status), {each.reason for each in kept}
    notices = [
        Notice(EventType.NORMAL if reason == APPROVAL else EventType.WARNING, reason, short(after[reason, what]))
        for reason, what in sorted(after.keys() - before.keys())
        if reason not in said
    ]
    return [*kept, *notices, *_long(previous, status)]


def _long(previous: Mapping[str, Any], status: Mapping[str, Any]) -> list[Notice]:
    action = status.get("longAction")
    if not action or action == previous.get("longAction"):
        return []
    what = f"{action['action']} of {action['object']} ({action['size']}) takes long: it began at {action['since']}"
    return [Notice(EventType.NORMAL, LONG_ACTION, short(f"{what}; the policy is reconciled beside it"))]


def _noticed(status: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Messages of warnings, and of what waits for an approval, by what makes another Event of one.

    That is the reason: each partition that expires while retention is stuck is one more that says the same. Rows in the
    DEFAULT partition are left to their condition, which knows whether they were there before an outage.
    """
    found = [
        (str(each.get("reason")), str(each["message"]))
        for each in reversed(status.get("findings") or [])
        if each.get("reason") == APPROVAL or each.get("severity") in (None, Severity.WARNING)
    ]
    return {
        (reason, said if reason in EACH else ""): said for reason, said in found if reason != DefaultHasRows.__name__
    }


def _changed(previous: Mapping[str, Any], status: Mapping[str, Any], kind: ConditionType) -> Notice | None:
    before, after = (find(each, kind) for each in (previous, status))
    ready, was, now = kind is ConditionType.READY, before.get("status"), after.get("status")
    if now == ConditionStatus.TRUE and was == ConditionStatus.FALSE:
        healthy = ready and after["reason"] == CONVERGED
        return Notice(EventType.NORMAL, "Healthy" if healthy else after["reason"], short(after["message"]))
    # Of an outage Ready tells, or the warning that there is while the table outlasts it.
    if now != ConditionStatus.FALSE or kind is ConditionType.DATABASE_REACHABLE:
        return None
    if was == ConditionStatus.FALSE and (not ready or before.get("reason") == after["reason"]):
        return None
    counted = (previous.get("summary") or {}).get("defaultRows")
    if kind is ConditionType.DEFAULT_PARTITION_EMPTY and (
        counted or (counted is None and was == ConditionStatus.UNKNOWN)
    ):
        # They were there before an outage, or may have been before a count that failed.
        return None
    expected = ready and after["reason"] in (PLAN_PENDING, IN_PROGRESS, CONVERTING)
    return Notice(EventType.NORMAL if expected else EventType.WARNING, after["reason"], short(after["message"]))


def short(message: str) -> str:
    """The message in one line, no longer than an Event may be."""
    message = printable(message)
    # The limit is in bytes: cut there, and drop a character that the cut halved.
    data = message.encode()
    return message if len(data) <= MAX_NOTE else data[: MAX_NOTE - 3].decode(errors="ignore") + "…"
