"""Keys that do not count what ``keyEncoding`` says: they pass for moments long past, and their rows are young."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.policy import TableSpec
from partwarden.api.retention import KeyEncoding, Retention
from partwarden.errors import InvalidSpec, UnsafePlan
from partwarden.planner.actions import DetachPartition
from partwarden.planner.calendar import BoundedRange
from partwarden.planner.context import PlanContext
from partwarden.planner.inventory import Inventory, Partition
from partwarden.planner.keys import Codec, KeyType, literals, parse_bounds
from support import values

SECONDS, MILLISECONDS, UUIDS = (
    Codec(KeyType.BIGINT, KeyEncoding.EPOCH_SECONDS),
    Codec(KeyType.BIGINT, KeyEncoding.EPOCH_MILLISECONDS),
    Codec(KeyType.UUID, KeyEncoding.UUID_V7),
)
INTEGERS = Codec(KeyType.INTEGER, KeyEncoding.EPOCH_SECONDS)


def policy(codec: Codec, interval: str = "Month") -> TableSpec:
    retention = Retention.model_validate({"keepFor": "5y", "onExpire": "Drop", "dropWithoutArchive": True})
    return values.spec(key_encoding=codec.encoding, interval=interval, premake=0, retention=retention)


def table(codec: Codec, *ends: object) -> Inventory:
    """A partition from each of the ends to the next."""
    parts = []
    for number, (lower, upper) in enumerate(pairwise(ends)):
        text = f"FOR VALUES FROM ('{lower}') TO ('{upper}')"
        empty = values.partition(f"run_{number}", None, None)
        parts.append(replace(empty, bounds=text, range=parse_bounds(text, codec)))
    return values.inventory(*parts, parent=values.parent(codec.type))


def detached(codec: Codec, found: Inventory) -> list[str]:
    plan = values.plan(policy(codec), found)
    return [each.name for each in plan.actions if isinstance(each, DetachPartition)]


@pytest.mark.parametrize("step", [10**6, 10**8, 10**7, 250_000, 900_000])
@pytest.mark.parametrize("codec", [SECONDS, INTEGERS])
def test_serial_numbers_that_pass_for_seconds_never_expire(codec: Codec, step: int) -> None:
    found = table(codec, *range(0, 7 * step, step))
    assert detached(codec, found) == []
    (notice,) = [each for each in values.plan(policy(codec), found).findings if each.reason == "OffGrid"]
    assert "full quarters of an hour, in the years 1973 to 2099, expire by them like all others; the rest stays" in (
        notice.message
    )


@given(st.integers(1, 10**9), st.integers(2, 20), st.sampled_from([SECONDS, MILLISECONDS]))
def test_steps_of_a_serial_number_never_expire(step: int, count: int, codec: Codec) -> None:
    """But for those that are multiples of a quarter of an hour, and in seconds or milliseconds of our time."""
    found = table(codec, *range(0, count * step, step))
    try:
        gone = detached(codec, found)
    except InvalidSpec:
        return
    assert not gone or step * (1000 if codec is SECONDS else 1) % 900_000 == 0


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_random_uuids_never_expire(digits: int) -> None:
    ends = [UUID(int=number << (128 - 4 * digits)) for number in range(16**digits)]
    assert detached(UUIDS, table(UUIDS, *ends)) == []


def moment(codec: Codec, year: int, month: int = 1) -> str:
    return codec.literal(datetime(year, month, 1, tzinfo=UTC))


def test_partitions_in_another_unit_are_refused_beside_those_in_the_right_one() -> None:
    young = [moment(SECONDS, 2026, month) for month in range(1, 9)]
    found = table(MILLISECONDS, *young)
    right = values.partition("right", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), MILLISECONDS)
    with pytest.raises(InvalidSpec) as refused:
        values.plan(policy(MILLISECONDS), replace(found, partitions=(*found.partitions, right)))
    assert str(refused.value) == (
        "spec.keyEncoding is EpochMilliseconds, and others of public.run's partitions have bounds in milliseconds "
        "since 1970, but run_0 FOR VALUES FROM ('1767225600') TO ('1769904000') looks like seconds since 1970: of "
        "one table all keys must be of one unit; correct spec.keyEncoding, or detach by hand the partitions that are "
        "of another unit"
    )


@pytest.mark.parametrize("codec", [SECONDS, MILLISECONDS])
def test_an_end_that_means_for_ever_is_of_no_other_unit(codec: Codec) -> None:
    """The end of the year 9999 in seconds is a moment of 1978 in milliseconds."""
    end = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * (1 if codec is SECONDS else 1000)
    found = table(codec, 0, moment(codec, 2019), moment(codec, 2026), end)
    # A beginning at 0 is none either: what came before all partitions was made for rows of any time.
    assert detached(codec, found) == []


@pytest.mark.parametrize("codec", [SECONDS, MILLISECONDS, UUIDS])
@pytest.mark.parametrize("offset", [timedelta(0), timedelta(minutes=345), timedelta(hours=-2, minutes=-30)])
def test_what_is_of_another_interval_or_zone_expires(codec: Codec, offset: timedelta) -> None:
    days = [datetime(2020, 3, number, tzinfo=UTC) + offset for number in range(1, 6)]
    assert detached(codec, table(codec, *map(codec.literal, days))) == [f"run_{number}" for number in range(4)]


def test_an_invariant_refuses_to_detach_what_does_not_show_that_its_keys_say_when() -> None:
    """Whatever has decided it."""
    found = table(SECONDS, *range(0, 3 * 10**6, 10**6))
    spec = policy(SECONDS)
    wrong = _detach(found.partitions[1])
    plan = values.plan(spec, found)
    expired = replace(plan.retired, expired=frozenset({wrong.oid}))
    context = PlanContext.of(spec, found, found.now, frozenset())
    with pytest.raises(UnsafePlan, match="no partition with those bounds that may expire"):
        replace(plan, actions=(wrong,), retired=expired).check_invariants(context)


def _detach(each: Partition) -> DetachPartition:
    held = values.bounds(each)
    return DetachPartition(
        schema=each.schema,
        name=each.name,
        range=BoundedRange(held.lower, held.upper),
        bounds=literals(each.bounds),
        oid=each.oid,
        concurrently=False,
        reason="",
        lock="",
    )
