"""What an adversary does, and what the operator's log must name as its cause."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from adversary.stage import Stage

Attack = Callable[[Stage], Generator[None]]
"""Attacks until its first yield, and goes on until it is closed. `Stage.end` deletes its policies."""


@dataclass(frozen=True)
class Case:
    """``reason``: of a line of the log, a condition or a finding; one of several, with bars between; empty for any.

    ``says``: part of its message.
    """

    does: str
    reason: str
    says: str
    attack: Attack

    def __str__(self) -> str:
        return self.does

    def is_named_by(self, line: dict[str, Any]) -> bool:
        """Whether a line of the log names the cause."""
        reasons = self.reason.split("|") if self.reason else (None, line.get("reason"))
        return line.get("reason") in reasons and self.says in line.get("message", "")
