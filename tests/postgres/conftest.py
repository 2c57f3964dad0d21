"""Tables that are archived, dropped and restored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.postgres import Server
from support import restorable
from support.archived import use_client


@pytest.fixture
def course(shared_server: Callable[[int], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> restorable.Run:
    """Takes a table through archive, drop and restore, by pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)
    return restorable.courses(shared_server, tmp_path)
