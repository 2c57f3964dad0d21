"""Worker processes: what speaks to a database can be ended, and takes nothing of the operator's with it.

A worker is forked by Python's fork server, which has imported the code for databases and nothing of Kubernetes. It has
no token, no cache and no client in its memory, a limit on that memory, and a deadline that its parent keeps: a server
that hangs, lies or sends without end costs one process. A pool from a library would do for a function that runs and
returns; here the function asks its parent on the way whether its next step is still wanted, and says how long that
step may take.

One pipe leads to each worker. The parent trusts nothing that comes through it: it is bounded in size, and only classes
of this program's own values are made of it.
"""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from ..errors import DatabaseUnresponsive, PartwardenError, WorkerFailed
from ..planner.recheck import Withdrawn
from ..postgres.conninfo import ConnectionInfo
from . import worker_process
from .database_work import Supervisor
from .worker_values import Unreadable, Values

T = TypeVar("T")

ANSWER_LIMIT = 32 * 1024 * 1024
"""Bytes of one message of a worker."""
BEGINNING = 60.0
"""Seconds until a worker has taken up its work; the first one waits for the fork server."""
BRIEF_MEMORY = 32 * 1024 * 1024
"""Bytes that a process may take which ends with its work."""
ASKED = frozenset({"claim", "disclaim", "challenge", "compare", "finishes", "must_wait", "why_stopped", "latest"})
"""The methods of a supervisor that a worker may call."""


class WorkerDefect(Exception):
    """An error in a worker that was not foreseen: its class, and its traceback as text, for the log."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name} in a worker process\n{text}")
        self.name = name


@dataclass(slots=True, eq=False)
class _Worker:
    """One process, and what it does now."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    folder: str
    connection: ConnectionInfo | None = None
    doing: str = ""
    deadline: float = 0.0
    limit: float = math.inf
    """No deadline is later."""
    observing: bool = False
    began: float = field(default_factory=time.monotonic)

    def begins(self, what: str, seconds: float | None, observation: float) -> None:
        """``observation``: seconds for all that is connecting, reading and planning."""
        now = time.monotonic()
        if seconds is not None or not self.observing:
            self.deadline = min(self.limit, now + (observation if seconds is None else seconds))
        self.doing, self.began, self.observing = what, now, seconds is None

    def kill(self) -> int | None:
        """End it at once. Returns its exit code."""
        self.process.kill()
        self.process.join(10)
        self.pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.process.exitcode


