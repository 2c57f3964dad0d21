"""One table's partitions by size over time, as an SVG for a page that has the styles of its classes.

Places along time are per cent of the width, all else is pixels: letters keep their size on a phone. What others may
have written goes into text nodes only, which drawsvg escapes, and never into attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from itertools import islice
from statistics import median

import drawsvg  # type: ignore[import-untyped]

from ..api.status import State
from ..api.types import Interval
from ..errors import printable
from ..planner.calendar import SHORTEST, Grid
from ..status.details import human
from .timeline import PLANNED, Entry, Timeline

TOP, HEIGHT, LANE = 42, 150, 24
"""Pixels: where bars may begin, how high the highest is, what one lane below takes."""
BASE = TOP + HEIGHT
AXIS = 24
LOWEST = 3
"""Pixels of a bar of nothing: it is seen that it is there."""
REACH = 150
"""Intervals from now, either way, beyond which nothing is drawn."""
TICKS = 4
USUAL = 6
"""Closed partitions whose median a future one is drawn by."""
GHOSTS = (State.FUTURE, PLANNED)
LANES: tuple[tuple[str, str, Callable[[Entry], bool]], ...] = (
    ("archived", "archived and proven", lambda each: each.archived),
    ("held", "held", lambda each: each.held),
    ("leaving", "expired or detached", lambda each: each.leaves),
)


class Chart:
    """``hidden``: entries that it does not draw, for they are further off than `REACH`."""

    def __init__(self, one: Timeline, number: int) -> None:
        """``number`` tells the charts of a page apart."""
        self._one, self._number = one, number
        ranged = [each for each in one.entries if each.lower or each.upper]
        self._first, self._last = self._ends(ranged)
        self._bars = [each for each in ranged if self._x(each.lower or self._first) < self._x(each.upper or self._last)]
        self.hidden = len(ranged) - len(self._bars)
        self._default = next((each for each in one.entries if each.state == State.DEFAULT), None)
        self._right = 89.0 if self._default else 100.0
        drawn = [*self._bars, *([self._default] if self._default else [])]
        self._largest = max((each.bytes for each in drawn), default=0)
        closed = [each.bytes for each in self._bars if each.state == State.PAST][-USUAL:]
        self.usual = int(median(closed)) if closed else 0
        """Bytes: the median of the newest closed partitions."""
        self._lanes = [lane for lane in LANES if any(map(lane[2], self._bars))]

    @property
    def states(self) -> list[str]:
        """Those drawn, for a legend."""
        order = [*State, PLANNED]
        present = {str(each.state) for each in [*self._bars, *([self._default] if self._default else [])]}
        return [str(each) for each in order if each in present]

    def svg(self) -> str:
        """The element, with its title and description."""
        one, height = self._one, BASE + AXIS + LANE * len(self._lanes)
        title, about = f"chart-{self._number}-title", f"chart-{self._number}-desc"
        page = drawsvg.Drawing(100, height, id_prefix=f"chart-{self._number}-")
        labels = {"class": "chart", "role": "img", "aria-labelledby": f"{title} {about}"}
        page.svg_args |= {"width": "100%", "viewBox": None, **labels}
        page.append(drawsvg.Title(printable(f"{one.view.name}: partitions by size over time"), id=title))
        page.append(_Description(printable(self._description()), id=about))
        if one.cutoff and self._first < one.cutoff:
            edge = min(one.cutoff, self._last)
            page.append(_rect(0, TOP, self._x(edge), HEIGHT, "past-cutoff"))
        self._draw_grid(page)
        for each in self._bars:
            self._draw_bar(page, each)
        if self._default:
            self._draw_default(page, self._default)
        for number, (name, words, chosen) in enumerate(self._lanes):
            self._draw_lane(page, BASE + AXIS + LANE * number, name, words, filter(chosen, self._bars))
        self._draw_moments(page)
        return str(page.as_svg(header=""))

    def _ends(self, ranged: Iterable[Entry]) -> tuple[datetime, datetime]:
        """Of what is drawn: now, and partitions within reach."""
        now, longest = self._one.here, SHORTEST[self._one.interval] * REACH
        try:
            earliest, latest = now - longest, now + longest
        except OverflowError:
            earliest, latest = (end.replace(tzinfo=now.tzinfo) for end in (datetime.min, datetime.max))
        near = [
            each
            for each in ranged
            if (each.upper is None or each.upper > earliest) and (each.lower is None or each.lower < latest)
        ]
        moments = [end for each in near for end in (each.lower, each.upper) if end is not None]
        cell = self._one.clock.grid.cell(now)
        first, last = min([cell.lower, *moments]), max([cell.upper, *moments])
        return max(first, earliest), min(last, latest)

    def _x(self, moment: datetime) -> float:
        """In per cent."""
        share = (moment - self._first) / (self._last - self._first)
        return round(min(max(share, 0.0), 1.0) * getattr(self, "_right", 100.0), 2)

    def _height(self, size: int) -> float:
        return max(LOWEST, round(size / self._largest * HEIGHT, 1)) if self._largest else LOWEST

    def _draw_grid(self, page: drawsvg.Drawing) -> None:
        for share in (0.5, 1.0) if self._largest else ():
            y = BASE - HEIGHT * share
            page.append(_line(0, y, self._right, y, "grid"))
            page.append(_text(human(round(self._largest * share)), 0, y - 4, "axis"))
        page.append(_line(0, BASE, self._right, BASE, "base"))
        for moment, words in self._ticks():
            x = self._x(moment)
            page.append(_line(x, BASE, x, BASE + 5, "base"))
            page.append(_text(words, x, BASE + 17, "axis", dx=3))

    def _ticks(self) -> list[tuple[datetime, str]]:
        """At most `TICKS`, at beginnings of the longest periods of which there are three."""
        found, clock = list[tuple[datetime, str]](), self._one.clock
        for interval in reversed(Interval):
            with suppress(OverflowError):
                cells = islice(Grid(interval, clock.grid.zone).cells(self._first, self._last), 2 * REACH + 2)
                found = [
                    (each.lower, clock.period(each.lower, each.upper)) for each in cells if each.lower >= self._first
                ]
            if len(found) >= 3:
                break
        step = -(-len(found) // TICKS) or 1
        return [(moment, words) for moment, words in found[::step] if self._x(moment) <= self._right - 16]

    def _draw_bar(self, page: drawsvg.Drawing, each: Entry) -> None:
        left, right = self._x(each.lower or self._first), self._x(each.upper or self._last)
        high = self._height(max(each.bytes, self.usual) if each.state in GHOSTS else each.bytes)
        bar = _rect(left, BASE - high, max(right - left, 0.15), high, f"bar {each.state}")
        bar.append_title(printable(_words(each, self._one.now)))
        page.append(bar)

    def _draw_default(self, page: drawsvg.Drawing, each: Entry) -> None:
        high = self._height(each.bytes)
        bar = _rect(93, BASE - high, 6, high, f"bar Default {'filled' if self._one.view.in_default else ''}")
        bar.append_title(printable(_words(each, self._one.now)))
        page.append(bar)
        page.append(_line(92, BASE, 100, BASE, "base"))
        page.append(_text("DEFAULT", 100, BASE + 17, "axis", text_anchor="end"))

    def _draw_lane(self, page: drawsvg.Drawing, y: float, name: str, words: str, entries: Iterable[Entry]) -> None:
        page.append(_text(words, 0, y + 11, f"axis {name}"))
        for each in entries:
            left, right = self._x(each.lower or self._first), self._x(each.upper or self._last)
            page.append(_rect(left, y + 15, max(right - left, 0.15), 5, f"lane {name}"))

    def _draw_moments(self, page: drawsvg.Drawing) -> None:
        one, here = self._one, self._x(self._one.here)
        if one.covered_until and one.covered_until > one.here:
            there = self._x(min(one.covered_until, self._last))
            page.append(_rect(here, TOP - 8, there - here, 4, "runway"))
            page.append(_text("runway", there, 12, "axis", text_anchor="end"))
        if one.cutoff and self._first < one.cutoff < self._last:
            x = self._x(one.cutoff)
            page.append(_line(x, TOP - 22, x, BASE, "cutoff"))
            left = x > 55
            words = f"cutoff {one.clock.grid.local(one.cutoff).date()}"
            page.append(_text(words, x, 12, "axis", text_anchor="end" if left else "start", dx=-4 if left else 4))
        page.append(_line(here, TOP - 14, here, BASE + AXIS - 18, "now"))
        left = here > 20
        page.append(_text("now", here, 28, "now-label", text_anchor="end" if left else "start", dx=-4 if left else 4))

    def _description(self) -> str:
        one, drawn = self._one, len(self._bars)
        first, last = (one.clock.grid.local(end).date() for end in (self._first, self._last))
        sizes = f"; the largest has {human(self._largest)}" if drawn else ""
        leaving = [each for each in self._bars if each.leaves]
        archived = sum(each.archived for each in self._bars)
        return (
            f"{drawn} partitions from {first} to {last}{sizes}. {one.runway}. "
            f"{archived} are archived, {sum(each.held for each in self._bars)} are held, {len(leaving)} are expired or "
            "detached."
        )


class _Description(drawsvg.Title):  # type: ignore[misc]
    TAG_NAME = "desc"


class _Line(drawsvg.DrawingBasicElement):  # type: ignore[misc]
    """drawsvg's own is a path, which knows no per cent."""

    TAG_NAME = "line"


def _words(each: Entry, now: datetime) -> str:
    """One entry as a sentence, which a pointer shows."""
    parts = [
        f"{each.name}: {each.period}",
        human(each.bytes),
        str(each.state),
        f"archive {each.archive}" if each.archive else "",
        "held" if each.held and each.state != State.HELD else "",
        each.next.words(now) if each.next else "",
    ]
    return ", ".join(filter(None, parts))


def _rect(x: float, y: float, width: float, height: float, kind: str) -> drawsvg.Rectangle:
    return drawsvg.Rectangle(f"{x:g}%", f"{y:g}", f"{width:.4g}%", f"{height:g}", class_=kind)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> _Line:
    return _Line(x1=f"{x1:g}%", y1=f"{y1:g}", x2=f"{x2:g}%", y2=f"{y2:g}", class_=kind)


def _text(words: str, x: float, y: float, kind: str, **more: object) -> drawsvg.Text:
    return drawsvg.Text(words, 11, f"{x:g}%", f"{y:g}", class_=kind, **more)
