"""The main function of a worker process, and the operator as it sees it: see `database_process`.

Nothing here may import the Kubernetes client: the fork server imports this module for all workers.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import tempfile
import threading
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

from ..errors import PartwardenError
from ..planner.drop_preconditions import Archives
from ..planner.recheck import Step, Withdrawn
from ..postgres.kept_session import KEPT_FOR, KeptSession
from ..status.events import CompletedAction
from . import database_work
from .database_work import Supervisor


class _Parent(Supervisor):
    """The operator, at the other end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def claim(self, server: str, oid: int, table: str) -> None:
        self._ask("claim", server, oid, table)

    def disclaim(self) -> None:
        self._ask("disclaim")

    def challenge(self) -> tuple[int, ...]:
        return tuple(self._ask("challenge"))

    def compare(self) -> None:
        self._ask("compare")

    def did(self, action: CompletedAction) -> None:
        self._pipe.send(("did", action))

    def begins(self, what: str, seconds: float | None, step: Step | None = None) -> None:
        self._pipe.send(("begins", what, seconds, step))

    def must_wait(self, step: Step) -> bool:
        return bool(self._ask("must_wait", step))

    def finishes(self) -> None:
        self._ask("finishes")

    def why_stopped(self) -> str:
        return str(self._ask("why_stopped"))

    def latest(self, server: str) -> tuple[frozenset[str], Archives]:
        held, archives = self._ask("latest", server)
        return held, archives

    def _ask(self, method: str, *arguments: object) -> Any:
        # A parent that is gone answers nothing: EOFError ends the work, and so nothing is dropped without its word.
        self._pipe.send(("asks", method, arguments))
        answer, error = self._pipe.recv()
        if error is not None:
            raise error
        return answer


def serve(pipe: Connection, memory: int, folder: str) -> None:
    """The main function of a worker: do what comes through the pipe until it is closed.

    ``memory``: bytes, beside what was there at the start. ``folder``: for temporary files.
    """
    # What was there at the fork stays as it is: a collector that goes through it would copy every page of it.
    gc.freeze()
    tempfile.tempdir = folder
    for number in (signal.SIGINT, signal.SIGTERM):
        # Sent to the whole group by a terminal. The operator ends what runs here in order.
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: database_work.cancel())
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    used = int(Path("/proc/self/statm").read_text("ascii").split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + memory, used + memory))
    database_work.kept = kept = KeptSession()
    while True:
        if kept.exists and not pipe.poll(KEPT_FOR):
            kept.close()
        try:
            function, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        message: tuple[object, ...]
        try:
            message = ("returns", function(*arguments, _Parent(pipe)))
        except (PartwardenError, Withdrawn) as error:
            message = ("raises", error)
        except MemoryError:
            os._exit(1)
        except Exception as error:  # noqa: BLE001  The parent logs it.
            message = ("breaks", type(error).__name__, traceback.format_exc())
        pipe.send(message)


def _end_with(sentinel: int) -> NoReturn:
    """An operator that was killed leaves no statement to run on."""
    wait([sentinel])
    os._exit(1)
