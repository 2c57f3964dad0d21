"""How commands print: for people, in tables that fit their terminal; for programs, as JSON, YAML or names."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import yaml
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..api.types import Interval
from ..errors import PartwardenError, UnknownTimeZone, did_you_mean
from ..errors import printable as printable
from ..planner.calendar import Grid, iso, load_zone

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("text", "wide", "json", "yaml", "name")
COLOURS = {
    word: colour
    for colour, words in {
        "green": ("Current", "True", "OK"),
        "cyan": ("Future",),
        "yellow": ("Unmanaged", "Expired", "WARNING"),
        "magenta": ("Held", "Detached"),
        "red": ("DetachPending", "False", "CRITICAL"),
    }.items()
    for word in words
}
"""Of cells with exactly that text."""
ALSO_HELD = ", held"
"""Follows a state that is not Held itself."""
SHORT = 12
"""Columns that no cell is narrower than, if it needs them: states are not to be cut where names can be."""


class Choice(click.Choice[str]):
    """One of some words; a word that is none of them is answered with the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """As click has it, and what was probably meant."""
        message = super().get_invalid_choice_message(value, ctx).removesuffix(".")
        return message + did_you_mean(str(value), self.choices)


def option(default: str = "text") -> Callable[[F], F]:
    """``-o`` with all formats."""
    return click.option(
        "-o",
        "--output",
        type=Choice(FORMATS),
        default=default,
        help=f"Default: {default}. wide: what text leaves out.",
    )


@dataclass(frozen=True, slots=True)
class Dates:
    """How the moments of one table are written for people, in all commands but ``timeline`` and ``report``, which show
    periods by the clock of the policy's zone: as dates, where each of its bounds begins a day of that zone; else as RFC
    3339 in UTC, or without a zone where the key has none."""

    days: Grid | None
    """None: not as dates."""

    @classmethod
    def of(cls, timezone: str, bounds: Iterable[str | datetime | None]) -> Dates:
        """``bounds``: all of the table, as moments or as `iso` has them."""
        try:
            days = Grid(Interval.DAY, load_zone(timezone))
        except UnknownTimeZone:
            return cls(None)
        return cls(days if all(_date(each, days) for each in bounds if each is not None) else None)

    @property
    def notes(self) -> list[str]:
        """A line below a list, where its dates are not those of UTC."""
        zone = str(self.days.zone) if self.days else "UTC"
        return [] if zone == "UTC" else [f"dates: midnights of {zone}"]

    def show(self, bound: str | datetime | None) -> str:
        """``2026-12-01``, or a moment; "" for None, and any other text as it is."""
        if bound is None:
            return ""
        moment = _moment(bound)
        if moment is None:
            return str(bound)
        plain = _date(bound, self.days) if self.days else ""
        return plain or (iso(moment) or "" if moment.tzinfo else moment.isoformat())

    def ends(self, lower: str | datetime | None, upper: str | datetime | None) -> tuple[str, str]:
        """Of a range, MINVALUE and MAXVALUE where it has none."""
        return self.show(lower) or "MINVALUE", self.show(upper) or "MAXVALUE"

    def span(self, lower: str | datetime | None, upper: str | datetime | None) -> str:
        """``[2026-12-01, 2027-01-01)``."""
        return "[{}, {})".format(*self.ends(lower, upper))


def _moment(bound: str | datetime) -> datetime | None:
    """None for what is none, and for what lies in no year of UTC."""
    try:
        moment = datetime.fromisoformat(bound) if isinstance(bound, str) else bound
        return moment.astimezone(UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


def _date(bound: str | datetime, days: Grid) -> str:
    """The date that begins then; "" where none does. A day may begin at 01:00, where the clock skips midnight.

    Nor is one the last day of the calendar, which has no end.
    """
    moment = _moment(bound)
    if moment is None:
        return ""
    grid = days if moment.tzinfo else Grid(Interval.DAY, None)
    with suppress(OverflowError):
        return grid.local(moment).date().isoformat() if grid.cell(moment).lower == moment else ""
    return ""


CONTROL = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def _as_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def is_data(output: str) -> bool:
    """Whether it is for programs, as one document."""
    return output in ("json", "yaml")


def data(value: Any, output: str) -> None:
    """One document; as YAML a list is one document for each."""
    if output == "json":
        # What a terminal would obey is escaped as JSON escapes it: the value stays what it is.
        lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
        click.echo("\n".join(each if each.isprintable() else CONTROL.sub(_as_json, each) for each in lines))
        return
    documents = value if isinstance(value, list) else [value]
    # Through JSON: enumerations and the like are texts there.
    plain = json.loads(json.dumps(documents))
    click.echo(yaml.safe_dump_all(plain, sort_keys=False, allow_unicode=True), nl=False)


def names(found: Iterable[str], *, err: bool = False) -> None:
    """A line each, to standard output, or apart from what programs read."""
    for each in found:
        click.echo(printable(each), err=err)


def show(output: str, document: Any, found: Iterable[str], text: Iterable[str]) -> None:
    """What a command has to say, in one of `FORMATS`: as data, as names, or as lines for people."""
    if is_data(output):
        data(document, output)
    else:
        names(found if output == "name" else text)


def error(failure: PartwardenError) -> dict[str, str]:
    """As data."""
    return {"reason": failure.reason, "message": str(failure)}


def table(rows: Sequence[tuple[str, ...]], *, heading: bool = True, indent: int = 0) -> None:
    """Rows in aligned columns, the first of them their heading; wide characters count as what a terminal gives them.

    On a terminal coloured, and no wider than it: what is too long ends in an ellipsis. Elsewhere, and without a
    heading, nothing is cut.
    """
    widths = [max(cell_len(printable(each)) for each in column) for column in zip(*rows, strict=True)]
    if not (heading and sys.stdout.isatty()):
        # Not by rich, which takes a second for a thousand rows.
        for row in rows:
            cells = (set_cell_size(printable(cell), width) for cell, width in zip(row, widths, strict=True))
            click.echo((" " * indent + "  ".join(cells)).rstrip())
        return
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for width, title in zip(widths, rows[0], strict=True):
        # Those that rich may not wrap it makes narrower last; the cells are not wrapped in any case.
        shown.add_column(title, no_wrap=width <= SHORT)
    for row in rows[1:]:
        shown.add_row(*map(_cell, row))
    Console(highlight=False).print(Padding(shown, (0, 0, 0, indent), expand=False))


def _cell(text: str) -> Text:
    colour = COLOURS["Held"] if text.endswith(ALSO_HELD) else COLOURS.get(text, "")
    return Text(printable(text), colour, no_wrap=True, overflow="ellipsis")


def line(text: str) -> None:
    """One line; on a terminal its first word is coloured, where that is a state."""
    first, _, rest = printable(text).partition(":")
    colour = None if os.environ.get("NO_COLOR") else COLOURS.get(first)
    click.echo(click.style(first, fg=colour) + f":{rest}" if colour else printable(text))


def progress(text: str = "") -> None:
    """To standard error: on a terminal in place of the progress before, elsewhere a line.

    Without a text it has ended: what comes next has the line for itself.
    """
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{printable(text)}", err=True, nl=False)
    elif text:
        click.echo(printable(text), err=True)
