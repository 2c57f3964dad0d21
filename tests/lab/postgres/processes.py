"""The two ways in which a server's process is kept: guarded by the test run, or detached to outlive it."""

import contextlib
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import psutil

from lab.postgres import account
from lab.postgres.errors import LabError

GUARD = Path(__file__).with_name("guard.py")


class Process(Protocol):
    """A server process that can be started again after it has ended."""

    def start(self) -> None:
        """Starts it; it need not be ready yet."""

    def signal(self, number: signal.Signals) -> None:
        """Sends the postmaster a signal; nothing when it has ended."""

    def pid(self) -> int | None:
        """The postmaster's process ID, None when it does not run."""

    def close(self) -> None:
        """Forgets the process, which must have ended."""


class Guarded:
    """Ends with this process, also when that is killed; its folder is removed then."""

    def __init__(
        self, folder: Path, command: list[str], user: pwd.struct_passwd | None, environment: Mapping[str, str]
    ) -> None:
        """The command runs as `user`, or as this process does, in exactly this environment."""
        identity = [str(user.pw_uid), str(user.pw_gid)] if user else ["-1", "-1"]
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), str(folder), *identity, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=dict(environment),
        )
        self._pid = 0

    def start(self) -> None:
        """Starts the server."""
        self._pid = int(self._ask("start"))

    def signal(self, number: signal.Signals) -> None:
        """Sends the postmaster a signal."""
        self._ask(f"signal {int(number)}")

    def pid(self) -> int | None:
        """The postmaster's process ID, None when it does not run."""
        return self._pid if self._ask("status") == "running" else None

    def close(self) -> None:
        """Ends the guard, and with it whatever still runs."""
        self._guard.communicate()

    def _ask(self, line: str) -> str:
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        try:
            self._guard.stdin.write(f"{line}\n")
            self._guard.stdin.flush()
        except BrokenPipeError:
            raise LabError("the guard of a server has been killed") from None
        if answer := self._guard.stdout.readline().strip():
            return answer
        raise LabError(f"the guard of a server cannot {line} it")


class Detached:
    """Outlives this process, and is found again by its data folder."""

    def __init__(self, data: Path, log: Path, pg_ctl: str) -> None:
        self._data, self._log, self._pg_ctl = data, log, pg_ctl

    def start(self) -> None:
        """Starts the server and waits for it; raises LabError when it cannot be started."""
        command = [self._pg_ctl, "start", "--wait", "--silent", "-D", str(self._data), "-l", str(self._log)]
        run_as_owner(command, cwd=self._data.parent)

    def signal(self, number: signal.Signals) -> None:
        """Sends the postmaster a signal."""
        if found := self._find():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.send_signal(number)

    def pid(self) -> int | None:
        """The postmaster's process ID, None when none runs on this data folder."""
        found = self._find()
        return found.pid if found else None

    def close(self) -> None:
        """Nothing is held."""

    def _find(self) -> psutil.Process | None:
        # The number in the file may be another process's by now: only a postmaster works in its data folder.
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(pid)
            here = os.path.realpath(process.cwd()) == os.path.realpath(self._data)
            return process if here and process.status() != psutil.STATUS_ZOMBIE else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None


def run_as_owner(command: list[str], cwd: Path) -> None:
    """Runs a short command as the servers' user; raises LabError with its output when it fails."""
    user = account.owner()
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {done.stdout.strip()}")
