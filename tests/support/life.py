"""Draw the life of a partition from the code's own states, for docs/explanation: see `support.reference`.

Every `State`, every `Phase` of the mark and every row of the table in the docstring of `archive_gate` has its place, or
`draw` raises KeyError; what is written in a box is what the code, or reference.yaml, says of it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

import drawsvg  # type: ignore[import-untyped]

from partwarden.api.status import State
from partwarden.planner import archive_gate
from partwarden.planner.actions import CreatePartition
from partwarden.planner.drop_preconditions import MOST_ROUNDS
from partwarden.planner.marker import Phase

WIDTH, HEIGHT = 1060, 760
BOX, HIGH, STRIP = 152, 112, 26
LETTERS = 22
"""In a line of a box."""
CSS = """
svg { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.page { fill: #ffffff; } .row { fill: #f3f5f8; } text { fill: #1f2328; font-size: 11px; }
.name { font-size: 14px; font-weight: 700; } .title { font-size: 13px; font-weight: 700; fill: #59636e; }
.note { fill: #59636e; } .box { fill: #ffffff; stroke: #8aa4cf; stroke-width: 1.5; }
.box.leaving { stroke: #d4821b; } .box.kept { stroke: #8250df; } .box.gone { stroke: #cf222e; }
.box.good { stroke: #1a7f37; } .box.apart { stroke: #8c959f; stroke-dasharray: 4 3; }
.way { stroke: #59636e; stroke-width: 1.5; fill: none; } .head { fill: #59636e; } .back { stroke-dasharray: 4 3; }
.strip { fill: #dbe6f8; } .strip.leaving { fill: #fbe5c8; } .strip.gone { fill: #f0e4d6; }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117; } .row { fill: #151b23; } text { fill: #f0f6fc; } .title, .note { fill: #9ba5b0; }
  .box { fill: #0d1117; } .way { stroke: #9ba5b0; } .head { fill: #9ba5b0; }
  .strip { fill: #22344f; } .strip.leaving { fill: #4a3412; } .strip.gone { fill: #42352a; }
}
"""
STATES: Mapping[State, tuple[int, int, str, str]] = {
    State.FUTURE: (24, 50, "", CreatePartition.__name__),
    State.CURRENT: (240, 50, "", "the clock"),
    State.PAST: (456, 50, "", "the clock"),
    State.EXPIRED: (672, 50, "leaving", "retention.keepFor"),
    State.HELD: (884, 50, "kept", "the user"),
    State.DEFAULT: (140, 632, "apart", ""),
    State.UNMANAGED: (312, 632, "apart", ""),
    State.LEGACY: (484, 632, "apart", "spec.convert"),
    State.SPLITTING: (656, 632, "apart", "spec.convert.split"),
}
"""Left, top, kind, and what brings it there, of the boxes; the other states are strips below the gate."""
STATE_STRIPS = {State.DETACH_PENDING: (1, 2, "leaving"), State.DETACHED: (2, 5, "gone")}
PHASE_STRIPS = {Phase.DETACHING: (1, 2, "leaving"), Phase.DETACHED: (2, 5, "gone")}
"""From the gap behind one column of the gate to the end of another."""
GATE = ("expired", "proven", "kept", "free", "compared", "dropped")
SIDE = ("changed", "damaged", "kept again after a reading")
GATE_TOP, SIDE_TOP, STRIPS_TOP = 244, 488, 372
COLUMN = 172


def gate() -> dict[str, tuple[str, str, str]]:
    """The table in the docstring of the gate: by state what is asked for, what moves it on, and who acts."""
    rows: dict[str, tuple[str, str, str]] = {}
    lines = (archive_gate.__doc__ or "").splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("====")]
    ends = [match.span() for match in re.finditer("=+", lines[rules[0]])]
    cells: list[list[str]] = []
    for line in lines[rules[1] + 1 : rules[2]]:
        if line.startswith("----"):
            continue
        parts = [line[start : stop if number < 3 else None].strip() for number, (start, stop) in enumerate(ends)]
        if re.match(r"\S", line) and not (cells and parts[0].startswith("after ")):
            cells.append(parts)
        else:
            cells[-1] = [f"{one} {two}".strip() for one, two in zip(cells[-1], parts, strict=True)]
    for state, *rest in cells:
        asked, moves, who = (each.replace("`", "").replace("MOST_ROUNDS", str(MOST_ROUNDS)) for each in rest)
        rows[state] = (asked, moves, who)
    return rows


def draw(meanings: Mapping[str, Sequence[str]]) -> str:
    """The picture. ``meanings``: of states, by their names."""
    found = gate()
    places = {name: (24 + COLUMN * number, GATE_TOP) for number, name in enumerate(GATE)}
    places |= {name: (196 + COLUMN * number, SIDE_TOP) for number, name in enumerate(SIDE)}
    page = drawsvg.Drawing(WIDTH, HEIGHT, id_prefix="life-")
    page.svg_args |= {"role": "img", "aria-labelledby": "life-title life-desc"}
    page.append(drawsvg.Title("The life of a partition", id="life-title"))
    page.append_css(CSS)
    about = "From Future over Current and Past to Expired; archived, proven, detached, kept for its grace, compared, "
    page.append(_Description(about + "dropped; restored from its archive.", id="life-desc"))
    page.append(drawsvg.Rectangle(0, 0, WIDTH, HEIGHT, class_="page", rx=10))
    for top, high, title in (
        (20, 152, "Attached: a partition of the table"),
        (212, 238, "Leaving: what retention with an archive asks for, and what moves it on"),
        (460, 150, "Otherwise"),
        (620, 130, "Never retired"),
    ):
        page.append(drawsvg.Rectangle(10, top, WIDTH - 20, high, class_="row", rx=8))
        page.append(drawsvg.Text(title, 13, 76 if top == 212 else 24, top + 20, class_="title"))
    for state in State:
        if state in STATE_STRIPS:
            _strip(page, str(state), STRIPS_TOP, *STATE_STRIPS[state])
        else:
            left, top, kind, who = STATES[state]
            _box(page, left, top, str(state), meanings[state][0], who, kind)
    for name, (_, moves, who) in found.items():
        left, top = places[name]
        kind = {"dropped": "gone", "proven": "good", "compared": "good", "kept": "kept"}.get(name, "leaving")
        _box(page, left, top, name, moves, who, kind)
    for phase in Phase:
        if phase is not Phase.RESTORED:
            _strip(page, str(phase), STRIPS_TOP + STRIP + 6, *PHASE_STRIPS[phase])
    _box(
        page,
        places["dropped"][0],
        SIDE_TOP,
        str(Phase.RESTORED),
        "from its archive: retention leaves it alone",
        "the user",
        "good",
    )
    page.append(drawsvg.Text("state", 11, 24, STRIPS_TOP + 17, class_="note"))
    page.append(drawsvg.Text("mark in its comment", 11, 24, STRIPS_TOP + STRIP + 23, class_="note"))
    _draw_ways(page)
    return str(page.as_svg(header="")) + "\n"


class _Description(drawsvg.Title):  # type: ignore[misc]
    TAG_NAME = "desc"


def _box(page: drawsvg.Drawing, left: int, top: int, name: str, words: str, who: str, kind: str) -> None:
    page.append(drawsvg.Rectangle(left, top, BOX, HIGH, rx=8, class_=f"box {kind}"))
    page.append(
        drawsvg.Text(name if len(name) < 18 else name.partition(" after")[0], 14, left + 10, top + 21, class_="name")
    )
    lines = textwrap.wrap(words.replace("`", ""), LETTERS, max_lines=5, placeholder=" …")
    for number, line in enumerate(lines):
        page.append(drawsvg.Text(line, 11, left + 10, top + 38 + 13 * number))
    if who not in ("", "nothing"):
        page.append(drawsvg.Text(f"by {who}", 11, left + 10, top + HIGH - 8, class_="note"))


def _strip(page: drawsvg.Drawing, name: str, top: int, first: int, last: int, kind: str) -> None:
    left, right = 24 + COLUMN * first, 24 + COLUMN * last - 20
    page.append(drawsvg.Rectangle(left, top, right - left, STRIP, rx=5, class_=f"strip {kind}"))
    page.append(drawsvg.Text(name, 11, left + 10, top + 17))


def _draw_ways(page: drawsvg.Drawing) -> None:
    head = drawsvg.Marker(-0.1, -0.5, 1, 0.5, scale=8, orient="auto")
    head.append(drawsvg.Lines(-0.1, -0.5, 1, 0, -0.1, 0.5, close=True, class_="head"))

    def way(*points: int, words: str = "", kind: str = "", dx: int = 0, dy: int = -6) -> None:
        page.append(drawsvg.Lines(*points, class_=f"way {kind}", marker_end=head))
        if words:
            x, y = (points[0] + points[2]) // 2, (points[1] + points[3]) // 2
            page.append(drawsvg.Text(words, 11, x + dx, y + dy, text_anchor="middle", class_="note"))

    middle = 50 + HIGH // 2
    for left, words in ((176, "begins"), (392, "ends"), (608, "keepFor")):
        way(left, middle, left + 54, middle, words=words)
    way(824, middle - 10, 874, middle - 10, words="hold")
    way(884, middle + 12, 834, middle + 12, words="unhold", kind="back", dy=14)
    way(748, 50 + HIGH, 748, 192, 60, 192, 60, GATE_TOP - 10)
    for number in range(5):
        left = 24 + COLUMN * number + BOX
        way(left, GATE_TOP + HIGH // 2, left + COLUMN - BOX - 10, GATE_TOP + HIGH // 2)
    way(960, GATE_TOP + HIGH, 960, SIDE_TOP - 10, words="restore", dx=-26, dy=40)
