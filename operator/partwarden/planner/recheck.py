"""Whether what was planned is still to be done, asked before each action and right before a drop. Pure.

A plan may take hours: a hold, an approval taken back, an edit or the deletion of the policy, and the end of the
operator stop what has not begun.
"""

from __future__ import annotations

from typing import NamedTuple

from .drop_preconditions import DropCase


class Withdrawn(Exception):
    """An action was begun, and is undone: the policy wants it no longer. It has no outcome, and is planned anew."""


class Step(NamedTuple):
    """An action that may take hours: its class, the table, with the schema, that it is about, and the table's size."""

    action: str
    object: str
    bytes: int


class Recheck:
    """Whether an action is still to be done, asked before each. This one stops nothing: commands can be interrupted."""

    yields = False
    """Whether a run ends with a table that it has dropped, and with what took long: the rest is planned anew."""

    def begins(self, what: str, seconds: float | None, step: Step | None = None) -> None:
        """What is done from now on, and the longest that it may take; None: within the time for observing."""

    def must_wait(self, step: Step) -> bool:
        """Whether the action has to wait for another that takes long. Asked before each that may take hours."""
        return False

    def finishes(self) -> None:
        """Nothing more is begun: what is observed from now on is how the run ends."""

    def why_stopped(self) -> str:
        """Why nothing more may be begun; empty where it may. Asked before each action: it costs nothing."""
        return ""

    def renew(self, case: DropCase) -> DropCase:
        """The case with what the policy and its archives say now. Asked right before a table is dropped.

        Raises `Withdrawn` where the policy is not the one that was planned for, and `ClusterUnavailable` where that
        cannot be learned.
        """
        return case


NEVER = Recheck()
"""Nothing is asked again but what the database says."""
