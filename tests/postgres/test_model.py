"""Random sequences of edits, clocks, hand-made DDL, rows and kills: no row is lost, and all comes to its end.

A failure prints its seed and every step. MODEL_SEEDS=17 plays that one again, MODEL_SEEDS=0-999 more of them, and
MODEL_STEPS=200 makes each longer.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from lab import report
from lab.postgres import Database
from model.sequence import play

SEEDS = os.environ.get("MODEL_SEEDS", "10-17")
STEPS = int(os.environ.get("MODEL_STEPS", "40"))


def seeds() -> list[int]:
    first, _, last = SEEDS.partition("-")
    return list(range(int(first), int(last or first) + 1))


@pytest.fixture(scope="module")
def counts() -> Iterator[Counter[str]]:
    """What all sequences did together, for the summary."""
    total: Counter[str] = Counter()
    yield total
    report.note("model: " + ", ".join(f"{number} {what}" for what, number in sorted(total.items())))


@pytest.mark.parametrize("seed", seeds())
def test_no_row_is_lost_and_everything_comes_to_its_end(database: Database, seed: int, counts: Counter[str]) -> None:
    counts.update(play(database, seed, STEPS))
