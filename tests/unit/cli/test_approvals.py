"""What ``kubectl partwarden drop`` writes: a table with its OID, so that no later one of the name is meant."""

from __future__ import annotations

from typing import Any

import pytest

from partwarden.api import policy as api_policy
from partwarden.api.status import PartitionStatus, State
from partwarden.cli.drop import approval

OLD = PartitionStatus(name="run_2018", bytes=1, state=State.DETACHED)
EACH = OLD.model_copy(update={"oid": 16402})


def policy(text: str | None) -> dict[str, Any]:
    return {"metadata": {"annotations": {} if text is None else {api_policy.APPROVAL: text}}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "run_2018@16402"),
        ("", "run_2018@16402"),
        ("run_2017", "run_2017, run_2018@16402"),
        (" run_2017 ,run_2016@7,", "run_2017, run_2016@7, run_2018@16402"),
        ("run_2018", "run_2018@16402"),
        ("run_2018@4711, run_2018, run_2019", "run_2018@4711, run_2019, run_2018@16402"),
    ],
)
def test_the_table_is_named_with_its_oid_and_its_bare_name_goes(before: str | None, after: str) -> None:
    assert approval(policy(before), EACH) == {"metadata": {"annotations": {api_policy.APPROVAL: after}}}


def test_what_is_approved_already_is_left_as_it_is() -> None:
    assert approval(policy("x, run_2018@16402"), EACH) is None
    assert approval({"metadata": {}}, EACH) is not None


def test_a_status_of_an_older_operator_has_no_oid() -> None:
    assert approval(policy("x"), OLD) == {"metadata": {"annotations": {api_policy.APPROVAL: "x, run_2018"}}}
    assert approval(policy("run_2018"), OLD) is None
