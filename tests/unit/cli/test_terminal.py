"""Timelines as lines of a terminal: they fit it, in whatever encoding, and colours go to terminals only."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from partwarden.cli.terminal import Page
from support.timelines import GIB, partition, policy, timeline

PLAIN = Page(80, "utf-8")


def lines(found: dict[str, Any] | None = None, page: Page = PLAIN, whole: bool = False) -> list[str]:
    return [each.plain.rstrip() for each in page.lines(timeline(found), whole)]


def test_a_line_says_range_size_state_archive_hold_and_what_comes_next() -> None:
    shown = lines()
    assert shown[0] == "shop/run: public.run by at, Month, UTC"
    assert shown[1] == "41 partitions, 323.0Gi; 3 months ahead, until 2027-03-01"
    assert shown[2].split() == ["NAME", "RANGE", "SIZE", "STATE", "ARCHIVE", "HOLD", "NEXT"]
    assert "  run_2023_09 2023-09 █▌       3.0Gi Detached Proven       drop in 20 h" in shown
    assert "▸ run_2026_11 2026-11 ██▌      5.0Gi Current" in shown
    assert any("held" in each and "Held" in each for each in shown)
    assert any("DEFAULT" in each for each in shown)


def test_what_is_far_off_is_one_line_with_number_and_size() -> None:
    (folded,) = [each for each in lines() if each.startswith("…")]
    assert folded == "… 28 older, 228.7Gi (2024-01-01/2026-05-01)"


def test_all_shows_every_partition() -> None:
    assert sum("run_20" in each for each in lines(whole=True)) == 43
    assert not any(each.startswith("…") for each in lines(whole=True))


def test_columns_that_say_nothing_take_no_room() -> None:
    found = policy()
    found["status"]["plan"] = []
    found["status"]["partitions"] = [partition(-1, "Past"), partition(0, "Current")]
    one = timeline(found)
    heading = [each.plain for each in PLAIN.lines(one, False)][2]
    assert "HOLD" not in heading
    assert "NEXT" not in heading


def test_what_the_status_does_not_list_is_counted() -> None:
    found = policy(partitions=1000)
    assert lines(found)[-1] == "… 959 more, which the status does not list: see them by --dsn"


def test_problems_are_said_in_full() -> None:
    found = policy()
    condition = {"type": "PartitionsAhead", "status": "False", "reason": "PartitionsMissing", "message": "word " * 60}
    found["status"]["conditions"].append({**condition, "lastTransitionTime": "2026-11-01T00:00:00Z"})
    text = " ".join(each.strip() for each in lines(found))
    assert text.count("word") == 60


@pytest.mark.parametrize("word", ["分割テーブル", "🧨🧨🧨"])
def test_problems_of_wide_letters_fit_as_well(word: str) -> None:
    found = policy()
    found["status"]["conditions"][0] |= {"status": "False", "reason": "Broken", "message": f"{word} " * 20 + word * 30}
    shown = lines(found)
    assert max(map(cell_len, shown)) <= 80
    assert "".join(shown).replace(" ", "").count(word) == 50


def test_a_plan_that_may_be_longer_says_so() -> None:
    found = policy()
    found["status"]["plan"] *= 13
    assert "What comes: the first 52 steps" in lines(found)


HOSTILE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=70)


@given(st.lists(HOSTILE, min_size=8, max_size=8), st.integers(40, 200), st.sampled_from(["utf-8", "ascii"]))
def test_no_line_is_wider_than_the_terminal_nor_steers_it(names: list[str], width: int, encoding: str) -> None:
    found = policy()
    for name, each in zip(names, found["status"]["partitions"], strict=False):
        each["name"] = name
    found["metadata"]["name"] = names[-1]
    for each in lines(found, Page(width, encoding)):
        assert cell_len(each) <= width
        assert each.isprintable()


def test_the_widest_words_leave_room_for_the_others() -> None:
    found = policy()
    wide = partition(-36, "DetachPending", 1023 * GIB, "x" * 63)
    wide |= {"from": "2020-01-01T07:30:01Z", "to": "2026-10-01T07:30:01Z"}
    found["status"]["partitions"][2] = wide
    shown = lines(found)
    assert max(map(cell_len, shown)) <= 80
    assert any("DetachPending" in each and "…xxxxx" in each for each in shown)


def test_without_utf_8_it_is_ascii() -> None:
    shown = lines(page=Page(80, "ascii"))
    assert all(each.isascii() for each in shown)
    assert any(each.startswith("> run_2026_11 2026-11 ### ") for each in shown)
    assert any(each.startswith(".. 28 older") for each in shown)


def test_without_a_terminal_nothing_is_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    page = Page.here()
    for line in page.lines(timeline(), False):
        page.print(line)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_on_a_terminal_states_are_coloured_unless_no_color_is_set(
    variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", screen)
    page = Page.here()
    for line in page.lines(timeline(), False):
        page.print(line)
    assert ("\x1b[" in screen.getvalue()) is coloured
    assert page.console is None or isinstance(page.console, Console)
