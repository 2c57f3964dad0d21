"""Whether large objects may be left out of an archive: its own word, else that of its policy, else not."""

from __future__ import annotations

from typing import Any

import pytest

from partwarden.api.retention import OnLargeObjects
from partwarden.controller.archive_job import resolve_job_request

DATABASE = {"secretRef": {"name": "db"}}
DESTINATION = {"pvc": {"claimName": "archives"}}
NOTHING: dict[str, Any] = {}
SAYS = {"refuse": {"largeObjects": "Refuse"}, "leave out": {"largeObjects": "LeaveOut"}, "nothing": NOTHING}


def archive(said: str) -> dict[str, Any]:
    return {
        "policy": {"name": "run"},
        "database": DATABASE,
        "partition": "run_2020",
        "destination": DESTINATION,
        **SAYS[said],
    }


def policy(said: str) -> dict[str, Any]:
    retention = {"keepFor": "5y", "archive": DESTINATION, **SAYS[said]}
    return {"table": {"name": "run"}, "database": DATABASE, "retention": retention}


@pytest.mark.parametrize(
    ("own", "of_policy", "expected"),
    [
        ("nothing", "nothing", OnLargeObjects.REFUSE),
        ("nothing", "leave out", OnLargeObjects.LEAVE_OUT),
        ("refuse", "leave out", OnLargeObjects.REFUSE),
        ("leave out", "refuse", OnLargeObjects.LEAVE_OUT),
    ],
)
def test_with_a_policy(own: str, of_policy: str, expected: OnLargeObjects) -> None:
    assert resolve_job_request(archive(own), policy(of_policy)).large_objects is expected


@pytest.mark.parametrize(("own", "expected"), [("nothing", "Refuse"), ("leave out", "LeaveOut")])
def test_without_one(own: str, expected: str) -> None:
    assert resolve_job_request(archive(own), None).large_objects == expected
    without = {**policy("nothing"), "retention": None}
    assert resolve_job_request(archive(own), without).large_objects == expected
