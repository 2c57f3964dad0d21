"""``partwarden convert``: partition a plain table while it is used, and back. No row moves.

What it prints as JSON or YAML::

    {
      "table", "key", "interval", "timezone",
      "bytes", "rows",                          of the table; rows is the planner's estimate, or null
      "refusals": [{"object", "why", "wayOut"}],
      "conversion": {"legacy", "from", "to", "until",   until: before then it must be done, or is planned anew
                     "ahead": [{"name", "from", "to"}],
                     "widened": [{"constraint", "columns"}]},   or null
      "changes": [{"object", "text"}],
      "steps": [{"text", "lock", "waits", "seconds", "done"}],
      "done": [{"text", "seconds"}],            without --plan
      "planDigest"                              of partwarden plan: what has to be approved, or null
    }
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from ..api.policy import Mode, Table, TableSpec
from ..api.retention import KeyEncoding
from ..api.types import Interval
from ..api.validation import check
from ..errors import InvalidSpec, TransientError
from ..planner.calendar import iso, load_zone
from ..planner.conversion_plan import ConversionPlan
from ..planner.conversion_rules import Wanted
from ..planner.conversion_steps import conversion_digest, duration
from ..postgres.connection import Session, session
from ..postgres.conninfo import from_dsn
from ..postgres.conversion_engine import convert as convert_table
from ..postgres.conversion_engine import finish, observe_conversion, undo
from ..status.details import human
from . import formats, options

MOST_MOVED = 1000
"""Rows that --undo moves back, unless the user says another number."""


@click.command(short_help="Partition a plain table; no row moves.")
@options.dsn
@click.option("--table", required=True, callback=options.table, metavar=options.TABLE, help="The plain table.")
@click.option("--key", callback=options.text, help="Its column that says when.")
@click.option(
    "--interval", type=click.Choice([each.value for each in Interval], case_sensitive=False), help="Of its partitions."
)
@click.option("--timezone", default="UTC", help="In which an interval begins. Default: UTC.")
@click.option(
    "--key-encoding",
    type=click.Choice([each.value for each in KeyEncoding], case_sensitive=False),
    default=KeyEncoding.NATIVE.value,
    help="How the key says when. Default: Native.",
)
@click.option("--premake", type=click.IntRange(0, 1000), default=2, help="Partitions to make ahead. Default: 2.")
@click.option("--name-format", callback=options.text, help="Names of partitions, as spec.nameFormat has them.")
@click.option("--widen-keys", is_flag=True, help="Add the key to primary key and unique constraints that lack it.")
@click.option("--legacy-name", callback=options.text, help="What the table is called as the first partition.")
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would be done, or what forbids it.")
@click.option("--undo", "back", is_flag=True, help="Make it a plain table again, or take back what was prepared.")
@click.option(
    "--move-back",
    type=click.IntRange(0, 1_000_000),
    default=MOST_MOVED,
    help=f"With --undo: most rows that may be moved back from later partitions. Default: {MOST_MOVED}.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.patience(default=60.0)
@formats.option()
def convert(dsn: str, table: dict[str, str], back: bool, only_plan: bool, yes: bool, output: str, **given: Any) -> int:
    """Make a plain table the first partition of a partitioned one with its name, while others read and write it.

    Shows each step, its lock and who waits, and asks. Interrupted, the same command goes on. Exits 0 when it is done,
    or can be (--plan), 1 when not.
    """
    if back and only_plan:
        raise click.UsageError("--plan and --undo exclude each other")
    named = Table.model_validate(table)
    with session(from_dsn(dsn)) as connection:
        if back:
            return _undo(connection, named, yes, output, given)
        wanted = _wanted(named, given)
        formats.progress(f"reading {named}")
        try:
            plan = observe_conversion(connection, wanted)
        finally:
            formats.progress()
        done = Done(output)
        kind = plan.table.kind
        if not only_plan and kind in ("p", "r") and finish(connection, plan.table.parent, given["patience"], done.add):
            if kind == "p":
                return 0
            # A way back had left something, such as children, for which the conversion would be refused.
            plan = observe_conversion(connection, wanted)
        if only_plan or plan.refusals:
            formats.show(output, _document(plan, wanted), [str(plan.table)], _lines(plan))
            return 1 if plan.refusals else 0
        formats.names(_lines(plan), err=output not in ("text", "wide"))
        _ask(yes, f"Convert {plan.table}?")
        try:
            convert_table(connection, wanted, plan, given["patience"], done.add)
        except TransientError as error:
            raise type(error)(f"{error}; {_prepared(plan)}") from None
        except KeyboardInterrupt:
            formats.names([_prepared(plan)], err=True)
            raise
        document = {**_document(plan, wanted), "done": done.steps}
        if output not in ("text", "wide"):
            formats.show(output, document, [str(plan.table)], [])
    return 0


def _prepared(plan: ConversionPlan) -> str:
    """What an interruption leaves, for people."""
    return (
        "nothing is half done: the same command goes on, and with --undo what was prepared is taken back; until then "
        f"rows from {iso(plan.until)} on may be refused"
    )


def show(connection: Session, spec: TableSpec, output: str) -> bool:
    """Print how a policy's plain table would be converted. Returns whether that is impossible. Raises psycopg's errors.

    ``spec`` has ``convert``, its mode Attach.
    """
    assert spec.convert is not None
    wanted = Wanted(spec, spec.convert.widen_keys, spec.convert.legacy_name)
    plan = observe_conversion(connection, wanted)
    digest = conversion_digest(plan, wanted) if spec.mode is Mode.APPROVE and plan.conversion else None
    waits = [f"WAITS: nothing is done before plan {digest} is approved"] if digest else []
    document = {**_document(plan, wanted), "planDigest": digest}
    formats.show(output, document, [str(plan.table)], [*_lines(plan), *waits])
    return bool(plan.refusals)


def refuse_moment(now: datetime | None) -> None:
    """Raises `InvalidSpec` where a user asks about another moment than now."""
    if now is not None:
        raise InvalidSpec("--now: a conversion is planned by the server's clock; leave it out")


def _wanted(table: Table, given: dict[str, Any]) -> Wanted:
    """Raises `click.UsageError` and `InvalidSpec`."""
    if given["key"] is None or given["interval"] is None:
        raise click.UsageError("--key and --interval are needed: the column that says when, and a partition's length")
    load_zone(given["timezone"])
    fields = {
        "table": {"schema": table.schema_, "name": table.name},
        "key": given["key"],
        "keyEncoding": given["key_encoding"],
        "interval": given["interval"],
        "timezone": given["timezone"],
        "premake": given["premake"],
        "nameFormat": given["name_format"],
    }
    spec, problems = check(TableSpec, fields)
    if spec is None:
        raise InvalidSpec("; ".join(problems))
    return Wanted(spec, given["widen_keys"], given["legacy_name"])


def _ask(yes: bool, question: str) -> None:
    """Raises `InvalidSpec` unless the user agrees."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidSpec("nothing is done: there is no terminal to ask at; say --yes, or --plan to see it only")
    if not click.confirm(question, err=True):
        raise InvalidSpec("nothing is done")


