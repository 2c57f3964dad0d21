"""The report as text: whole, bounded, and nothing in it but what was escaped."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from partwarden.cli.chart import Chart
from partwarden.cli.main import main
from partwarden.cli.report import MOST_CHARTS, MOST_TABLES, page
from partwarden.cli.timeline import Timeline
from partwarden.errors import InvalidSpec
from support.api_server import ApiServer, serving
from support.timelines import NOW, of_policy, partition, policy, step, timeline

ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "h1",
        "h2",
        "p",
        "time",
        "dl",
        "div",
        "dt",
        "dd",
        "main",
    ),
    *("small", "span", "section", "table", "caption", "thead", "tbody", "tr", "th", "td", "a", "ul", "li", "strong"),
    *("figure", "figcaption", "svg", "defs", "desc", "line", "text", "rect", "details", "summary", "footer"),
}
HOSTILE = [
    "</title><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; } body { display: none } /*",
    "]]></style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% include 'x' %}",
    "javascript:alert(1)",
    "\u202egnp.exe\x1b[2J\n\x00",
]


class Reader(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.words = list[str](), list[tuple[str, str | None]](), ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words += data


def written(*found: Timeline) -> str:
    return page(found or [timeline()], "the database", NOW)


def hostile(name: str) -> dict[str, Any]:
    """A policy in which everything that others can write is this."""
    found = policy()
    found["metadata"] |= {"name": name, "namespace": name}
    found["spec"] |= {"timezone": name, "interval": name}
    found["status"]["summary"] |= {"table": name, "key": name, "size": name, "defaultRows": 3}
    condition = {"type": name, "status": "False", "reason": name, "message": name}
    found["status"]["conditions"] = [
        {**condition, "type": kind, "lastTransitionTime": name} for kind in ("Ready", "PartitionsAhead")
    ]
    for each in found["status"]["partitions"][:4]:
        each |= {"name": name, "kind": name}
    found["status"]["partitions"][4] |= {"from": name, "to": name}
    for each in found["status"]["plan"]:
        each |= {"action": name, "partition": name, "reason": name, "lock": name, "waitsFor": [name], "notBefore": name}
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_others_write_is_text(name: str) -> None:
    text = written(timeline(hostile(name)))
    found = Reader(text)
    assert set(found.tags) <= ALLOWED
    assert found.tags.count("style") == 1
    assert not [each for each, _ in found.attributes if each.startswith("on") or each in ("src", "style", "xlink:href")]
    assert all(value and value.startswith("#") for each, value in found.attributes if each == "href")
    assert "{{" not in name or "{{ 7 * 7 }}" in found.words
    assert all(each.isprintable() for each in text.splitlines())


@given(st.text(min_size=1))
def test_any_name_leaves_the_drawing_well_formed(name: str) -> None:
    found = hostile(name)
    found["spec"] |= {"timezone": "UTC", "interval": "Month"}
    ElementTree.fromstring(Chart(timeline(found), 1).svg())  # noqa: S314 - it is our own


def test_a_page_forbids_itself_to_load_or_run_anything() -> None:
    text = written()
    assert "content=\"default-src 'none'; style-src 'unsafe-inline';" in text
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text
    assert "<script" not in text
    assert "url(" not in text


def test_the_worst_stands_first_then_the_shortest_runway() -> None:
    well, short, bad = policy("well", ahead=6), policy("short", ahead=2), policy("bad", ahead=9)
    bad["status"]["conditions"][0] |= {"status": "False", "reason": "Broken"}
    text = written(*map(timeline, (well, short, bad)))
    assert re.findall(r'<a href="#table-\d">([^<]+)</a>', text) == ["shop/bad", "shop/short", "shop/well"]
    assert "2 months ahead" in text


def test_a_chart_shows_archives_holds_expiry_default_now_cutoff_and_runway() -> None:
    drawn = Chart(timeline(), 1).svg()
    for kind in ("lane archived", "lane held", "lane leaving", "bar Default", "now", "cutoff", "runway", "bar Planned"):
        assert f'class="{kind}' in drawn, kind
    assert ">archived and proven<" in drawn


def test_a_chart_has_a_title_and_a_description() -> None:
    root = ElementTree.fromstring(Chart(timeline(), 7).svg())  # noqa: S314 - it is our own
    assert root.get("role") == "img"
    names = {each.get("id"): each.text for each in root if each.get("id")}
    first, second = (names[each] or "" for each in str(root.get("aria-labelledby")).split())
    assert first == "shop/run: partitions by size over time"
    assert "3 months ahead" in second
    assert "2 are archived, 1 are held, 3 are expired or detached" in second


def test_what_is_beyond_reach_does_not_squeeze_the_rest() -> None:
    found = policy()
    found["status"]["partitions"].append(
        {"name": "old", "from": "1970-01-01T00:00:00Z", "to": "1971-01-01T00:00:00Z", "bytes": 1, "state": "Unmanaged"}
    )
    chart = Chart(timeline(found), 1)
    assert chart.hidden == 1
    assert "1 further off are not drawn" in written(timeline(found))


@pytest.mark.parametrize(
    "partitions", [[], [partition(0, "Current", 0)], [{"name": "all", "bytes": 1, "state": "Unmanaged"}]]
)
def test_a_table_with_hardly_any_partition_is_drawn(partitions: list[dict[str, Any]]) -> None:
    found = policy()
    found["status"] |= {"partitions": partitions, "plan": []}
    summary = found["status"]["summary"]
    one = of_policy(found)
    assert summary["table"] in written(one)


@pytest.mark.slow
def test_a_thousand_policies_are_a_page_that_a_browser_opens() -> None:
    fleet = [timeline(policy(f"run{number}", past=150, ahead=10)) for number in range(20)] * 60
    text = written(*fleet)
    assert len(text) < 6_000_000
    assert text.count("<figure>") == MOST_CHARTS
    assert text.count('data-label="Runway"') == MOST_TABLES
    assert f"{1200 - MOST_TABLES} more tables, which are better off" in text


def test_without_the_packages_that_draw_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "drawsvg", None)
    monkeypatch.delitem(sys.modules, "partwarden.cli.chart", raising=False)
    with pytest.raises(InvalidSpec, match=r"drawsvg is not installed; install partwarden\[report\]"):
        written()


def test_a_report_says_that_nothing_is_done_and_that_there_may_be_more_steps() -> None:
    found = policy()
    found["spec"]["suspend"] = True
    found["status"]["plan"] = [step("CreatePartition", partition(number, "Future")) for number in range(4, 54)]
    text = written(timeline(found))
    assert "nothing of NEXT is done: spec.suspend is true" in text
    assert "What comes: the first 50 steps" in text


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[str]:
    """Namespace shop has policies run and events."""
    server = ApiServer()
    server.store(policy("run"))
    server.store(policy("events", ahead=0))
    with serving(server, tmp_path) as path:
        yield str(path)


@pytest.mark.parametrize(
    ("named", "expected"), [([], ["events", "run"]), (["run"], ["run"]), (["run", "events"], ["events", "run"])]
)
def test_policies_are_named_or_all_of_the_namespace(
    named: list[str], expected: list[str], kubeconfig: str, tmp_path: Path
) -> None:
    target = tmp_path / "report.html"
    done = CliRunner().invoke(main, ["report", *named, "--kubeconfig", kubeconfig, "--html", str(target)])
    assert done.output == f"wrote {target}: {len(expected)} table{'s' * (len(expected) > 1)}\n"
    assert re.findall(r'<h2 id="table-\d">shop/(\w+)</h2>', target.read_text()) == expected


def test_the_report_is_utf_8_whatever_standard_output_is(kubeconfig: str) -> None:
    done = CliRunner(charset="ascii").invoke(main, ["report", "--kubeconfig", kubeconfig, "--html", "-"])
    assert done.stdout_bytes.decode().startswith("<!DOCTYPE html>")


def test_a_timeline_is_that_of_one_policy_or_of_all(kubeconfig: str) -> None:
    shown = [CliRunner().invoke(main, ["timeline", *name, "--kubeconfig", kubeconfig]).output for name in ([], ["run"])]
    assert [each.count("public.") for each in shown] == [2, 1]
    assert shown[1].startswith("shop/run: public.run by at, Month, UTC\n")


@pytest.mark.parametrize("arguments", [["report", "--html", "-"], ["timeline"]], ids=["report", "timeline"])
def test_archives_of_a_policy_are_not_asked_for_by_an_address(arguments: list[str], kubeconfig: str) -> None:
    done = CliRunner().invoke(main, [*arguments, "--kubeconfig", kubeconfig, "--archives", "file:///x"])
    assert done.exit_code == 1
    assert "--archives goes with --dsn" in done.output


@pytest.mark.parametrize("arguments", [["report"], ["report", "--html"]])
def test_a_file_must_be_named(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "--html" in done.output


def test_what_a_page_is_made_of_is_in_the_package() -> None:
    assert (Path(page.__code__.co_filename).parent / "report.html.j2").is_file()
