"""Values of the key and moments: there and back, at the edges of what a key can be, and beside bounds of others."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.retention import KeyEncoding
from partwarden.errors import KeyOutOfRange
from partwarden.planner.calendar import Range
from partwarden.planner.inventory import Partition
from partwarden.planner.keys import LOWEST_VALID, TYPES, Codec, Edges, KeyType, parse_bounds
from support import values
from support.values import moment

UUID7 = Codec(KeyType.UUID, KeyEncoding.UUID_V7)
SECONDS = Codec(KeyType.BIGINT, KeyEncoding.EPOCH_SECONDS)
SMALL_SECONDS = Codec(KeyType.INTEGER, KeyEncoding.EPOCH_SECONDS)
MILLISECONDS = Codec(KeyType.BIGINT, KeyEncoding.EPOCH_MILLISECONDS)
ENCODED = [UUID7, SECONDS, SMALL_SECONDS, MILLISECONDS]

codecs = st.sampled_from([Codec(each, encoding) for encoding, types in TYPES.items() for each in types])
since_1970 = st.datetimes(datetime(1970, 1, 1), datetime(2038, 1, 19)).map(lambda each: each.replace(tzinfo=UTC))  # noqa: DTZ001


def at(text: str, rest: int) -> str:
    """A UUID of that moment with these bits behind its milliseconds."""
    return str(uuid.UUID(int=uuid.UUID(UUID7.literal(moment(text))).int + rest))


def held(name: str, lower: str, upper: str, codec: Codec = UUID7) -> Partition:
    """A partition with arbitrary bounds, as the catalog would show it."""
    text = f"FOR VALUES FROM ('{lower}') TO ('{upper}')"
    found = parse_bounds(text, codec)
    assert found is not None
    return Partition(hash(name), "public", name, found, text)


@pytest.mark.parametrize(
    ("codec", "text", "value"),
    [
        (UUID7, "1970-01-01", "00000000-0000-0000-0000-000000000000"),
        (UUID7, "2026-01-01", "019b76da-a800-0000-0000-000000000000"),
        (UUID7, "2026-01-01T00:00:00.001", "019b76da-a801-0000-0000-000000000000"),
        (UUID7, "9997-12-31T23:59:59.999", "e66922bd-83ff-0000-0000-000000000000"),
        (SECONDS, "1970-01-01", "0"),
        (SECONDS, "2026-01-01", "1767225600"),
        (SECONDS, "1000-01-01", "-30610224000"),
        (SECONDS, "2038-01-19T03:14:08", "2147483648"),
        (SMALL_SECONDS, "2038-01-19T03:14:07", "2147483647"),
        (SMALL_SECONDS, "1901-12-13T20:45:52", "-2147483648"),
        (MILLISECONDS, "2026-01-01", "1767225600000"),
        (MILLISECONDS, "1969-12-31T23:59:59.999", "-1"),
    ],
)
def test_values_of_moments(codec: Codec, text: str, value: str) -> None:
    assert codec.literal(moment(text)) == value
    assert codec.moment(value) == moment(text)


@given(st.sampled_from(ENCODED), since_1970)
def test_the_smallest_value_at_or_after_a_moment(codec: Codec, given_moment: datetime) -> None:
    back = codec.moment(codec.literal(given_moment))
    tick = timedelta(seconds=1) if codec.encoding is KeyEncoding.EPOCH_SECONDS else timedelta(milliseconds=1)
    assert given_moment <= back < given_moment + tick
    assert codec.literal(back) == codec.literal(given_moment)


@given(codecs, since_1970)
def test_whole_seconds_go_there_and_back_in_every_encoding(codec: Codec, given_moment: datetime) -> None:
    whole = given_moment.replace(microsecond=0, tzinfo=UTC if codec.aware else None)
    if codec.type is KeyType.DATE:
        whole = whole.replace(hour=0, minute=0, second=0)
    assert codec.moment(codec.literal(whole)) == whole


@given(since_1970)
def test_every_uuid_of_a_millisecond_lies_at_or_above_its_literal(given_moment: datetime) -> None:
    bound = uuid.UUID(UUID7.literal(given_moment))
    milliseconds = bound.int >> 80
    lowest, highest = (uuid.UUID(int=(milliseconds << 80) + rest) for rest in (LOWEST_VALID, (1 << 80) - 1))
    assert (lowest.version, lowest.variant) == (7, uuid.RFC_4122)
    assert bound.int & ((1 << 80) - 1) == 0
    assert bound <= lowest < highest < uuid.UUID(int=(milliseconds + 1) << 80)


@pytest.mark.parametrize(
    ("codec", "text", "words"),
    [
        (UUID7, "1969-12-31T23:59:59.999", "uuid in UUIDv7 cannot be 1969-12-31T23:59:59.999000Z"),
        (UUID7, "1969-06-01", "from 1970-01-01T00:00:00Z to 9998-01-01T00:00:00Z"),
        (SMALL_SECONDS, "2038-01-19T03:14:08", "from 1901-12-13T20:45:52Z to 2038-01-19T03:14:07Z"),
        (SMALL_SECONDS, "2039-01-01", "integer in EpochSeconds cannot be 2039-01-01T00:00:00Z"),
        (SMALL_SECONDS, "1901-12-13T20:45:51", "leave out dates beyond that in spec.startFrom and spec.ensure"),
    ],
)
def test_moments_that_a_key_cannot_be(codec: Codec, text: str, words: str) -> None:
    with pytest.raises(KeyOutOfRange) as caught:
        codec.literal(moment(text))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("codec", "lower", "upper"),
    [
        (SECONDS, -(2**63), 2**63 - 1),
        (MILLISECONDS, -(2**63), 2**63 - 1),
        (SECONDS, -62135596801, 253402300800),
        (MILLISECONDS, -62135596800001, 253402300800000),
    ],
)
def test_numbers_outside_the_calendar_are_unbounded(codec: Codec, lower: int, upper: int) -> None:
    middle = codec.literal(moment("2026-01-01"))
    assert parse_bounds(f"FOR VALUES FROM ('{lower}') TO ('{middle}')", codec) == Range(None, moment("2026-01-01"))
    assert parse_bounds(f"FOR VALUES FROM ('{middle}') TO ('{upper}')", codec) == Range(moment("2026-01-01"), None)


@pytest.mark.parametrize(
    ("codec", "lower", "upper", "expected"),
    [
        (SMALL_SECONDS, "'-5'", "10", Range(moment("1969-12-31T23:59:55"), moment("1970-01-01T00:00:10"))),
        (SECONDS, "MINVALUE", "'10'", Range(None, moment("1970-01-01T00:00:10"))),
        (MILLISECONDS, "'1767225600001'", "MAXVALUE", Range(moment("2026-01-01T00:00:00.001"), None)),
        (UUID7, f"'{UUID7.literal(moment('2026-01-01'))}'", "MAXVALUE", Range(moment("2026-01-01"), None)),
        (UUID7, "MINVALUE", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", Range(None, None)),
    ],
)
def test_bounds_as_postgresql_writes_them(codec: Codec, lower: str, upper: str, expected: Range) -> None:
    assert parse_bounds(f"FOR VALUES FROM ({lower}) TO ({upper})", codec) == expected


@given(st.integers(0, 2**80 - 1), st.integers(0, 2**80 - 1))
def test_what_leaves_keys_of_a_millisecond_below_it_is_never_a_boundary(rest: int, other: int) -> None:
    text = "2026-01-01"
    found = UUID7.moment(at(text, rest))
    if rest <= LOWEST_VALID:
        assert found == moment(text)
    else:
        assert moment(text) < found < moment(text) + timedelta(milliseconds=1)
    assert found <= UUID7.moment(at(text, max(rest, other)))


@pytest.mark.parametrize("rest", [0, LOWEST_VALID, 1, 0x7000_0000_0000_0000_0000])
def test_all_ways_to_write_the_bounds_of_a_year_are_managed(rest: int) -> None:
    """No UUIDv7 lies between them."""
    year = held("some name", at("2026-01-01", rest), at("2027-01-01", rest))
    found = values.inventory(year, parent=values.parent(KeyType.UUID))
    plan = values.plan(values.spec(key_encoding="UUIDv7", premake=1), found)
    assert plan.managed == {year.oid}
    (action,) = plan.creations
    assert action.name == "run_2027"
    assert action.bounds == (at("2027-01-01", rest), at("2028-01-01", 0))


@pytest.mark.parametrize("rest", [LOWEST_VALID + 1, 0x7ABC_8DEF_0123_4567_89AB, 0x8000_0000_0000_0000_0000, 2**80 - 1])
def test_other_bits_put_a_partition_off_the_grid_and_its_neighbours_meet_it(rest: int) -> None:
    year = held("odd", at("2026-01-01", rest), at("2027-01-01", rest))
    found = values.inventory(year, parent=values.parent(KeyType.UUID))
    plan = values.plan(values.spec(key_encoding="UUIDv7", premake=1, start_from="2025-06-01"), found)
    assert plan.managed == frozenset()
    assert [each.reason for each in plan.findings] == ["OffGrid"]
    assert [each.bounds for each in sorted(plan.creations, key=lambda each: each.bounds)] == [
        (at("2025-01-01", 0), at("2026-01-01", 0)),
        (at("2026-01-01", 0), at("2026-01-01", rest)),
        (at("2027-01-01", rest), at("2028-01-01", 0)),
    ]


def test_a_partition_within_one_millisecond_is_met_on_both_sides() -> None:
    tiny = held("tiny", at("2026-06-01", LOWEST_VALID + 5), at("2026-06-01", LOWEST_VALID + 2**60))
    assert tiny.range is not None
    edges = Edges.of(UUID7, [(tiny.range, tiny.bounds)])
    here = tiny.range.upper
    assert here is not None
    assert tiny.range == Range(here, here)
    assert edges.bounds(moment("2026-01-01"), here) == (at("2026-01-01", 0), at("2026-06-01", LOWEST_VALID + 5))
    assert edges.bounds(here, moment("2027-01-01")) == (at("2026-06-01", LOWEST_VALID + 2**60), at("2027-01-01", 0))


rests = st.sampled_from([0, 0, LOWEST_VALID, LOWEST_VALID, 1, 2**79]) | st.integers(0, 2**80 - 1)


@st.composite
def tables(draw: st.DrawFn) -> list[Partition]:
    """Partitions of any origin around now, with anything behind the milliseconds of their bounds."""
    months = draw(st.lists(st.integers(0, 23), max_size=8))
    literals = sorted({at(f"{2026 + month // 12}-{month % 12 + 1:02}-01", draw(rests)) for month in months})
    return [
        held(f"old {place}", lower, upper)
        for place, (lower, upper) in enumerate(pairwise(literals))
        if draw(st.booleans())
    ]


@given(tables(), st.sampled_from(["Year", "Quarter", "Month", "Week"]), st.integers(0, 3))
def test_new_uuid_bounds_neither_overlap_nor_leave_a_key_out(
    existing: list[Partition], interval: str, premake: int
) -> None:
    """Judged by the literals alone, as PostgreSQL does."""
    found = values.inventory(*existing, parent=values.parent(KeyType.UUID))
    policy = values.spec(key_encoding="UUIDv7", interval=interval, premake=premake, start_from="2026-01-01")
    plan = values.plan(policy, found)
    there = [_literals(each.bounds) for each in existing]
    made = [(_number(each.bounds.lower), _number(each.bounds.upper)) for each in plan.creations]
    whole = sorted([*there, *made])
    assert all(lower < upper for lower, upper in whole)
    assert all(left[1] <= right[0] for left, right in pairwise(whole))
    until = values.plan(policy, values.after(found, plan.creations)).covered_until
    assert until is not None
    lowest, end = _number(at("2026-01-01", 0)), int((until - moment("1970-01-01")) / timedelta(milliseconds=1)) << 80
    for left, right in pairwise([(0, lowest), *(each for each in whole if each[0] < end)]):
        # Between the lowest bits and the lowest valid ones of a millisecond there is no UUIDv7, and what others left
        # out of a thousandth of a millisecond stays left out.
        assert right[0] - left[1] <= LOWEST_VALID


def _literals(text: str) -> tuple[int, int]:
    lower, upper = text.removeprefix("FOR VALUES FROM ('").removesuffix("')").split("') TO ('")
    return _number(lower), _number(upper)


def _number(literal: str) -> int:
    return uuid.UUID(literal).int


def test_what_the_key_cannot_be_is_a_finding_and_the_rest_goes_on() -> None:
    found = values.inventory(now=moment("2036-06-01"), parent=values.parent(KeyType.INTEGER))
    fields: dict[str, Any] = {"key_encoding": "EpochSeconds", "premake": 3}
    plan = values.plan(values.spec(**fields), found)
    assert plan.names == ("run_2036", "run_2037")
    assert [(each.reason, each.object) for each in plan.findings] == [
        ("KeyOutOfRange", "[2038-01-01T00:00:00Z, 2039-01-01T00:00:00Z)"),
        ("KeyOutOfRange", "[2039-01-01T00:00:00Z, 2040-01-01T00:00:00Z)"),
    ]
    last = values.partition("rest", moment("2038-01-01"), None, SMALL_SECONDS)
    again = values.plan(values.spec(**fields), values.inventory(last, now=found.now, parent=found.parent))
    assert again.names == ("run_2036", "run_2037")
    assert {each.reason for each in again.findings} == {"OffGrid"}


def test_dates_before_1970_are_no_uuids() -> None:
    found = values.inventory(parent=values.parent(KeyType.UUID))
    plan = values.plan(values.spec(key_encoding="UUIDv7", premake=0, start_from="1968-01-01"), found)
    assert [each.object for each in plan.findings if each.reason == "KeyOutOfRange"] == [
        "[1968-01-01T00:00:00Z, 1969-01-01T00:00:00Z)",
        "[1969-01-01T00:00:00Z, 1970-01-01T00:00:00Z)",
    ]
    assert plan.names == ("run_2026", *(f"run_{year}" for year in range(1970, 2026)))


def test_the_docs_show_the_bounds_of_each_encoding() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "keys.md").read_text()
    for codec in ENCODED:
        assert any(
            row.startswith(f"| `{codec.encoding}` |") and f"('{codec.literal(moment('2026-01-01'))}')" in row
            for row in page.splitlines()
        )


def test_encoded_keys_count_days_in_the_policys_zone() -> None:
    for codec in ENCODED:
        found = values.inventory(now=moment("2026-10-25T12:00"), parent=values.parent(codec.type))
        policy = values.spec(key_encoding=codec.encoding, interval="Day", timezone="Europe/Berlin", premake=0)
        (action,) = values.plan(policy, found).creations
        assert action.name == "run_2026_10_25"
        assert action.bounds == tuple(codec.literal(moment(f"2026-10-2{each}")) for each in ("4T22:00", "5T23:00"))
