"""The command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from . import (
    __version__,
    archive_commands,
    arguments,
    completion,
    crd,
    drop_command,
    engine,
    explain_command,
    guide_commands,
    import_command,
    making_commands,
    manifest,
    outputs,
    render,
    restore_command,
)
from .archives import Archives
from .connection import ConnectionInfo, from_dsn, resolve
from .errors import InvalidSpec, PartwardenError, SecretKeyMissing
from .fields import parse_moment
from .interval import iso, load_zone
from .policy import Mode, TableSpec
from .session import forget_environment, session

F = TypeVar("F", bound=Callable[..., Any])
NOTHING, ERROR, TO_DO, INTERRUPTED = 0, 1, 2, 130
DEBUG = "DEBUG_PARTWARDEN"
"""In the environment: what was not foreseen is shown with its traceback. No PARTWARDEN_*, which the operator reads."""


class Commands(click.Group):
    """Ends with 1 where a command is used wrongly, since 2 says that there is something to do; Ctrl-C is 130."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run, and exit."""
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except click.Abort:
            click.echo("interrupted", err=True)
            code = INTERRUPTED
        except click.ClickException as error:
            error.show()
            code = ERROR
        except PartwardenError as error:
            click.echo(f"Error: {error}", err=True)
            code = ERROR
        except BrokenPipeError:
            # Whoever read the output has gone; nothing may be written any more, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = ERROR
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            about = " ".join(str(error).split())
            click.echo(f"Error: {type(error).__name__}: {about}; {DEBUG}=1 shows where, for a report of it", err=True)
            code = ERROR
        sys.exit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Keep PostgreSQL range partitions the way a PartitionPolicy says.

    list, stats, health, create, auto, drop and explain are about policies in a cluster, as `kubectl partwarden` too, or
    with --dsn about the tables of a database. plan and apply take a policy from a file.

    Exit codes: 0 done, or nothing to do; 1 an error, or not done; 2 something to do (plan), critical (health), not
    pruned (explain); 130 interrupted, with nothing half done.
    """


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
                "-f", "--filename", required=True, help="The PartitionPolicy as YAML or JSON; - is standard input."
            ),
            click.option(
                "--dsn",
                help="Connection string or URI, instead of spec.database; PGHOST, PGPASSWORD, ~/.pgpass and so on "
                "complete it.",
            ),
            click.option(
                "--table", callback=arguments.table, metavar="[SCHEMA.]NAME", help="Another table than spec.table."
            ),
            click.option(
                "--now", callback=_moment, metavar="MOMENT", help="Ask about this moment, like 2026-12-31T23:59:59Z."
            ),
            outputs.option(),
        ]
    ):
        command = option(command)
    return command


@main.command()
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


@main.command()
@policy_options
@click.option(
    "--patience", type=click.FloatRange(0, 3600), default=10.0, help="Seconds to wait for locks. Default: 10."
)
def apply(
    filename: str, dsn: str | None, table: dict[str, str] | None, now: datetime | None, output: str, patience: float
) -> int:
    """Do once what the policy says. Exits 0 when all is as it should be, 1 on an error."""

    def act() -> tuple[render.Shown, int]:
        policy, info = _open(filename, dsn, table)
        spec = policy.spec.model_copy(update={"mode": Mode.PLAN}) if policy.spec.suspend else policy.spec
        with session(info) as connection:
            known = Archives(approved=policy.approved)
            observed = engine.observe_and_plan(connection, spec, now, policy.held, known)
            _refuse_to_run_ahead(now, observed[0].now, spec)
            report = engine.maintain(
                connection, spec, now=now, patience=patience, held=policy.held, archives=known, observed=observed
            )
        moment = now or report.inventory.now
        shown = render.Shown(policy, moment, report.inventory, report.before, report.after, report.outcomes)
        failed = any(each.error for each in report.outcomes) or any(each.error for each in report.after.findings)
        # What only follows from what was done, as a drop does from a detach without grace, is for the next time.
        left = spec.mode is Mode.APPLY and any(each in report.before.actions for each in report.after.actions)
        return shown, ERROR if failed or left else NOTHING

    return _print(act, output)


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


def _print(work: Callable[[], tuple[render.Shown, int]], output: str) -> int:
    try:
        shown, code = work()
    except PartwardenError as error:
        if outputs.is_data(output):
            outputs.data(render.failure(error), output)
        raise click.ClickException(str(error)) from None
    if outputs.is_data(output):
        outputs.data(render.document(shown), output)
    elif output == "name":
        outputs.names(map(str, shown.plan.actions))
    else:
        click.echo(render.text(shown, render.Look(output == "wide", outputs.width())))
    return code


@main.command()
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    help="The cluster to serve. Without it: the pod's service account, else KUBECONFIG.",
)
@click.option("--check", "only_check", is_flag=True, help="Only find out whether it could run: settings, CRDs, rights.")
def run(kubeconfig: Path | None, only_check: bool) -> int:
    """Run the operator until SIGTERM. PARTWARDEN_* in the environment are its settings."""
    # Here, for plan and apply need neither kopf nor a Kubernetes client.
    from . import handlers, settings

    forget_environment()
    try:
        chosen = settings.load(os.environ, kubeconfig)
    except settings.StartupError as error:
        raise click.ClickException(str(error)) from None
    return handlers.run(chosen, only_check)


@main.command()
def crds() -> None:
    """Print the CustomResourceDefinitions, for kubectl apply --server-side -f -."""
    click.echo(crd.documents(), nl=False)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"partwarden {__version__}")


main.add_command(archive_commands.archive)
main.add_command(archive_commands.verify)
main.add_command(restore_command.command)
main.add_command(import_command.command)
main.add_command(guide_commands.list_)
main.add_command(guide_commands.stats)
main.add_command(guide_commands.health)
main.add_command(making_commands.create)
main.add_command(making_commands.auto)
main.add_command(drop_command.drop)
main.add_command(explain_command.explain)
main.add_command(completion.command)


def plugin() -> NoReturn:
    """``kubectl partwarden``: kubectl runs ``kubectl-partwarden`` with what follows. Exits."""
    main.main(prog_name="kubectl partwarden")


def complete_plugin() -> None:
    """What kubectl asks for when somebody presses Tab: candidates by lines, then a directive."""
    completion.for_kubectl(main, sys.argv[1:])


if __name__ == "__main__":
    main()
