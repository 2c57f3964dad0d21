"""The script of pg_restore is parsed the same wherever it is cut, and holds one table's rows once, and nothing else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from partwarden.archive.archived_rows import END, LONGEST, copied_rows
from partwarden.errors import DumpFailed

COPY = b'COPY "public"."run; -- 2020" ("id", "it\'s", "a""b\nc") FROM stdin;'
OTHER = b'COPY "public"."other" ("id") FROM stdin;'
HEAD = rb"""--
-- PostgreSQL database dump
--

\restrict 5Y7a

-- Dumped from database version 18.1
-- Dumped by pg_dump version 18.1

SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET row_security = off;

--
-- Data for Name: run; it's "; Type: TABLE DATA; Schema: public; Owner: -
--

"""
TAIL = rb"""

--
-- Name: run_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('"public"."it''s; COPY"', 3, true);


--
-- PostgreSQL database dump complete
--

\unrestrict 5Y7a

"""
ROWS = b"1\ta\\\\.\\n\tCOPY x FROM stdin;\n\\N\t\\\\.\t\n\n"
"""Rows that resemble an end, or a statement."""


def script(rows: bytes = ROWS, head: bytes = HEAD, copy: bytes = COPY, tail: bytes = TAIL) -> bytes:
    return head + copy + b"\n" + rows + b"\\.\n" + tail


def cut(text: bytes, places: list[int]) -> Iterator[bytes]:
    ends = sorted({each % (len(text) + 1) for each in places} | {0, len(text)})
    for begin, end in pairwise(ends):
        yield text[begin:end]


def outcome(pieces: Iterator[bytes]) -> bytes | str:
    """The rows, or what is wrong."""
    try:
        return b"".join(copied_rows(pieces, COPY))
    except DumpFailed as error:
        return str(error)


TWICE = "the archive holds the table's rows twice"
SECOND = "the archive holds the rows of a second table"
NONE = "the archive holds no rows' section of the table that it should be of"
WRONG = "the archive holds the rows of another table, or of other columns, than it should"
BROKEN = "the archive's rows break off"
HALF = "the archive's script breaks off within a statement"
MORE = "the archive holds more than the rows of a table: "

SCRIPTS: dict[str, tuple[bytes, bytes | str]] = {
    "rows": (script(), ROWS),
    "no row": (script(b""), b""),
    "only empty rows": (script(b"\n\n\n"), b"\n\n\n"),
    "no position of a sequence": (script(tail=b""), ROWS),
    "a sequence with a backslash in its name": (script(tail=rb"SELECT pg_catalog.setval( E'a\\b', -1, false);"), ROWS),
    "twice, at once": (script(tail=COPY + b"\n" + ROWS + b"\\.\n"), TWICE),
    "twice, behind the rest": (script(tail=TAIL + script()), TWICE),
    "twice, without a row": (script(tail=TAIL + script(b"")), TWICE),
    "twice, the second broken off": (script(tail=TAIL + COPY), TWICE),
    "another table behind it": (script(tail=TAIL + script(b"1\n", copy=OTHER)), SECOND),
    "another table before it": (script(b"1\n", copy=OTHER) + script(), WRONG),
    "another table": (script(copy=OTHER), WRONG),
    "other columns": (script(copy=COPY.replace(b'"id", ', b"")), WRONG),
    "no rows": (HEAD + TAIL, NONE),
    "nothing": (b"", NONE),
    "rows break off": (HEAD + COPY + b"\n" + ROWS, BROKEN),
    "rows break off in their end": (HEAD + COPY + b"\n" + ROWS + b"\\.", BROKEN),
    "rows break off before the first": (HEAD + COPY, BROKEN),
    "rows in the line of COPY": (HEAD + COPY + b" 1\n\\.\n", BROKEN),
    "a statement breaks off": (script(tail=b"SET a = 'x;\n\n"), HALF),
    "a comment breaks off": (script(tail=b"-- PostgreSQL"), HALF),
    "a table is made": (script(head=HEAD + b"CREATE TABLE x ();\n"), MORE + "CREATE TABLE x ();"),
    "a function is called": (script(tail=b"SELECT evil();\n"), MORE + "SELECT evil();"),
    "one within another": (
        script(tail=b"SELECT pg_catalog.setval('a', 1, true), evil('b');\n"),
        MORE + "SELECT pg_catalog.setval('a', 1, true), evil('b');",
    ),
    "a setting and more": (script(tail=b"SET a = b c;\n"), MORE + "SET a = b c;"),
    "rows as statements": (
        script(tail=b"INSERT INTO run VALUES (';\n');"),
        MORE + "INSERT INTO run VALUES (';\\n');",
    ),
    "COPY in small letters": (script(tail=b"copy x from stdin;\n"), MORE + "copy x from stdin;"),
    "COPY behind a comment of C": (script(tail=b"/* */ COPY x FROM stdin;\n"), MORE + "/* */ COPY x FROM stdin;"),
    "a command of psql": (script(tail=b"\\! rm -rf /\n"), MORE + "\\\\! rm -rf /"),
    "a lone minus": (script(tail=b"- 1;\n"), MORE + "- 1;"),
    "a quote": (script(tail=b"'a;';"), MORE + "'a;';"),
    "a second end": (script(tail=b"\\.\n"), MORE + "\\\\."),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_copy_of_the_table_and_nothing_but_settings_beside_it(name: str) -> None:
    text, expected = SCRIPTS[name]
    assert outcome(iter([text])) == expected
    assert outcome(cut(text, list(range(len(text))))) == expected


@given(st.sampled_from(sorted(SCRIPTS)), st.lists(st.integers(0, 4000), max_size=12))
def test_what_is_found_does_not_depend_on_where_the_pieces_are_cut(name: str, places: list[int]) -> None:
    text, expected = SCRIPTS[name]
    assert outcome(cut(text, places)) == expected


VALUE = st.text(st.sampled_from("a\\.\n\t;'\"-")).map(
    lambda text: text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").encode()
)
"""As COPY writes it."""


@given(st.lists(VALUE.map(lambda value: value + b"\n")), st.integers(0, 3), st.lists(st.integers(0, 4000)))
@example([b"\\\\.\n"], 1, [])
@example([], 2, [])
def test_rows_of_any_value_come_out_as_they_are_and_never_twice(
    values: list[bytes], copies: int, places: list[int]
) -> None:
    rows = b"".join(values)
    text = script(rows, tail=b"") + b"".join(script(rows) for _ in range(copies))
    assert outcome(cut(text, places)) == (TWICE if copies else rows)


PARTS = [
    *(
        b"'",
        b'"',
        b";",
        b"\n",
        b" ",
        b"-",
        b"--",
        b"\\",
        b"\\.\n",
        b"a\t1\n",
        b"SET a = 'b';",
        b"SELECT evil();",
        b"COPY x",
    ),
    *(COPY, OTHER, COPY + b"\n", HEAD, TAIL),
]


@given(st.lists(st.sampled_from(PARTS), max_size=12), st.lists(st.integers(0, 4000), max_size=12))
def test_nonsense_is_refused_the_same_wherever_it_is_cut_and_rows_are_those_of_one_copy(
    parts: list[bytes], places: list[int]
) -> None:
    text = b"".join(parts)
    whole = outcome(iter([text]))
    assert outcome(cut(text, places)) == whole
    if isinstance(whole, bytes):
        _, begins, after = text.partition(COPY + b"\n")
        assert begins
        assert (b"\n" + after).startswith(b"\n" + whole + END[1:])


@pytest.mark.slow
def test_memory_is_bounded_and_the_time_linear_however_long_the_script() -> None:
    def endless() -> Iterator[bytes]:
        yield HEAD + b"SET a = b;\n" * 10_000 + COPY + b"\n"
        for _ in range(64):
            yield b"a row\n" * 100_000
        yield b"\\.\n" + b"SET a = b;\n" * 10_000

    tracemalloc.start()
    try:
        assert sum(map(len, copied_rows(endless(), COPY))) == 64 * 600_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_a_statement_without_an_end_is_given_up() -> None:
    def endless() -> Iterator[bytes]:
        yield b"SET a = '"
        while True:
            yield b"x" * LONGEST

    assert outcome(endless()) == MORE + "SET a = '" + "x" * 51


def test_what_ends_the_script_is_raised_as_it_is() -> None:
    def failing() -> Iterator[bytes]:
        yield HEAD + COPY + b"\n1\n"
        raise DumpFailed("pg_restore ended with 1: could not read")

    assert outcome(failing()) == "pg_restore ended with 1: could not read"
