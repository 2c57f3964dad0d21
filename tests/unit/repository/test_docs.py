"""README and docs name make targets and files that exist, and the README stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from partwarden import errors

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text().replace("\\\n", "")
PAGES = sorted(
    (ROOT / "README.md", ROOT / "charts" / "partwarden" / "README.md", *(ROOT / "docs").rglob("*.md")), key=str
)
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
ALL = "\n".join(TEXTS.values())


def test_the_readme_can_be_read_in_two_minutes() -> None:
    assert len(README.splitlines()) <= 170


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", ALL, re.MULTILINE))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^([a-z -]+ )?{target}( [a-z -]+)?:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:crds|examples|docs|charts)/[a-z./-]+[a-z]", ALL))))
def test_every_file_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


MODULE = r"`((?:api|planner|status|postgres|archive|kube|controller|cli)/[a-z_]+\.py)`"


@pytest.mark.parametrize("module", sorted(set(re.findall(MODULE, ALL))))
def test_every_module_named_exists(module: str) -> None:
    assert (ROOT / "operator" / "partwarden" / module).exists()


@pytest.mark.parametrize("kind", errors.REASONS.values(), ids=errors.REASONS.keys())
def test_every_error_says_what_it_means_and_what_to_do(kind: type[errors.PartwardenError]) -> None:
    text = " ".join((kind.__doc__ or "").split())
    assert text.endswith(".")
    assert len(text.split(". ")) >= 2 or "Planned anew" in text
