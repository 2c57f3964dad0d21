"""Work on a database in the test's own process, instead of in a worker's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


def in_this_process(function: Callable[[R, S], T], request: R, supervisor: S) -> T:
    """As `DatabaseProcesses.run`, without a process."""
    return function(request, supervisor)
