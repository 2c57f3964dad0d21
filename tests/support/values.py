"""Inventories as values, for tests of the plans made from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from partwarden.api.policy import Table, TableSpec
from partwarden.planner.actions import (
    Action,
    AttachDetached,
    ConfirmDetached,
    CreateDefault,
    CreatePartition,
    DetachPartition,
    DropDetached,
    FinalizeDetach,
)
from partwarden.planner.calendar import BoundedRange, Range, iso
from partwarden.planner.inventory import Detached, Inventory, KeyPart, Parent, Partition, RelationKind, Server, Strategy
from partwarden.planner.keys import Bounds, Codec, KeyType
from partwarden.planner.marker import Marker, Phase
from partwarden.planner.plan import Plan, make_plan

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


def bounds(partition: Partition) -> BoundedRange:
    """The range of a partition that has both bounds."""
    assert partition.range is not None
    assert partition.range.bounded is not None
    return partition.range.bounded


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


def detached(name: str, lower: datetime, upper: datetime, since: datetime = NOW, **fields: Any) -> Detached:
    """A marked table that was the partition of public.run for ``[lower, upper)``; ``phase`` is Detached."""
    phase = fields.pop("phase", Phase.DETACHED)
    oid = fields.pop("oid", _oid(name))
    marker = Marker(oid, PARENT.oid, str(PARENT), BoundedRange(lower, upper), phase, since)
    return Detached(oid=oid, schema="public", name=name, marker=marker, **fields)


def after(found: Inventory, actions: Iterable[Action]) -> Inventory:
    """The inventory after these actions have succeeded. Raises AssertionError for actions that PostgreSQL refuses."""
    for action in actions:
        match action:
            case CreatePartition():
                assert all(each.name != action.name for each in found.detached), action
                found = _attached(found, partition(action.name, action.range.lower, action.range.upper), action.bounds)
            case CreateDefault():
                assert found.default is None, action
                found = replace(found, partitions=(*found.partitions, default(action.name)))
            case AttachDetached():
                (table,) = [each for each in found.detached if each.oid == action.oid]
                assert table.marker.range == action.range, action
                found = replace(found, detached=tuple(each for each in found.detached if each is not table))
                new = replace(partition(table.name, action.range.lower, action.range.upper), oid=table.oid)
                found = _attached(found, new, action.bounds)
            case FinalizeDetach() | DetachPartition():
                found = _without(found, action)
            case ConfirmDetached():
                (table,) = [each for each in found.detached if each.oid == action.oid]
                assert table.marker == action.marker, action
                confirmed = replace(table, marker=replace(table.marker, phase=Phase.DETACHED, since=found.now))
                others = tuple(each for each in found.detached if each is not table)
                found = replace(found, detached=(*others, confirmed))
            case DropDetached():
                (table,) = [each for each in found.detached if each.oid == action.oid]
                assert table.marker == action.marker, action
                found = replace(found, detached=tuple(each for each in found.detached if each is not table))
            case _:
                raise AssertionError(f"the inventory cannot be advanced by {action!r}")
    return found


def _attached(found: Inventory, new: Partition, bounds: Bounds) -> Inventory:
    assert new.range is not None
    assert all(each.range is None or not each.range.overlaps(new.range) for each in found.partitions), new
    assert all(each.name != new.name for each in found.partitions), new
    text = "FOR VALUES FROM ('{}') TO ('{}')".format(*bounds)
    return replace(found, partitions=(*found.partitions, replace(new, bounds=text)))


def _without(found: Inventory, action: FinalizeDetach | DetachPartition) -> Inventory:
    """One partition less; its table remains, and is listed as detached where it has the operator's mark."""
    (gone,) = [each for each in found.partitions if each.oid == action.oid]
    marker = gone.marker
    if isinstance(action, DetachPartition):
        assert not gone.detach_pending, action
        assert not action.concurrently or not any(each.detach_pending for each in found.partitions), action
        assert action.concurrently == (found.default is None), action
        marker = Marker(gone.oid, PARENT.oid, str(PARENT), bounds(gone), Phase.DETACHED, found.now)
    else:
        assert gone.detach_pending, action
    rest = tuple(each for each in found.partitions if each is not gone)
    tables = (Detached(gone.oid, gone.schema, gone.name, marker, "", gone.rows, gone.bytes),) if marker else ()
    return replace(found, partitions=rest, detached=(*found.detached, *tables))


def _oid(name: str) -> int:
    return 2000 + crc32(name.encode())
