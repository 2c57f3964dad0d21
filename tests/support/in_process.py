"""Work on a database in the test's own process, instead of in a worker's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from partwarden.controller import database_work
from partwarden.controller.long_actions import SET_ASIDE, LongActions
from partwarden.controller.runtime import Runtime

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


def in_this_process(function: Callable[[R, S], T], request: R, supervisor: S) -> T:
    """As `DatabaseProcesses.run`, without a process."""
    return function(request, supervisor)


def look(search: database_work.KeySearch, supervisor: database_work.Supervisor, seconds: float) -> list[int]:
    """As `same_server.Look`, here."""
    return database_work.find_keys(search, supervisor)


def long_actions(
    runtime: Runtime, set_aside: Callable[[threading.Thread], None] = lambda thread: None, seconds: float = SET_ASIDE
) -> LongActions:
    """As an operator of one namespace has them, without threads that take the place of others."""
    return LongActions(runtime.policy_queue, set_aside, runtime.clock, 4, 4, seconds)
