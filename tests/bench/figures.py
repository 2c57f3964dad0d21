"""Figures, for people and for programs."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured number. `limit`, if any, is the most that it may be; `note` says how it came about."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    note: str = ""

    @property
    def kept(self) -> bool:
        """Whether it is within its limit; True where there is none."""
        return self.limit is None or self.value <= self.limit

    def __str__(self) -> str:
        if float(self.value).is_integer() or self.value >= 100:
            return f"{self.value:,.0f}"
        return f"{self.value:,.2f}" if self.value >= 0.1 else f"{self.value:.3f}"


def as_table(figures: Iterable[Figure], title: str) -> None:
    """Print them for people."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("how")
    for each in figures:
        limit = "" if each.limit is None else f"{each.limit:g}{'' if each.kept else '  BROKEN'}"
        table.add_row(
            each.name, f"{each} {each.unit}".strip(), limit, each.note, style=None if each.kept else "bold red"
        )
    # A pipe has no width of its own: nothing is to be broken there.
    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, width=width).print(table)


def as_json(figures: Iterable[Figure], stood_on: dict[str, str]) -> str:
    """The same for programs."""
    listed = [{**asdict(each), "kept": each.kept} for each in figures]
    return json.dumps({"stoodOn": stood_on, "figures": listed}, indent=2)
