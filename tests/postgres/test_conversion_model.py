"""Random tables, converted and made plain again beside sessions that use them, and killed at random points.

A failure prints its seed, the table and every step. CONVERSION_SEEDS=17 plays that one again, CONVERSION_SEEDS=0-99
more of them on each major.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from lab import report
from lab.postgres import Server
from model.conversion_sequence import ConversionSequence
from support.majors import of_test

NAME = "test_conversion_model"
SEEDS = os.environ.get("CONVERSION_SEEDS", "")


def seeds(major: int) -> list[int]:
    """Where none are stated, one: another on each major."""
    first, _, last = (SEEDS or str(major)).partition("-")
    return list(range(int(first), int(last or first) + 1))


@pytest.fixture(scope="module")
def counts() -> Iterator[Counter[str]]:
    """What all sequences did together, for the summary."""
    total: Counter[str] = Counter()
    yield total
    report.note("conversion model: " + ", ".join(f"{number} {what}" for what, number in sorted(total.items())))


@pytest.mark.parametrize("major", of_test(NAME))
def test_each_row_is_seen_exactly_once_and_everything_comes_to_its_end(
    new_server: Callable[..., Server], major: int, counts: Counter[str]
) -> None:
    # Its own server, which is stopped in the middle; what is committed is there afterwards.
    server = new_server(major, options={"synchronous_commit": "on"})
    for seed in seeds(major):
        with server.new_database() as database:
            counts.update(ConversionSequence(database, seed).play())
