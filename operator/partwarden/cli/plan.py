"""``partwarden plan`` and ``apply``: a policy from a file, without Kubernetes.

They print a table for people, or one JSON document for programs; fields may be added, none changes its meaning::

    {
      "policy": {"name", "namespace"},         of the manifest, or null
      "table", "key", "interval", "timezone",
      "database", "server",                    the server's version as it says it
      "now",                                   the moment that was asked about, RFC 3339
      "mode", "suspend",                       of the spec
      "partitions", "managed", "totalBytes",   counts and size of what exists
      "current": {"from", "to"},               the interval that holds now
      "coveredUntil",                          end of the coverage that holds now, "MAXVALUE", or null: now is not held
      "nextBoundary",                          when the plan changes by itself
      "blocked",                               no action can succeed until a finding is fixed
      "actions": [{"action", "schema", "partition", "from", "to", "reason", "lock",
                   "result", "error"}],        what is due; the last two only after apply: Done, Partly, Failed or
                                               NotTried; {"reason", "message"} or null
      "steps": [{"id", "action", "schema", "partition", "from", "to", "reason", "lock", "rows", "bytes", "notBefore",
                 "waitsFor": [{"on", "message"}]}],     what is due, and all that comes after it by itself, in order
      "planDigest",                            what apply --approve has to name, or null: nothing waits for an approval
      "findings": [{"reason", "object", "message", "error"}]    error: true where a person must act
    }

After ``apply`` all but ``actions`` describes the table after it. Bounds are [from, to), null for MINVALUE and
MAXVALUE; those of a key without a time zone have none. Where it fails, it is ``{"error": {"reason", "message"}}``, with
``actions`` as above where some were tried before. With ``spec.convert`` see also `policy_conversion`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import click

from ..api.approval import DIGEST, PlanApproval
from ..api.policy import Mode, TableSpec
from ..api.status import FOR_EVER
from ..api.types import parse_day, parse_moment
from ..errors import InvalidSpec, PartwardenError
from ..planner.actions import Outcome
from ..planner.calendar import Grid, iso
from ..planner.inventory import Partition
from ..planner.plan import Plan
from ..postgres.connection import session
from ..postgres.conninfo import from_dsn
from ..postgres.engine import Report, maintain, observe_and_plan
from ..status.approval import why_waiting
from ..status.details import human
from . import compare, formats, manifest, options, policies, steps
from .manifest import Manifest
from .options import Target
from .policy_conversion import ERROR, NOTHING, TO_DO, PolicyConversion

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Tried:
    """What was planned and tried by the time an error ended the run."""

    plan: Plan | None = None
    timezone: str = "UTC"
    outcomes: list[Outcome] = field(default_factory=list)


def _moment(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """Aware, or the naive midnight with which a date begins, see `_at`."""
    if value is None:
        return None
    is_date = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) is not None
    try:
        # Midnight of some zone: what is bounded is the same.
        parse_moment(f"{value}T00:00:00Z" if is_date else value)
        return parse_day(value) if is_date else parse_moment(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; or give a date like 2026-12-31, of the policy's time zone") from None


def _at(now: datetime | None, spec: TableSpec) -> datetime | None:
    """The moment that is asked about; of a date the one at which it begins in the policy's time zone. Raises
    `UnknownTimeZone`."""
    return now if now is None or now.tzinfo else Grid.of(spec).moment(now)


def _digest(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(DIGEST, value):
        raise click.BadParameter(f"must be the digest of a plan, 16 hexadecimal digits, found {value[:100]!r}")
    return value


OPTIONS: tuple[Callable[[Any], Any], ...] = (
    formats.option(),
    click.option(
        "--now",
        callback=_moment,
        metavar="MOMENT",
        help="Ask about this moment, like 2026-12-31T23:59:59Z, or the beginning of a date of the policy's time zone.",
    ),
    click.option("--table", callback=options.table, metavar=options.TABLE, help="Another table than spec.table."),
    click.option(
        "--dsn",
        help="Connection string or URI, instead of spec.database; PGHOST, PGPASSWORD, ~/.pgpass and so on complete it.",
    ),
    click.option(
        "-f",
        "--filename",
        required=True,
        callback=options.text,
        help="The PartitionPolicy as YAML or JSON; - is standard input.",
    ),
)


def policy_options(command: F) -> F:
    """The options that plan and apply share."""
    for option in OPTIONS:
        command = option(command)
    return command


@click.command()
@policy_options
@click.option("--against", metavar="FILE", callback=options.text, help="Only what differs from the policy in FILE.")
@options.of_cluster
def plan(
    filename: str,
    dsn: str | None,
    table: dict[str, str] | None,
    now: datetime | None,
    output: str,
    against: str | None,
    **cluster: Any,
) -> int:
    """Print what would be done by itself, now and later, and why. With POLICY, of a cluster, or --against: only what
    the file changes of that.

    Exits 0 when that is nothing, 2 when it is something, be it a drop after its grace, and 1 on an error.
    """
    target = Target(**cluster)
    if against is not None or target != Target():
        return _compare(target, filename, dsn, table, now, output, against)
    with _reporting(output):
        policy, info = manifest.connect(filename, dsn, table)
        now = _at(now, policy.spec)
        with session(info) as connection:
            conversion = PolicyConversion(connection, info, policy.spec, output, now=now, only_plan=True)
            parts = policy.spec, now, policy.held, policy.archives
            if (observed := conversion.first(partial(observe_and_plan, connection, *parts))) is None:
                return conversion.code
            inventory, planned = observed
    _print(policy, now, Report(planned, (), inventory, planned, 0), None, output)
    if any(each.error for each in planned.findings):
        return ERROR
    return TO_DO if planned.steps else NOTHING


def _compare(
    target: Target,
    filename: str,
    dsn: str | None,
    table: dict[str, str] | None,
    now: datetime | None,
    output: str,
    against: str | None,
) -> int:
    if (against is None) == (target.policy is None) or (target != Target() and (table or against)):
        raise click.UsageError("give POLICY, with -n, --context and --kubeconfig, or --against; no --table with POLICY")
    with _reporting(output):
        if against is not None:
            edited, info = manifest.connect(filename, dsn, table)
            old = manifest.load(manifest.read(against), against, table=table, needs_database=False)
            name, before, after = against, compare.of_file(old), compare.of_file(edited)
        else:
            cluster = policies.Policies(target)
            name, before, after = compare.of_cluster(cluster, filename)
            info = from_dsn(dsn) if dsn is not None else cluster.connection(cluster.one())
        return compare.show(name, before, after, info, _at(now, after.spec), output)


@click.command()
@policy_options
@click.option(
    "--approve",
    callback=_digest,
    metavar="DIGEST",
    help="Approve the plan with that digest, as plan prints it, instead of the annotation partwarden.dev/approve-plan.",
)
@options.patience()
def apply(
    filename: str,
    dsn: str | None,
    table: dict[str, str] | None,
    now: datetime | None,
    output: str,
    approve: str | None,
    patience: float,
) -> int:
    """Do once what the policy says. Exits 0 when all is as it should be, 1 on an error or where it waits for you."""
    with _reporting(output) as tried:
        policy, info = manifest.connect(filename, dsn, table)
        now = _at(now, policy.spec)
        spec = policy.spec.model_copy(update={"mode": Mode.PLAN}) if policy.spec.suspend else policy.spec
        with session(info) as connection:
            known = policy.archives if approve is None else replace(policy.archives, plan=PlanApproval(approve))
            conversion = PolicyConversion(connection, info, policy.spec, output, known, patience, now)
            observed = conversion.first(partial(observe_and_plan, connection, spec, now, policy.held, known))
            if observed is None:
                return conversion.code
            _refuse_to_run_ahead(now, observed[0].now, spec)
            if (gate := observed[1].gate).begins:
                # What a status would keep is known for this run.
                known = replace(known, plan=replace(known.plan, recorded=gate.record))
                observed = observe_and_plan(connection, spec, now, policy.held, known)
            tried.plan, tried.timezone = observed[1], spec.timezone
            report = maintain(
                connection,
                spec,
                now=now,
                patience=patience,
                held=policy.held,
                archives=known,
                observed=observed,
                outcomes=tried.outcomes,
            )
    _print(policy, now, report, report.outcomes, output)
    failed = any(each.error for each in report.outcomes) or any(each.error for each in report.after.findings)
    # What only follows from what was done, as a drop does from a detach without grace, is for the next time.
    left = any(each in report.before.actions for each in report.after.actions) or report.after.gate.waiting
    return ERROR if failed or (left and spec.mode is not Mode.PLAN) else NOTHING


def _refuse_to_run_ahead(now: datetime | None, server: datetime, spec: TableSpec) -> None:
    """What will have expired one day is not expired: ``plan`` may ask about that day, ``apply`` may not act on it."""
    if now is not None and now > server and spec.retention is not None and spec.mode is not Mode.PLAN:
        raise InvalidSpec(
            f"--now: {iso(now)} lies after the server's clock, {iso(server.replace(microsecond=0))}: with "
            "spec.retention, apply would remove what has not expired yet; ask plan, or leave --now out"
        )


@contextmanager
def _reporting(output: str) -> Iterator[Tried]:
    """Prints what was tried before an error ended the block."""
    tried = Tried()
    try:
        yield tried
    except PartwardenError as error:
        plan = tried.plan if tried.outcomes else None
        if formats.is_data(output):
            tries = [steps.action_document(each, tried.outcomes) for each in plan.actions] if plan else []
            formats.data({"error": formats.error(error), **({"actions": tries} if plan else {})}, output)
        elif plan is not None and output != "name":
            steps.print_actions(plan, tried.outcomes, output == "wide", _dates(plan, tried.timezone))
        raise


# As data.


def _document(policy: Manifest, now: datetime, report: Report, outcomes: Sequence[Outcome] | None) -> dict[str, Any]:
    spec, plan, inventory = policy.spec, report.after, report.inventory
    return {
        "policy": {"name": policy.name, "namespace": policy.namespace},
        "table": str(plan.parent),
        "key": plan.key,
        "interval": spec.interval,
        "timezone": spec.timezone,
        "database": inventory.server.database,
        "server": inventory.server.version_text,
        "now": iso(now),
        "mode": spec.mode,
        "suspend": spec.suspend,
        "partitions": len(inventory.partitions),
        "managed": len(plan.managed),
        "totalBytes": sum(each.bytes for each in inventory.partitions),
        "current": steps.range_document(plan.current),
        "coveredUntil": FOR_EVER if plan.covered_for_ever else iso(plan.covered_until),
        "nextBoundary": iso(plan.next_boundary),
        "blocked": plan.blocked,
        "actions": [steps.action_document(action, outcomes) for action in report.before.actions],
        "steps": [steps.document(each) for each in plan.steps],
        "planDigest": plan.gate.digest or None,
        "findings": [
            {"reason": each.reason, "object": each.object, "message": each.message, "error": each.error is not None}
            for each in plan.findings
        ],
    }


# For people: aligned columns, one line for each thing.


def _print(
    policy: Manifest, now: datetime | None, report: Report, outcomes: Sequence[Outcome] | None, output: str
) -> None:
    """``outcomes``: None where nothing was to be executed."""
    spec, plan, inventory, planned = policy.spec, report.after, report.inventory, report.before.actions
    moment = now or inventory.now
    if output not in ("text", "wide"):
        named = planned if outcomes is not None else report.before.steps
        formats.show(output, _document(policy, moment, report, outcomes), dict.fromkeys(map(str, named)), ())
        return
    size, server = human(sum(each.bytes for each in inventory.partitions)), inventory.server
    about = [
        f"{plan.parent} in database {server.database} (PostgreSQL {server.version_text})",
        f"by {spec.interval} of {spec.timezone} on {plan.key}; now is {iso(moment)}",
        f"{len(inventory.partitions)} partitions, {size}, {_coverage(plan, inventory.default, spec.timezone)}",
    ]
    formats.names([*about, ""])
    why_not = _why_not(spec, report.before)
    if planned:
        shown = None if why_not and not outcomes else outcomes
        steps.print_actions(report.before, shown, output == "wide", _dates(report.before, spec.timezone))
        formats.names([why_not] if why_not else [])
    elif not plan.steps:
        click.echo("Nothing to do.")
    steps.print_coming(plan.steps[len(plan.actions) :], output == "wide", _dates(plan, spec.timezone))
    way = f"read it, then apply with --approve {plan.gate.digest}"
    formats.names(["", f"WAITS: {waits}"] if (waits := why_waiting(plan.gate, way)) else [])
    if plan.findings:
        click.echo(f"\nFound: {len(plan.findings)}")
    for each in sorted(plan.findings, key=lambda each: each.error is None):
        formats.names([f"  {'ERROR ' if each.error else ''}{each.reason} ({each.object}): {each.message}"])


def _dates(plan: Plan, timezone: str) -> formats.Dates:
    return steps.dates(timezone, plan.steps, plan.covered_until, plan.current.lower, plan.current.upper)


def _coverage(plan: Plan, default: Partition | None, timezone: str) -> str:
    if plan.covered_for_ever:
        return "now is covered, with no end"
    if plan.covered_until:
        return f"covered until {_dates(plan, timezone).show(plan.covered_until)}"
    return f"NOW IS NOT COVERED: {f'rows go into {default}' if default else 'inserts fail'}"


def _why_not(spec: TableSpec, plan: Plan) -> str:
    if spec.suspend:
        return "spec.suspend is true: apply does nothing."
    if spec.mode is Mode.PLAN:
        return "spec.mode is Plan: apply does nothing."
    return "Blocked by what is found below: apply does nothing." if plan.blocked else ""
