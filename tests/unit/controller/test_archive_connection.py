"""Where the Jobs that archive connect: as everything else, or to the server that spec.database.archive names."""

from __future__ import annotations

from typing import Any

import pytest

from partwarden.api.database import Database
from partwarden.api.policy import PartitionPolicySpec
from partwarden.controller.archive_job import resolve_job_request
from partwarden.controller.archive_requests import name
from partwarden.kube.cache import StoredPolicy
from partwarden.planner.archive_gate import ArchiveRequest
from partwarden.postgres.conninfo import resolve

SECRET = {"uri": "postgresql://app:pw@run-pooler.shop:6432/orders?hostaddr=10.0.0.9"}
DIRECT = {"host": "run-rw", "port": 5432}
DESTINATION = {"s3": {"url": "s3://archives/runs"}}


def database(**more: Any) -> dict[str, Any]:
    return {"secretRef": {"name": "run"}, **more}


def policy(**more: Any) -> dict[str, Any]:
    retention = {"keepFor": "1y", "archive": DESTINATION}
    return {"table": {"name": "run"}, "database": database(**more), "retention": retention}


def reached(wanted: Database) -> tuple[str, str, str]:
    return resolve(wanted, SECRET, "run").database_key


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("run-pooler.shop", "6432", "orders")),
        ({"archive": DIRECT}, ("run-rw", "5432", "orders")),
        ({"archive": {"host": "run-rw"}}, ("run-rw", "6432", "orders")),
        ({"archive": DIRECT, "connection": {"host": "elsewhere", "dbname": "other"}}, ("run-rw", "5432", "other")),
    ],
)
def test_jobs_connect_to_the_server_that_is_named_with_all_else_the_same(
    fields: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    wanted = Database.model_validate(database(**fields))
    found = resolve(wanted.for_jobs, SECRET, "run")
    assert found.database_key == expected
    assert ("hostaddr" in found.parameters) == (fields == {})
    assert (found.parameters["user"], found.parameters["password"]) == ("app", "pw")


def test_everything_else_connects_as_before() -> None:
    wanted = Database.model_validate(database(archive=DIRECT))
    assert reached(wanted) == ("run-pooler.shop", "6432", "orders")


@pytest.mark.parametrize("own", [{}, {"archive": {"host": "of-old"}}])
def test_an_archive_that_was_begun_takes_the_host_that_its_policy_names_now(own: dict[str, Any]) -> None:
    spec = {"partition": "run_2020", "destination": DESTINATION, "database": database(**own), "policy": {"name": "run"}}
    assert reached(resolve_job_request(spec, policy(archive=DIRECT)).database) == ("run-rw", "5432", "orders")
    assert reached(resolve_job_request(spec, policy()).database) == ("run-pooler.shop", "6432", "orders")


def test_without_its_policy_or_of_another_database_it_keeps_its_own() -> None:
    spec = {"partition": "run_2020", "destination": DESTINATION, "database": database(archive={"host": "own"})}
    for other in (None, policy(connection={"host": "another"}, archive=DIRECT)):
        assert reached(resolve_job_request(spec, other).database) == ("own", "6432", "orders")


def test_what_was_archived_counts_however_jobs_reach_the_database() -> None:
    stored = StoredPolicy(
        key=("shop", "run"), uid="uid", generation=1, version=1, created="2026-01-01T00:00:00Z", spec={}
    )
    wanted = ArchiveRequest(16400, "public", "run_2020", 0)
    specs = [PartitionPolicySpec.model_validate(policy(**each)) for each in ({}, {"archive": DIRECT})]
    assert len({name(stored, each, "7/16384", wanted) for each in specs}) == 1
