"""``partwarden report``: one HTML file on a fleet of tables, which needs nothing else, neither network nor scripts.

What it shows others may have written: Jinja2 escapes all of it, control characters are written out, and the page
forbids itself whatever could load or run something (Content-Security-Policy).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..errors import InvalidSpec, printable
from ..status.details import human
from . import formats, options
from .options import Target, target
from .tables import Level
from .terminal import timelines
from .timeline import Fold, Timeline

TEMPLATE = "report.html.j2"
MOST_TABLES = 1_000
"""Rows of the fleet; the tables of those that are better off are only counted."""
MOST_CHARTS = 60
"""Tables that are shown one by one."""


@click.command(short_help="One HTML file on tables, for change tickets and audits.")
@target(everywhere=True, several=True)
@options.archives
@click.option("--html", "file", required=True, metavar="FILE", help="The file to write; - is standard output.")
def report(targets: list[Target], url: str | None, file: str) -> int:
    """Write one HTML file: the fleet at a glance, the worst first, and each table's partitions by size over time.

    Of each POLICY, of all in the namespace, or with -A in all, as the operator observed them last; with --dsn of the
    tables of a database. It needs no network and no script. Exits 0, or 1 on an error.
    """
    found = [one for each in targets for one in timelines(each, url)]
    where = "statuses of PartitionPolicies" if targets[0].dsn is None else "the database"
    text = page(found, where, datetime.now(UTC))
    if file == "-":
        click.echo(text.encode(), nl=False)
        return 0
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidSpec(f"cannot write {printable(file)}: {error.strerror}; name another file by --html") from None
    formats.line(f"wrote {file}: {len(found)} table{'' if len(found) == 1 else 's'}")
    return 0


def page(found: Sequence[Timeline], source: str, now: datetime) -> str:
    """The file's text. ``source``: where the tables were read, for people; ``now`` is aware.

    Raises `InvalidSpec` where the packages that draw are not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader
        from markupsafe import Markup

        from .chart import Chart
    except ImportError as error:
        raise InvalidSpec(
            f"cannot draw: {error.name} is not installed; install partwarden[report], or use the image"
        ) from None
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.globals |= {"Level": Level, "human": human}
    environment.filters["svg"] = lambda chart: Markup(chart.svg())  # noqa: S704 - drawsvg has escaped what is text
    environment.tests["fold"] = lambda entry: isinstance(entry, Fold)
    worst = sorted(found, key=lambda each: each.urgency)
    tables = [{"one": each, "chart": Chart(each, number)} for number, each in enumerate(worst[:MOST_CHARTS], 1)]
    return environment.get_template(TEMPLATE).render(
        tables=tables,
        fleet=worst[:MOST_TABLES],
        total=_totals(worst),
        unseen=len(worst[MOST_TABLES:]),
        uncharted=len(worst[MOST_CHARTS:]),
        source=source,
        version=__version__,
        now=now.replace(microsecond=0),
    )


def _totals(found: Sequence[Timeline]) -> dict[str, Any]:
    summaries = [each.view.status.summary for each in found]
    ending = [each for each in found if each.ahead is not None]
    return {
        "levels": {level: sum(each.level is level for each in found) for level in reversed(Level)},
        "bytes": sum(each.total_bytes for each in summaries if each),
        "partitions": sum(each.partitions for each in summaries if each),
        "shortest": min(ending, key=lambda each: each.ahead or 0, default=None),
    }
