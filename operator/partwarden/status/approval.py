"""A plan that waits for the user's approval, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..api.approval import APPROVE_PLAN
from ..api.types import ObjectKey
from ..planner.plan_gate import PlanGate
from ..planner.schedule import PlannedStep
from .details import human, rough


def why_waiting(gate: PlanGate, policy: ObjectKey | None = None) -> str:
    """What waits, and the command that approves it; "" where nothing does. ``policy`` is named in that command."""
    if not gate.waiting:
        return ""
    if gate.everything:
        why = f"{to_do(gate.waiting)}; spec.mode is Approve: nothing is done"
    else:
        why = (
            f"{gate.excess:,} partitions ({human(rough(gate.bytes))}) are to be retired at once, more than "
            f"spec.retention.maxRetirements ({gate.most:,}): none is archived, detached or dropped"
        )
    other = f", and not {gate.named}, which names another plan" if gate.named not in ("", gate.digest) else ""
    approve = f"set the annotation {APPROVE_PLAN} to {gate.digest}"
    if policy is not None:
        approve = f"kubectl annotate ppol {policy[1]} -n {policy[0]} --overwrite {APPROVE_PLAN}={gate.digest}"
    return f"{why} before plan {gate.digest} is approved{other}; read status.plan, then {approve}"


def to_do(steps: Iterable[PlannedStep]) -> str:
    """``2 partitions to create, 1 table to drop``."""
    counts = Counter((each.noun, each.verb) for each in steps)
    return ", ".join(f"{count:,} {noun}{'' if count == 1 else 's'} to {verb}" for (noun, verb), count in counts.items())
