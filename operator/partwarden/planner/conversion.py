"""The conversion of a plain table into a range-partitioned one, as values: the table becomes a partition, no row moves.

All names are as the catalog has them, unquoted. All bounds are literals of the key's type as `keys` spells them,
without quotes; a lower one belongs to the range, an upper one does not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WidenedKey:
    """A primary key or unique constraint without the key column, and the wider one that the parent has in its place."""

    constraint: str
    primary: bool
    columns: tuple[str, ...]
    """Of the wider key, in order: those of the constraint, then the key column."""
    index: str
    """The unique index over ``columns`` that is built on the plain table, concurrently, before the swap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPartition:
    """An empty partition that is created together with the parent."""

    name: str
    lower: str
    upper: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What is done to one table. ``check``: the name of the constraint that proves its rows to lie in the range."""

    schema: str
    table: str
    oid: int
    key: str
    legacy: str
    """What the table is called once it is a partition."""
    check: str
    lower: str
    upper: str
    widened: tuple[WidenedKey, ...] = ()
    ahead: tuple[NewPartition, ...] = ()
    """Those after ``upper``, without a hole."""