class DatabaseProcesses:
    """As many workers as there are threads that need one. Safe for threads."""

    def __init__(self, memory: int, observation: float) -> None:
        """``memory``: bytes that each may take. ``observation``: seconds for connecting, reading and planning."""
        self._memory, self._observation = memory, observation
        _find_folder()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([worker_process.__name__])
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = False

    def run(
        self, function: Callable[..., T], request: object, supervisor: Supervisor, within: float | None = None
    ) -> T:
        """Call ``function(request, supervisor)`` in a worker, and answer what it asks. Raises what it raises of
        `partwarden.errors`, `DatabaseUnresponsive` after its deadline, and `WorkerFailed` where its process ended.

        ``within`` so many seconds in all: in a process of its own with little memory, for what a worker waits for.
        """
        connection = getattr(request, "connection", None)
        worker = self._take(connection) if within is None else self._add(BRIEF_MEMORY)
        worker.connection, kept = connection, False
        try:
            worker.limit = math.inf if within is None else time.monotonic() + within
            worker.begins("beginning", BEGINNING, self._observation)
            result = self._converse(worker, function, request, supervisor)
            kept = within is None
            return result
        except (PartwardenError, Withdrawn) as error:
            kept = within is None and not isinstance(error, DatabaseUnresponsive | WorkerFailed)
            raise
        finally:
            self._give_back(worker, kept)

    def cancel(self) -> None:
        """Ask every database to end the statement that runs there, without waiting for its answer."""
        with self._lock:
            for worker in self._busy:
                if worker.process.pid is not None and worker.process.is_alive():
                    os.kill(worker.process.pid, signal.SIGUSR1)

    def close(self) -> None:
        """End every worker, also one that works."""
        with self._lock:
            self._closed = True
            workers = [*self._idle, *self._busy]
            self._idle.clear()
        for worker in workers:
            worker.kill()

    def _converse(self, worker: _Worker, function: Callable[..., T], request: object, supervisor: Supervisor) -> T:
        try:
            worker.pipe.send((function, (request,)))
            while True:
                kind, *content = self._receive(worker)
                match kind:
                    case "begins":
                        worker.begins(content[0], content[1], self._observation)
                        supervisor.begins(content[0], max(0.0, worker.deadline - time.monotonic()), content[2])
                    case "did":
                        supervisor.did(content[0])
                    case "asks":
                        worker.pipe.send(_answer(supervisor, content[0], content[1]))
                    case "returns":
                        return content[0]  # type: ignore[no-any-return]
                    case "raises":
                        raise content[0]
                    case "breaks":
                        raise WorkerDefect(*content)
                    case _:
                        raise Unreadable(str(kind)[:100])
        except (EOFError, OSError, Unreadable) as error:
            raise WorkerFailed(
                f"the worker process {_end_of(worker, error)} while {worker.doing}; it is replaced, and the policy is "
                "reconciled again"
            ) from None

    def _receive(self, worker: _Worker) -> tuple[Any, ...]:
        if not worker.pipe.poll(max(0.0, worker.deadline - time.monotonic())):
            now = time.monotonic()
            raise DatabaseUnresponsive(
                f"the database kept the worker process for {now - worker.began:.0f} s while {worker.doing}: the "
                "process was ended; find out what the server does, and what keeps it from answering"
            )
        sent = worker.pipe.recv_bytes(ANSWER_LIMIT)
        try:
            message = Values(io.BytesIO(sent)).load()
        except Exception as error:
            raise Unreadable(f"{type(error).__name__}: {error}") from error
        if not isinstance(message, tuple) or not message:
            raise Unreadable(type(message).__name__)
        return message

    def _take(self, connection: ConnectionInfo | None) -> _Worker:
        """One whose last work was there, where there is one: with the session that it may have kept."""
        with self._lock:
            if self._closed:
                raise WorkerFailed("the operator ends")
            self._idle.sort(key=lambda each: _nearness(each.connection, connection))
            while self._idle:
                worker = self._idle.pop()
                if worker.process.is_alive():
                    self._busy.add(worker)
                    return worker
                worker.kill()
        return self._add(self._memory)

    def _add(self, memory: int) -> _Worker:
        worker = self._start(memory)
        with self._lock:
            if not self._closed:
                self._busy.add(worker)
                return worker
        worker.kill()
        raise WorkerFailed("the operator ends")

    def _start(self, memory: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        folder = tempfile.mkdtemp(prefix="partwarden-worker-")
        process = self._context.Process(target=worker_process.serve, args=(theirs, memory, folder), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, folder)

    def _give_back(self, worker: _Worker, kept: bool) -> None:
        with self._lock:
            self._busy.discard(worker)
            if kept := kept and not self._closed:
                self._idle.append(worker)
        if not kept:
            worker.kill()


def _nearness(last: ConnectionInfo | None, wanted: ConnectionInfo | None) -> tuple[bool, bool]:
    """Whether a worker may have kept a session for that, or one of another login there, which it closes first."""
    return last == wanted, last is not None and wanted is not None and last.database_key == wanted.database_key


def _find_folder() -> None:
    """A container whose root is read-only, and that has no volume, can write here only."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = "/dev/shm"  # noqa: S108 - each file there has a folder that mkdtemp makes


def _end_of(worker: _Worker, error: Exception) -> str:
    if not isinstance(error, EOFError | ConnectionError):
        return f"sent what it never would ({type(error).__name__}: {error})"
    worker.process.join(1)
    return f"ended with exit code {worker.process.exitcode}"


def _answer(supervisor: Supervisor, method: str, arguments: tuple[Any, ...]) -> tuple[object, Exception | None]:
    if method not in ASKED:
        raise Unreadable(f"a call of {method[:100]}")
    try:
        return getattr(supervisor, method)(*arguments), None
    except (PartwardenError, Withdrawn) as error:
        return None, error
