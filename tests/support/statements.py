"""Calls right before or after what a session sends, for what others do at such a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from partwarden.postgres.connection import Session


def watch(connection: Session, before: Callable[[str], object] = str, after: Callable[[str], object] = str) -> None:
    """From here on call with the text of each query, before it is sent and after it was answered."""
    exchange = connection.exchange

    def watched(query: bytes, *, alone: bool = False) -> list[list[Any]]:
        before(query.decode())
        answered = exchange(query, alone=alone)
        after(query.decode())
        return answered

    connection.exchange = watched  # type: ignore[method-assign]
