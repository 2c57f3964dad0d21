"""The mark of what upkeep has done, in a comment that belongs to the user."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.planner import marker
from partwarden.planner.calendar import BoundedRange
from partwarden.planner.marker import ClosedMark, Marker, Phase

DONE = datetime(2026, 1, 1, 1, 0, 10, tzinfo=UTC)
MARK = ClosedMark(16402, vacuumed=DONE)
DETACH = Marker(16402, 1, "public.run", BoundedRange(DONE, DONE.replace(year=2027)), Phase.DETACHING, DONE)


@given(st.text(), st.none() | st.just(DONE), st.sampled_from([(), ("reindex",), ("vacuum", "reindex")]))
def test_what_is_written_is_read_and_the_users_text_stays(
    text: str, moment: datetime | None, gave_up: tuple[str, ...]
) -> None:
    mark = ClosedMark(7, vacuumed=DONE, reindexed=moment, gave_up=gave_up)
    comment = marker.write_closed(text, mark)
    assert marker.read_closed(comment, 7) == mark
    assert comment.startswith(text)
    assert marker.write_closed(comment, mark) == comment


def test_a_new_mark_takes_the_place_of_the_old_one() -> None:
    comment = marker.write_closed(marker.write_closed("ours since 2019", ClosedMark(16402)), MARK)
    assert comment == 'ours since 2019\npartwarden.dev/closed {"oid": 16402, "vacuumed": "2026-01-01T01:00:10Z"}'


def test_the_mark_of_a_detach_stays_the_last_line() -> None:
    comment = marker.write_closed(marker.write("ours", DETACH), MARK)
    text, detach = marker.read(comment)
    assert detach == DETACH
    assert text.startswith("ours\n")
    assert marker.read_closed(comment, 16402) == MARK


@pytest.mark.parametrize(
    "line",
    [
        "partwarden.dev/closed",
        "partwarden.dev/closed {",
        "partwarden.dev/closed []",
        'partwarden.dev/closed {"oid": 16402, "vacuumed": "yesterday"}',
        'partwarden.dev/closed {"oid": 16402, "vacuumed": 5}',
        'partwarden.dev/closed {"oid": 4711, "vacuumed": "2026-01-01T01:00:10Z"}',
        'see partwarden.dev/closed {"oid": 16402, "vacuumed": "2026-01-01T01:00:10Z"}',
    ],
)
def test_what_is_no_mark_of_this_table_is_the_users_text(line: str) -> None:
    assert marker.read_closed(line, 16402) == ClosedMark(16402)
    assert marker.write_closed(line, MARK).startswith(line + "\n")


def test_a_table_without_a_comment_has_nothing_done() -> None:
    assert marker.read_closed(None, 5) == ClosedMark(5)
