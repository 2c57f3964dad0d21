"""What leaves the table that was converted, and when: decided from values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.retention import KeyEncoding
from partwarden.planner.actions import SplitLegacy
from partwarden.planner.calendar import BoundedRange, Range
from partwarden.planner.inventory import Partition, RelationKind
from partwarden.planner.keys import Bounds, Codec, KeyType
from partwarden.planner.marker import ConvertedMark
from partwarden.planner.plan import Plan, make_plan
from partwarden.planner.schedule import id_of
from partwarden.planner.splitting import cut
from support.samples import inventory, spec, year

CLOSED = datetime(2026, 1, 1, tzinfo=UTC)
BACKGROUND: dict[str, Any] = {
    "key": "submitted_at",
    "interval": "Year",
    "convert": {"mode": "Attach", "split": "Background"},
}


def moment(number: int, month: int = 1) -> datetime:
    return datetime(number, month, 1, tzinfo=UTC)


def legacy(first: int = 2020, beyond: datetime = CLOSED, **fields: Any) -> Partition:
    """The table that was converted, from that year on."""
    bounds = f"FOR VALUES FROM ('{first}-01-01 00:00:00+00') TO ('{beyond:%Y-%m-%d} 00:00:00+00')"
    values = {"range": Range(moment(first), beyond), "bounds": bounds, "converted": ConvertedMark(7, 100), **fields}
    return replace(year(first, oid=7, name="run_until_2025"), **values)


def decide(each: Partition, now: datetime | None = None, held: frozenset[str] = frozenset(), **fields: Any) -> Plan:
    found = inventory([each, year(2026), year(2027), year(2028)])
    return make_plan(spec(**BACKGROUND | fields), found, now or found.now, held)


def splits(plan: Plan) -> list[SplitLegacy]:
    return [each for each in plan.actions if isinstance(each, SplitLegacy)]


def test_the_youngest_interval_leaves_first_and_the_bounds_meet() -> None:
    (action,) = splits(decide(legacy()))
    assert (action.name, action.oid, action.title) == ("run_until_2025", 7, "run_2025 off run_until_2025")
    assert (action.into.name, action.range) == ("run_2025", Range(moment(2025), CLOSED))
    assert action.whole == Bounds("2020-01-01 00:00:00+00", "2026-01-01 00:00:00+00")
    assert action.into.bounds == Bounds("2025-01-01T00:00:00Z", "2026-01-01 00:00:00+00")
    assert action.rest == Bounds("2020-01-01 00:00:00+00", "2025-01-01T00:00:00Z")
    assert action.into.max_rows == 100_000


def test_its_name_is_asked_for_like_that_of_each_new_partition() -> None:
    assert decide(legacy()).names == ("run_2025",)


@pytest.mark.parametrize(
    "convert",
    [None, {"mode": "Attach"}, {"mode": "Never", "split": "Background"}, {"mode": "Undo", "split": "Background"}],
)
def test_nothing_leaves_where_the_policy_does_not_ask(convert: dict[str, Any] | None) -> None:
    assert splits(decide(legacy(), convert=convert)) == []


def test_one_interval_that_is_left_stays() -> None:
    plan = decide(legacy(2025))
    assert (splits(plan), plan.upkeep.findings) == ([], ())


def test_an_hour_after_its_end_an_interval_counts_as_passed() -> None:
    hour = timedelta(hours=1)
    plan = decide(legacy(), CLOSED + hour - timedelta(seconds=1))
    assert (splits(plan), plan.upkeep.boundary) == ([], CLOSED + hour)
    assert splits(decide(legacy(), CLOSED + hour)) != []


@pytest.mark.parametrize(
    "fields",
    [
        {"converted": None},
        {"converted": ConvertedMark(7, 100, validate=(("public", "log", "log_fkey"),))},
        {"converted": ConvertedMark(7, 100, undone=True)},
        {"kind": RelationKind.FOREIGN},
        {"detach_pending": True},
        {"range": None, "bounds": "DEFAULT"},
    ],
)
def test_another_partition_is_left_alone(fields: dict[str, Any]) -> None:
    assert splits(decide(legacy(**fields))) == []


def test_what_is_held_stays_whole() -> None:
    assert splits(decide(legacy(), held=frozenset({"run_until_2025"}))) == []


def test_what_has_expired_as_a_whole_is_not_divided() -> None:
    keep: dict[str, Any] = {"retention": {"keepFor": "6mo", "dropWithoutArchive": True}}
    assert splits(decide(legacy(), moment(2026, 6), **keep)) != []
    assert splits(decide(legacy(), moment(2026, 8), **keep)) == []


def test_it_waits_for_the_window() -> None:
    window: dict[str, Any] = {"timezone": "UTC", "maintenance": {"window": "02:00-04:00"}}
    plan = decide(legacy(), **window)
    assert splits(plan) == []
    assert [type(each) for each in plan.upkeep.deferred] == [SplitLegacy]
    assert "SplitLegacy" in [each.action for each in plan.steps]
    assert splits(decide(legacy(), datetime(2026, 6, 15, 3, tzinfo=UTC), **window)) != []


def test_an_end_within_an_interval_is_a_finding() -> None:
    plan = decide(legacy(beyond=moment(2025, 7)))
    assert splits(plan) == []
    assert [each.reason for each in plan.upkeep.findings] == ["SplitOffGrid"]
    assert "spec.interval" in plan.upkeep.findings[0].message


def test_a_name_that_is_taken_is_a_finding() -> None:
    named = replace(year(2031), name="run_2025")
    found = inventory([legacy(), year(2026), year(2027), year(2028), named])
    plan = make_plan(spec(**BACKGROUND), found, found.now)
    assert splits(plan) == []
    assert [each.reason for each in plan.upkeep.findings] == ["NameTaken"]


# An interval of many rows leaves in parts.

MIDDLE = datetime(2025, 7, 1, 12, tzinfo=UTC)


def begun(**fields: Any) -> list[Partition]:
    """The table without the end of 2025, and the partition that has that."""
    bounds = f"FOR VALUES FROM ('{MIDDLE:%Y-%m-%d %H}:00:00+00') TO ('2026-01-01 00:00:00+00')"
    values = {"name": "run_2025", "range": Range(MIDDLE, CLOSED), "bounds": bounds, **fields}
    rest = f"FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('{MIDDLE:%Y-%m-%d %H}:00:00+00')"
    return [legacy(beyond=MIDDLE, bounds=rest), replace(year(2025, oid=8), **values)]


def test_what_is_left_of_an_interval_goes_where_the_rest_is_already() -> None:
    found = inventory([*begun(), year(2026), year(2027), year(2028)])
    plan = make_plan(spec(**BACKGROUND), found, found.now)
    (action,) = splits(plan)
    assert action.grows is not None
    assert (action.grows.name, action.range) == ("run_2025", Range(moment(2025), CLOSED))
    assert action.into.range == Range(moment(2025), MIDDLE)
    assert action.into.bounds == Bounds("2025-01-01T00:00:00Z", "2025-07-01 12:00:00+00")
    assert action.rest == Bounds("2020-01-01 00:00:00+00", "2025-01-01T00:00:00Z")
    assert (plan.growing, [each.reason for each in plan.findings if each.reason == "OffGrid"]) == (frozenset({8}), [])
    # No table is made, and an approval of the interval holds for each part of it.
    assert plan.names == ()
    (whole,) = splits(decide(legacy()))
    assert id_of(whole) == id_of(action)


@pytest.mark.parametrize("maintenance", [{}, {"window": "02:00-04:00"}])
def test_a_partition_that_grows_is_not_called_one_that_is_left_alone(maintenance: dict[str, Any]) -> None:
    found = inventory([*begun(), year(2026), year(2027), year(2028)])

    def said(**fields: Any) -> list[str]:
        plan = make_plan(
            spec(**BACKGROUND | {"timezone": "UTC", "maintenance": maintenance} | fields), found, found.now
        )
        return [each.reason for each in plan.findings]

    assert "OffGrid" not in "".join(said())
    # Where it grows no more, it is.
    assert "OffGrid" in "".join(said(convert={"mode": "Attach"}))


@pytest.mark.parametrize(
    ("fields", "held"),
    [
        ({}, frozenset({"run_2025"})),
        ({"detach_pending": True}, frozenset()),
        ({"kind": RelationKind.FOREIGN}, frozenset()),
        ({"schema": "elsewhere"}, frozenset()),
    ],
)
def test_a_partition_that_cannot_take_rows_takes_none(fields: dict[str, Any], held: frozenset[str]) -> None:
    found = inventory([*begun(**fields), year(2026), year(2027), year(2028)])
    assert splits(make_plan(spec(**BACKGROUND), found, found.now, held)) == []


SECONDS, UUIDS = Codec(KeyType.BIGINT, KeyEncoding.EPOCH_SECONDS), Codec(KeyType.UUID, KeyEncoding.UUID_V7)
INSTANTS, LOCAL, DAYS = Codec(KeyType.TIMESTAMPTZ), Codec(KeyType.TIMESTAMP), Codec(KeyType.DATE)
END = int(CLOSED.timestamp())


def divide(codec: Codec, stays: str, digits: int = -1) -> SplitLegacy | None:
    """Of 2025."""
    (action,) = splits(decide(legacy()))
    end = CLOSED if codec.aware else CLOSED.replace(tzinfo=None)
    into = replace(action.into, range=BoundedRange(end.replace(year=2025), end))
    return cut(replace(action, codec=codec, into=into), stays, digits)


@pytest.mark.parametrize(
    ("codec", "stays", "begins"),
    [
        # After the key that stays, on the next quarter of an hour.
        (INSTANTS, "2025-03-03 10:07:00.5+00", "2025-03-03T10:15:00Z"),
        (INSTANTS, "2025-03-03 10:15:00+00", "2025-03-03T10:30:00Z"),
        (LOCAL, "2025-03-03 10:07:00", "2025-03-03T10:15:00"),
        (DAYS, "2025-03-03", "2025-03-04"),
        (SECONDS, "1741000000", "1741000500"),
        # Where the interval ends before it, as near as the type can say.
        (INSTANTS, "2025-12-31 23:58:10+00", "2025-12-31T23:59:00Z"),
        (INSTANTS, "2025-12-31 23:59:58.25+00", "2025-12-31T23:59:59Z"),
        (INSTANTS, "2025-12-31 23:59:59.9999+00", "2025-12-31T23:59:59.999901Z"),
        (SECONDS, str(END - 3), str(END - 2)),
        (UUIDS, f"{END * 1000 - 3:012x}7fffbfffffffffffffff", f"{END * 1000 - 2:012x}"),
        # No moment lies between the key and the end.
        (INSTANTS, "2025-12-31 23:59:59.999999+00", None),
        (DAYS, "2025-12-31", None),
        (SECONDS, str(END - 1), None),
        (UUIDS, f"{END * 1000 - 1:012x}70008000000000000000", None),
    ],
)
def test_an_interval_is_divided_after_the_key_that_stays(codec: Codec, stays: str, begins: str | None) -> None:
    found = divide(codec, stays)
    if begins is None:
        assert found is None
    else:
        assert found is not None
        assert found.into.bounds.lower.replace("-", "").startswith(begins.replace("-", ""))
        assert found.part


@pytest.mark.parametrize(
    ("digits", "stays", "begins"),
    [
        (0, "2025-12-31 23:59:58+00", "2025-12-31T23:59:59Z"),
        (0, "2025-12-31 23:59:59+00", None),
        (3, "2025-12-31 23:59:59.123+00", "2025-12-31T23:59:59.124000Z"),
        (3, "2025-12-31 23:59:59.999+00", None),
        (6, "2025-12-31 23:59:59.999+00", "2025-12-31T23:59:59.999001Z"),
    ],
)
def test_it_is_divided_where_the_key_has_digits_for_it(digits: int, stays: str, begins: str | None) -> None:
    found = divide(INSTANTS, stays, digits)
    assert (found.into.bounds.lower if found else None) == begins


@given(
    st.integers(0, 365 * 86_400 * 10**6 - 1), st.sampled_from([INSTANTS, LOCAL, SECONDS, UUIDS]), st.integers(0, 2**76)
)
def test_what_stays_is_before_the_cut_and_what_leaves_is_not_empty(microsecond: int, codec: Codec, chance: int) -> None:
    first = moment(2025) if codec.aware else moment(2025).replace(tzinfo=None)
    at = first + timedelta(microseconds=microsecond)
    stays = codec.literal(at)
    if codec is UUIDS:
        stays = str(UUID(int=UUID(stays).int + chance))
    if (found := divide(codec, stays)) is not None:
        held = found.into.range.bounded
        assert held is not None
        assert codec.moment(stays) < held.lower < held.upper
        # What PostgreSQL compares says the same.
        assert codec.moment(found.into.bounds.lower) == held.lower
        assert codec is not UUIDS or UUID(stays).int < UUID(found.into.bounds.lower).int
