"""Values to try pure functions on: a table by year, its inventory and the plan that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from partwarden.api.policy import TableSpec
from partwarden.planner.calendar import Range
from partwarden.planner.inventory import Inventory, KeyPart, Parent, Partition, RelationKind, Server, Strategy
from partwarden.planner.keys import KeyType
from partwarden.planner.plan import Plan, make_plan

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def spec(**fields: Any) -> TableSpec:
    """A policy for public.run, by year, two years ahead; fields by their names in YAML."""
    return TableSpec.model_validate({"table": {"name": "run"}, **fields})


def year(number: int, oid: int = 0, name: str = "", **fields: Any) -> Partition:
    """The partition of a year, 1 MiB and 100 rows."""
    held = Range(datetime(number, 1, 1, tzinfo=UTC), datetime(number + 1, 1, 1, tzinfo=UTC))
    values: dict[str, Any] = {"rows": 100, "bytes": 2**20, **fields}
    return Partition(oid or number, "public", name or f"run_{number}", held, f"{number}", **values)


def inventory(partitions: Iterable[Partition] = (), *, now: datetime = NOW, **parent: Any) -> Inventory:
    """What a catalog shows of public.run, partitioned by submitted_at."""
    server = Server(180000, "18.0", parent.pop("read_only", False), "orchestrator", "app", "7/5")
    values: dict[str, Any] = {
        "kind": RelationKind.PARTITIONED,
        "owner": "app",
        "strategy": Strategy.RANGE,
        "key": (KeyPart("submitted_at", KeyType.TIMESTAMPTZ),),
        **parent,
    }
    return Inventory(server, Parent(100, "public", "run", **values), now, tuple(partitions))


def plan(found: Inventory, **fields: Any) -> Plan:
    """The plan for public.run at the server's time."""
    return make_plan(spec(**fields), found, found.now)
