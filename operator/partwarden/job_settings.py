"""What may be said of the Jobs that archive by whoever writes a policy: how large they are and where they run.

Image, service account and environment are the operator's settings: else whoever may write a policy could run any image
as any account.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .fields import HINTS, Model

RESOURCE = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
HINTS |= {
    RESOURCE: "must be a quantity such as 500m, 2 or 1Gi",
    LABEL_VALUE: "must be the value of a label: at most 63 letters, digits, '-', '_' and '.'",
}

Quantity = Annotated[str, StringConstraints(max_length=32, pattern=RESOURCE)]
Label = Annotated[str, StringConstraints(max_length=63, pattern=LABEL_VALUE)]


class Resources(Model):
    """As in a container's ``resources``."""

    requests: dict[str, Quantity] = Field(default={}, max_length=16, description="Such as cpu: 500m, memory: 256Mi.")
    limits: dict[str, Quantity] = Field(default={}, max_length=16, description="Such as memory: 512Mi.")


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
    node_selector: dict[str, Label] = Field(default={}, max_length=32, description="Labels that a node must have.")
    tolerations: list[Toleration] = Field(default=[], max_length=16, description="Taints of nodes that do not matter.")
    labels: dict[str, Label] = Field(default={}, max_length=32, description="Further labels of Jobs and pods.")
