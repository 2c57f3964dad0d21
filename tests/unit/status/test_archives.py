"""What a policy says of archives whose tables are dropped."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from partwarden.api.policy import TableSpec
from partwarden.planner.forecast import Failing, Measured
from partwarden.status import archives, warnings

AT = datetime(2026, 3, 1, 12, 30, 1, 5, tzinfo=UTC)


def spec(**retention: Any) -> TableSpec:
    archive = {"pvc": {"claimName": "archives"}, "keepFor": "10d", "deletion": "Allowed"}
    said = {"keepFor": "5y", "archive": archive, **retention}
    return TableSpec.model_validate({"table": {"name": "run"}, "interval": "Month", "retention": said})


@pytest.mark.parametrize(("retention", "most"), [({}, 10), ({"maxRetirements": 2}, 2)])
def test_more_archives_that_go_at_once_than_partitions_may_are_a_warning(retention: dict[str, Any], most: int) -> None:
    """As after days that were written for years."""
    usual = Measured(expiring=most, first_expiry=AT)
    assert archives.findings(spec(**retention), usual) == []
    many = Measured(expiring=most + 1, first_expiry=AT)
    (found,) = archives.findings(spec(**retention), many)
    assert found.reason == warnings.ARCHIVES_EXPIRING
    assert f"{most + 1} archives are to be deleted for good, more than {most} at once, the first at " in found.message
    assert "2026-03-01T12:30:01Z" in found.message
    assert warnings.in_few_words([found.reason]) == "1: archives expire"


def test_each_archive_that_fails_is_named() -> None:
    failing = tuple(Failing(name, "ArchiveDamaged", "has another sha256") for name in ("a", "b"))
    found = archives.findings(spec(), Measured(failing=failing))
    assert [(each.reason, each.object) for each in found] == [("ArchiveFailing", "a"), ("ArchiveFailing", "b")]
