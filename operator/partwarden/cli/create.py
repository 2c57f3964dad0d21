"""``partwarden create`` and ``auto``: partitions that are made now, and nothing else that a policy may say.

On a policy they make nothing themselves: ``create`` adds days to spec.ensure and awaits what the operator answers, and
``auto`` says what spec.premake has to be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Unpack

import click

from ..api.policy import Mode, PartitionPolicySpec, TableSpec
from ..api.status import Condition
from ..api.types import Interval
from ..errors import PartwardenError
from ..planner.actions import Action, CreatePartition, DrainIntoPartition, Outcome
from ..planner.calendar import BoundedRange, Grid, Range, iso, load_zone
from ..postgres.connection import session
from ..postgres.conninfo import from_dsn
from ..postgres.engine import Report, maintain
from . import database_tables, formats, options, policy_view
from .database_tables import ObservedTable
from .formats import printable
from .options import Target, TargetOptions, target

if TYPE_CHECKING:
    from .cluster_policies import Policies

PATIENCE = 10.0
"""Seconds in which locks must be had, all attempts together."""
POLL = 0.5
"""Seconds between two reads of a policy that the operator is working on."""
MAKING = (CreatePartition, DrainIntoPartition)


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
def create(period: str, timeout: float, output: str, **given: Unpack[TargetOptions]) -> int:
    """Make the partitions of PERIOD now: 2027, 2027-Q1, 2027-03, 2027-W05 or 2027-03-09. Those that are there stay.

    On POLICY the operator is asked through spec.ensure. Exits 0 when they are there, 1 when not.
    """
    target = Target.of(given)
    if target.dsn is None:
        return _create_by_policy(target, options.parse(period), timeout, output)

    def want(spec: TableSpec) -> TableSpec:
        return spec.model_copy(update={"ensure": options.days(options.parse(period), spec.interval)})

    def cells(table: ObservedTable) -> list[Range]:
        return [table.grid.cell(table.grid.moment(options.midnight(day))) for day in table.spec.ensure]

    return _create_in_database(target, output, want, cells)


@click.command(short_help="Make the current partition and so many ahead.")
@click.argument("ahead", type=click.IntRange(0, 1000))
@target()
@formats.option()
def auto(ahead: int, output: str, **given: Unpack[TargetOptions]) -> int:
    """Make the current partition and so many AHEAD of it now, where they are missing.

    On POLICY nothing is made: it shows spec.premake, by which the operator does that always, and what it implies.
    Exits 0 when so many are there, or kept, 1 when not.
    """
    target = Target.of(given)
    if target.dsn is None:
        return _show_premake(target, ahead, output)

    def want(spec: TableSpec) -> TableSpec:
        return spec.model_copy(update={"premake": ahead, "ensure": []})

    def cells(table: ObservedTable) -> list[Range]:
        return _following(table.grid, table.plan.current, ahead)

    return _create_in_database(target, output, want, cells)


def _following(grid: Grid, cell: BoundedRange, count: int) -> list[Range]:
    """The cell and so many after it."""
    cells = [cell]
    while len(cells) <= count:
        cells.append(grid.cell(cells[-1].upper))
    return [*cells]


# In a database.


def _create_in_database(
    target: Target,
    output: str,
    want: Callable[[TableSpec], TableSpec],
    choose_cells: Callable[[ObservedTable], list[Range]],
) -> int:
    outcomes: list[Outcome] = []
    try:
        with session(from_dsn(target.dsn or "")) as connection:
            # A user who asks for a partition by hand wants it whatever mode a policy is in, and nothing retired by it.
            plain = {"mode": Mode.APPLY, "retention": None}
            spec = want(database_tables.spec(connection, target.table, target.filename).model_copy(update=plain))
            table = database_tables.observe(connection, spec)
            cells = choose_cells(table)
            actions = tuple(each for each in table.plan.actions if _makes(each, cells))
            observed = table.inventory, replace(table.plan, actions=actions)
            report = maintain(connection, spec, patience=PATIENCE, observed=observed, outcomes=outcomes)
    except PartwardenError as error:
        if outcomes:
            _print(str(table.plan.parent), outcomes, [str(error)] if formats.is_data(output) else [], output)
        raise
    return _report(report, cells, output)


def _makes(action: Action, cells: list[Range]) -> bool:
    piece = action.range
    return isinstance(action, MAKING) and piece is not None and any(piece.overlaps(cell) for cell in cells)


def _report(report: Report, cells: list[Range], output: str) -> int:
    failed = any(each.error for each in report.outcomes)
    missing = [each for each in report.after.missing if any(each.overlaps(cell) for cell in cells)]
    blocked = [each for each in report.after.findings if each.error] if missing and not failed else []
    wrong = [f"{each.reason} ({each.object}): {each.message}" for each in blocked]
    if not report.outcomes and not missing and output in ("text", "wide"):
        click.echo("Nothing to do: what is asked for is there.")
    _print(str(report.after.parent), report.outcomes, wrong, output)
    return 1 if failed or missing else 0


def _print(table: str, outcomes: Sequence[Outcome], others: Sequence[str], output: str) -> None:
    """What was made, and what went wrong: the outcomes' errors and ``others``."""
    made = [each.action for each in outcomes if each.error is None]
    wrong = [*(f"{each.action}: {each.error}" for each in outcomes if each.error), *others]
    ranges = [(each, each.range) for each in made if each.range]
    if formats.is_data(output):
        created = [{"name": str(each), "from": iso(piece.lower), "to": iso(piece.upper)} for each, piece in ranges]
        formats.data({"table": table, "created": created, "errors": wrong}, output)
        return
    if output == "name":
        formats.names(map(str, made))
    else:
        bounds = {each: f", from {iso(piece.lower)} to {iso(piece.upper)}" for each, piece in ranges}
        for each in made:
            more = bounds.get(each, "") if output == "wide" else ""
            click.echo(printable(f"{each.past} {each.noun} {each}{more}"))
    for text in wrong:
        click.echo(printable(text), err=True)


