"""``partwarden create`` and ``auto``: partitions that are made now, and nothing else that a policy may say.

On a policy they make nothing themselves: ``create`` adds a period to spec.ensure and awaits what the operator answers,
and ``auto`` says what spec.premake has to be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

from ..api.period import MAX_ENSURED, Period, parse_period, shortest
from ..api.policy import Mode, TableSpec
from ..api.status import Condition
from ..api.types import Interval
from ..api.validation import parse_spec
from ..errors import InvalidSpec, PartwardenError
from ..planner.actions import CreatePartition, DrainIntoPartition, Outcome
from ..planner.calendar import BoundedRange, Grid, Range, iso, merge
from ..planner.plan import Plan
from ..postgres.connection import session
from ..postgres.conninfo import from_dsn
from ..postgres.engine import maintain
from . import formats, manifest, options, policies, problems, tables
from .options import Target, target
from .policies import Object, Policies

PATIENCE = 10.0
"""Seconds in which locks must be had, all attempts together."""
POLL = 0.5
"""Seconds between two reads of a policy that the operator is working on."""


@click.command(short_help="Make the partitions of a period now.")
@click.argument("period")
@target()
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600),
    default=30.0,
    help="On a policy: seconds to wait for the operator; 0: do not. Default: 30.",
)
@formats.option()
def create(target: Target, period: str, timeout: float, output: str) -> int:
    """Make the partitions of PERIOD now: 2027, 2027-Q1, 2027-03, 2027-W05, 2027-03-09, 2027-03-09T13, or a range such
    as 2024-01..2024-06. Those that are there stay.

    On POLICY the operator is asked through spec.ensure. Exits 0 when they are there, 1 when not.
    """
    wanted = options.parse(period)
    if target.dsn is None:
        return _create_by_policy(target, wanted, timeout, output)
    return _create_in_database(target, output, lambda _: {"ensure": [wanted.text]})


@click.command(short_help="Make the current partition and so many ahead.")
@click.argument("ahead", type=click.IntRange(0, 1000))
@target()
@formats.option()
def auto(target: Target, ahead: int, output: str) -> int:
    """Make the current partition and so many AHEAD of it now, where they are missing.

    On POLICY nothing is made: it shows spec.premake, by which the operator does that always, and what it implies.
    Exits 0 when so many are there, or kept, 1 when not.
    """
    if target.dsn is None:
        return _show_premake(target, ahead, output)
    return _create_in_database(target, output, lambda _: {"premake": ahead, "ensure": []})


def _following(grid: Grid, cell: BoundedRange, count: int) -> list[BoundedRange]:
    """The cell and so many after it."""
    cells = [cell]
    while len(cells) <= count:
        cells.append(grid.cell(cells[-1].upper))
    return cells


# In a database.


def _create_in_database(target: Target, output: str, want: Callable[[TableSpec], dict[str, Any]]) -> int:
    """``want``: fields of the policy, by which either a period is ensured or so many partitions are ahead."""
    outcomes: list[Outcome] = []
    try:
        with session(from_dsn(target.dsn or "")) as connection:
            spec = tables.only_spec(connection, target)
            # A user who asks for a partition by hand wants it whatever mode a policy is in, and nothing retired by it.
            spec = spec.model_copy(update={"mode": Mode.APPLY, "retention": None, **want(spec)})
            table = tables.observe(connection, spec)
            grid, current = table.grid, table.plan.current
            cells = [cell for each in spec.ensure for cell in _cells(grid, parse_period(each))]
            cells = cells or _following(grid, current, spec.premake)
            chosen = [each for each in table.plan.actions if isinstance(each, CreatePartition | DrainIntoPartition)]
            actions = tuple(each for each in chosen if _touches(each.range, cells))
            observed = table.inventory, replace(table.plan, actions=actions)
            report = maintain(connection, spec, patience=PATIENCE, observed=observed, outcomes=outcomes)
    except PartwardenError as error:
        if outcomes:
            _print(table.plan, spec.timezone, outcomes, [str(error)] if formats.is_data(output) else [], output)
        raise
    failed = any(each.error for each in outcomes)
    missing = [each for each in report.after.missing if _touches(each, cells)]
    blocked = [each for each in report.after.findings if each.error] if missing and not failed else []
    if not outcomes and not missing and output in ("text", "wide"):
        click.echo("Nothing to do: what is asked for is there.")
    _print(
        report.after,
        spec.timezone,
        outcomes,
        [f"{each.reason} ({each.object}): {each.message}" for each in blocked],
        output,
    )
    return 1 if failed or missing else 0


def _touches(piece: Range, cells: Iterable[Range]) -> bool:
    return any(piece.overlaps(cell) for cell in cells)


def _print(plan: Plan, timezone: str, outcomes: Sequence[Outcome], others: Sequence[str], output: str) -> None:
    """What was made, and what went wrong: the outcomes' errors and ``others``."""
    made = [each.action for each in outcomes if each.error is None]
    wrong = [*(f"{each.action}: {each.error}" for each in outcomes if each.error), *others]
    bounds = {each: (iso(each.range.lower), iso(each.range.upper)) for each in made if each.range}
    if formats.is_data(output):
        created = [{"name": str(each), "from": lower, "to": upper} for each, (lower, upper) in bounds.items()]
        formats.data({"table": str(plan.parent), "created": created, "errors": wrong}, output)
        return
    dates = formats.Dates.of(timezone, (end for ends in bounds.values() for end in ends))
    more = {each: ", from {} to {}".format(*dates.ends(*ends)) for each, ends in bounds.items() if output == "wide"}
    lines = [f"{each.past} {each.noun} {each}{more.get(each, '')}" for each in made]
    formats.names(map(str, made) if output == "name" else lines)
    formats.names(wrong, err=True)


