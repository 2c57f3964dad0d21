"""Which policy has which table: of several that mean one table, the oldest works and the others say so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .workqueue import Key


class TableIdentity(NamedTuple):
    """One table of the world, by whatever names and addresses policies reach it."""

    server: str
    """`partwarden.inventory.Server.identity`."""
    oid: int


Age = tuple[str, Key]
"""Creation time, then namespace and name: the smallest wins."""


class Claims:
    """Claims of policies on tables, safe for threads. ``wake`` is called with each policy whose turn it may now be."""

    def __init__(self, wake: Callable[[Key], None]) -> None:
        self._lock = threading.Lock()
        self._wake = wake
        self._held: dict[Key, tuple[TableIdentity, Age]] = {}

    def claim(self, key: Key, table: TableIdentity, age: Age) -> Key | None:
        """Say that the policy means the table. Returns the policy that has it instead, None when this one has.

        A claim on another table is given up. An elder that comes later takes over: the younger one is woken.
        """
        with self._lock:
            before = self._held.get(key)
            left = self._others(key, before[0]) if before and before[0] != table else []
            self._held[key] = (table, age)
            rivals = self._others(key, table)
            winner = min([(age, key), *((self._held[each][1], each) for each in rivals)])[1]
            took_over = winner == key and (before is None or before[0] != table)
        self._wake_all([*left, *(rivals if took_over else [])])
        return None if winner == key else winner

    def release(self, key: Key) -> None:
        """The policy is deleted, suspended, or means something else: whoever waited for its table is woken."""
        with self._lock:
            before = self._held.pop(key, None)
            left = self._others(key, before[0]) if before else []
        self._wake_all(left)

    def _others(self, key: Key, table: TableIdentity) -> list[Key]:
        return [each for each, (held, _) in self._held.items() if each != key and held == table]

    def _wake_all(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._wake(key)
