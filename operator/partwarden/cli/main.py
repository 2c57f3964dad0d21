"""The command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from .. import __version__
from ..api import crd
from ..errors import PartwardenError
from ..postgres.connection import forget_environment
from . import archive, create, drop, entry, explain, formats, import_, plan, restore
from . import list as listing

ERROR = 1
DEBUG = "DEBUG_PARTWARDEN"
"""In the environment: an unexpected error is shown with its traceback. No PARTWARDEN_*, which the operator reads."""


class Commands(click.Group):
    """Ends with 1 where a command is used wrongly, since 2 says that there is something to do; Ctrl-C is 130."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run, and exit."""
        try:
            entry.ready()
            code = super().main(*args, **{**options, "standalone_mode": False})
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            code = entry.INTERRUPTED
        except click.ClickException as error:
            error.show()
            code = ERROR
        except PartwardenError as error:
            formats.failure(error).show()
            code = ERROR
        except BrokenPipeError:
            # The reader of the output has ended; nothing may be written any more, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = ERROR
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            about = formats.printable(" ".join(str(error).split()))
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
    from ..errors import StartupError

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


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"partwarden {__version__}")


main.add_command(plan.plan)
main.add_command(plan.apply)
main.add_command(archive.archive)
main.add_command(archive.job)
main.add_command(archive.verify)
main.add_command(restore.command)
main.add_command(import_.command)
main.add_command(listing.list_)
main.add_command(listing.stats)
main.add_command(listing.health)
main.add_command(create.create)
main.add_command(create.auto)
main.add_command(drop.drop)
main.add_command(explain.explain)


PROGRAM = "partwarden"
VARIABLE = "_PARTWARDEN_COMPLETE"
"""By which the scripts of click ask this program."""
NO_FILES = 4
"""kubectl's directive: where there are no candidates, offer no files either."""
SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@main.command(short_help="Print the completion for a shell.")
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print the completion for a shell, to be sourced: source <(partwarden completion bash)."""
    # Reads neither arguments nor the shell's version, which `source` would ask for.
    asker = SHELLS[shell](click.Group(), {}, PROGRAM, VARIABLE)
    click.echo(asker.source_template % asker.source_vars())


def complete_plugin() -> None:
    """What kubectl asks for when a user presses Tab: candidates by lines, then a directive."""
    entry.ready()
    complete_for_kubectl(sys.argv[1:])


def complete_for_kubectl(words: Sequence[str]) -> None:
    """Print what could stand for the last of the words, which may be empty.

    https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/
    """
    before, incomplete = list(words[:-1]), words[-1] if words else ""
    for each in ShellComplete(main, {}, PROGRAM, VARIABLE).get_completions(before, incomplete):
        click.echo(f"{each.value}\t{each.help}" if each.help else each.value)
    click.echo(f":{NO_FILES}")
