"""Archives hold what they say themselves, else what their policy says, else a dump. Parquet needs its image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from partwarden.api.archive import PartitionArchiveSpec
from partwarden.api.policy import PartitionPolicySpec
from partwarden.api.retention import Format
from partwarden.api.validation import check
from partwarden.controller.archive_job import resolve_job_request

DATABASE = {"secretRef": {"name": "db"}}
DESTINATION = {"pvc": {"claimName": "archives"}}
DUMP, BOTH = (Format.DUMP,), (Format.DUMP, Format.PARQUET)


def says(formats: Sequence[str] | None) -> dict[str, Any]:
    return {} if formats is None else {"formats": list(formats)}


def archive(formats: Sequence[str] | None) -> dict[str, Any]:
    of = {"policy": {"name": "run"}, "database": DATABASE, "partition": "run_2020", "destination": DESTINATION}
    return {**of, **says(formats)}


def policy(formats: Sequence[str] | None) -> dict[str, Any]:
    retention = {"keepFor": "5y", "archive": {**DESTINATION, **says(formats)}}
    return {"table": {"name": "run"}, "database": DATABASE, "retention": retention}


@pytest.mark.parametrize(
    ("own", "of_policy", "expected"),
    [
        (None, None, DUMP),
        (None, ["Parquet", "Dump"], BOTH),
        (["Dump"], ["Dump", "Parquet"], DUMP),
        (["Dump", "Parquet"], ["Dump"], BOTH),
    ],
)
def test_with_a_policy(own: list[str] | None, of_policy: list[str] | None, expected: tuple[Format, ...]) -> None:
    assert resolve_job_request(archive(own), policy(of_policy)).formats == expected


@pytest.mark.parametrize(("own", "expected"), [(None, DUMP), (["Parquet", "Dump"], BOTH)])
def test_without_one(own: list[str] | None, expected: tuple[Format, ...]) -> None:
    assert resolve_job_request(archive(own), None).formats == expected
    nowhere = {**policy(None), "retention": {"keepFor": "5y"}}
    assert resolve_job_request(archive(own), nowhere).formats == expected


@pytest.mark.parametrize(
    ("formats", "said"),
    [
        (["Parquet"], "must hold Dump: it is what an archive is proven by and restored from; Parquet comes beside it"),
        (["Dump", "Dump"], "must hold each format once"),
    ],
)
def test_a_made_by_hand_archive_is_judged_as_a_policy(formats: list[str], said: str) -> None:
    for model, data, field in (
        (PartitionArchiveSpec, archive(formats), "spec.formats"),
        (PartitionPolicySpec, policy(formats), "spec.retention.archive.formats"),
    ):
        found, problems = check(model, data, "spec")
        assert found is None
        assert [problem.partition(", found")[0] for problem in problems] == [f"{field}: {said}"]


def test_where_archives_lie_is_the_same_whatever_they_hold() -> None:
    places = []
    for formats in (None, ["Dump", "Parquet"]):
        spec, _ = check(PartitionPolicySpec, policy(formats), "spec")
        assert spec is not None
        assert spec.retention is not None
        assert spec.retention.archive is not None
        places.append(spec.retention.archive.place)
    assert places[0] == places[1]
    assert places[0].model_dump(by_alias=True, exclude_none=True) == DESTINATION
