"""What tests have a worker process do: functions that it imports by name."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from partwarden.controller.database_work import Supervisor
from partwarden.errors import TableBusy
from partwarden.planner.recheck import Withdrawn
from partwarden.status.events import CompletedAction

DONE = CompletedAction("PartitionCreated", "created", "partition", "run_2027", "public.run_2027", 0.1)


def pid(_: object, supervisor: Supervisor) -> int:
    return os.getpid()


def surroundings(_: object, supervisor: Supervisor) -> dict[str, Any]:
    """What a worker has in its memory, and where it writes."""
    targets = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return {"modules": list(sys.modules), "open": targets, "temporary": tempfile.gettempdir()}


def sleep(seconds: float, supervisor: Supervisor) -> None:
    """Do one thing, then hang."""
    supervisor.did(DONE)
    supervisor.begins("reading what never comes", None)
    time.sleep(seconds)


def last(seconds: float, supervisor: Supervisor) -> str:
    """Say of a step that it lasts, then take that time."""
    supervisor.begins("vacuum public.run_2020", 60.0)
    time.sleep(seconds)
    return "done"


def ask(_: object, supervisor: Supervisor) -> list[object]:
    """Every question."""
    supervisor.claim("server", 4711, "public.run")
    assert supervisor.challenge() == (1, 2, 3)
    supervisor.compare()
    return [supervisor.why_stopped(), supervisor.latest("server")]


def fail(how: str, supervisor: Supervisor) -> None:
    """End as work may end."""
    if how == "error":
        raise TableBusy("cannot lock public.run")
    if how == "withdrawn":
        raise Withdrawn("its policy was edited")
    if how == "defect":
        raise KeyError("unforeseen")
    if how == "exit":
        os._exit(3)
    if how == "memory":
        bytearray(1024**3)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


class Call:
    """Pickles as a call of a function, as an attacker's message would."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self._what = function, arguments

    def __reduce__(self) -> Any:
        return self._what


def attack(how: str, supervisor: Any) -> None:
    """Send the parent what a worker never sends."""
    pipe, path = supervisor._pipe, Path(tempfile.gettempdir(), "called")
    messages: dict[str, bytes] = {
        "a call": pickle.dumps(("returns", Call(os.system, f"touch {path}"))),
        "a call of this program's own": pickle.dumps(("returns", Call(run_command, str(path)))),
        "a class through a module of ours": _named("partwarden.archive.table_lookup", "psycopg.Connection"),
        "a class that a module of ours imports": _named("partwarden.archive.table_lookup", "suppress"),
        "no pickle": b"hello",
        "a class that is not there": b"cpartwarden.errors\nNothing\n.",
        "no tuple": pickle.dumps("returns"),
        "another kind": pickle.dumps(("obeys", 1)),
        "another method": pickle.dumps(("asks", "__init__", ())),
        "too much": pickle.dumps(("returns", b"x" * (33 * 1024 * 1024))),
        "half a message": pickle.dumps(("returns", "x" * 1000))[:500],
    }
    pipe.send_bytes(messages[how])
    time.sleep(600)


def _named(module: str, name: str) -> bytes:
    """A message that is pickled by name, as protocol 4 has it: names with dots lead through attributes."""
    module_, name_, returns = (b"\x8c" + bytes([len(each)]) + each.encode() for each in (module, name, "returns"))
    return b"\x80\x04(" + returns + module_ + name_ + b"\x93t."


def run_command(path: str) -> None:
    Path(path).touch()
