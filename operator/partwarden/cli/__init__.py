"""The commands of partwarden and of its kubectl plugin. Here the programs begin.

SIGINT ends them in order from the first line on, while the rest is imported: this module imports nothing that takes
time, not even `typing`. What Python does before that, some milliseconds, it answers by itself: it has its own handler
for SIGINT or none, and the process ends by the signal, which a shell shows as 130. No program in Python can say more
there: what runs earlier, as a .pth file, would run in every other program of that Python, too. Nothing is begun yet.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130
"""Exit code, as shells have it for SIGINT."""


def program() -> NoReturn:
    """``partwarden``. Exits."""
    _begin()
    from .main import main as command

    raise SystemExit(command())


def plugin() -> NoReturn:
    """``kubectl partwarden``: kubectl runs ``kubectl-partwarden`` with what follows. Exits."""
    _begin()
    from .main import main as command

    raise SystemExit(command(prog_name="kubectl partwarden"))


def complete_plugin() -> None:
    """What kubectl asks for when a user presses Tab: candidates by lines, then a directive."""
    _begin()
    from .main import complete_plugin as command

    command()


def ready() -> None:
    """From here on SIGINT raises KeyboardInterrupt again: there is work that must be ended in order."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _begin() -> None:
    # A shell that starts it in the background, or nohup, has SIGINT ignored: that stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """At once, since nothing is begun: an exception would come up in some import, which may take it for another."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
