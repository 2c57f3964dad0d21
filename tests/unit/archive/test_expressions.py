"""The text of an expression stays between the parentheses that it is put into, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.archive.manifest import LONGEST, is_expression, is_type_name

EXPRESSIONS = (
    "(a * 2)",
    "(lower(t) || '!'::text)",
    "VALUE > 0",
    "((VALUE)::text = upper((VALUE)::text))",
    """("A ""column""" + "'" + "\" = 'it''s'::text)",
    r"(t <> E'\\ and \' -- no comment'::text)",
    "(a[1] + (ARRAY[1, 2])[2])",
    "CASE WHEN (a > 1.5e-3) THEN 'x;y'::text ELSE NULL::text END",
    "(t ~~ '%/* no comment */%'::text)",
    "((r).x = ANY (ARRAY['a'::text, 'b'::text]))",
    "(größe IS NOT NULL)",
    "to_tsvector('simple'::regconfig, (COALESCE(t, ''::text)))",
    "(a OPERATOR(public.=) b)",
    "(at - '2000-01-01 00:00:00+00'::timestamp with time zone)",
    "(VALUE > '00:00:00+00'::time with time zone)",
    "((update + copy) + delete)",
    "((merge)::text || insert)",
    "(t IS JSON WITH UNIQUE KEYS)",
    "JSON_QUERY(j, '$.a' WITH CONDITIONAL WRAPPER)",
    "JSON_OBJECT('a' VALUE a)",
)
OTHERS = (
    "",
    " ",
    "a); COPY (SELECT 1) TO PROGRAM 'touch /tmp/x' --",
    "a) STORED, DROP COLUMN b, ADD c int GENERATED ALWAYS AS (1",
    "a, b",
    "a; SELECT 1",
    "a -- the rest is hidden",
    "a /* the rest is hidden",
    "a + /* hidden */ 1",
    "(a",
    "a)",
    "(a]",
    "[a)",
    "'a",
    '"a',
    "E'a\\'",
    "U&'a'",
    'U&"a"',
    "$$a$$",
    "$1",
    "a \\ b",
    "(SELECT 1)",
    "EXISTS (TABLE pg_authid)",
    "(wItH x AS (VALUES (1)) SELECT 1)",
    "SELECT 1",
    "ARRAY(SELECT 1)",
    "(a + (\n\tselect 1))",
    "(a = ANY (VALUES (1)))",
    "a\0b",
    "'a\0b'",
)


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_of_postgresql_is_taken(text: str) -> None:
    assert is_expression(text)


@pytest.mark.parametrize("text", OTHERS)
def test_anything_else_is_refused(text: str) -> None:
    assert not is_expression(text)


@given(st.lists(st.sampled_from([*"()[],;'\"\\- /*$Ee.ax1\n", "--", "/*", "::", "E'", "''"]), max_size=30).map("".join))
def test_what_is_taken_ends_no_parenthesis_and_hides_nothing(text: str) -> None:
    """By a reading of its own, character by character."""
    if is_expression(text):
        assert _depths(text) == []


def _depths(text: str) -> list[str]:
    """What of the text ends the parentheses around it, or hides what follows."""
    wrong, depth, quote, escaped, place = [], 0, "", False, 0
    while place < len(text):
        each, two = text[place], text[place : place + 2]
        place += 1
        if quote:
            if escaped and each == "\\":
                place += 1
            elif each == quote:
                quote = ""
        elif each in "'\"":
            before = text[place - 2 : place - 1] if place > 1 else ""
            earlier = text[place - 3 : place - 2] if place > 2 else ""
            quote, escaped = each, each == "'" and before in tuple("eE") and not (earlier.isalnum() or earlier == "_")
        elif two in ("--", "/*") or each in ";$\\":
            wrong.append(two)
        elif each in "([":
            depth += 1
        elif each in ")]":
            depth -= 1
            wrong += [each] if depth < 0 else []
    return wrong + ([quote] if quote else []) + (["open"] if depth else [])


@pytest.mark.parametrize("worst", ["'", '"', "(", "e'\\", "-", "a", "1e", "''", "E'''"])
def test_a_mebibyte_of_the_worst_is_refused(worst: str) -> None:
    assert not is_expression(worst * ((1 << 20) // len(worst)))
    is_expression(worst * (LONGEST // len(worst)))


TYPES = (
    "bigint",
    "timestamp with time zone",
    "character varying",
    '"char"',
    'public."A type"',
    'odd."a ""b"" (c).[]"[]',
    "double precision[]",
    # Of manifests of format 1.
    "character varying(10)",
    "timestamp(3) without time zone",
    "interval day to second(3)",
    "public.geometry(Point,4326)[]",
)


@pytest.mark.parametrize("text", TYPES)
def test_a_name_of_a_type_is_taken(text: str) -> None:
    assert is_type_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bigint); COPY (SELECT 1) TO PROGRAM 'x",
        "bigint DEFAULT 1, b int",
        "a'b",
        '"a',
        "a.",
        "a--",
        "a(",
        '"a\0"',
        "a" * 600,
    ],
)
def test_anything_else_is_no_name_of_a_type(text: str) -> None:
    assert not is_type_name(text)
