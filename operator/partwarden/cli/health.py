"""``partwarden health``: what is not as it should be, what comes next, and an exit code for cron and probes."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..api.status import PlannedAction
from ..errors import PartwardenError
from . import formats, show, steps
from .options import Target, target
from .tables import Level, TableView

MOST_AHEAD = 5
"""Steps of a plan that are shown unless asked for all."""


@click.command(short_help="An exit code for cron and probes.")
@target(everywhere=True)
@formats.option()
def health(target: Target, output: str) -> int:
    """For cron and probes: exits 0 when all is well, 1 on a warning, 2 when it is critical or cannot be found out.

    The first check is whether a partition holds now. PLAN: what the policy does by itself, now and later; it is no
    warning. -o wide shows all of that, and what is well beside what is not.
    """
    try:
        views = show.table_views(target)
    except PartwardenError as error:
        if formats.is_data(output):
            formats.data({"level": Level.CRITICAL.name, "error": str(error)}, output)
        else:
            formats.line(f"CRITICAL: {error}")
        return int(Level.CRITICAL)
    worst = max((level for view in views for level, _ in view.problems), default=Level.OK)
    if formats.is_data(output):
        about = [
            {
                **view.heading,
                "wrong": [{"level": level.name, "message": text} for level, text in view.problems],
                "plan": [
                    each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in _plan(view, target)
                ],
            }
            for view in views
        ]
        formats.data({"level": worst.name, "tables": about}, output)
    elif output == "name":
        formats.names([worst.name])
    else:
        for view in views:
            if not view.problems or output == "wide":
                formats.line(f"OK: {view.summary_line()}")
            for level, text in view.problems:
                formats.line(f"{level.name}: {view.name}: {text}")
            ahead = steps.sentences(view.name, _plan(view, target))
            formats.names(ahead if output == "wide" else ahead[:MOST_AHEAD])
            if output != "wide" and len(ahead) > MOST_AHEAD:
                formats.line(f"PLAN: {view.name}: {len(ahead) - MOST_AHEAD} more steps: see -o wide")
    return int(worst)


def _plan(view: TableView, target: Target) -> Sequence[PlannedAction]:
    """What the policy does by itself; a table without one does nothing."""
    return view.status.plan if view.of_policy or target.filename is not None else ()
