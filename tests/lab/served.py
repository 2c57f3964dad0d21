"""An emulator of a cloud's storage behind a `Front`, which ends with the process that started it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.front import Front
from lab.postgres import LabError, free_port
from lab.postgres.processes import Guarded

PATIENCE = 180.0
"""Seconds that a server is given to answer."""
POLL = 0.05
LAST = 4000
"""Characters of the log that are shown when something has failed."""
HOST = "127.0.0.1"


class Served:
    """One server at `port`, and the front that clients are to use. As a context manager it is removed at the end."""

    def __init__(self, name: str, version: str) -> None:
        self.name, self.version = name, version
        self.home = Path(tempfile.mkdtemp(prefix="partwarden-emulator-"))
        self.log, self.port = self.home / "server.log", free_port(HOST)
        self.front = Front(HOST, self.port)
        self._process: Guarded | None = None

    @property
    def endpoint(self) -> str:
        """The URL that clients are given."""
        return self.front.endpoint

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-LAST:] if self.log.exists() else ""

    def remove(self) -> None:
        """End it, and remove its files. Doing it again does nothing."""
        self.front.close()
        if self._process:
            self._process.close()
            self._process = None
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            print(f"the log of {self.name} at {self.endpoint} ends with:\n{self.said()}", file=sys.stderr)
        self.remove()

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it, and wait until it answers. Raises LabError when it does not."""
        try:
            self._process = Guarded(self.home, list(command), None, environment)
            self._process.start()
            deadline = time.monotonic() + PATIENCE
            while why_not := self.why_not_ready():
                if self._process.pid() is None or time.monotonic() > deadline:
                    words = f"{self.name} {self.version} does not answer ({why_not})"
                    raise LabError(f"{words}; its log says:\n{self.said()}")
                time.sleep(POLL)
        except BaseException:
            self.remove()
            raise

    def why_not_ready(self) -> str:
        """ "" when it answers."""
        raise NotImplementedError
