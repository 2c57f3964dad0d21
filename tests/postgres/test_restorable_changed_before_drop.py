"""Every kind of table, and every change between its archive and the drop: it is refused in time, or can be restored."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from support.changes import Change, Moment
from support.restorable import Run, changed
from support.zoo import Specimen


@pytest.mark.parametrize(("major", "specimen", "proof", "made"), list(changed(Moment.DROPPING)))
def test_a_table_is_refused_in_time_or_can_be_restored(
    major: int, specimen: Specimen, proof: str, made: Sequence[Change], course: Run
) -> None:
    course(major, specimen, {Moment.DROPPING: made}, proof)
