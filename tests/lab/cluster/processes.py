"""Processes that outlive their starter, identified by more than a process ID that the kernel reuses."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from .model import ClusterError

DYING = 20.0
"""Seconds within which a killed process ends."""


@dataclass(frozen=True)
class Identity:
    """One process: its number, when it started (in clock ticks since boot), and in which boot."""

    pid: int
    started: str
    boot: str

    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        return identify(self.pid) == self

    def kill(self) -> None:
        """Kill it and wait for its end; one that has ended is not an error.

        Raises ClusterError when it is still there after DYING seconds.
        """
        deadline = time.monotonic() + DYING
        while self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            if time.monotonic() > deadline:
                raise ClusterError(f"process {self.pid} does not end")
            time.sleep(0.02)


def identify(pid: int) -> Identity | None:
    """The process that has this number now, None when none has or only a zombie."""
    fields = _stat(pid)
    if not fields or fields[0] == "Z":
        return None
    return Identity(pid, fields[19], Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def children_of(parent: Identity) -> list[Identity]:
    """The processes that `parent` started and that still run."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    mine = [number for number in numbers if (fields := _stat(number)) and fields[1] == str(parent.pid)]
    return [child for child in map(identify, mine) if child] if parent.alive() else []


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: the name before it may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
