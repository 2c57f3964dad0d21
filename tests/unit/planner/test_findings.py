"""Findings: what a plan reports beside its actions."""

from dataclasses import replace
from typing import Any

import pytest

from partwarden.api.policy import Mode
from partwarden.planner.inventory import Inventory
from support.values import inventory, moment, partition, plan, spec, years


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        (
            {"server": {"read_only": True, "standby": True}},
            "ReadOnlyServer",
            "connect 'orchestrator' through its primary",
        ),
        ({"server": {"read_only": True}}, "ReadOnlyServer", "SET default_transaction_read_only = off"),
        ({"parent": {"may_own": False}}, "NotOwner", 'GRANT "owner" TO "owner"'),
        ({"parent": {"may_create": False}}, "InsufficientPrivilege", 'GRANT CREATE ON SCHEMA "public"'),
    ],
)
def test_what_stops_everything_is_reported_even_when_nothing_is_to_be_done(
    fields: dict[str, dict[str, Any]], reason: str, words: str
) -> None:
    for partitions in ((), years(2026, 2027, 2028)):
        found = _changed(inventory(*partitions), fields)
        decided = plan(spec(), found)
        assert decided.blocked
        assert [each.reason for each in decided.findings] == [reason]
        assert words in decided.findings[0].message
        only_planned = plan(spec(mode=Mode.PLAN), found)
        assert not only_planned.blocked
        assert only_planned.findings == ()


def _changed(found: Inventory, fields: dict[str, dict[str, Any]]) -> Inventory:
    return replace(found, **{name: replace(getattr(found, name), **new) for name, new in fields.items()})


def test_names_in_statements_to_copy_are_quoted() -> None:
    found = _changed(inventory(), {"parent": {"may_own": False, "owner": 'Own"er'}})
    assert 'GRANT "Own""er" TO "owner"' in plan(spec(), found).findings[0].message


def test_many_odd_partitions_are_one_notice() -> None:
    odd = [partition(f"odd{n}", moment(f"2026-01-{n + 1:02}"), moment(f"2026-01-{n + 2:02}")) for n in range(8)]
    (finding,) = plan(spec(interval="Year"), inventory(*odd)).findings
    assert "odd0, odd1, odd2, odd3, odd4 and 3 more;" in finding.message
    assert finding.error is None


def test_a_comment_that_is_too_long_to_be_read_is_reported() -> None:
    found = replace(inventory(*years(2026, 2027, 2028)), comments_too_long=("public.run_2018",))
    (finding,) = plan(spec(), found).findings
    assert (finding.reason, finding.error) == ("CommentTooLong", None)
    assert "public.run_2018" in finding.message
    assert "65,536 bytes" in finding.message
