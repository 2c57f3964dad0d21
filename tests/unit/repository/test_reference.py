"""docs/reference/ agrees with the code: pages are as `make reference` writes them, and every name is explained."""

from __future__ import annotations

import pytest

from partwarden.api.status import State
from partwarden.planner.marker import Phase
from support import life, reference

GENERATED = reference.pages()
TEXTS = reference.load_texts()


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_a_page_is_as_the_code_says(name: str) -> None:
    assert (reference.PAGES / name).read_text() == GENERATED[name], "stale: run `make reference`"


def test_the_picture_of_a_partitions_life_is_as_the_code_says() -> None:
    assert reference.LIFE.read_text() == reference.picture(), "stale: run `make reference`"


@pytest.mark.parametrize("name", [*State, *Phase, *life.gate()])
def test_the_picture_has_every_state_and_every_row_of_the_gate(name: str) -> None:
    shown = name.partition(" after")[0]
    assert f">{shown}<" in reference.LIFE.read_text()


@pytest.mark.slow
def test_every_finding_is_explained() -> None:
    assert set(TEXTS["findings"]) == reference.finding_names()


def test_every_condition_is_explained() -> None:
    assert set(TEXTS["conditions"]) == reference.condition_names()
    assert set(TEXTS["archiveConditions"]) <= reference.literals(reference.ARCHIVE_REASONS)


def test_every_state_of_a_partition_is_explained() -> None:
    assert set(TEXTS["states"]) == reference.state_names()


@pytest.mark.slow
def test_every_reason_of_a_condition_is_explained() -> None:
    found = reference.literals(reference.POLICY_REASONS + reference.ARCHIVE_REASONS + reference.RESTORE_REASONS)
    assert found <= {*TEXTS["reasons"], *TEXTS["words"]}
    assert set(TEXTS["reasons"]) <= found
