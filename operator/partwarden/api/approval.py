"""The approval of a plan: the annotation that names it, and what a status keeps of it while it is carried out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from .types import HINTS, Model

APPROVE_PLAN = "partwarden.dev/approve-plan"
"""Names the one plan that may be carried out, by the digest that ``status.planDigest`` shows. Another plan needs
another approval."""
DIGEST, STEP = r"^[0-9a-f]{16}$", r"^[0-9a-f]{12}$"
HINTS |= {DIGEST: "must be 16 hexadecimal digits", STEP: "must be 12 hexadecimal digits"}
MOST_STEPS = 1000
"""Steps that one approval may be of: what is beyond them needs the next."""

Digest = Annotated[str, StringConstraints(max_length=16, pattern=DIGEST)]
StepId = Annotated[str, StringConstraints(max_length=12, pattern=STEP)]


class ApprovedPlan(Model):
    """An approved plan: what is left of it is another plan, with another digest. It stays while the annotation names
    it, also once nothing is left: the same plan may come back, as after a restore, and needs another approval then."""

    digest: Digest = Field(description="What the annotation partwarden.dev/approve-plan names.")
    basis: Digest = Field(
        description="Digest of the database and of spec.retention, without maxRetirements and job, that it was approved"
        " for: with others, it needs another approval."
    )
    steps: list[StepId] = Field(
        max_length=MOST_STEPS,
        description="Its steps that may still be done, by their ids; at most 1000, the first ones.",
    )


@dataclass(frozen=True, slots=True)
class PlanApproval:
    """What the user has approved, as last seen. ``named``: the digest in the annotation; "" where it names none."""

    named: str = ""
    recorded: ApprovedPlan | None = None
    pending: bool = False
    """Whether, of this very spec, a plan has waited so far, or an approval was taken back before all of it was done:
    then nothing is retired without an approval, however few tables are left."""

    def steps(self, basis: str) -> frozenset[str]:
        """The ids of the steps that may be done: none unless the annotation still names the plan that was recorded, and
        that was of the same ``basis``."""
        recorded = self.recorded
        if recorded is None or (recorded.digest, recorded.basis) != (self.named, basis):
            return frozenset()
        return frozenset(recorded.steps)


def parse(annotations: Mapping[str, str] | None) -> str:
    """The digest that the annotation names; "" where it is missing or no digest."""
    text = (annotations or {}).get(APPROVE_PLAN, "").strip()
    return text if re.fullmatch(DIGEST, text) else ""


def read(named: str, status: Mapping[str, Any], generation: int) -> PlanApproval:
    """With what the status records. That is text which others may have written: what is not of the shape is nothing.

    ``generation``: of the policy. What waited before its spec was edited is planned afresh.
    """
    recorded = None
    with suppress(ValidationError):
        recorded = ApprovedPlan.model_validate(status.get("approvedPlan"), by_alias=True, by_name=False)
    taken_back = recorded is not None and recorded.digest != named and bool(recorded.steps)
    waits = taken_back or bool(status.get("planDigest"))
    return PlanApproval(named, recorded, pending=waits and status.get("observedGeneration") == generation)
