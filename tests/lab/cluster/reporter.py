"""Reports progress: bars on a terminal, sparse lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[int, int, str], None]
"""Called with what is done, the total (0: unknown) and a word on the present item."""

LINE_EVERY = 15.0
"""Seconds between two lines of progress where there is no terminal."""


class Reporter:
    """Writes to stderr, so that what a command prints on stdout stays its own."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line, as it is: brackets in it are no markup."""
        self._console.print(text, markup=False)

    @contextmanager
    def progress(self, title: str) -> Iterator[Advance]:
        """A long step; the seconds it took are said when it has ended well."""
        began = time.monotonic()
        self.say(f"{title} ...")
        if self._console.is_terminal:
            with self._bar(title) as advance:
                yield advance
        else:
            yield self._lines(title, began)
        self.say(f"{title}: done in {time.monotonic() - began:.0f} s")

    @contextmanager
    def _bar(self, title: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[item]}", markup=False),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(title, total=None, item="")

            def advance(done: int, total: int, item: str) -> None:
                bar.update(task, completed=done, total=total or None, item=item[-40:])

            yield advance

    def _lines(self, title: str, began: float) -> Advance:
        last = began

        def advance(done: int, total: int, item: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= LINE_EVERY:
                last = now
                share = f"{done} of {total}" if total else f"{done}"
                self.say(f"{title}: {share} after {now - began:.0f} s {item}".rstrip())

        return advance
