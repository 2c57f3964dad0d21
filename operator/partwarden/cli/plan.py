"""``partwarden plan`` and ``apply``: a policy from a file, without Kubernetes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

import click

from ..api.policy import Mode, TableSpec
from ..api.types import parse_moment
from ..errors import InvalidSpec, PartwardenError, SecretKeyMissing
from ..planner.actions import Outcome
from ..planner.archives import Archives
from ..planner.calendar import iso, load_zone
from ..planner.plan import Plan
from ..postgres import engine
from ..postgres.connection import session
from ..postgres.conninfo import ConnectionInfo, from_dsn, resolve
from . import formats, manifest, options, render

F = TypeVar("F", bound=Callable[..., Any])
NOTHING, ERROR, TO_DO = 0, 1, 2


@dataclass
class _Done:
    """What was planned and tried by now, for the case that an error breaks the run off."""

    plan: Plan | None = None
    outcomes: list[Outcome] = field(default_factory=list)


def _moment(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    try:
        return parse_moment(value) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def policy_options(command: F) -> F:
    """The options that plan and apply share."""
    for option in reversed(
        [
            click.option(
                "-f",
                "--filename",
                required=True,
                callback=options.text,
                help="The PartitionPolicy as YAML or JSON; - is standard input.",
            ),
            click.option(
                "--dsn",
                help="Connection string or URI, instead of spec.database; PGHOST, PGPASSWORD, ~/.pgpass and so on "
                "complete it.",
            ),
            click.option(
                "--table", callback=options.table, metavar="[SCHEMA.]NAME", help="Another table than spec.table."
            ),
            click.option(
                "--now", callback=_moment, metavar="MOMENT", help="Ask about this moment, like 2026-12-31T23:59:59Z."
            ),
            formats.option(),
        ]
    ):
        command = option(command)
    return command


@click.command()
@policy_options
def plan(filename: str, dsn: str | None, table: dict[str, str] | None, now: datetime | None, output: str) -> int:
    """Print what would be done, and why. Exits 0 when that is nothing, 2 when it is something, 1 on an error."""

    def look() -> tuple[render.Shown, int]:
        policy, info = _open(filename, dsn, table)
        with session(info) as connection:
            known = Archives(approved=policy.approved)
            inventory, found = engine.observe_and_plan(connection, policy.spec, now, policy.held, known)
        shown = render.Shown(policy, now or inventory.now, inventory, found, found)
        if any(each.error for each in found.findings):
            return shown, ERROR
        return shown, TO_DO if found.actions else NOTHING

    return _print(look, output)


@click.command()
@policy_options
@click.option(
    "--patience", type=click.FloatRange(0, 3600), default=10.0, help="Seconds to wait for locks. Default: 10."
)
def apply(
    filename: str, dsn: str | None, table: dict[str, str] | None, now: datetime | None, output: str, patience: float
) -> int:
    """Do once what the policy says. Exits 0 when all is as it should be, 1 on an error."""

    done = _Done()

    def act() -> tuple[render.Shown, int]:
        policy, info = _open(filename, dsn, table)
        spec = policy.spec.model_copy(update={"mode": Mode.PLAN}) if policy.spec.suspend else policy.spec
        with session(info) as connection:
            known = Archives(approved=policy.approved)
            observed = engine.observe_and_plan(connection, spec, now, policy.held, known)
            _refuse_to_run_ahead(now, observed[0].now, spec)
            done.plan = observed[1]
            report = engine.maintain(
                connection,
                spec,
                now=now,
                patience=patience,
                held=policy.held,
                archives=known,
                observed=observed,
                outcomes=done.outcomes,
            )
        moment = now or report.inventory.now
        shown = render.Shown(policy, moment, report.inventory, report.before, report.after, report.outcomes)
        failed = any(each.error for each in report.outcomes) or any(each.error for each in report.after.findings)
        # What only follows from what was done, as a drop does from a detach without grace, is for the next time.
        left = spec.mode is Mode.APPLY and any(each in report.before.actions for each in report.after.actions)
        return shown, ERROR if failed or left else NOTHING

    return _print(act, output, done)


def _refuse_to_run_ahead(now: datetime | None, server: datetime, spec: TableSpec) -> None:
    """What will have expired one day is not expired: ``plan`` may ask about that day, ``apply`` may not act on it."""
    if now is not None and now > server and spec.retention is not None and spec.mode is Mode.APPLY:
        raise InvalidSpec(
            f"--now: {iso(now)} lies after the server's clock, {iso(server.replace(microsecond=0))}: with "
            "spec.retention, apply would remove what has not expired yet; ask plan, or leave --now out"
        )


def _open(filename: str, dsn: str | None, table: dict[str, str] | None) -> tuple[manifest.Manifest, ConnectionInfo]:
    policy = manifest.load(manifest.read(filename), filename, table=table, needs_database=dsn is None)
    load_zone(policy.spec.timezone)
    if dsn is not None:
        return policy, from_dsn(dsn)
    assert policy.database is not None
    secret = policy.database.secret_ref
    try:
        info = resolve(policy.database.model_copy(update={"secret_ref": None}), None, None)
    except SecretKeyMissing as error:
        if secret is None:
            raise InvalidSpec(f"{filename}: {error}; or give --dsn") from None
        raise InvalidSpec(
            f"{filename}: spec.database.secretRef: Secret {secret.name!r} cannot be read from here, and "
            "spec.database.connection does not say host, dbname and user: give --dsn"
        ) from None
    # Here the user's own environment is welcome, for the password above all.
    return policy, replace(info, isolated=False)


def _print(work: Callable[[], tuple[render.Shown, int]], output: str, done: _Done | None = None) -> int:
    try:
        shown, code = work()
    except PartwardenError as error:
        tried = done if done is not None and done.outcomes else _Done()
        if formats.is_data(output):
            formats.data(render.failure(error, tried.plan, tried.outcomes), output)
        elif tried.plan is not None and output != "name":
            click.echo(render.results(tried.plan, tried.outcomes, render.Look(output == "wide", formats.width())))
        raise click.ClickException(str(error)) from None
    if formats.is_data(output):
        formats.data(render.document(shown), output)
    elif output == "name":
        formats.names(map(str, shown.plan.actions))
    else:
        click.echo(render.text(shown, render.Look(output == "wide", formats.width())))
    return code
