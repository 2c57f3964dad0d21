"""Which processes still run, and which a test run started and did not end."""

import os
import secrets
import time
from multiprocessing import forkserver, resource_tracker

import psutil

VARIABLE = "PARTWARDEN_TEST_RUN"
PATIENCE = 5.0
"""Seconds that processes which are ending already are given."""


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended. A zombie has: an orphan stays one until the machine's init reaps it, which may take
    seconds."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def mark() -> str:
    """Puts a mark into this process's environment, which all that it starts will inherit, and returns it."""
    value = secrets.token_hex(8)
    os.environ[VARIABLE] = value
    return value


def find(value: str) -> list[str]:
    """One line for each other process that carries the mark or descends from this one, after PATIENCE seconds."""
    # They would end with this process, by a pipe that closes then.
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
    deadline = time.monotonic() + PATIENCE
    while (found := _running(value)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _running(value: str) -> list[str]:
    mine = {os.getpid()}
    family = {child.pid for child in psutil.Process().children(recursive=True)}
    found = []
    for process in psutil.process_iter():
        try:
            belongs = process.pid in family or process.environ().get(VARIABLE) == value
            if belongs and process.pid not in mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline()) or process.name()}"[:200])
        except psutil.Error:
            continue  # it has ended, or is another user's and so not of this run
    return found
