"""Maintenance of closed partitions: its conditions and Events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lab.operator import Operator
from lab.postgres import Database
from lab.site import RUN, Site, conditions

YEAR = datetime.now(UTC).year


def test_an_oversized_partition_and_a_vacuumed_one_are_reported_once(
    site: Site, operator: Operator, pg_database: Database
) -> None:
    database, old = pg_database, YEAR - 1
    database.execute(RUN)
    database.execute(
        f"CREATE TABLE run_{old} PARTITION OF run FOR VALUES FROM ('{old}-01-01Z') TO ('{YEAR}-01-01Z');"
        f"INSERT INTO run SELECT n, '{old}-05-05Z' FROM generate_series(1, 5000) n"
    )
    fields: dict[str, Any] = {
        "premake": 0,
        "resync": "10s",
        "maintenance": {"onClose": "Vacuum", "analyzeParent": False},
    }
    site.watch_over(database, **fields, thresholds={"partitionSize": "64Ki"})
    found = site.wait(Ready="True", WithinThresholds="False")
    site.expect_events(["Normal PartitionCreated", "Normal PartitionVacuumed", "Warning PartitionTooLarge"])
    message = conditions(found["status"])["WithinThresholds"]["message"]
    assert message.startswith(f"larger than 64Ki (spec.thresholds.partitionSize): public.run_{old} (over ")
    marked = {each["name"]: each.get("overThreshold") for each in found["status"]["partitions"]}
    assert marked == {f"run_{old}": True, f"run_{YEAR}": None}

    site.watch_over(database, **fields, thresholds={"partitionSize": "1Gi"})
    site.wait(Ready="True", WithinThresholds="True")
    site.expect_events(
        [
            "Normal PartitionCreated",
            "Normal PartitionVacuumed",
            "Warning PartitionTooLarge",
            "Normal WithinThresholds",
        ]
    )