# By a policy.


def _open(target: Target) -> tuple[Policies, dict[str, Any], PartitionPolicySpec]:
    # Here, for a database needs no Kubernetes client, which takes long to load.
    from . import cluster_policies

    policies = cluster_policies.Policies(target.where)
    policy = policies.one(target.policy)
    return policies, policy, policies.spec(policy)


def _create_by_policy(target: Target, period: options.Period, timeout: float, output: str) -> int:
    """Put the days of the period into spec.ensure, and wait until the operator has ended its reconcile."""
    policies, policy, spec = _open(target)
    grid = Grid(spec.interval, None)
    known = [str(day) for day in spec.ensure]
    cells = [grid.cell(options.midnight(day)) for day in known] if spec.interval is not Interval.HOUR else []
    wanted = options.days(period, spec.interval)
    days = [day for day in wanted if grid.cell(options.midnight(day)) not in cells]
    policy = policies.edit(policy, {"spec": {"ensure": [*known, *days]}}) if days else policy
    deadline = time.monotonic() + timeout
    while not _is_settled(policy) and time.monotonic() < deadline:
        time.sleep(POLL)
        policy = policies.again(policy)
    ready = _conditions(policy).get("Ready")
    there = policy_view.is_current(policy) and ready is not None and ready.status == "True"
    if formats.is_data(output):
        about = {"policy": policy_view.name(policy), "ensure": [*known, *days], "added": days, "ready": there}
        formats.data({**about, "message": ready.message if ready else None}, output)
    else:
        formats.names(days if output == "name" else _describe_edit(policy, days, ready))
    return 0 if there or not timeout else 1


def _conditions(policy: Mapping[str, Any]) -> dict[str, Condition]:
    return policy_view.conditions(policy_view.read_status(policy)[0])


def _is_settled(policy: Mapping[str, Any]) -> bool:
    """Whether the operator has reconciled it as it is."""
    reconciling = _conditions(policy).get("Reconciling")
    return policy_view.is_current(policy) and (reconciling is None or reconciling.status != "True")


def _describe_edit(policy: Mapping[str, Any], days: list[str], ready: Condition | None) -> list[str]:
    name, spec = policy_view.name(policy), policy.get("spec", {})
    lines = [f"added to spec.ensure of {name}: {', '.join(days)}" if days else f"spec.ensure of {name} has it already"]
    if days and (keeper := policy_view.keeper(policy)):
        quoted = ", ".join(f'"{day}"' for day in spec.get("ensure", days))
        lines.append(f"{keeper} keeps this policy and will undo that: put this line into the manifest in its source:")
        lines.append(f"  ensure: [{quoted}]")
    if spec.get("suspend"):
        lines.append("spec.suspend is true: the operator does nothing until that is taken out")
    if policy_view.is_current(policy) and ready:
        word = "Ready" if ready.status == "True" else "not Ready"
        return [*lines, f"{word}, {ready.reason}: {ready.message}"]
    about = f"kubectl describe partitionpolicy {policy['metadata']['name']}"
    return [*lines, f"the operator has not answered yet: {about}"]


def _show_premake(target: Target, ahead: int, output: str) -> int:
    """Say what spec.premake keeps ahead, beside what was asked for."""
    _, policy, spec = _open(target)
    name, each = policy_view.name(policy), str(spec.interval)
    covered = (policy_view.status(policy).get("summary") or {}).get("coveredUntil")
    enough = spec.premake >= ahead
    grid = Grid(spec.interval, load_zone(spec.timezone))
    until = iso(_following(grid, grid.cell(datetime.now(UTC)), ahead)[-1].upper)
    if formats.is_data(output):
        about = {"policy": name, "premake": spec.premake, "asked": ahead, "enough": enough}
        formats.data({**about, "coveredUntil": covered, "until": until}, output)
        return 0 if enough else 1
    lines = [f"{name} has premake: {spec.premake}: the operator keeps the current {each} and {spec.premake} after it"]
    lines.append(f"covered until {covered}" if covered else "how long it is covered is not known yet")
    if enough:
        lines.append(f"{ahead} ahead is what it does always, so there is nothing to do")
    else:
        keeper = policy_view.keeper(policy)
        where = f"the manifest in the source of {keeper}" if keeper else "the policy"
        lines += [f"for {ahead} ahead, until {until} today, put this line into {where}:", f"  premake: {ahead}"]
    formats.names([name] if output == "name" else lines)
    return 0 if enough else 1
