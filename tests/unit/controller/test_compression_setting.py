"""Dumps are compressed as the archive says, else as its policy does, else by zstd. Where they lie is the same."""

from __future__ import annotations

from typing import Any

import pytest

from partwarden.api.policy import PartitionPolicySpec
from partwarden.api.retention import Compression
from partwarden.api.validation import check
from partwarden.controller.archive_job import resolve_job_request
from partwarden.errors import InvalidSpec

DATABASE = {"secretRef": {"name": "db"}}
DESTINATION = {"pvc": {"claimName": "archives"}}


def says(compression: str | None, level: int | None = None) -> dict[str, Any]:
    both = {"compression": compression, "compressionLevel": level}
    return {field: value for field, value in both.items() if value is not None}


def archive(compression: str | None, level: int | None = None) -> dict[str, Any]:
    of = {"policy": {"name": "run"}, "database": DATABASE, "partition": "run_2020", "destination": DESTINATION}
    return {**of, **says(compression, level)}


def policy(compression: str | None, level: int | None = None) -> dict[str, Any]:
    retention = {"keepFor": "5y", "archive": {**DESTINATION, **says(compression, level)}}
    return {"table": {"name": "run"}, "database": DATABASE, "retention": retention}


@pytest.mark.parametrize(
    ("own", "of_policy", "expected"),
    [
        (None, None, Compression.ZSTD),
        (None, "Gzip", Compression.GZIP),
        ("None", "Gzip", Compression.NONE),
        ("Zstd", "None", Compression.ZSTD),
    ],
)
def test_with_a_policy(own: str | None, of_policy: str | None, expected: Compression) -> None:
    assert resolve_job_request(archive(own), policy(of_policy)).compression is expected


@pytest.mark.parametrize(("own", "expected"), [(None, Compression.ZSTD), ("Gzip", Compression.GZIP)])
def test_without_one(own: str | None, expected: Compression) -> None:
    assert resolve_job_request(archive(own), None).compression is expected
    nowhere = {**policy(None), "retention": {"keepFor": "5y"}}
    assert resolve_job_request(archive(own), nowhere).compression is expected


@pytest.mark.parametrize(
    ("own", "of_policy", "expected"),
    [
        ((None, None), (None, 3), 3),
        ((None, None), ("Gzip", 9), 9),
        (("Zstd", 7), ("Zstd", 3), 7),
        (("Zstd", None), (None, 3), 3),
        # 19 is none of gzip's.
        (("Gzip", None), ("Zstd", 19), None),
        (("None", None), ("Gzip", 9), None),
        ((None, None), (None, None), None),
    ],
)
def test_the_level_is_one_of_the_method(
    own: tuple[str | None, int | None], of_policy: tuple[str | None, int | None], expected: int | None
) -> None:
    assert resolve_job_request(archive(*own), policy(*of_policy)).compression_level == expected


@pytest.mark.parametrize("own", [(None, 1), ("None", 1), ("Gzip", 10)])
def test_an_archive_with_a_level_of_another_method_is_refused(own: tuple[str | None, int]) -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.compressionLevel: must be 1 to 19 with compression: Z"):
        resolve_job_request(archive(*own), policy(None))


def test_another_word_is_refused() -> None:
    spec, problems = check(PartitionPolicySpec, policy("zip"), "spec")
    assert spec is None
    assert problems == ['spec.retention.archive.compression: must be Zstd, Gzip or None, found "zip"']


def test_where_archives_lie_is_the_same_however_they_are_compressed() -> None:
    places = []
    for compression in (None, "Gzip"):
        spec, _ = check(PartitionPolicySpec, policy(compression), "spec")
        assert spec is not None
        assert spec.retention is not None
        assert spec.retention.archive is not None
        places.append(spec.retention.archive.place)
    assert places[0] == places[1]
    assert places[0].model_dump(by_alias=True, exclude_none=True) == DESTINATION
