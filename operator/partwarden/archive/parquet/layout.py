"""Where the Parquet object lies in an archive's folder: in Hive's style, so that a query's reader knows the range.

::

    parquet/table=run/year=2019/data.parquet
    parquet/table=run/year=2019/month=06/day=03/data.parquet
    parquet/table=run/from=2019-06-03/to=2019-06-10/data.parquet      a week, or a day that does not begin in UTC

It lies below its archive's folder, and not in one tree for all: what an interrupted attempt left, and an archive that
was made again, must not be read as further rows by a query of a whole tree, and an archive is deleted as a whole.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from urllib.parse import quote

from ...planner.calendar import Range

FOLDER, NAME = "parquet", "data.parquet"


def path(table: str, held: Range | None, columns: Collection[str]) -> str:
    """The object's key below the archive's folder.

    ``table``: what the parent is called, or the table itself. ``held``: its range, where that is known. A part that is
    called as one of the ``columns`` is left out: readers would give its value for theirs.
    """
    taken = {column.lower() for column in columns}
    parts = [("table", table), *(calendar_parts(held.lower, held.upper) if held else ())]
    words = [f"{key}={quote(value, safe='')}" for key, value in parts if key not in taken]
    return "/".join((FOLDER, *words, NAME))


def calendar_parts(lower: datetime | None, upper: datetime | None) -> list[tuple[str, str]]:
    """Of exactly one year, quarter, month, day or hour in UTC the parts of its name; else both ends, if it has any."""
    if lower is None or upper is None:
        return [(key, _spelled(end)) for key, end in (("from", lower), ("to", upper)) if end is not None]
    year, month = ("year", f"{lower.year:04}"), ("month", f"{lower.month:02}")
    day, hour = ("day", f"{lower.day:02}"), ("hour", f"{lower.hour:02}")
    first = lower.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    midnight = lower.replace(hour=0, minute=0, second=0, microsecond=0)
    if lower == first and upper == upper.replace(day=1, hour=0, minute=0, second=0, microsecond=0):
        months = (upper.year - lower.year) * 12 + upper.month - lower.month
        if months == 12 and lower.month == 1:
            return [year]
        if months == 3 and lower.month % 3 == 1:
            return [year, ("quarter", str(lower.month // 3 + 1))]
        if months == 1:
            return [year, month]
    if lower == midnight and upper - lower == timedelta(days=1):
        return [year, month, day]
    if lower == lower.replace(minute=0, second=0, microsecond=0) and upper - lower == timedelta(hours=1):
        return [year, month, day, hour]
    return [("from", _spelled(lower)), ("to", _spelled(upper))]


def _spelled(end: datetime) -> str:
    """A date where it is midnight; else to the second, or as exactly as need be."""
    if end == end.replace(hour=0, minute=0, second=0, microsecond=0):
        return end.date().isoformat()
    return end.replace(tzinfo=None).isoformat()
