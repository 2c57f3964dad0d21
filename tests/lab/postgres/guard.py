"""Runs one server on behalf of a test run, and ends it when the run has ended, also by a kill.

Started as a program of its own, with the folder to remove, the user and group to run as (-1: its own) and the command.
It obeys lines on its standard input, and answers each with one line: `start` with the process ID, `signal N` and
`status` with the exit code, or `running`. At the end of its input it ends the server and removes the folder.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PATIENCE = 10.0
"""Seconds that a server is given to end at once before it is killed."""


class Guard:
    """One server process at a time."""

    def __init__(self, folder: Path, user: int | None, group: int | None, command: list[str]) -> None:
        self.folder, self.user, self.group, self.command = folder, user, group, command
        self.child: subprocess.Popen[bytes] | None = None

    def obey(self, line: str) -> str:
        """Carries one line out and returns the answer."""
        verb, *arguments = line.split()
        if verb == "start":
            self.start()
        elif verb == "signal" and self.child is not None and self.child.poll() is None:
            self.child.send_signal(int(arguments[0]))
        if self.child is None:
            return "0"
        if verb == "start":
            return str(self.child.pid)
        code = self.child.poll()
        return "running" if code is None else str(code)

    def start(self) -> None:
        """Starts the command; its output is appended to server.log."""
        with (self.folder / "server.log").open("ab") as log:
            self.child = subprocess.Popen(
                self.command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
                group=self.group,
                extra_groups=None if self.user is None else [],
            )

    def end(self) -> None:
        """Ends the server at once and removes its folder."""
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(PATIENCE)
            self.child.kill()
            self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def main() -> None:
    """Obeys until the input ends or SIGTERM comes."""
    folder, user, group, *command = sys.argv[1:]
    guard = Guard(Path(folder), _identity(user), _identity(group), command)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        for line in sys.stdin:
            print(guard.obey(line), flush=True)
    except BrokenPipeError:
        pass  # the reader of the answer has ended: as at the end of the input
    finally:
        guard.end()


def _identity(number: str) -> int | None:
    return None if number == "-1" else int(number)


if __name__ == "__main__":
    main()
