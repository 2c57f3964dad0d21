"""Which CHECK proves that every row of a detached table lies in its range: only what is certainly so counts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from partwarden.planner.calendar import Range
from partwarden.postgres.table_state import implies

AWARE = Range(datetime(2018, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC))
NAIVE = Range(datetime(2018, 1, 1), datetime(2019, 1, 1))  # noqa: DTZ001 - of a key without a zone
ZONED = "timestamp with time zone"
LOWER, UPPER = f"(at >= '2018-01-01 00:00:00+00'::{ZONED})", f"(at < '2019-01-01 00:00:00+00'::{ZONED})"


@pytest.mark.parametrize(
    ("condition", "column", "type_name", "held"),
    [
        (f"((at IS NOT NULL) AND {LOWER} AND {UPPER})", "at", ZONED, AWARE),
        (f"((at IS NOT NULL) AND {LOWER} AND {UPPER} AND (note <> 'OR'::text))", "at", ZONED, AWARE),
        (
            '(("a OR" IS NOT NULL) AND ("a OR" >= \'2018-01-01\'::date) AND ("a OR" < \'2019-01-01\'::date))',
            '"a OR"',
            "date",
            NAIVE,
        ),
        (
            "((k IS NOT NULL) AND (k >= '1514764800'::bigint) AND (k < '1546300800'::bigint))",
            "k",
            "bigint",
            AWARE,
        ),
        (
            "((at IS NOT NULL) AND (at >= '2018-01-01 00:00:00+00'::timestamp(0) with time zone) "
            "AND (at < '2019-01-01 00:00:00+00'::timestamp(0) with time zone))",
            "at",
            ZONED,
            AWARE,
        ),
        ("((k IS NOT NULL) AND (k >= 1514764800) AND (k < 1546300800))", "k", "integer", AWARE),
        (
            "((k IS NOT NULL) AND (k >= '1514764800000'::bigint) AND (k < '1546300800000'::bigint))",
            "k",
            "bigint",
            AWARE,
        ),
    ],
)
def test_what_proves_it(condition: str, column: str, type_name: str, held: Range) -> None:
    assert implies(condition, column, False, type_name, held)


def test_a_column_that_is_not_null_need_not_be_said_to_be() -> None:
    assert implies(f"({LOWER} AND {UPPER})", "at", True, ZONED, AWARE)
    assert not implies(f"({LOWER} AND {UPPER})", "at", False, ZONED, AWARE)


@pytest.mark.parametrize(
    "condition",
    [
        LOWER,
        UPPER,
        f"({LOWER} OR {UPPER})",
        f"(NOT ({LOWER} AND {UPPER}))",
        f"(({LOWER} AND {UPPER}) IS NOT TRUE)",
        f"(({LOWER} AND {UPPER}) = false)",
        f"CASE WHEN b THEN ({LOWER} AND {UPPER}) ELSE true END",
        f"({LOWER.replace('2018', '2017')} AND {UPPER})",
        f"({LOWER} AND {UPPER.replace('2019', '2020')})",
        f"({LOWER.replace('(at', '(made_at')} AND {UPPER.replace('(at', '(made_at')})",
        f"({LOWER.replace('>=', '<=')} AND {UPPER})",
        f"(({LOWER} AND {UPPER}) IS UNKNOWN)",
        f"is_so({LOWER}, {UPPER})",
        "('(at >= ''2018-01-01 00:00:00+00'') AND (at < ''2019-01-01 00:00:00+00'')' <> note)",
    ],
)
def test_what_does_not(condition: str) -> None:
    assert not implies(condition, "at", True, ZONED, AWARE)


def test_bounds_of_another_domain_prove_nothing() -> None:
    assert not implies(f"({LOWER} AND {UPPER})", "at", True, ZONED, NAIVE)
    assert not implies(f"({LOWER} AND {UPPER})", "at", True, "text", AWARE)
