"""The report in a real browser: light and dark, on a screen and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.chromium import Chromium, Page
from partwarden.cli.report import page
from support.timelines import NOW, policy, timeline

HOSTILE = '<img src="http://192.0.2.1/x.png" onerror=alert(1)>' + "wide" * 60
TOO_WIDE = """[...document.querySelectorAll("body *")].filter(each => !each.closest("svg, thead"))
    .filter(each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 200))"""
PALE = """(() => {
    const parts = text => text.match(/[\\d.]+/g).map(Number);
    const light = colour => parts(colour).slice(0, 3).map(each => each / 255)
        .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
        .reduce((sum, each, number) => sum + each * [0.2126, 0.7152, 0.0722][number], 0);
    const behind = each => {
        for (; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if (parts(colour).length < 4 || parts(colour)[3] > 0) return colour;
        }
    };
    const pale = [];
    for (const each of document.querySelectorAll("body *")) {
        const words = [...each.childNodes].filter(node => node.nodeType == 3 && node.data.trim());
        if (!words.length || each.closest("svg title, svg desc") || !each.getClientRects().length) continue;
        const style = getComputedStyle(each), colour = each.closest("svg") ? style.fill : style.color;
        const [low, high] = [light(colour), light(behind(each))].sort((one, other) => one - other);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.5) pale.push(`${ratio.toFixed(2)} ${colour} on ${behind(each)}: ${words[0].data.trim()}`);
    }
    return pale;
})()"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on three tables: one is short of partitions, and one has the names that an attacker would choose."""
    short, hostile = policy("events", past=20, ahead=0), policy(HOSTILE, past=140, ahead=6)
    short["status"]["conditions"][0] |= {"status": "False", "reason": "PartitionsMissing", "message": "no room: " * 30}
    for each in hostile["status"]["partitions"]:
        each["name"] = HOSTILE
    written = tmp_path_factory.mktemp("report") / "report.html"
    written.write_text(page([timeline(policy()), timeline(short), timeline(hostile)], "the database", NOW))
    return written


@pytest.fixture(params=[(1280, False), (1280, True), (390, False), (390, True)], ids=str)
def shown(request: pytest.FixtureRequest, browser: Chromium, file: Path) -> Page:
    """The page in a window of that width, light or dark, with all of it unfolded."""
    width, dark = request.param
    found = browser.open(file.as_uri(), width, dark=dark)
    found.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    return found


def test_it_asks_for_nothing_and_the_console_is_silent(shown: Page, file: Path) -> None:
    assert shown.requests == [file.as_uri()]
    assert shown.complaints == []
    assert shown.evaluate("document.images.length + document.scripts.length") == 0


def test_nothing_is_wider_than_the_window(shown: Page) -> None:
    assert shown.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    assert shown.evaluate(TOO_WIDE) == []


def test_all_text_stands_out_from_what_is_behind_it(shown: Page) -> None:
    """At least 4.5 to 1, as WCAG's level AA demands."""
    assert shown.evaluate(PALE) == []


def test_every_chart_has_a_name_for_those_who_do_not_see_it(shown: Page) -> None:
    names = [each for each in shown.images() if each]
    assert len(names) >= shown.evaluate("document.querySelectorAll('svg').length") == 3
    assert any("shop/events: partitions by size over time" in each for each in names)


def test_bars_have_an_area_and_letters_keep_their_size(shown: Page) -> None:
    sizes = "[...document.querySelectorAll('.bar')].map(each => each.getBBox()).map(each => each.width * each.height)"
    assert min(shown.evaluate(sizes)) > 0
    heights = "[...document.querySelectorAll('svg text')].map(each => each.getBoundingClientRect().height)"
    assert min(shown.evaluate(heights)) > 9


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_follows_the_scheme_of_the_reader(browser: Chromium, file: Path, dark: bool, tmp_path: Path) -> None:
    found = browser.open(file.as_uri(), 1280, dark=dark)
    red = found.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    assert (int(red) < 60) is dark
    found.screenshot(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 20_000