# By a policy.


def _cells(grid: Grid, period: Period) -> list[BoundedRange]:
    """Those that hold a part of the period. Raises `InvalidSpec` where they are more than `MAX_ENSURED`."""
    cells = list(islice(grid.holding(period), MAX_ENSURED + 1))
    if len(cells) > MAX_ENSURED:
        raise InvalidSpec(f"{period.text} holds more than {MAX_ENSURED:,} partitions by {grid.interval}: ask for less")
    return cells


def merged(ensure: Sequence[str], period: Period, interval: Interval) -> list[str]:
    """The entries of spec.ensure with the period, which is one with those that it overlaps, or touches.

    As they are where they hold all of it. Raises `InvalidSpec` where it holds too many partitions, or all together do:
    of an entry that is one too many the operator makes nothing, nor of what was joined with it.
    """
    grid = Grid(interval, None)
    cells = {each: _cells(grid, parse_period(each)) for each in ensure}
    wanted = _cells(grid, period)
    there = {cell for held in cells.values() for cell in held}
    if there.issuperset(wanted):
        return [*ensure]
    if (count := len(there.union(wanted))) > MAX_ENSURED:
        raise InvalidSpec(
            f"cannot add {period.text} to spec.ensure: with its other entries that asks for {count:,} partitions by "
            f"{interval}, and at most {MAX_ENSURED:,} are made for them; ask for less, take entries out of spec.ensure "
            "first, or set spec.startFrom if all since then shall exist"
        )
    whole = next(
        each
        for each in merge(BoundedRange(held[0].lower, held[-1].upper) for held in (*cells.values(), wanted))
        if each.overlaps(wanted[0])
    )
    apart = [each for each in ensure if not whole.overlaps(cells[each][0])]
    if len(apart) == len(ensure) or whole.bounded is None:
        return [*ensure, period.text]
    try:
        return [*apart, shortest(whole.bounded.lower, whole.bounded.upper)]
    except ValueError:
        # Together they reach over a year that no entry may name.
        return [*ensure, period.text]


