"""What an edit of a policy changes from now on, by the two plans of it."""

from __future__ import annotations

from typing import Any

import pytest

from partwarden.api.policy import Mode, TableSpec
from partwarden.api.retention import OnExpire, Retention
from partwarden.planner.difference import Difference, compare
from support import values

FOUND = values.inventory(*values.years(2019, 2020, 2024, 2025, 2026))
RETENTION = Retention(keep_for="5y", on_expire=OnExpire.DROP, drop_without_archive=True)


def spec(retention: Retention | None = RETENTION, **fields: Any) -> TableSpec:
    return values.spec(retention=retention, **{"premake": 0, "start_from": "2026-01-01", **fields})


def difference(after: TableSpec, before: TableSpec | None = None) -> Difference:
    specs = before or spec(), after
    return compare(specs, tuple(values.plan(each, FOUND) for each in specs), FOUND)  # type: ignore[arg-type]


def edited(**changes: Any) -> TableSpec:
    return spec(RETENTION.model_copy(update=changes))


def names(found: Difference) -> tuple[list[str], list[str]]:
    return [each.name for each in found.expiring], [each.name for each in found.staying]


def test_the_same_policy_changes_nothing() -> None:
    found = difference(spec())
    assert not found.differs
    assert found.fields == ()


def test_a_shorter_age_names_what_expires_and_what_is_done() -> None:
    found = difference(edited(keep_for="1y"))
    assert names(found) == (["run_2024"], [])
    assert [(each.action, each.name) for each in found.added] == [
        ("DetachPartition", "run_2024"),
        ("DropDetached", "run_2024"),
    ]
    assert found.fields == (("spec.retention.keepFor", "5y", "1y"),)
    assert names(difference(edited(keep_for="99y"))) == ([], ["run_2019", "run_2020"])


def test_to_keep_what_has_expired_takes_its_drops_out_of_the_plan() -> None:
    found = difference(edited(on_expire=OnExpire.DETACH, drop_without_archive=False))
    assert names(found) == ([], [])
    assert {each.action for each in found.removed} == {"DropDetached"}
    assert found.added == ()


def test_another_grace_moves_the_drops() -> None:
    found = difference(edited(grace="999h"))
    assert {(after.action, before.not_before != after.not_before) for before, after in found.moved} == {
        ("DropDetached", True)
    }
    assert found.differs


@pytest.mark.parametrize("change", [{"mode": Mode.APPROVE}, {"retention": edited(max_retirements=1).retention}])
def test_what_waits_for_the_user_from_now_on_is_a_difference(change: dict[str, Any]) -> None:
    found = difference(spec(**change))
    assert {after.action for _, after in found.moved} == {"DetachPartition", "DropDetached"}


def test_a_hold_in_the_spec_and_another_time_zone_are_seen() -> None:
    assert {after.name for _, after in difference(spec(holds=["run_2019"])).moved} == {"run_2019"}
    assert difference(spec(timezone="Europe/Berlin")).fields == (("spec.timezone", "UTC", "Europe/Berlin"),)


def test_without_retention_nothing_expires_any_more() -> None:
    found = difference(spec(None))
    assert names(found) == ([], ["run_2019", "run_2020"])
    assert found.fields[0][0] == "spec.retention"
