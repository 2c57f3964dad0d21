"""Whether and how a plain table is converted: each case is kept, made anew or refused, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from partwarden.api.retention import KeyEncoding
from partwarden.api.types import Interval
from partwarden.planner.conversion import Conversion
from partwarden.planner.conversion_plan import ConversionPlan, plan_conversion
from partwarden.planner.conversion_rules import CHECK, KEPT, REFUSED, Wanted
from partwarden.planner.plain_table import (
    Constraint,
    ConstraintKind,
    Index,
    KeyColumn,
    Leftover,
    PlainTable,
    Spread,
    Tied,
    TiedKind,
)
from support import values

NOW = datetime(2026, 12, 15, 10, tzinfo=UTC)
KEY = KeyColumn(name="submitted_at", type="timestamp with time zone", not_null=True, generated=False, is_identity=False)
SPREAD = Spread(lowest="2019-05-05 10:00:00+00", highest="2026-12-15 09:59:59+00")
PLAIN = PlainTable(
    server=values.SERVER,
    now=NOW,
    parent=values.parent(),
    kind="r",
    persistence="p",
    is_partition=False,
    typed=None,
    access_method="heap",
    forced=False,
    bytes=5 << 30,
    heap=4 << 30,
    rows=1000,
    key=KEY,
    columns=("id", "submitted_at"),
    spread=SPREAD,
)
PRIMARY = Constraint(name="run_pkey", kind=ConstraintKind.PRIMARY, columns=("id",), index=77)
PRIMARY_INDEX = Index(oid=77, name="run_pkey", columns=("id",), unique=True, valid=True, constraint=True, plain=True)
KEYED = replace(PLAIN, constraints=(PRIMARY,), indexes=(PRIMARY_INDEX,))


def wanted(*, widen_keys: bool = False, legacy_name: str | None = None, **fields: Any) -> Wanted:
    fields = {"key": "submitted_at", "interval": Interval.MONTH, **fields}
    return Wanted(values.spec(**fields), widen_keys, legacy_name)


def refused(table: PlainTable, want: Wanted | None = None) -> str:
    """All that forbids it, which is not nothing."""
    plan = plan_conversion(table, want or wanted())
    assert plan.refusals
    assert plan.conversion is None
    return " · ".join(map(str, plan.refusals))


def planned(table: PlainTable, want: Wanted | None = None, **given: Any) -> tuple[ConversionPlan, Conversion]:
    plan = plan_conversion(table, want or wanted(), **given)
    assert plan.refusals == ()
    assert plan.conversion is not None
    return plan, plan.conversion


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "p"}, "partitioned already"),
        ({"kind": "f"}, "foreign table"),
        ({"kind": "v"}, "a view"),
        ({"kind": "m"}, "materialized view"),
        ({"is_partition": True}, "a partition of another table"),
        ({"persistence": "t"}, "temporary"),
        ({"persistence": "u"}, "SET LOGGED"),
        ({"typed": "kind_of_run"}, "NOT OF"),
        ({"access_method": "columnar"}, "SET ACCESS METHOD heap"),
        ({"key": None, "columns": ("submited_at",)}, "did you mean submited_at"),
        ({"key": replace(KEY, type="text")}, "its type is text"),
        ({"key": replace(KEY, generated=True)}, "cannot be a generated column"),
        ({"key": replace(KEY, is_identity=True)}, "numbers from a sequence"),
        ({"parent": replace(values.parent(), may_own=False)}, "GRANT"),
        ({"server": replace(values.SERVER, read_only=True)}, "read-only"),
        ({"spread": replace(SPREAD, nulls=1)}, "NULL in 1 row, "),
        ({"spread": replace(SPREAD, infinite=2000)}, "in 2,000 rows"),
        ({"spread": replace(SPREAD, lowest="0044-03-15 00:00:00+00 BC")}, "outside of the years 2 to 9997"),
        ({"spread": replace(SPREAD, highest="2031-01-01 00:00:00+00", ahead=3)}, "3 rows of column submitted_at"),
    ],
    ids=str,
)
def test_a_table_is_refused_with_the_way_out(fields: dict[str, Any], words: str) -> None:
    assert words in refused(replace(PLAIN, **fields))


@pytest.mark.parametrize("kind", TiedKind)
def test_each_kind_of_object_is_either_kept_or_refused_by_its_name(kind: TiedKind) -> None:
    table = replace(KEYED, tied=(Tied(kind=kind, name="it"),))
    plan = plan_conversion(table, wanted(widen_keys=True))
    assert (kind in REFUSED or kind is TiedKind.GROUPED_VIEW) is (kind not in KEPT)
    found = plan.refusals if kind not in KEPT else plan.changes
    assert any(f"{kind} it" in str(each) for each in found)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (Constraint(name="c", kind=ConstraintKind.EXCLUSION, columns=("id",)), "exclude"),
        (replace(PRIMARY, overlaps=True), "WITHOUT OVERLAPS"),
        (Constraint(name="c", kind=ConstraintKind.CHECK, columns=("id",), inherited=False), "NO INHERIT"),
        (Constraint(name="c", kind=ConstraintKind.NOT_NULL, columns=("id",), validated=False), "VALIDATE CONSTRAINT"),
        (Constraint(name=CHECK, kind=ConstraintKind.CHECK, columns=("id",)), "rename this one"),
        (PRIMARY, "--widen-keys"),
    ],
    ids=str,
)
def test_a_constraint_is_refused_with_the_way_out(constraint: Constraint, words: str) -> None:
    found = refused(replace(KEYED, constraints=(constraint,)))
    assert constraint.name in found
    assert words in found


@pytest.mark.parametrize(
    "fields", [{"included": ("note",)}, {"nulls_distinct": False}, {"deferrable": True}, {"index": 78}], ids=str
)
def test_a_key_that_is_more_than_its_columns_is_not_made_wider(fields: dict[str, Any]) -> None:
    table = replace(KEYED, constraints=(replace(PRIMARY, **fields),))
    assert "are not made wider" in refused(table, wanted(widen_keys=True))


def test_a_key_that_identifies_rows_for_replication_is_not_made_wider() -> None:
    table = replace(KEYED, indexes=(replace(PRIMARY_INDEX, identifies_rows=True),))
    assert "REPLICA IDENTITY DEFAULT" in refused(table, wanted(widen_keys=True))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"valid": False, "unique": False}, "it is invalid"),
        ({}, "ADD UNIQUE USING INDEX"),
        ({"columns": (None,), "plain": False}, "without UNIQUE"),
    ],
    ids=["invalid", "unique", "expression"],
)
def test_an_index_that_no_partitioned_table_can_have_is_refused(fields: dict[str, Any], words: str) -> None:
    index = replace(PRIMARY_INDEX, oid=5, name="by_code", columns=("code",), constraint=False)
    found = refused(replace(PLAIN, indexes=(replace(index, **fields),)))
    assert "index by_code" in found
    assert words in found


def test_an_index_of_our_name_that_we_did_not_make_is_refused() -> None:
    index = replace(PRIMARY_INDEX, oid=5, name="run_pkey_wide", columns=("id",), constraint=False)
    found = refused(replace(KEYED, indexes=(PRIMARY_INDEX, index)), wanted(widen_keys=True))
    assert "index run_pkey_wide: a conversion would give" in found


def test_keys_that_become_wider_say_what_is_lost_and_have_an_index_built() -> None:
    plan, conversion = planned(KEYED, wanted(widen_keys=True))
    (key,) = conversion.widened
    assert (key.constraint, key.primary, key.columns) == ("run_pkey", True, ("id", "submitted_at"))
    assert key.index == "run_pkey_wide"
    assert "ON CONFLICT (id) fails" in str(plan.changes[0])
    assert not any("becomes NOT NULL" in str(each) for each in plan.changes)
    nullable, _ = planned(replace(KEYED, key=replace(KEY, not_null=False)), wanted(widen_keys=True))
    assert "column submitted_at: becomes NOT NULL" in str(nullable.changes[1])
    assert [each.lock for each in plan.steps[1:]] == [
        "SHARE UPDATE EXCLUSIVE",
        "ACCESS EXCLUSIVE",
        "SHARE UPDATE EXCLUSIVE",
        "ACCESS EXCLUSIVE",
    ]


def test_foreign_keys_that_are_validated_afterwards_are_a_step_with_the_size_of_what_is_read() -> None:
    log = Tied(kind=TiedKind.REFERENCE, name="log_run of public.log")
    lax = Tied(kind=TiedKind.REFERENCE, name="lax of public.log", validated=False)
    plan, _ = planned(replace(PLAIN, tied=(log, lax), referring=200 << 20))
    last = plan.steps[-1]
    assert (last.lock, last.waits, last.seconds) == ("ROW SHARE", "no session", 2.0)
    assert "log_run of public.log" in last.text
    assert "lax" not in last.text
    itself = Tied(kind=TiedKind.SELF_REFERENCE, name="chief")
    plan, _ = planned(replace(PLAIN, tied=(itself,)))
    assert (plan.steps[-1].lock, plan.steps[-1].waits[:7]) == ("SHARE ROW EXCLUSIVE", "writers")


def test_a_view_that_groups_by_a_key_is_only_refused_where_that_becomes_wider() -> None:
    table = replace(PLAIN, tied=(Tied(kind=TiedKind.GROUPED_VIEW, name="public.v"),))
    planned(table)


def test_a_foreign_key_that_is_not_valid_is_refused() -> None:
    for kind in (TiedKind.FOREIGN_KEY, TiedKind.SELF_REFERENCE):
        table = replace(PLAIN, tied=(Tied(kind=kind, name="fk", validated=False),))
        assert "VALIDATE CONSTRAINT" in refused(table)


def test_the_range_begins_with_the_oldest_row_and_ends_with_the_interval_that_will_be_current() -> None:
    plan, conversion = planned(PLAIN, wanted(premake=2))
    assert (conversion.lower, conversion.upper) == ("2019-05-01T00:00:00Z", "2027-01-01T00:00:00Z")
    assert conversion.legacy == "run_until_2026_12"
    assert [(each.name, each.lower, each.upper) for each in conversion.ahead] == [
        ("run_2027_01", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
        ("run_2027_02", "2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z"),
    ]
    assert plan.until == datetime(2027, 1, 1, tzinfo=UTC)


def test_the_range_ends_later_where_the_month_does_before_the_work_can_be_done() -> None:
    _, conversion = planned(replace(PLAIN, now=datetime(2026, 12, 31, 9, tzinfo=UTC)), wanted(premake=0))
    assert conversion.upper == "2027-02-01T00:00:00Z"
    assert [each.name for each in conversion.ahead] == ["run_2027_02"]
    _, conversion = planned(replace(PLAIN, heap=40 << 40), wanted(premake=0))
    assert conversion.upper == "2027-02-01T00:00:00Z"


def test_rows_of_the_near_future_move_the_end_and_the_moment_until_which_it_holds() -> None:
    table = replace(PLAIN, spread=replace(SPREAD, highest="2027-03-15 10:00:00+00", ahead=9))
    plan, conversion = planned(table)
    assert conversion.upper == "2027-04-01T00:00:00Z"
    assert plan.until == datetime(2027, 4, 1, tzinfo=UTC) - timedelta(days=90)


def test_the_plan_says_how_the_range_is_found() -> None:
    index = replace(
        PRIMARY_INDEX, oid=5, name="by_time", columns=("submitted_at", "id"), unique=False, constraint=False
    )
    for table, words in ((PLAIN, "reading every row"), (replace(PLAIN, indexes=(index,)), "by index by_time")):
        plan, _ = planned(table)
        assert words in plan.steps[0].text


def test_an_empty_table_begins_with_the_current_interval() -> None:
    _, conversion = planned(replace(PLAIN, spread=Spread()))
    assert conversion.lower == "2026-12-01T00:00:00Z"


def test_a_naive_key_counts_by_the_clock_of_the_zone() -> None:
    table = replace(
        PLAIN,
        key=replace(KEY, type="date"),
        spread=Spread(lowest="2026-12-15", highest="2026-12-15"),
        now=datetime(2026, 12, 15, 23, 30, tzinfo=UTC),
    )
    _, conversion = planned(table, wanted(interval=Interval.DAY, timezone="Europe/Berlin", premake=0))
    assert (conversion.lower, conversion.upper) == ("2026-12-15", "2026-12-18")


def test_keys_that_are_no_moments_are_refused_where_their_rows_are_far_ahead() -> None:
    table = replace(
        PLAIN,
        key=replace(KEY, type="uuid"),
        spread=Spread(lowest="018cc251-f400-7000-8000-000000000000", highest="ffffffff-ffff-4fff-bfff-ffffffffffff"),
    )
    assert "outside of the years" in refused(table, wanted(key_encoding=KeyEncoding.UUID_V7))


@pytest.mark.parametrize(
    ("lower", "upper", "validated", "kept"),
    [
        ("2019-05-01 00:00:00+00", "2027-01-01 00:00:00+00", True, True),
        ("2019-01-01 00:00:00+00", "2027-06-01 00:00:00+00", False, True),
        ("2019-06-01 00:00:00+00", "2027-01-01 00:00:00+00", True, False),
        ("2019-05-01 00:00:00+00", "2026-12-15 10:30:00+00", True, False),
        ("2019-05-01 00:00:00+00", "2026-12-01 00:00:00+00", True, False),
    ],
)
def test_a_check_that_was_left_is_used_where_it_holds_and_else_moved(
    lower: str, upper: str, validated: bool, kept: bool
) -> None:
    leftover = Leftover(condition="…", validated=validated, lower=lower, upper=upper)
    plan, conversion = planned(
        replace(PLAIN, leftover=leftover, constraints=(Constraint(name=CHECK, kind=ConstraintKind.CHECK, columns=()),))
    )
    assert plan.has_check is kept
    assert [each.done for each in plan.steps[1:]] == [kept, kept and validated, False]
    assert (conversion.upper == upper.replace(" ", "T").replace("+00", "Z")) is (kept or upper.startswith("2027-01"))


def test_names_that_are_taken_are_refused_and_our_own_indexes_are_not() -> None:
    plan, conversion = planned(KEYED, wanted(widen_keys=True))
    assert conversion.legacy in plan.names
    again = plan_conversion(KEYED, wanted(widen_keys=True), taken=plan.names)
    assert {each.object for each in again.refusals} == {f"name {each}" for each in plan.names}
    ours = replace(
        PRIMARY_INDEX, oid=5, name="run_pkey_wide", columns=("id", "submitted_at"), constraint=False, valid=False
    )
    table = replace(KEYED, indexes=(PRIMARY_INDEX, ours))
    plan, _ = planned(table, wanted(widen_keys=True), taken=[ours.name])
    assert [each.done for each in plan.steps] == [True, False, False, False, False]
    assert "name run" in refused(PLAIN, wanted(legacy_name="run"))


def test_a_long_name_is_cut_for_the_first_partition_and_refused_for_the_next() -> None:
    name = "ü" * 27
    table = replace(PLAIN, parent=replace(values.parent(), name=name))
    _, conversion = planned(table)
    assert conversion.legacy == "ü" * 24 + "_until_2026_12"
    name = "r" * 60
    assert "shorten spec.nameFormat" in refused(replace(PLAIN, parent=replace(values.parent(), name=name)))
    assert "--legacy-name" in refused(PLAIN, wanted(legacy_name="x" * 64))
