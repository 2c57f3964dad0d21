"""Objects of one namespace cost no other team anything, however many they are and whatever they say."""

from __future__ import annotations

import pytest

from adversary.cases import Case
from adversary.manifest_cases import CASES
from adversary.stage import Stage


@pytest.mark.parametrize("case", CASES, ids=str)
def test_another_team_does_not_notice(stage: Stage, case: Case) -> None:
    stage.endure(case)
