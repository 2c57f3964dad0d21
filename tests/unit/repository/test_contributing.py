"""What contributors read is true: packages, commands, links and the list of decisions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from partwarden.controller.settings import OPTIONAL_RIGHTS, RIGHTS

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "operator" / "partwarden"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
DECISIONS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")]
PAGES += [*DECISIONS, ROOT / "docs" / "adr" / "README.md"]


def section(heading: str) -> str:
    """The text of CONTRIBUTING.md below a heading."""
    return CONTRIBUTING.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_the_layout_names_every_package_in_the_order_of_the_imports() -> None:
    named = re.findall(r"^\| `(\w+)` \|", section("The layout"), re.MULTILINE)
    folders = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()]
    assert sorted(named) == sorted([*folders, "errors"])
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [each["layers"] for each in contracts if each["type"] == "layers"]
    rank = {name: number for number, layer in enumerate(layers) for name in layer.split(" | ")}
    assert [rank[name] for name in named] == sorted(rank[name] for name in named)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", CONTRIBUTING, re.MULTILINE))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"\b(?:tests|charts|requirements|docs)/[\w./-]*\w", CONTRIBUTING)))
)
def test_every_path_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_word_of_the_glossary_is_there_once() -> None:
    words = [word for row in re.findall(r"^\| (.*?) \|", section("Glossary"), re.MULTILINE) for word in row.split(", ")]
    assert len(words) == len(set(words)) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_threat_model_names_the_rights_that_the_operator_asks_for() -> None:
    rows = re.findall(r"^ +\| (`.*`) \| ([\w, ]+) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    named = {
        (verb, resource)
        for resources, verbs in rows
        for resource in re.findall(r"`(.*?)`", resources)
        for verb in verbs.split(", ")
    }
    assert named == {(verb, resource) for verb, resource, _ in (*RIGHTS, *OPTIONAL_RIGHTS)} | {("get", "secrets")}


def test_decisions_are_numbered_and_listed_with_their_titles() -> None:
    listed = re.findall(r"^\| \[(\d{4})\]\((\S+)\) \| (.*) \|$", (DECISIONS[0].parent / "README.md").read_text(), re.M)
    titles = [(path, path.read_text().splitlines()[0]) for path in DECISIONS]
    assert [(path.name, title) for path, title in titles] == [
        (file, f"# {number}: {title}") for number, file, title in listed
    ]
    assert [int(number) for number, *_ in listed] == [*range(1, len(listed) + 1)]


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_parts_and_less_than_a_page(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert len(text.splitlines()) <= 55
