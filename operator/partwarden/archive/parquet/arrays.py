"""PostgreSQL's text of one-dimensional arrays, read and written element by element.

https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
"""

from __future__ import annotations

import re
from collections.abc import Iterable

ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"]+)', re.DOTALL)
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
QUOTED = re.compile(r'[{},"\\ \t\n\r\v\f]')
"""What an element that stands without quotes does not hold."""
SPECIAL = re.compile(r'(["\\])')


def parse(text: str) -> list[str | None]:
    """The elements of an array that has one dimension, and begins at 1, or is empty."""
    if '"' not in text:
        return [None if each == "NULL" else each for each in text[1:-1].split(",")] if text != "{}" else []
    elements: list[str | None] = []
    for match in ELEMENT.finditer(text, 1, len(text) - 1):
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
