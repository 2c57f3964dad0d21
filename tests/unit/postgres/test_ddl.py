"""The statements, as texts."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from partwarden.planner.actions import CreatePartition
from partwarden.planner.calendar import Range
from partwarden.planner.inventory import Grant, PartitionTemplate
from partwarden.planner.keys import Bounds, Codec, KeyType
from partwarden.postgres import ddl
from support.values import PARENT, inventory, plan, spec

ACTION = CreatePartition(
    schema="public",
    name="run_2026",
    range=Range(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    bounds=Bounds("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
    reason="current Year",
    lock="",
)
OWNER_ALL = [Grant("owner", privilege, False) for privilege in ("INSERT", "SELECT")]
ODD = 'We"ird {Name} %s'
QUOTED = '"We""ird {Name} %s"'


def test_the_table_is_made_apart_and_attached() -> None:
    assert ddl.create_table(PARENT, ACTION, PartitionTemplate()).as_string() == (
        'CREATE TABLE "public"."run_2026" (LIKE "public"."run" INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY)'
    )
    assert ddl.set_owner(PARENT, ACTION).as_string() == 'ALTER TABLE "public"."run_2026" OWNER TO "owner"'
    assert ddl.attach(PARENT, ACTION).as_string() == (
        'ALTER TABLE "public"."run" ATTACH PARTITION "public"."run_2026" '
        "FOR VALUES FROM ('2026-01-01T00:00:00Z') TO ('2027-01-01T00:00:00Z')"
    )


@pytest.mark.parametrize("interval", ["Hour", "Day", "Week", "Month", "Quarter", "Year"])
def test_never_by_partition_of(interval: str) -> None:
    """CREATE TABLE … PARTITION OF locks the parent against all sessions."""
    for action in plan(spec(interval=interval), inventory()).creations:
        texts = [
            ddl.create_table(PARENT, action, PartitionTemplate()),
            ddl.set_owner(PARENT, action),
            *ddl.set_grants(PARENT, action, OWNER_ALL),
            ddl.attach(PARENT, action),
            ddl.rows_in_default(PARENT, 4711, "at", action, 10),
        ]
        assert not any("PARTITION OF" in text.as_string().upper() for text in texts)


@pytest.mark.parametrize(
    ("lower", "upper", "bounds"),
    [
        (datetime(2026, 10, 25), datetime(2026, 10, 26), "('2026-10-25') TO ('2026-10-26')"),  # noqa: DTZ001
        (datetime(2026, 1, 1, 5), datetime(2026, 1, 1, 6), "('2026-01-01T05:00:00') TO ('2026-01-01T06:00:00')"),  # noqa: DTZ001
        (
            datetime(2026, 1, 1, 0, 0, 0, 1, UTC),
            datetime(2026, 3, 28, 23, tzinfo=UTC),
            "('2026-01-01T00:00:00.000001Z') TO ('2026-03-28T23:00:00Z')",
        ),
        (datetime(5, 1, 1), datetime(44, 3, 15), "('0005-01-01') TO ('0044-03-15')"),  # noqa: DTZ001
    ],
)
def test_bounds_are_unambiguous(lower: datetime, upper: datetime, bounds: str) -> None:
    codec = Codec(KeyType.TIMESTAMPTZ if lower.tzinfo else KeyType.TIMESTAMP)
    action = replace(ACTION, bounds=Bounds(codec.literal(lower), codec.literal(upper)))
    assert ddl.attach(PARENT, action).as_string().endswith(f"FOR VALUES FROM {bounds}")


def test_names_are_quoted() -> None:
    parent = replace(PARENT, schema=ODD, name=ODD, owner=ODD, grants=(Grant(ODD, "SELECT", True, ODD),))
    action = replace(ACTION, schema=ODD, name="Ünï x")
    assert [
        ddl.create_table(parent, action, PartitionTemplate()).as_string(),
        ddl.set_owner(parent, action).as_string(),
        *(text.as_string() for text in ddl.set_grants(parent, action, [])),
    ] == [
        f'CREATE TABLE {QUOTED}."Ünï x" (LIKE {QUOTED}.{QUOTED} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY)',
        f'ALTER TABLE {QUOTED}."Ünï x" OWNER TO {QUOTED}',
        f'GRANT SELECT ({QUOTED}) ON TABLE {QUOTED}."Ünï x" TO {QUOTED} WITH GRANT OPTION',
    ]
    counted = ddl.rows_in_default(parent, 4711, ODD, action, 10).as_string()
    assert f"FROM {QUOTED}.{QUOTED} WHERE {QUOTED} >= '2026-01-01T00:00:00Z' AND {QUOTED} < " in counted


def test_grants_that_are_right_already_are_left() -> None:
    assert list(ddl.set_grants(replace(PARENT, grants=tuple(OWNER_ALL)), ACTION, reversed(OWNER_ALL))) == []


def test_grants_are_made_the_parents() -> None:
    parent = replace(
        PARENT,
        grants=(
            Grant(None, "SELECT", False),
            Grant("app", "INSERT", True),
            Grant("app", "UPDATE", False, "note"),
        ),
    )
    present = [*OWNER_ALL, Grant(None, "DELETE", False), Grant("stranger", "SELECT", False)]
    assert [text.as_string() for text in ddl.set_grants(parent, ACTION, present)] == [
        'REVOKE ALL ON TABLE "public"."run_2026" FROM PUBLIC',
        'REVOKE ALL ON TABLE "public"."run_2026" FROM "owner"',
        'REVOKE ALL ON TABLE "public"."run_2026" FROM "stranger"',
        'GRANT SELECT ON TABLE "public"."run_2026" TO PUBLIC',
        'GRANT INSERT ON TABLE "public"."run_2026" TO "app" WITH GRANT OPTION',
        'GRANT UPDATE ("note") ON TABLE "public"."run_2026" TO "app"',
    ]


def test_a_parent_without_any_grant_gives_none() -> None:
    assert [text.as_string() for text in ddl.set_grants(replace(PARENT, grants=()), ACTION, OWNER_ALL)] == [
        'REVOKE ALL ON TABLE "public"."run_2026" FROM "owner"'
    ]


def test_tablespace_access_method_and_storage_parameters() -> None:
    options = (("fillfactor", "70"), ("toast.autovacuum_enabled", "false"))
    like = PartitionTemplate(tablespace="Fast", access_method="columnar", options=options)
    expected = (
        """) USING "columnar" WITH ("fillfactor"='70', "toast"."autovacuum_enabled"='false') TABLESPACE "Fast\""""
    )
    assert ddl.create_table(PARENT, ACTION, like).as_string().endswith(expected)
