"""A server that lies costs its own policy, and no other team anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adversary.cases import Case
from adversary.hostile_server import lying
from adversary.server_cases import CASES, LIES
from adversary.stage import Stage


@pytest.fixture(scope="module", autouse=True)
def servers(stage: Stage) -> Iterator[None]:
    """Each lie at its port."""
    with lying(LIES, stage.server.port) as stage.ports:
        yield


@pytest.mark.parametrize("case", CASES, ids=str)
def test_another_team_does_not_notice(stage: Stage, case: Case) -> None:
    stage.endure(case)