class Done:
    """What was done: printed at once for people, kept for programs."""

    def __init__(self, output: str) -> None:
        self._err = output not in ("text", "wide")
        self.steps: list[dict[str, Any]] = []

    def add(self, text: str, seconds: float) -> None:
        formats.names([f"{seconds:9.3f} s  {text}"], err=self._err)
        self.steps.append({"text": text, "seconds": round(seconds, 3)})


def _undo(connection: Session, table: Table, yes: bool, output: str, given: dict[str, Any]) -> int:
    _ask(yes, f"Make {table} a plain table again?")
    done = Done(output)
    undo(connection, table, given["key"], given["patience"], given["move_back"], done.add)
    if not done.steps:
        formats.names(["Nothing to do: no conversion has made anything."], err=output not in ("text", "wide"))
    if output not in ("text", "wide"):
        formats.show(output, {"table": str(table), "done": done.steps}, [str(table)], [])
    return 0


def _lines(plan: ConversionPlan) -> list[str]:
    """For people."""
    table = plan.table
    rows = "rows not counted yet" if table.rows is None else f"about {table.rows:,} rows"
    lines = [f"{table}: {human(table.bytes)}, {rows}"]
    if plan.conversion is None:
        return [*lines, "It cannot be converted:", *(f"  {each}" for each in plan.refusals)]
    for number, each in enumerate(plan.steps, 1):
        state = "done" if each.done else duration(each.seconds)
        lines += [f"{number}. {each.text} ({state})", f"   {each.lock}; waits: {each.waits}"]
    lines += ["What changes:", *(f"  {each}" for each in plan.changes)]
    return [*lines, f"It must be done before {iso(plan.until)}, or is planned anew."]


def _document(plan: ConversionPlan, wanted: Wanted) -> dict[str, Any]:
    """For programs."""
    about, spec = plan.conversion, wanted.spec
    return {
        "table": str(plan.table),
        "key": spec.key,
        "interval": spec.interval.value,
        "timezone": spec.timezone,
        "bytes": plan.table.bytes,
        "rows": plan.table.rows,
        "refusals": [{"object": each.object, "why": each.why, "wayOut": each.way_out} for each in plan.refusals],
        "conversion": about
        and {
            "legacy": about.legacy,
            "from": about.lower,
            "to": about.upper,
            "until": iso(plan.until),
            "ahead": [{"name": each.name, "from": each.lower, "to": each.upper} for each in about.ahead],
            "widened": [{"constraint": each.constraint, "columns": [*each.columns]} for each in about.widened],
        },
        "changes": [{"object": each.object, "text": each.text} for each in plan.changes],
        "steps": [
            {"text": s.text, "lock": s.lock, "waits": s.waits, "seconds": round(s.seconds, 1), "done": s.done}
            for s in plan.steps
        ],
    }
