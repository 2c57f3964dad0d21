"""How the Jobs of a policy run: how large they are, and on which nodes.

Image, service account and environment are the operator's settings: else the author of a policy could run any image as
any account.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from .types import HINTS, Model, refuse

RESOURCE = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
LABEL_KEY = re.compile(
    r"((?P<prefix>[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
LONGEST_PREFIX = 253
"""Of the key of a label, before the slash: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"""
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
HINTS |= {
    RESOURCE: "must be a quantity such as 500m, 2 or 1Gi",
    LABEL_VALUE: "must be the value of a label: at most 63 letters, digits, '-', '_' and '.'",
}

ResourceQuantity = Annotated[str, StringConstraints(max_length=32, pattern=RESOURCE)]
Label = Annotated[str, StringConstraints(max_length=63, pattern=LABEL_VALUE)]


def _check_label_keys(labels: dict[str, str]) -> dict[str, str]:
    """The API server refuses a Job with another key: say so when the policy is read."""
    for key in labels:
        found = LABEL_KEY.fullmatch(key)
        if found is None or len(found["prefix"] or "") > LONGEST_PREFIX:
            raise refuse("must be the key of a label, such as team or example.com/team", key[: LONGEST_PREFIX + 64])
    return labels


Labels = Annotated[dict[str, Label], Field(max_length=32), AfterValidator(_check_label_keys)]


class Resources(Model):
    """As in a container's ``resources``."""

    requests: dict[str, ResourceQuantity] = Field(
        default={}, max_length=16, description="Such as cpu: 500m, memory: 256Mi."
    )
    limits: dict[str, ResourceQuantity] = Field(default={}, max_length=16, description="Such as memory: 512Mi.")


class Toleration(Model):
    """As in a pod's ``tolerations``."""

    key: str | None = Field(None, max_length=316, description="Absent, with operator Exists: every taint.")
    operator: Literal["Exists", "Equal"] | None = Field(None, description="Exists or Equal.")
    value: Label | None = Field(None, description="For Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Absent: all.")
    toleration_seconds: int | None = Field(None, description="For NoExecute.")


class JobSettings(Model):
    """How the Jobs of an archive run."""

    resources: Resources | None = Field(None, description="Requests and limits of the container.")
    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    tolerations: list[Toleration] = Field(default=[], max_length=16, description="Taints of nodes that do not matter.")
    labels: Labels = Field(default={}, description="Further labels of Jobs and pods.")
