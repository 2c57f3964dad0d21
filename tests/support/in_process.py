"""Work on a database in the test's own process, instead of in a worker's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from partwarden.controller import database_work

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


def in_this_process(function: Callable[[R, S], T], request: R, supervisor: S) -> T:
    """As `DatabaseProcesses.run`, without a process."""
    return function(request, supervisor)


def look(search: database_work.KeySearch, supervisor: database_work.Supervisor, seconds: float) -> list[int]:
    """As `same_server.Look`, here."""
    return database_work.find_keys(search, supervisor)
