"""What a PartitionArchive asks for, completed by the policy that it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .archive_policy import PartitionArchiveSpec
from .database import Database
from .destination import Destination
from .errors import InvalidSpec
from .job import Wishes
from .job_settings import JobSettings
from .lifecycle import KeyEncoding, OnLargeObjects
from .policy import PartitionPolicySpec
from .validation import check


@dataclass(frozen=True, slots=True)
class ArchiveWish:
    """``oid``: of the table, where it is known; ``encoding``: of its partition key."""

    database: Database
    """As Jobs connect to it."""
    schema: str
    name: str
    oid: int | None
    destination: Destination
    job: Wishes
    encoding: KeyEncoding = KeyEncoding.NATIVE
    large_objects: OnLargeObjects = OnLargeObjects.REFUSE


def resolve_wish(data: object, policy: object | None) -> ArchiveWish:
    """``data``: the spec of a stored PartitionArchive; ``policy``: that of the policy, None where there is none.

    Raises `InvalidSpec`.
    """
    spec, problems = check(PartitionArchiveSpec, data, "spec")
    if spec is None:
        raise InvalidSpec("; ".join(problems))
    found = check(PartitionPolicySpec, policy, "spec")[0] if policy is not None else None
    database = spec.database or (found.database if found else None)
    if database is None:
        assert spec.policy is not None
        raise InvalidSpec(
            f"spec.policy.name: PartitionPolicy {spec.policy.name!r} does not exist in this namespace, or is not "
            "valid: create it, or make another PartitionArchive with spec.database"
        )
    if found is not None and found.database.identity == database.identity:
        # The way to it may have changed since, and an archive's spec never does.
        database = found.database
    retention = found.retention if found else None
    return ArchiveWish(
        database=database.for_jobs,
        schema=spec.schema_ or (found.table.schema_ if found else "public"),
        name=spec.partition,
        oid=spec.oid,
        destination=spec.destination,
        job=wishes(spec.job),
        encoding=found.key_encoding if found else KeyEncoding.NATIVE,
        large_objects=spec.large_objects or (retention.large_objects if retention else OnLargeObjects.REFUSE),
    )


def wishes(settings: JobSettings | None) -> Wishes:
    """As a Job takes them."""
    if settings is None:
        return Wishes()
    said: dict[str, Any] = settings.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return Wishes(
        resources=said.get("resources", {}),
        node_selector=said.get("nodeSelector", {}),
        tolerations=said.get("tolerations", []),
        labels=said.get("labels", {}),
    )
