"""What a role does in its own database costs its own policies, and no other team anything."""

from __future__ import annotations

import pytest

from adversary.cases import Case
from adversary.contents_cases import CASES
from adversary.stage import Stage


@pytest.mark.parametrize("case", CASES, ids=str)
def test_another_team_does_not_notice(stage: Stage, case: Case) -> None:
    stage.endure(case)
