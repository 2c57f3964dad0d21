"""The status that the API server shows until an operator has written one, and what is made of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from partwarden.api import crd
from partwarden.cli import policies
from partwarden.controller import archive_status
from partwarden.controller.metrics import families
from partwarden.kube import cache
from partwarden.status.conditions import make_status, reconciled, suspended
from partwarden.status.events import changed
from support.samples import inventory, plan, spec, year

NOW = datetime(2026, 1, 1, tzinfo=UTC)
UNSEEN: dict[str, Any] = {"observedGeneration": -1}


def schema(resource: crd.Resource) -> dict[str, Any]:
    found: dict[str, Any] = crd.definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return dict(found["properties"]["status"])


@pytest.mark.parametrize("resource", [crd.POLICY, crd.ARCHIVE], ids=lambda each: each.kind)
def test_the_api_server_gives_it_to_what_has_none(resource: crd.Resource) -> None:
    status = schema(resource)
    assert status["default"] == UNSEEN
    field = status["properties"]["observedGeneration"]
    assert (field["default"], field["minimum"]) == (-1, -1)


def policy(status: dict[str, Any]) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": "run", "generation": 1, "uid": "u", "resourceVersion": "1"}
    metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata, "spec": {"table": {"name": "run"}}, "status": status}


def test_it_is_as_none_to_all_that_reads_it() -> None:
    found, none = policy(UNSEEN), policy({})
    assert cache.parse_policy(found).status == UNSEEN
    assert not policies.is_current(found)
    views = [policies.view(each, NOW) for each in (found, none)]
    assert views[0].problems == views[1].problems != []
    assert views[0].lines({}) == views[1].lines({})
    assert policies.archive_state(found) == policies.archive_state(none) == "Pending"
    shown = [families([(("ns", "run"), False, each["status"])]) for each in (found, none)]
    assert [each.samples for each in shown[0]] == [each.samples for each in shown[1]]
    assert archive_status.trouble(UNSEEN) is None
    assert not archive_status.is_proven(UNSEEN)


def test_nothing_of_it_stays_once_the_operator_writes() -> None:
    seen = inventory([year(number) for number in range(2024, 2029)])
    for verdict in (suspended(), reconciled(spec(), seen, plan(seen), ())):
        written = make_status(verdict, UNSEEN, 1, NOW)
        assert written == make_status(verdict, {}, 1, NOW) != UNSEEN
        assert written["observedGeneration"] == 1
        assert changed(UNSEEN, written) == changed({}, written)
    waiting = archive_status.waits(archive_status.aims(UNSEEN, 5, None), 1, NOW, "Queued", "words")
    assert waiting == archive_status.waits(archive_status.aims({}, 5, None), 1, NOW, "Queued", "words")
