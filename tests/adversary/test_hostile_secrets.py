"""A Secret costs the policies that name it, and no other team anything."""

from __future__ import annotations

import pytest

from adversary.cases import Case
from adversary.secret_cases import CASES
from adversary.stage import Stage


@pytest.mark.parametrize("case", CASES, ids=str)
def test_another_team_does_not_notice(stage: Stage, case: Case) -> None:
    stage.endure(case)
