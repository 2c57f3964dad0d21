"""CHECK constraints that hold a detached table to the range it had.

A concurrent detach leaves one, and the other form gives it one (see `partwarden.detaching`). Rows that were there
before it lie in the range too: until the detach, PostgreSQL let none in that do not. So with the constraint in force
every row lies in the range, whether or not PostgreSQL has validated it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from .interval import Range
from .inventory import KeyPart
from .keys import TYPES, Bounds, Codec
from .session import run

# From 18 on there are constraints that are written down and not enforced.
CHECKS = """
SELECT k.conname, pg_get_expr(k.conbin, k.conrelid), k.convalidated, quote_ident({key}),
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attname = {key} AND a.attnotnull)
FROM pg_constraint k
WHERE k.conrelid = {oid} AND k.contype = 'c' AND NOT k.connoinherit
  AND to_jsonb(k) ->> 'conenforced' IS DISTINCT FROM 'false'
ORDER BY k.conname
"""
VALUE = r"(?:'([^']+)'|(-?\d+))(?:::[a-z0-9 ]+)?"
TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"| AND |[()]")


@dataclass(frozen=True, slots=True)
class Check:
    """A constraint that no row outside the range fulfils."""

    name: str
    condition: str
    validated: bool


def holding_to(connection: psycopg.Connection[Any], oid: int, key: KeyPart, held: Range) -> tuple[Check, ...]:
    """Those of the table that let no row in whose key lies outside ``held``, or is NULL. Raises psycopg's errors.

    To be asked in a transaction that has pinned its settings: texts of moments are read.
    """
    (rows,) = run(connection, sql.SQL(CHECKS).format(oid=oid, key=key.column))
    return tuple(
        Check(name, text, validated)
        for name, text, validated, column, not_null in rows
        if implies(text, column, not_null, key.type, held)
    )


def bounds(connection: psycopg.Connection[Any], oid: int, key: KeyPart, held: Range) -> Bounds | None:
    """``held`` as a constraint of the table spells it, in PostgreSQL's own words; None where none does.

    Raises psycopg's errors; asked as `holding_to`.
    """
    (rows,) = run(connection, sql.SQL(CHECKS).format(oid=oid, key=key.column))
    codecs = [codec for encoding in TYPES if (codec := Codec.find(key.type, encoding)) is not None]
    for _, text, _, column, _ in rows:
        parts = _joined_by_and(text)
        for lower in _constants(parts, column, ">="):
            for upper in _constants(parts, column, "<"):
                if any(_within(codec, [lower], [upper], held) for codec in codecs):
                    return Bounds(lower, upper)
    return None


def implies(condition: str, column: str, not_null: bool, type_name: str, held: Range) -> bool:
    """Whether the condition, in PostgreSQL's own words, lets no key in that lies outside ``held``, or is NULL.

    Only what is certainly so: comparisons of the column with constants, joined by AND and by nothing else. ``column``
    as SQL quotes it.
    """
    parts = _joined_by_and(condition)
    if not not_null and f"({column} IS NOT NULL)" not in parts:
        return False
    lowers, uppers = _constants(parts, column, ">="), _constants(parts, column, "<")
    codecs = [Codec.find(type_name, encoding) for encoding in TYPES]
    return any(codec is not None and _within(codec, lowers, uppers, held) for codec in codecs)


def _joined_by_and(condition: str) -> list[str]:
    """``(a)`` and ``(b)`` of ``((a) AND (b))``: nothing of any other text."""
    inner = condition[1:-1] if condition.startswith("((") and condition.endswith("))") else ""
    parts, depth, begin = [], 0, 0
    for token in TOKEN.finditer(inner):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth == 0 and token[0] == ")":
            parts.append(inner[begin : token.end()])
        elif depth == 0 and token[0] == " AND ":
            begin = token.end()
    # Whatever stands between them beside AND would be missing here.
    return parts if " AND ".join(parts) == inner and all(each.startswith("(") for each in parts) else []


def _constants(parts: Iterable[str], column: str, operator: str) -> list[str]:
    pattern = re.compile(rf"\({re.escape(column)} {operator} {VALUE}\)")
    return [match[1] or match[2] for each in parts if (match := pattern.fullmatch(each))]


def _within(codec: Codec, lowers: Sequence[str], uppers: Sequence[str], held: Range) -> bool:
    """Keys of a bigint could be seconds or milliseconds: no moment can be a bound of the range in both."""
    if held.lower is None or held.upper is None or codec.aware != (held.lower.tzinfo is not None):
        return False
    try:
        return any(codec.moment(each) == held.lower for each in lowers) and any(
            codec.moment(each) == held.upper for each in uppers
        )
    except (ValueError, OverflowError):
        return False
