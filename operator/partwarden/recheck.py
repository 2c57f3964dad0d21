"""Whether what was planned is still to be done, asked again before it is. Pure.

A plan may take hours. A hold, an approval that was taken back, an edit of the policy, its deletion, and the end of the
operator stop what has not begun.
"""

from __future__ import annotations

from .drop_preconditions import DropCase


class Withdrawn(Exception):
    """An action was begun, and is undone: the policy wants it no longer. It has no outcome, and is planned anew."""


class Recheck:
    """This one stops nothing, as is right for a command: the user is at the keyboard, and can interrupt it."""

    single_drop = False
    """Whether a run ends with the first table that it has dropped: the next is planned anew."""

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