def _create_by_policy(target: Target, period: Period, timeout: float, output: str) -> int:
    """Put the period into spec.ensure, and wait until the operator has ended its reconcile."""
    cluster = Policies(target)
    policy = cluster.one()
    spec = parse_spec(policy.get("spec"))
    ensure = merged(spec.ensure, period, spec.interval)
    added = [each for each in ensure if each not in spec.ensure]
    policy = cluster.edit(policy, {"spec": {"ensure": ensure}}) if added else policy
    deadline = time.monotonic() + timeout
    while not _is_settled(policy) and time.monotonic() < deadline:
        time.sleep(POLL)
        policy = cluster.read(policy["metadata"]["namespace"], policy["metadata"]["name"])
    ready = _conditions(policy).get("Ready")
    there = policies.is_current(policy) and ready is not None and ready.status == "True"
    about = {"policy": policies.name(policy), "ensure": ensure, "added": added, "ready": there}
    about["message"] = ready.message if ready else None
    formats.show(output, about, added, _describe_edit(policy, period, added, ready))
    return 0 if there or not timeout else 1


def _conditions(policy: Object) -> dict[str, Condition]:
    return problems.conditions(policies.read_status(policy)[0])


def _is_settled(policy: Object) -> bool:
    """Whether the operator has reconciled it as it is."""
    reconciling = _conditions(policy).get("Reconciling")
    return policies.is_current(policy) and (reconciling is None or reconciling.status != "True")


def _describe_edit(policy: Object, period: Period, added: Sequence[str], ready: Condition | None) -> list[str]:
    name, spec = policies.name(policy), policy.get("spec", {})
    joined = "" if period.text in added else f", as {', '.join(added)} with what was there"
    lines = [f"added to spec.ensure of {name}: {period.text}{joined}"]
    if not added:
        lines = [f"spec.ensure of {name} has {period.text} already"]
    if added and (keeper := manifest.keeper(policy)):
        quoted = ", ".join(f'"{each}"' for each in spec.get("ensure", added))
        lines.append(f"{keeper} keeps this policy and will undo that: put this line into the manifest in its source:")
        lines.append(f"  ensure: [{quoted}]")
    if spec.get("suspend"):
        lines.append("spec.suspend is true: the operator does nothing until that is taken out")
    if policies.is_current(policy) and ready:
        word = "Ready" if ready.status == "True" else "not Ready"
        return [*lines, f"{word}, {ready.reason}: {ready.message}"]
    about = f"kubectl describe partitionpolicy {policy['metadata']['name']}"
    return [*lines, f"the operator has not answered yet: {about}"]


def _show_premake(target: Target, ahead: int, output: str) -> int:
    """Say what spec.premake keeps ahead, beside what was asked for."""
    policy = Policies(target).one()
    spec = parse_spec(policy.get("spec"))
    name, each = policies.name(policy), str(spec.interval)
    covered = (policies.status(policy).get("summary") or {}).get("coveredUntil")
    enough = spec.premake >= ahead
    grid = Grid.of(spec)
    until = iso(_following(grid, grid.cell(datetime.now(UTC)), ahead)[-1].upper)
    about = {"policy": name, "premake": spec.premake, "asked": ahead, "enough": enough}
    lines = [f"{name} has premake: {spec.premake}: the operator keeps the current {each} and {spec.premake} after it"]
    dates = formats.Dates.of(spec.timezone, (covered, until))
    lines.append(f"covered until {dates.show(covered)}" if covered else "how long it is covered is not known yet")
    if enough:
        lines.append(f"{ahead} ahead is what it does always, so there is nothing to do")
    else:
        keeper = manifest.keeper(policy)
        where = f"the manifest in the source of {keeper}" if keeper else "the policy"
        lines += [
            f"for {ahead} ahead, until {dates.show(until)} today, put this line into {where}:",
            f"  premake: {ahead}",
        ]
    formats.show(output, {**about, "coveredUntil": covered, "until": until}, [name], lines)
    return 0 if enough else 1
