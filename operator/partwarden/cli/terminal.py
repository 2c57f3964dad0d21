"""``partwarden timeline``: tables along time, in lines that fit a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from ..api.policy import PartitionPolicySpec
from ..api.validation import check
from ..archive import verify
from ..errors import printable
from ..planner.actions import CreatePartition
from ..status.details import human, planned
from . import formats, options, policies
from .options import Target, target
from .policies import Policies, observe_target
from .tables import EVER, ObservedTable
from .timeline import Entry, Fold, Timeline

BLOCKS = " ▏▎▍▌▋▊▉█"
"""By eighths."""
NARROWEST = 40
"""Columns; on a narrower terminal lines wrap."""
USUAL = 80
"""Columns where it is no terminal."""
TITLES = ("", "NAME", "RANGE", "", "SIZE", "STATE", "ARCHIVE", "HOLD", "NEXT")
NAME, RANGE, BAR, SIZE, STATE, ARCHIVE, NEXT = 1, 2, 3, 4, 5, 6, 8
BAR_WIDTH: Final = 10
SHRUNK = (
    (NEXT, 26),
    (NAME, 20),
    (BAR, 5),
    (NAME, 12),
    (ARCHIVE, 8),
    (NEXT, 18),
    (RANGE, 13),
    (BAR, 3),
    (NAME, 6),
    (NEXT, 6),
)
"""Which column is made narrower first, and down to how many cells."""


@click.command(short_help="Partitions along time, and what comes next.")
@target(everywhere=True)
@options.archives
@click.option("--all", "whole", is_flag=True, help="Fold nothing: a line for each partition.")
@formats.option()
def timeline(target: Target, url: str | None, whole: bool, output: str) -> int:
    """A line for each partition: range, size as a bar, state, archive, hold, and what comes next for it and when.

    Of POLICY, or of all in the namespace, as the operator observed them last; with --dsn of the tables of a database.
    Partitions that are far off, and for which nothing comes, are folded into one line. Exits 0, or 1 on an error.
    """
    found = timelines(target, url)
    if formats.is_data(output):
        formats.data([each.document() for each in found], output)
    elif output == "name":
        formats.names(each.name for one in found for each in one.entries)
    else:
        page = Page.here()
        for number, each in enumerate(found):
            for line in [*([Text()] if number else []), *page.lines(each, whole or output == "wide")]:
                page.print(line)
    return 0


def timelines(target: Target, url: str | None) -> list[Timeline]:
    """Of the policies, or of the tables of a database, whose archives are at ``url``. Raises `PartwardenError`."""
    archives, now = archives_at(target, url), datetime.now(UTC)
    if target.dsn is not None:
        by_policy = target.filename is not None
        return observe_target(
            target, lambda _, tables: [_observed(each, archives, by_policy) for each in tables], detached=True
        )
    cluster = Policies(target)
    chosen, known = cluster.chosen(), cluster.archives()
    views = [policies.view(each, now, known) for each in chosen]
    specs = [check(PartitionPolicySpec, each.get("spec"))[0] for each in chosen]
    return [Timeline.of(view, now, spec, view.status.plan) for view, spec in zip(views, specs, strict=True)]


def archives_at(target: Target, url: str | None) -> dict[int, str] | None:
    """Addresses of the archives there, the newest of each table, by its OID. Raises `click.UsageError` for a policy."""
    if target.dsn is None and url is not None:
        raise click.UsageError("--archives goes with --dsn: a policy's archives are its PartitionArchives")
    return {each.manifest.partition.oid: each.url for each in verify.find(url).archives} if url else None


def _observed(table: ObservedTable, archives: dict[int, str] | None, by_policy: bool) -> Timeline:
    """What a guessed policy would do does not come, nor what the retention does by which detached tables are seen."""
    view, now, ever = table.view(archives), table.inventory.now, table.spec.retention is EVER
    if not by_policy:
        return Timeline.of(view, now)
    steps = [planned(each) for each in table.plan.steps if not ever or each.action == CreatePartition.__name__]
    return Timeline.of(view, now, table.spec.model_copy(update={"retention": None}) if ever else table.spec, steps)


@dataclass(frozen=True, slots=True)
class Page:
    """``width`` in cells. ``console`` None: without colours. ``encoding``: that of standard output."""

    width: int
    encoding: str
    console: Console | None = None

    @classmethod
    def here(cls) -> Page:
        """That of standard output: NO_COLOR, TERM and COLUMNS count as in other programs."""
        encoding = sys.stdout.encoding or "ascii"
        if not sys.stdout.isatty():
            return cls(USUAL, encoding)
        width = max(NARROWEST, shutil.get_terminal_size((USUAL, 24)).columns)
        plain = bool(os.environ.get("NO_COLOR"))
        return cls(width, encoding, None if plain else Console(highlight=False, width=width, soft_wrap=True))

    @property
    def unicode(self) -> bool:
        """Whether it shows more than ASCII."""
        return self.encoding.lower().replace("-", "").replace("_", "") == "utf8"

    def print(self, line: Text) -> None:
        """One line."""
        line.rstrip()
        if self.console:
            self.console.print(line)
        else:
            click.echo(
                line.plain if self.unicode else line.plain.encode(self.encoding, "replace").decode(self.encoding)
            )

    def lines(self, one: Timeline, whole: bool) -> Iterator[Text]:
        """The table's heading, what is wrong, and its entries. ``whole``: nothing is folded."""
        yield from self._heading(one)
        shown = list(one.entries if whole else one.folded())
        largest = max((each.bytes for each in one.entries), default=0)
        rows = [TITLES, *(self._cells(each, one) for each in shown)]
        # What no partition has takes no room.
        kept = [n for n, column in enumerate(zip(*rows, strict=True)) if n in (0, NAME, BAR) or any(column[1:])]
        widths = self._widths([max(cell_len(row[n]) for row in rows if row[RANGE] or n == 0) for n in kept], kept)
        for row, entry in zip(rows, [None, *shown], strict=True):
            if isinstance(entry, Fold):
                yield Text(self._cut(f"{row[0]} {row[NAME]}", self.width), "dim")
            else:
                bar = self._bar(entry.bytes, largest, widths[BAR]) if entry else ""
                yield self._row({n: bar if n == BAR else row[n] for n in kept}, widths, entry)
        if one.unlisted:
            more = f"{self._dots} {one.unlisted:,} more, which the status does not list: see them by --dsn"
            yield Text(self._cut(more, self.width), "dim")

    @property
    def _dots(self) -> str:
        return "…" if self.unicode else ".."

    def _heading(self, one: Timeline) -> Iterator[Text]:
        view, summary = one.view, one.view.status.summary
        policy = f"{view.name}: " if view.of_policy else ""
        key = f" by {summary.key}" if summary else ""
        title = printable(f"{policy}{view.heading['table']}{key}, {one.interval}, {one.zone}")
        yield Text(self._cut(title, self.width), "bold")
        if summary:
            count = f"{summary.partitions:,} partition{'' if summary.partitions == 1 else 's'}, {summary.size}"
            until = f", until {one.clock.short(one.covered_until)}" if one.covered_until else ""
            yield Text(self._cut(printable(f"{count}; {one.runway}{until}"), self.width))
        for level, message in view.problems:
            text = Text(f"{level.name}: {printable(message)}", formats.COLOURS[level.name])
            # By cells, of which a letter may have two; the console only says how wide a tab is.
            for number, line in enumerate(text.wrap(self.console or Console(), self.width - 2)):
                yield Text("  ").append_text(line) if number else line
        for note in (one.idle, f"What comes: the first {len(one.steps)} steps" if one.cut else ""):
            yield from [Text(note)] if note else []

    def _cells(self, each: Entry | Fold, one: Timeline) -> tuple[str, ...]:
        """All but the bar, which is as wide as the others let it be."""
        if isinstance(each, Fold):
            ends = one.clock.period(each.entries[0].lower, each.entries[-1].upper)
            word = "older" if each.older else "newer"
            return (self._dots, f"{len(each.entries):,} {word}, {human(each.bytes)} ({ends})", *[""] * 7)
        now = each.state == "Current"
        return (
            (("▸" if self.unicode else ">") if now else ""),
            printable(each.name),
            each.period,
            "",
            human(each.bytes),
            str(each.state),
            printable(each.archive),
            "held" if each.held else "",
            printable(each.next.words(one.now)) if each.next else "",
        )

    def _bar(self, size: int, largest: int, width: int) -> str:
        """At least a hairline for what is not empty."""
        eighths = -(-size * width * 8 // largest) if largest else 0
        if not self.unicode:
            return "#" * -(-eighths // 8)
        return BLOCKS[8] * (eighths // 8) + BLOCKS[eighths % 8].strip()

    def _widths(self, natural: list[int], kept: Sequence[int]) -> dict[int, int]:
        widths = dict(zip(kept, natural, strict=True))
        widths[0] = 1
        widths[BAR] = BAR_WIDTH
        for column, least in SHRUNK:
            excess = sum(widths.values()) + len(widths) - 1 - self.width
            if excess > 0 and widths.get(column, 0) > least:
                widths[column] = max(least, widths[column] - excess)
        return widths

    def _row(self, cells: Mapping[int, str], widths: Mapping[int, int], entry: Entry | None) -> Text:
        line = Text(style="bold" if entry is None else "")
        for column, cell in cells.items():
            width = widths[column]
            shown = self._tail(cell, width) if column == NAME else self._cut(cell, width)
            shown = shown.rjust(width) if column == SIZE else set_cell_size(shown, width)
            line.append(shown, self._style(column, entry)).append(" ")
        # Of terminals that are too narrow for all columns.
        line.truncate(self.width)
        return line

    def _style(self, column: int, entry: Entry | None) -> str:
        if entry is None:
            return ""
        if column in (BAR, STATE, 0):
            return formats.COLOURS.get(str(entry.state), "")
        if column == NEXT and entry.next and not entry.next.waits and entry.next.at is None:
            return "yellow"
        return {ARCHIVE: "green" if entry.archived else "yellow", SIZE: "dim" if not entry.bytes else ""}.get(
            column, ""
        )

    def _cut(self, text: str, width: int) -> str:
        if cell_len(text) <= width:
            return text
        return set_cell_size(text, max(0, width - len(self._dots))).rstrip() + self._dots

    def _tail(self, text: str, width: int) -> str:
        """Names differ at their end."""
        if cell_len(text) <= width:
            return text
        left = text
        while cell_len(left) > width - len(self._dots):
            left = left[1:]
        return self._dots + left
