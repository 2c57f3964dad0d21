"""How commands print: for people, in tables that fit their terminal; for programs, as JSON, YAML or names."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click
import yaml
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import InvalidSpec, PartwardenError
from . import render

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("text", "wide", "json", "yaml", "name")
COLOURS: Mapping[str, str] = {
    "Current": "green",
    "Future": "cyan",
    "Unmanaged": "yellow",
    "DetachPending": "red",
    "Expired": "yellow",
    "Held": "magenta",
    "Detached": "magenta",
    "True": "green",
    "False": "red",
    "OK": "green",
    "WARNING": "yellow",
    "CRITICAL": "red",
}
"""Of cells that say nothing else."""
SHORT = 12
"""Columns that no cell is narrower than, if it needs them: states are not to be cut where names can be."""


def option(default: str = "text") -> Callable[[F], F]:
    """``-o`` with all formats."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default=default,
        help=f"Default: {default}. wide: what text leaves out.",
    )


def is_data(output: str) -> bool:
    """Whether it is for programs, as one document."""
    return output in ("json", "yaml")


def data(value: Any, output: str) -> None:
    """One document; as YAML a list is one document for each."""
    if output == "json":
        click.echo(json.dumps(value, ensure_ascii=False, indent=2))
        return
    documents = value if isinstance(value, list) else [value]
    # Through JSON: enumerations and the like are texts there.
    plain = json.loads(json.dumps(documents))
    click.echo(yaml.safe_dump_all(plain, sort_keys=False, allow_unicode=True), nl=False)


def names(found: Iterable[str]) -> None:
    """A line each."""
    for each in found:
        click.echo(render.printable(each))


def table(rows: Sequence[tuple[str, ...]]) -> None:
    """Rows in aligned columns, their heading first. On a terminal coloured, and no wider than it: what is too long ends
    in an ellipsis there. Elsewhere nothing is cut."""
    if not sys.stdout.isatty():
        for line in render.table(rows):
            click.echo(line[2:])
        return
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading, *cells in zip(*rows, strict=True):
        needed = max(cell_len(each) for each in (heading, *cells))
        # Those that rich may not wrap it makes narrower last; the cells are not wrapped in any case.
        shown.add_column(heading, no_wrap=needed <= SHORT)
    for row in rows[1:]:
        shown.add_row(*map(_cell, row))
    Console(highlight=False).print(shown)


def _cell(text: str) -> Text:
    return Text(render.printable(text), COLOURS.get(text, ""), no_wrap=True, overflow="ellipsis")


def width() -> int | None:
    """Columns of the terminal; None where what is printed goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def line(text: str) -> None:
    """One line; on a terminal its first word is coloured, where that is a state."""
    first, _, rest = render.printable(text).partition(":")
    colour = None if os.environ.get("NO_COLOR") else COLOURS.get(first)
    click.echo(click.style(first, fg=colour) + f":{rest}" if colour else render.printable(text))


def failure(error: PartwardenError) -> click.ClickException:
    """The error of a command, for a terminal: text of manifests and names in it are escaped, line ends too.

    What a user has typed is answered in several lines, and holds none of that.
    """
    return click.ClickException(str(error) if isinstance(error, InvalidSpec) else render.printable(str(error)))


def progress(text: str) -> None:
    """Apart from what programs read: on a terminal in place of what was said before, elsewhere a line."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{render.printable(text)}", err=True, nl=False)
    else:
        click.echo(render.printable(text), err=True)


def progressed() -> None:
    """There is no more of it: whatever comes next has the line for itself."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
