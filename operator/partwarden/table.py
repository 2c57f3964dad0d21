"""Whether a table can be managed at all, and by which key."""

from __future__ import annotations

from datetime import UTC, datetime

from . import errors
from .interval import Interval, Range
from .inventory import Inventory, KeyType, Parent, RelationKind, Strategy
from .keys import TYPES, Codec
from .lifecycle import KeyEncoding
from .policy import TableSpec

MIN_VERSION = 140000
"""PostgreSQL 14, the oldest release with DETACH CONCURRENTLY."""
SECONDS_AS_MILLISECONDS = Range(datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 2, 10, tzinfo=UTC))
"""Where the seconds of the years 1973 to 2079 would lie."""


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
    codec = _codec(spec, parent, column, type_name)
    if codec.type is KeyType.DATE and spec.interval is Interval.HOUR:
        raise errors.IntervalTooFine(f"spec.interval is Hour, but {parent} is partitioned by {column!r} of type date")
    _check_unit(parent, column, codec, inventory)
    return parent, column, codec


def _check_unit(parent: Parent, column: str, codec: Codec, inventory: Inventory) -> None:
    """Refuse seconds taken for milliseconds, which are days of 1970, and the other way round, beyond all calendars.

    It is told by the bounds that exist, where all of them are such: what was made beside them would never hold a row.
    """
    ends = [end for each in inventory.partitions if each.range for end in (each.range.lower, each.range.upper) if end]
    if codec.encoding is KeyEncoding.EPOCH_SECONDS and codec.type is KeyType.BIGINT:
        mistaken, other = all(end >= codec.ceiling for end in ends), KeyEncoding.EPOCH_MILLISECONDS
    elif codec.encoding is KeyEncoding.EPOCH_MILLISECONDS:
        mistaken, other = all(SECONDS_AS_MILLISECONDS.contains(end) for end in ends), KeyEncoding.EPOCH_SECONDS
    else:
        return
    if ends and mistaken:
        shown = next(each for each in inventory.partitions if each.range and (each.range.lower or each.range.upper))
        raise errors.InvalidSpec(
            f"spec.keyEncoding is {codec.encoding}, by which no partition of {parent} is of our time, such as "
            f"{shown.name} {shown.bounds}: if {column!r} is in {other}, say so"
        )


def _codec(spec: TableSpec, parent: Parent, column: str, type_name: str) -> Codec:
    if codec := Codec.find(type_name, spec.key_encoding):
        return codec
    found = f"{parent} is partitioned by {column!r} of type {type_name}"
    fitting = [encoding for encoding, types in TYPES.items() if type_name in types]
    if not fitting:
        raise errors.UnsupportedKeyType(
            f"{found}; only date, timestamp, timestamp with time zone, uuid, bigint and integer can be managed"
        )
    raise errors.UnsupportedKeyType(
        f"{found}, but spec.keyEncoding is {spec.key_encoding}, which needs {' or '.join(TYPES[spec.key_encoding])}: "
        + (
            "leave spec.keyEncoding out, or set it to Native"
            if KeyEncoding.NATIVE in fitting
            else f"set spec.keyEncoding to {' or '.join(fitting)}, whichever its values are"
        )
    )


def _single_column(parent: Parent) -> tuple[str, str]:
    if len(parent.key) > 1:
        raise errors.UnsupportedKey(
            f"{parent} is partitioned by {len(parent.key)} columns or expressions; only a single column can be managed"
        )
    (part,) = parent.key
    if part.column is None:
        raise errors.UnsupportedKey(f"{parent} is partitioned by an expression; only a plain column can be managed")
    return part.column, part.type
