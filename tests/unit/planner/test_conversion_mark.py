"""What a conversion writes into the comment of its table, and what anyone else may have written there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from partwarden.planner.marker import LONGEST_LINE, ConvertedMark, read_converted, write_converted
from partwarden.postgres.conversion_definition import LONGEST_NAME, legacy_name

MARK = ConvertedMark(7, 9, (("run_pkey", 'wi"de\n'),), True, (("public", "log", "log_fkey"),))


@pytest.mark.parametrize("text", [None, "theirs", "two\nlines", "partwarden.dev/converted {}"])
def test_it_stands_beside_the_users_text_and_goes_without_a_trace(text: str | None) -> None:
    comment = write_converted(text, 7, MARK)
    assert comment is not None
    assert comment.startswith(text or "")
    assert read_converted(comment, 7) == MARK
    undone = replace(MARK, undone=True, left=(11, 12))
    assert read_converted(write_converted(comment, 7, undone), 7) == undone
    assert write_converted(comment, 7, None) == text


def test_a_copy_on_another_table_says_nothing_and_stays() -> None:
    comment = write_converted(None, 7, MARK)
    assert read_converted(comment, 8) is None
    assert write_converted(comment, 8, None) == comment


@pytest.mark.parametrize(
    "line",
    [
        '{"oid": 7, "parent": 0, "keys": [], "nullable": false, "validate": [], "undone": false}',
        '{"oid": 7, "parent": 9, "keys": [["a"]], "nullable": false, "validate": [], "undone": false}',
        '{"oid": 7, "parent": 9, "keys": [], "nullable": 1, "validate": [], "undone": false}',
        '{"oid": 7, "parent": 9, "keys": [], "nullable": false, "validate": 5, "undone": false}',
        '{"oid": 7, "parent": 9, "keys": [], "nullable": false, "validate": [["a", "b", null]], "undone": false}',
        '{"oid": 7, "parent": 9, "keys": [], "nullable": false, "validate": [], "undone": true, "left": ["11"]}',
        '{"oid": 7, "parent": 9, "keys": [], "nullable": false, "validate": [], "undone": true, "left": 11}',
        '{"oid": 7}',
        "[]",
    ],
)
def test_what_cannot_be_read_is_the_users_text(line: str) -> None:
    assert read_converted(f"partwarden.dev/converted {line}", 7) is None


def test_one_that_would_not_be_read_again_is_not_written() -> None:
    long = replace(MARK, validate=(("s", "t", "x" * LONGEST_LINE),))
    with pytest.raises(ValueError, match="too long"):
        write_converted(None, 7, long)


def test_names_of_what_belongs_to_the_table_follow_it() -> None:
    assert legacy_name("run", "run_until_2026", "run_pkey") == "run_until_2026_pkey"
    assert legacy_name("run", "run_until_2026", "running") == "run_until_2026_running"
    long = [legacy_name("run", "l" * 60, f"run_{'ä' * 20}_{end}") for end in "ab"]
    assert all(len(each.encode()) <= LONGEST_NAME for each in long)
    assert len(set(long)) == 2
