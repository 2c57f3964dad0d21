"""Inventories as values: what the catalog could have shown, for tests of what is decided from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from partwarden.actions import CreatePartition
from partwarden.interval import Range, iso
from partwarden.inventory import Inventory, KeyPart, KeyType, Parent, Partition, RelationKind, Server, Strategy
from partwarden.keys import Codec
from partwarden.plan import Plan, make_plan
from partwarden.policy import Table, TableSpec

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SERVER = Server(
    version=180004, version_text="18.4", read_only=False, database="orchestrator", user="owner", identity="1/5"
)
PARENT = Parent(
    oid=1000,
    schema="public",
    name="run",
    kind=RelationKind.PARTITIONED,
    owner="owner",
    strategy=Strategy.RANGE,
    key=(KeyPart("submitted_at", KeyType.TIMESTAMPTZ),),
)


def spec(**fields: Any) -> TableSpec:
    """A policy for table public.run."""
    return TableSpec(table=Table(schema_="public", name="run"), **fields)


def moment(text: str) -> datetime:
    """A moment in UTC; ``naive`` is the same without a zone."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def naive(text: str) -> datetime:
    """A moment of a key without a zone."""
    return datetime.fromisoformat(text)


def parent(key_type: KeyType = KeyType.TIMESTAMPTZ, **fields: Any) -> Parent:
    """`PARENT` with another type of key, or other fields."""
    return replace(PARENT, key=(KeyPart("submitted_at", key_type),), **fields)


def partition(
    name: str, lower: datetime | None, upper: datetime | None, codec: Codec | None = None, **fields: Any
) -> Partition:
    """A partition of public.run for ``[lower, upper)``, its bounds as the codec writes them."""
    write = codec.literal if codec else iso
    ends = (f"'{write(lower)}'" if lower else "MINVALUE", f"'{write(upper)}'" if upper else "MAXVALUE")
    bounds = "FOR VALUES FROM ({}) TO ({})".format(*ends)
    return Partition(oid=_oid(name), schema="public", name=name, range=Range(lower, upper), bounds=bounds, **fields)


def default(name: str = "run_default") -> Partition:
    """The DEFAULT partition."""
    return Partition(oid=_oid(name), schema="public", name=name, range=None, bounds="DEFAULT")


def years(*numbers: int) -> tuple[Partition, ...]:
    """run_2024 and so on, each a year of UTC."""
    return tuple(
        partition(f"run_{year}", datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))
        for year in numbers
    )


def inventory(*partitions: Partition, now: datetime = NOW, **fields: Any) -> Inventory:
    """public.run with these partitions."""
    return replace(Inventory(SERVER, PARENT, now, partitions), **fields)


def plan(policy: TableSpec, found: Inventory) -> Plan:
    """The plan at the server's own time."""
    return make_plan(policy, found, found.now)


def after(found: Inventory, actions: Iterable[CreatePartition]) -> Inventory:
    """What the catalog shows once these actions have succeeded. Refuses an overlap, as PostgreSQL does."""
    partitions = list(found.partitions)
    for action in actions:
        assert all(each.range is None or not each.range.overlaps(action.range) for each in partitions), action
        assert all(each.name != action.name for each in partitions), action
        bounds = "FOR VALUES FROM ('{}') TO ('{}')".format(*action.bounds)
        partitions.append(replace(partition(action.name, action.range.lower, action.range.upper), bounds=bounds))
    return replace(found, partitions=tuple(partitions))


def _oid(name: str) -> int:
    return 2000 + crc32(name.encode())
