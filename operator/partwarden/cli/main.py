"""The command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from .. import __version__
from ..api import crd
from ..archive import pgdump
from ..errors import InvalidSpec, PartwardenError, StartupError
from ..postgres.connection import forget_environment
from . import (
    INTERRUPTED,
    approve,
    archive,
    convert,
    create,
    drop,
    formats,
    health,
    hold,
    import_,
    job,
    options,
    plan,
    ready,
    report,
    show,
    terminal,
)

ERROR = 1
DEBUG = "DEBUG_PARTWARDEN"
"""In the environment: an unexpected error is shown with its traceback. No PARTWARDEN_*, which the operator reads."""


class Commands(click.Group):
    """Ends with 1 where a command is used wrongly, since 2 says that there is something to do; Ctrl-C is 130."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click; raises `click.UsageError` where an option before the command is not one of the command's."""
        name, command, rest = super().resolve_command(context, args)
        takes = {each.name for each in command.params} if command else set[str | None]()
        for option in self.params:
            if context.params.get(option.name or "") and option.name not in takes and not context.resilient_parsing:
                raise click.UsageError(f"{option.opts[0]} does not go with {name}: leave it out", context)
        return name, command, rest

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run, and exit."""
        code = ERROR
        try:
            ready()
            code = super().main(*args, **{**options, "standalone_mode": False})
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            code = INTERRUPTED
        except click.ClickException as error:
            error.show()
        except PartwardenError as error:
            # Messages on what a user has typed or written have several lines; texts of manifests and names are escaped
            # in all others, line ends too.
            text = str(error) if isinstance(error, InvalidSpec) else formats.printable(str(error))
            click.ClickException(text).show()
        except BrokenPipeError:
            # The reader of the output has ended; nothing may be written any more, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            about = formats.printable(" ".join(str(error).split()))
            click.echo(f"Error: {type(error).__name__}: {about}; {DEBUG}=1 shows where, for a report of it", err=True)
        sys.exit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@options.CONTEXT
@options.EVERYWHERE
@options.NAMESPACE
def main(**_: Any) -> None:
    """Keep PostgreSQL range partitions the way a PartitionPolicy says.

    list, timeline, report, stats, health, create, auto, drop and explain are about policies in a cluster, as
    `kubectl partwarden` too, or with --dsn about the tables of a database. hold, unhold and approve are about policies.
    plan and apply take a policy from a file. convert partitions a plain table of a database. -n, -A and --context may
    stand before the command or after it.

    Exit codes: 0 done, or nothing to do; 1 an error, or not done; 2 something to do (plan), critical (health), not
    pruned (explain); 130 interrupted, with nothing half done.
    """


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
    from ..controller import manager, settings

    forget_environment()
    try:
        chosen = settings.load(os.environ, kubeconfig)
    except StartupError as error:
        raise click.ClickException(str(error)) from None
    return manager.run(chosen, only_check)


@main.command(short_help="Print the CustomResourceDefinitions.")
def crds() -> None:
    """Print the CustomResourceDefinitions, for kubectl apply --server-side -f -."""
    click.echo(crd.documents(), nl=False)


@main.command(short_help="Print the version, and which servers pg_dump reads.")
def version() -> None:
    """Print the version, and below it that of pg_dump, with the majors of the servers that it can archive from.

    It is the pg_dump of this machine, or of the image that the command runs in.
    """
    click.echo(f"partwarden {__version__}")
    click.echo(pgdump.describe())


for _command in (
    *(plan.plan, plan.apply, import_.command),
    *(show.list_, show.stats, health.health, show.explain, terminal.timeline, report.report),
    *(create.create, create.auto, drop.drop, hold.hold, hold.unhold, approve.approve),
    *(convert.convert, archive.archive, job.job, archive.verify, archive.restore),
):
    main.add_command(_command)


# Completion.

PROGRAM = "partwarden"
VARIABLE = "_PARTWARDEN_COMPLETE"
"""By which the scripts of click ask this program."""
NO_FILES = 4
"""kubectl's directive: where there are no candidates, offer no files either."""
SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@main.command(short_help="Print the completion for a shell.")
@click.argument("shell", type=formats.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print the completion for a shell, to be sourced: source <(partwarden completion bash)."""
    # Reads neither arguments nor the shell's version, which `source` would ask for.
    asker = SHELLS[shell](click.Group(), {}, PROGRAM, VARIABLE)
    click.echo(asker.source_template % asker.source_vars())


def complete_plugin() -> None:
    """What kubectl asks for when a user presses Tab: candidates for the last argument, which may be empty, by lines.

    https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/
    """
    ready()
    *before, incomplete = sys.argv[1:] or [""]
    for each in ShellComplete(main, {}, PROGRAM, VARIABLE).get_completions(before, incomplete):
        click.echo(f"{each.value}\t{each.help}" if each.help else each.value)
    click.echo(f":{NO_FILES}")
