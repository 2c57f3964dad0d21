"""PostgreSQL's text of one-dimensional arrays, read and written element by element.

https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
"""

from __future__ import annotations

import re
from collections.abc import Iterable

ELEMENT = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^,{}"]+))(?:,|\Z)', re.DOTALL)
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
QUOTED = re.compile(r'[{},"\\ \t\n\r\v\f]')
"""What an element that stands without quotes does not hold."""
SPECIAL = re.compile(r'(["\\])')


def parse(text: str) -> list[str | None]:
    """The elements of an array that has one dimension, and begins at 1, or is empty. Raises ValueError."""
    content = text[1:-1]
    if '"' not in content:
        return [None if each == "NULL" else each for each in content.split(",")] if content else []
    elements: list[str | None] = []
    position = 0
    while position < len(content):
        match = ELEMENT.match(content, position)
        if match is None:
            raise ValueError(f"{text[:40]!r} is no array of one dimension")
        position = match.end()
        quoted, plain = match.groups()
        elements.append(ESCAPED.sub(r"\1", quoted) if plain is None else None if plain == "NULL" else plain)
    return elements


def render(elements: Iterable[str | None]) -> str:
    """The array's text, as PostgreSQL writes it."""
    return "{" + ",".join(_render_element(each) for each in elements) + "}"


def _render_element(element: str | None) -> str:
    if element is None:
        return "NULL"
    if not element or element.upper() == "NULL" or QUOTED.search(element):
        return '"' + SPECIAL.sub(r"\\\1", element) + '"'
    return element
