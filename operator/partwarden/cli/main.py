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
from ..api.policy import ANNOTATION as HOLD
from ..api.policy import LONGEST_ANNOTATION, MOST_NAMES, UNREAD, parse
from ..errors import InvalidSpec, PartwardenError, StartupError, did_you_mean
from ..planner.findings import join_names
from ..postgres.connection import forget_environment
from . import INTERRUPTED, archive, create, drop, formats, import_, options, plan, policies, ready, show
from .options import Target, target
from .policies import Object, Policies

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

    list, stats, health, create, auto, drop and explain are about policies in a cluster, as `kubectl partwarden` too, or
    with --dsn about the tables of a database. hold and unhold are about policies. plan and apply take a policy from a
    file. -n, -A and --context may stand before the command or after it.

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


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"partwarden {__version__}")


for _command in (
    *(plan.plan, plan.apply, import_.command),
    *(show.list_, show.stats, show.health, show.explain),
    *(create.create, create.auto, drop.drop),
    *(archive.archive, archive.job, archive.verify, archive.restore),
):
    main.add_command(_command)


# What keeps a table, whatever a policy says.

LONGEST = 200
"""Characters of a name that may be held: schema, name and OID have 138 bytes at most."""
SHOWN = 20
"""Held names that are shown to people; data has them all."""


def _check_name(_context: click.Context, _argument: click.Parameter, value: str) -> str:
    name = value.strip()
    if not name or "," in name or len(name) > LONGEST:
        raise click.BadParameter(
            f"must be one name as the catalog spells it, such as run_2018, reports.run_2017 or run_2016@16402, of at "
            f"most {LONGEST} characters and without a comma, found {value[:LONGEST]!r}"
        )
    return name


def _entries(policy: Object) -> list[str]:
    """The held names, in the order in which they stand in the annotation."""
    text = (policy["metadata"].get("annotations") or {}).get(HOLD, "")
    return [name for part in text.split(",") if (name := part.strip())]


def _listed(policy: Object) -> list[str]:
    return [each.name for each in policies.read_status(policy)[0].partitions]


@main.command(short_help="Keep a partition or detached table.")
@click.argument("name", callback=_check_name, shell_complete=options.completing(_listed))
@target(database=False)
@formats.option()
def hold(target: Target, name: str, output: str) -> int:
    """Keep NAME from being detached, dropped or attached, whatever POLICY says: a partition or detached table.

    NAME is as the catalog spells it, with its schema or without; NAME@OID is that very table. It is added to the
    annotation partwarden.dev/hold, and no other name there is lost. POLICY may be left out where the namespace has one
    policy, or one whose status lists NAME. Exits 0 when it is held.
    """
    cluster = Policies(target)
    policy = _policy_that_lists(cluster, target, name)
    if warning := _unknown(policy, name):
        formats.names([f"warning: {warning}"], err=True)
    return _show_held(cluster.edit_anew(policy, lambda now: holding(now, name)), f"{name} is held", output)


@main.command(short_help="Take a hold back.")
@click.argument("name", callback=_check_name, shell_complete=options.completing(_entries))
@target(database=False)
@formats.option()
def unhold(target: Target, name: str, output: str) -> int:
    """Take NAME out of the annotation partwarden.dev/hold of POLICY: the policy decides about that table again.

    NAME is as it stands there; no other name is lost. POLICY may be left out where the namespace has one policy, or one
    whose annotation or status lists NAME. Exits 0 when it is out, 1 where it was not there.
    """
    cluster = Policies(target)
    policy = cluster.edit_anew(_policy_that_lists(cluster, target, name), lambda now: unholding(now, name))
    return _show_held(policy, f"{name} is held no more", output)


def _policy_that_lists(cluster: Policies, target: Target, name: str) -> Object:
    """The policy that is named, else the only one, or the only one that knows the table. Raises `InvalidSpec`."""
    found = cluster.chosen("-n")
    knowing = [each for each in found if name in _entries(each) or _calls(each, name)]
    return cluster.only(knowing if target.policy is None and len(knowing) == 1 else found)


def _calls(policy: Object, name: str) -> bool:
    """Whether the status lists a table that a hold of this name holds. Where it has no OID, any OID may be its own."""
    schema = ((policy.get("spec") or {}).get("table") or {}).get("schema", "public")
    bare, _, oid = name.rpartition("@")
    for each in policies.read_status(policy)[0].partitions:
        plain = {each.name, f"{schema}.{each.name}", each.name.partition(".")[2]}
        if name in plain or (bare in plain and (oid == str(each.oid) if each.oid else oid.isdecimal())):
            return True
    return False


def _unknown(policy: Object, name: str) -> str:
    """What to say where the status lists no such table; "" where it does."""
    if _calls(policy, name):
        return ""
    status, bare = policies.read_status(policy)[0], name.rpartition("@")[0]
    of_that_name = [f"{each.name}@{each.oid}" for each in status.partitions if each.name == bare and each.oid]
    meant = did_you_mean(name, of_that_name or (each.name for each in status.partitions))
    what = f"no partition or detached table in the status of {policies.name(policy)}"
    if status.summary and status.summary.listed < status.summary.partitions:
        what += f", which lists {status.summary.listed} of {status.summary.partitions:,} partitions,"
    return f"{what} is called {name}{meant}"


def holding(policy: Object, name: str) -> dict[str, Any] | None:
    """What to merge into the policy so that the name is held; None where it is already. Raises `InvalidSpec`."""
    held = _entries(policy)
    if name in held:
        return None
    annotations = {HOLD: ", ".join([*held, name])}
    if UNREAD in parse(annotations):
        raise InvalidSpec(
            f"cannot hold {name}: {HOLD} of {policies.name(policy)} may have {MOST_NAMES:,} names and "
            f"{LONGEST_ANNOTATION:,} characters, beyond which every table is held; take names out by unhold"
        )
    return {"metadata": {"annotations": annotations}}


def unholding(policy: Object, name: str) -> dict[str, Any]:
    """What to merge into the policy so that the name is held no more. Raises `InvalidSpec` where it is not held."""
    held = _entries(policy)
    if name not in held:
        about = f"{HOLD} of {policies.name(policy)} names {join_names(held, SHOWN) or 'nothing'}"
        raise InvalidSpec(f"cannot unhold {name}: {about}{did_you_mean(name, held)}")
    # null removes the annotation.
    return {"metadata": {"annotations": {HOLD: ", ".join(each for each in held if each != name) or None}}}


def _show_held(policy: Object, done: str, output: str) -> int:
    held = _entries(policy)
    lines = [f"{done} by {policies.name(policy)}", f"held now: {join_names(held, SHOWN) or 'nothing'}"]
    if keeper := policies.keeper(policy):
        lines += [f"{keeper} keeps this policy: put this line into metadata.annotations of the manifest in its source:"]
        lines += [f"  {HOLD}: {', '.join(held)}"]
    formats.show(output, {"policy": policies.name(policy), "held": held}, held, lines)
    return 0


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
