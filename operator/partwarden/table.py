"""Whether a table can be managed at all, and by which key."""

from __future__ import annotations

from collections.abc import Sequence

from . import errors, units
from .interval import Interval
from .inventory import Inventory, KeyType, Parent, RelationKind, Strategy
from .keys import TYPES, Codec
from .lifecycle import KeyEncoding
from .policy import TableSpec
from .units import Unit

MIN_VERSION = 140000
"""PostgreSQL 14, the oldest release with DETACH CONCURRENTLY."""
YEARS = f"{units.YEARS.start} to {units.YEARS.stop - 1}"


def check_table(spec: TableSpec, inventory: Inventory) -> tuple[Parent, str, Codec]:
    """The table, its key column and how that says when. Raises a `UserError` that names what cannot be managed."""
    server, parent = inventory.server, inventory.parent
    if server.version < MIN_VERSION:
        raise errors.ServerTooOld(f"the server is PostgreSQL {server.version_text}; Partwarden needs 14 or newer")
    if parent is None:
        raise errors.TableNotFound(
            f"table {spec.table} does not exist in database {server.database!r}, or role {server.user!r} may not see "
            "its schema: create it, or correct spec.table (names are matched exactly, upper and lower case differ)"
        )
    if parent.kind is not RelationKind.PARTITIONED or parent.strategy is None:
        raise errors.NotPartitioned(
            f"{parent} is not a partitioned table (kind: {parent.kind}); it must be made with PARTITION BY RANGE"
        )
    if parent.strategy is not Strategy.RANGE:
        raise errors.UnsupportedStrategy(f"{parent} is partitioned by {parent.strategy}; only RANGE can be managed")
    column, type_name = _single_column(parent)
    if spec.key is not None and spec.key != column:
        raise errors.WrongKey(
            f"spec.key is {spec.key!r}, but {parent} is partitioned by {column!r}: correct spec.key or leave it out"
        )
    codec = _codec(spec, inventory, parent, column, type_name)
    if codec.type is KeyType.DATE and spec.interval is Interval.HOUR:
        raise errors.IntervalTooFine(f"spec.interval is Hour, but {parent} is partitioned by {column!r} of type date")
    _check_unit(parent, column, codec, inventory)
    return parent, column, codec


def _check_unit(parent: Parent, column: str, codec: Codec, inventory: Inventory) -> None:
    """Refuse a key whose numbers are of another unit, judged by the bounds that exist, where all of them are.

    What was made beside them would never hold a row: no moment of our time in one unit is one in another.
    """
    values = units.numbers(each.bounds for each in inventory.partitions)
    mine = units.unit_of(codec.encoding)
    if mine is None or not values or any(mine.fits(each) for each in values):
        return
    likely = units.fitting(values)
    ends = [end for each in inventory.partitions if each.range for end in (each.range.lower, each.range.upper) if end]
    if likely is None and not all(end >= codec.ceiling for end in ends):
        return
    shown = next(each for each in inventory.partitions if units.numbers([each.bounds]))
    raise errors.InvalidSpec(
        f"spec.keyEncoding is {codec.encoding}, but no bound of {parent}'s partitions, such as {shown.name} "
        f"{shown.bounds}, is a number of {mine.name} in the years {YEARS}; {_likely(column, codec.type, likely)}"
    )


def _likely(column: str, type_name: str, unit: Unit | None) -> str:
    """What the numbers seem to be, and the way out."""
    if unit is None:
        return f"in which unit {column!r} says when cannot be seen: only seconds and milliseconds can be managed"
    if unit.encoding is None or type_name not in TYPES[unit.encoding]:
        return f"the values of {column!r} look like {unit.name}, which cannot be managed"
    return f"the values of {column!r} look like {unit.name}: set spec.keyEncoding to {unit.encoding}"


def _codec(spec: TableSpec, inventory: Inventory, parent: Parent, column: str, type_name: str) -> Codec:
    if codec := Codec.find(type_name, spec.key_encoding):
        return codec
    found = f"{parent} is partitioned by {column!r} of type {type_name}"
    fitting = [encoding for encoding, types in TYPES.items() if type_name in types]
    if not fitting:
        raise errors.UnsupportedKeyType(
            f"{found}; only date, timestamp, timestamp with time zone, uuid, bigint and integer can be managed"
        )
    needs = f"{found}, but spec.keyEncoding is {spec.key_encoding}, which needs {' or '.join(TYPES[spec.key_encoding])}"
    raise errors.UnsupportedKeyType(f"{needs}: {_advice(column, type_name, fitting, inventory.unread)}")


def _advice(column: str, type_name: str, fitting: list[KeyEncoding], bounds: Sequence[str]) -> str:
    """An encoding is named only where every bound that exists fits it."""
    if KeyEncoding.NATIVE in fitting:
        return "leave spec.keyEncoding out, or set it to Native"
    values = units.numbers(bounds)
    if not values or KeyEncoding.UUID_V7 in fitting:
        return f"set spec.keyEncoding to {' or '.join(fitting)}, whichever its values are"
    return _likely(column, type_name, units.fitting(values))


def _single_column(parent: Parent) -> tuple[str, str]:
    if len(parent.key) > 1:
        raise errors.UnsupportedKey(
            f"{parent} is partitioned by {len(parent.key)} columns or expressions; only a single column can be managed"
        )
    (part,) = parent.key
    if part.column is None:
        raise errors.UnsupportedKey(f"{parent} is partitioned by an expression; only a plain column can be managed")
    return part.column, part.type
