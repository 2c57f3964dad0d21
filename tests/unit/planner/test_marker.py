"""The mark of a detach, and that of what was done once: anyone may write them, so nothing in them can raise."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from partwarden.api.retention import KeyEncoding, OnExpire, Retention
from partwarden.api.types import Interval
from partwarden.archive.table_lookup import spell
from partwarden.errors import UserError
from partwarden.planner import marker
from partwarden.planner.calendar import BoundedRange
from partwarden.planner.inventory import Detached
from partwarden.planner.keys import TYPES, Codec, KeyType
from partwarden.planner.marker import LONGEST_LINE, ClosedMark, Marker, Phase
from partwarden.planner.plan import make_plan
from partwarden.status.details import details
from support import values

GOOD: dict[str, Any] = {
    "oid": 16402,
    "parent": 1000,
    "table": "public.run",
    "from": "2018-01-01T00:00:00Z",
    "to": "2019-01-01T00:00:00Z",
    "phase": "Detached",
    "since": "2026-01-01T00:00:10Z",
}
DONE: dict[str, Any] = {"oid": 16402, "vacuumed": "2026-01-01T01:00:10Z", "gaveUp": ["reindex"]}

HOSTILE: dict[str, Any] = {
    "Infinity": float("inf"),
    "NaN": float("nan"),
    "a number of 5,000 digits": int("9" * 4000),
    "a float": 16402.0,
    "true": True,
    "null": None,
    "negative": -16402,
    "zero": 0,
    "beyond an OID": 2**32,
    "a text": "16402",
    "a list": [16402],
    "an object": {"oid": 16402},
    "nothing": "",
    "the first moment of the calendar": "0001-01-01T00:00:00Z",
    "before the first moment": "0001-01-01T00:00:00+14:00",
    "the last moment": "9999-12-31T23:59:59.999999Z",
    "after the last moment": "9999-12-31T23:59:59-14:00",
    "year 0": "0000-01-01T00:00:00Z",
    "year 10000": "10000-01-01T00:00:00Z",
    "an offset of a day": "2018-01-01T00:00:00+24:00",
    "half of a surrogate pair": "\ud800",
    "a NUL": "\0",
}
LINES = {
    "100,000 brackets": "[" * 100_000,
    "100,000 braces": '{"a":' * 100_000,
    "as many brackets as a line may have": "[" * (LONGEST_LINE - 100),
    "a name twice": json.dumps(GOOD)[:-1] + ', "oid": 16402}',
    "Infinity": '{"oid": Infinity}',
    "a number of 100,000 digits": '{"oid": ' + "9" * 100_000 + "}",
    "a number of 5,000 digits": '{"oid": ' + "9" * 5_000 + "}",
    "an exponent": '{"oid": 1e999999}',
    "a list": "[]",
    "a text": '"x"',
    "null": "null",
    "nothing": "",
    "cut short": json.dumps(GOOD)[:-1],
    "more behind it": json.dumps(GOOD) + "}",
    "no space": "{}",
}


def line(held: Any, label: str = marker.LABEL) -> str:
    return f"{label} {json.dumps(held)}"


def test_what_is_written_is_read() -> None:
    mark = Marker(16402, 1000, 'pub"lic.r\nu,n', BoundedRange(*(values.moment(f"{y}-01-01") for y in (2018, 2019))),
                  Phase.DETACHED, values.NOW)  # fmt: skip
    for text in ("", "ours", "two\nlines"):
        assert marker.read(marker.write(text, mark)) == (text, mark)


@pytest.mark.parametrize("field", GOOD)
@pytest.mark.parametrize("what", HOSTILE)
def test_a_mark_with_one_hostile_value_is_the_users_text(field: str, what: str) -> None:
    text = line({**GOOD, field: HOSTILE[what]})
    before, mark = marker.read(f"ours\n{text}")
    if mark is None:
        assert before == f"ours\n{text}"
    else:
        # A name of a parent, which is for people only, may be nearly any text.
        assert field == "table"
        assert marker.read(marker.write(before, mark)) == ("ours", mark)
        (marker.write(before, mark) or "").encode()


@pytest.mark.parametrize("field", [*DONE, "reindexed"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_closed_line_with_one_hostile_value_says_nothing(field: str, what: str) -> None:
    text = line({**DONE, field: HOSTILE[what]}, marker.CLOSED_LABEL)
    found = marker.read_closed(text, 16402)
    assert found == ClosedMark(16402) or HOSTILE[what] is None
    assert marker.write_closed(text, ClosedMark(16402)).encode()


@pytest.mark.parametrize("what", LINES)
@pytest.mark.parametrize("label", [marker.LABEL, marker.CLOSED_LABEL])
def test_a_line_that_is_no_mark_is_the_users_text(what: str, label: str) -> None:
    text = f"ours\n{label} {LINES[what]}"
    assert marker.read(text) == (text, None)
    assert marker.read_closed(text, 16402) == ClosedMark(16402)


def test_the_line_of_a_mark_is_read_where_it_stands_last_and_only_there() -> None:
    good = line(GOOD)
    assert marker.read(good)[1] is not None
    for text in (f"{good}\n", f"{good}\nmore", f" {good}", good.replace(" ", "  ", 1)[1:]):
        assert marker.read(text) == (text, None)


CODECS = [Codec(each, encoding) for encoding, types in TYPES.items() for each in types]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(list(HOSTILE.values())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MOMENTS = st.datetimes(timezones=st.none() | st.timezones()).map(lambda each: each.isoformat())


@given(
    st.text(),
    st.dictionaries(st.sampled_from(list(GOOD)), JSON | MOMENTS, max_size=4),
    st.sets(st.sampled_from(list(GOOD)), max_size=2),
)
@example("", {}, set())
def test_no_mark_raises_and_what_is_read_can_be_written(text: str, changed: dict[str, Any], left_out: set[str]) -> None:
    held = {name: value for name, value in {**GOOD, **changed}.items() if name not in left_out}
    for comment in (text, line(held), f"{text}\n{line(held)}", f"{text}\n{marker.LABEL} {text}"):
        before, mark = marker.read(comment)
        if mark is None:
            assert before == comment
        else:
            assert marker.read(marker.write(before, mark)) == (before, mark)
            (marker.write("", mark) or "").encode()


@given(st.text(), st.dictionaries(st.sampled_from([*DONE, "reindexed"]), JSON | MOMENTS, max_size=3))
def test_no_closed_line_raises_and_the_users_text_stays(text: str, changed: dict[str, Any]) -> None:
    comment = f"{text}\n{line({**DONE, **changed}, marker.CLOSED_LABEL)}"
    found = marker.read_closed(comment, 16402)
    assert marker.read_closed(marker.write_closed(comment, found), 16402) == found
    assert marker.write_closed(comment, found).startswith(text)


NEAR = st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1))  # noqa: DTZ001 - the zone is chosen beside it
FAR = st.datetimes()
ENDS = (NEAR | FAR).flatmap(
    lambda each: st.sampled_from([each.isoformat(), f"{each.isoformat()}Z", f"{each.isoformat()}+05:45"])
)


@given(
    st.lists(st.tuples(ENDS, ENDS, ENDS, st.sampled_from(list(Phase))), max_size=4),
    st.sampled_from([KeyType.TIMESTAMPTZ, KeyType.TIMESTAMP, KeyType.DATE]),
    st.sampled_from(list(Interval)),
    st.sampled_from(["0s", "24h", "99999h"]),
    st.sampled_from(["1d", "5y", "200y"]),
)
@example(
    [("2018-01-01T00:00:00Z", "2019-01-01T00:00:00Z", "9999-12-29T00:00:00Z", Phase.DETACHED)],
    KeyType.TIMESTAMPTZ,
    Interval.YEAR,
    "99999h",
    "5y",
)
@example(
    [("9998-01-01T00:00:00Z", "9999-12-29T00:00:00Z", "2026-01-01T00:00:00Z", Phase.DETACHED)],
    KeyType.TIMESTAMPTZ,
    Interval.YEAR,
    "0s",
    "5y",
)
@example(
    [("0001-01-03T00:00:00Z", "0002-01-01T00:00:00Z", "0001-01-03T00:00:00Z", Phase.DETACHED)],
    KeyType.TIMESTAMPTZ,
    Interval.QUARTER,
    "24h",
    "5y",
)
def test_whatever_a_mark_says_a_plan_and_a_status_are_made(
    marks: list[tuple[str, str, str, Phase]], key: KeyType, interval: Interval, grace: str, keep_for: str
) -> None:
    tables = []
    for number, (lower, upper, since, phase) in enumerate(marks):
        held = {**GOOD, "oid": 16402 + number, "from": lower, "to": upper, "since": since, "phase": phase}
        _, mark = marker.read(line(held))
        if mark is not None:
            tables.append(Detached(mark.oid, "public", f"old_{number}", mark))
    retention = Retention(keep_for=keep_for, on_expire=OnExpire.DROP, drop_without_archive=True, grace=grace)
    spec = values.spec(retention=retention, interval=interval, premake=1)
    found = values.inventory(parent=values.parent(key), detached=tuple(tables))
    try:
        plan = make_plan(spec, found, found.now)
    except UserError:
        return
    details(found, plan, [])


@given(ENDS, ENDS, st.sampled_from(CODECS))
@example("2018-01-01", "2019-01-01", Codec(KeyType.INTEGER, KeyEncoding.EPOCH_SECONDS))
def test_an_archive_takes_from_a_mark_bounds_that_the_key_can_have_or_none(
    lower: str, upper: str, codec: Codec
) -> None:
    _, mark = marker.read(line({**GOOD, "from": lower, "to": upper}))
    found = spell(mark.range, codec) if mark else None
    assert found is None or all(isinstance(each, str) for each in found)


def test_moments_are_in_utc_whatever_their_zone() -> None:
    _, mark = marker.read(line({**GOOD, "since": "2026-01-01T02:00:00+02:00"}))
    assert mark is not None
    assert mark.since == datetime(2026, 1, 1, tzinfo=UTC)
    assert mark.since.tzinfo is UTC
