"""Sources and documents name the actor and use the field's words: CONTRIBUTING.md, House style."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("operator", "tests", "docs", "examples", "charts", "crds", "requirements", ".github")
SUFFIXES = {".md", ".py", ".sh", ".sql", ".svg", ".toml", ".tpl", ".txt", ".yaml", ".yml"}
# The field says instead: the user, another session, the API server; said, ordered; reconcile; has a lock; older;
# useless; correct. Logins and variables are no words.
AVOIDED = re.compile(
    r"""
    (?<![/"=]) \b (?: some | no | every | any ) body \b
    | \b whoever \b
    | \b told \b (?! [.,)] | [ ]= )
    | \b (?: a | each | every | first | last | next | one | another | per | second | this ) [ ] looks? \b
    | \b in [ ] hand \b
    | \b elders? \b
    | \b vain (?: ly )? \b
    | \b mend (?: s | ed | ing )? \b
    """,
    re.IGNORECASE | re.VERBOSE,
)
AVOIDED_IN_PAGES = re.compile(r"\b(looks at|ours)\b", re.IGNORECASE)


def texts() -> Iterator[Path]:
    """What is written by hand or made from that."""
    for folder in FOLDERS:
        yield from (path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in SUFFIXES)


@pytest.mark.slow
def test_no_word_is_used_that_names_no_actor_or_is_not_of_the_field() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if AVOIDED.search(line) or (path.suffix == ".md" and AVOIDED_IN_PAGES.search(line))
    ]
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["It was told to stop", "Nobody asks.", "at the next look", "every look", "Whoever it is", "in vain"]
)
def test_such_a_word_is_noticed(text: str) -> None:
    assert AVOIDED.search(text)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["it looks like a mark", "postgresql://nobody@db", 'user == "nobody"', "the end"])
def test_another_is_not(text: str) -> None:
    assert not AVOIDED.search(text)
