"""Range -> partition name. Names are for people: nothing is ever decided by reading one."""

from __future__ import annotations

from datetime import datetime

from ..api.types import Interval
from ..errors import NameTooLong
from .calendar import BoundedRange, Grid

MAX_BYTES = 63
"""NAMEDATALEN - 1: PostgreSQL cuts longer names silently, and cut names collide."""

DEFAULT_FORMATS = {
    Interval.YEAR: "{table}_{year}",
    Interval.QUARTER: "{table}_{year}_q{quarter}",
    Interval.MONTH: "{table}_{year}_{month}",
    Interval.WEEK: "{table}_{isoyear}_w{week}",
    Interval.DAY: "{table}_{year}_{month}_{day}",
    Interval.HOUR: "{table}_{year}_{month}_{day}_{hour}",
}


def partition_name(table: str, name_format: str | None, grid: Grid, wanted: BoundedRange) -> str:
    """The name of a new partition that holds ``wanted``, a cell of ``grid`` or a piece of one.

    A piece carries its lower bound's wall-clock time as a suffix, so that it never takes the name of the whole.
    Raises `NameTooLong`.
    """
    cell = grid.cell(wanted.lower)
    pattern = name_format or DEFAULT_FORMATS[grid.interval]
    name = pattern.format_map({"table": table, **fields(grid.local(cell.lower))})
    if cell != wanted:
        name += "_" + _stamp(grid.local(wanted.lower))
    size = len(name.encode())
    if size > MAX_BYTES:
        raise NameTooLong(
            f"partition name {name!r} has {size} bytes, PostgreSQL keeps {MAX_BYTES}: "
            f"shorten spec.nameFormat ({pattern!r}) by {size - MAX_BYTES} bytes, or leave {{table}} out of it"
        )
    return name


def default_name(table: str) -> str:
    """The name of a new DEFAULT partition. Raises `NameTooLong`."""
    name = f"{table}_default"
    if (size := len(name.encode())) > MAX_BYTES:
        raise NameTooLong(
            f"the DEFAULT partition would be called {name!r}, which has {size} bytes, PostgreSQL keeps {MAX_BYTES}: "
            "make it by hand, or set spec.defaultPartition.ensure to false"
        )
    return name


def fields(local: datetime) -> dict[str, str]:
    """What the placeholders of a pattern stand for, of the partition that begins at this naive wall-clock time."""
    iso = local.isocalendar()
    # The second pass of an hour that the clock repeats is another partition: 02 and 02b.
    again = "b" if local.fold else ""
    return {
        "year": f"{local.year:04}",
        "quarter": str((local.month + 2) // 3),
        "month": f"{local.month:02}",
        "isoyear": f"{iso.year:04}",
        "week": f"{iso.week:02}",
        "day": f"{local.day:02}",
        "hour": f"{local.hour:02}{again}",
    }


def _stamp(local: datetime) -> str:
    text = local.strftime("%Y%m%d")
    if local.time().replace(fold=0) != datetime.min.time():
        text += local.strftime("t%H%M%S")
    if local.microsecond:
        text += f"{local.microsecond:06}"
    return text + ("b" if local.fold else "")
