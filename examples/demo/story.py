"""Tells the demo: numbered steps, and every command as it is typed, with what it says."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from .files import CHECKOUT, DemoError

POLL = 0.2


class Story:
    """Writes to stdout, in order, and remembers how far it has come."""

    def __init__(self, steps: int) -> None:
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self._steps, self._number = steps, 0
        self._began = time.monotonic()
        self.environment: dict[str, str] | None = None
        self.title = "preparing"

    @property
    def place(self) -> str:
        """The step that is being told, for a message about it."""
        return f"step {self._number} of {self._steps} ({self.title})" if self._number else self.title

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._number += 1
        self.title = title
        self._print(f"\n[{self._number}/{self._steps}] {title}  ({self.seconds:.0f} s)", "bold")

    def leave_out(self, steps: int) -> None:
        """So many steps will not be told."""
        self._steps -= steps

    def say(self, text: str = "") -> None:
        """Plain lines."""
        self._print(text)

    def command(self, text: str) -> None:
        """Show a command line."""
        self._print(f"$ {text}", "cyan")

    def export(self, variables: Mapping[str, str], typed: str) -> None:
        """What all further commands find in their environment; `typed` is the line that does it in a shell."""
        self.environment = dict(variables)
        self.command(typed)

    def run(self, text: str, *, fails: bool = False, unless: Callable[[], str] = str, log: Path | None = None) -> str:
        """Show a command line, run it in a shell in the checkout, show and return what it says.

        It is ended when `unless` returns a reason. Raises DemoError when it fails, or with `fails` when it does not.
        """
        self.command(text)
        said: list[str] = []
        with self._started(text, said) as process:
            reason = _wait(process, unless)
        if reason:
            raise DemoError(reason, log)
        if (process.returncode != 0) != fails:
            outcome = "was expected to fail and did not" if fails else f"exited with {process.returncode}"
            raise DemoError(f"the command above {outcome}: {''.join(said[-1:]).strip()}", log)
        return "".join(said)

    @contextmanager
    def beside(self, text: str) -> Iterator[None]:
        """Show a command line that goes on by itself, and what it says meanwhile; it is ended at the end."""
        self.command(f"{text} &")
        with self._started(text, []):
            yield
        self.command("kill $!")

    @contextmanager
    def _started(self, text: str, said: list[str]) -> Iterator[subprocess.Popen[str]]:
        """A shell in the checkout; what it says is shown, and added to ``said``, until it has ended or is ended."""
        process = subprocess.Popen(
            ["/bin/sh", "-c", text],
            cwd=CHECKOUT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        reader = threading.Thread(target=self._echo, args=(process, said), daemon=True)
        reader.start()
        try:
            yield process
        finally:
            if process.poll() is None:
                # The shell's children, too: they hold the pipe that is read here.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            reader.join()

    def _echo(self, process: subprocess.Popen[str], said: list[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            self._print(line.rstrip("\n"))

    def _print(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style)
        self._console.file.flush()


def _wait(process: subprocess.Popen[str], unless: Callable[[], str]) -> str:
    """Until it ends: "", or until there is a reason to end it: the reason."""
    while True:
        try:
            process.wait(POLL)
        except subprocess.TimeoutExpired:
            if reason := unless():
                return reason
        else:
            return ""
