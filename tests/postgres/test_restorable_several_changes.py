"""Tables of several parts, each with a change at a moment of its own: refused in time, or they can be restored."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from support import changes
from support.changes import MOMENTS, PARTS, Change, Moment
from support.restorable import HERE, Run

SEEDS = range(4)


def _sample() -> Iterator[object]:
    for major in HERE:
        for seed in SEEDS:
            yield pytest.param(major, seed, id=f"pg{major}: seed {seed}")


@pytest.mark.parametrize(("major", "seed"), list(_sample()))
def test_several_changes_at_once(major: int, seed: int, course: Run) -> None:
    """Of several parts in one table, each with a change at a moment of its own; few of them while it can refuse."""
    drawn = random.Random(1000 * major + seed)
    able = {name: part for name, part in PARTS.items() if part.since <= major and part.changes and not part.proof}
    names = drawn.sample(sorted(able), 5)
    meanwhile: dict[Moment, list[Change]] = {moment: [] for moment in MOMENTS}
    for name in names:
        fit = [each for each in map(changes.change, able[name].changes.values()) if each.since <= major and each.sql]
        if not fit:
            continue
        each = drawn.choice(fit)
        late = [moment for moment in each.moments if moment is not Moment.DROPPING or seed % 4 == 0]
        meanwhile[drawn.choice(late or list(each.moments))].append(each)
    print(names, meanwhile)
    course(major, changes.specimen([able[name] for name in names]), meanwhile)
