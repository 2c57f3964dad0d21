"""A plan that waits for the user's approval, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..api.approval import APPROVE_PLAN
from ..api.types import ObjectKey
from ..planner.calendar import iso
from ..planner.plan_gate import PlanGate
from ..planner.schedule import OF_USER, PlannedStep
from .details import human, rough


def by_annotation(gate: PlanGate, policy: ObjectKey | None) -> str:
    """How the plan of a policy in a cluster is approved."""
    command, set_it = "", f"set the annotation {APPROVE_PLAN} to {gate.digest}"
    if policy is not None:
        command = f"kubectl annotate ppol {policy[1]} -n {policy[0]}"
        set_it = f"{command} --overwrite {APPROVE_PLAN}={gate.digest}"
    if not gate.is_used:
        return f"read status.plan, then {set_it}"
    take_back = f"{command} {APPROVE_PLAN}-" if command else f"take the annotation {APPROVE_PLAN} away"
    return f"{take_back}; once status.approvedPlan is gone, {set_it}"


def why_waiting(gate: PlanGate, way: str) -> str:
    """What waits, and the ``way`` to approve it; "" where nothing does."""
    if not gate.waiting or gate.begins:
        return ""
    if gate.everything:
        why = f"{to_do(gate.waiting)}; spec.mode is Approve: nothing is done"
    else:
        why = (
            f"{gate.excess:,} partitions ({human(rough(gate.bytes))}) are to be retired at once, more than "
            f"spec.retention.maxRetirements ({gate.most:,})"
            if gate.excess > gate.most
            else "a plan has waited, or an approval was taken back, so all that is left needs an approval"
        )
        why += f": {_counts(gate.waiting)}; no more archives are asked for, and nothing is detached or dropped"
    other = f", and not {gate.named}, which names another plan" if gate.named not in ("", gate.digest) else ""
    again = " anew: its approval was used" if gate.is_used else ""
    return f"{why} before plan {gate.digest} is approved{again}{other}; {way}"


def _counts(steps: Iterable[PlannedStep]) -> str:
    """``14 partitions to detach, 14 tables to drop``: without moments, which change while nothing else does."""
    groups = Counter((each.noun, each.verb) for each in steps)
    return ", ".join(_counted(count, *of) for of, count in groups.items())


def _counted(count: int, noun: str, verb: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'} to {verb}"


def to_do(steps: Iterable[PlannedStep]) -> str:
    """``2 partitions to create; 5 tables to drop, the first run_2018 not before 2026-12-01T00:00:00Z``.

    What is due, what comes by itself and what waits for the user are counted apart.
    """
    groups: dict[tuple[str, str, bool, bool], list[PlannedStep]] = {}
    for each in steps:
        for_user = any(wait.on in OF_USER for wait in each.waits_for)
        groups.setdefault((each.noun, each.verb, each.is_due, for_user), []).append(each)
    due = ", ".join(_group(each) for each in groups.values() if each[0].is_due)
    later = (_group(each) for each in groups.values() if not each[0].is_due)
    return "; ".join(filter(None, (due, *later)))


def _group(steps: Sequence[PlannedStep]) -> str:
    first, count = steps[0], len(steps)
    what = _counted(count, first.noun, first.verb)
    if first.is_due:
        return what
    waits = f" waits for {' and '.join(dict.fromkeys(each.on for each in first.waits_for))}" if first.waits_for else ""
    when = f" not before {iso(first.not_before)}" if first.not_before else ""
    return f"{what}, {'the first ' if count > 1 else ''}{first.name}{when or waits}"
