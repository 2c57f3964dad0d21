"""Shell completion: ``partwarden completion bash``, and what kubectl asks of ``kubectl_complete-partwarden``."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import ShellComplete, get_completion_class

from ..errors import PartwardenError
from .options import Where

PROGRAM = "partwarden"
VARIABLE = "_PARTWARDEN_COMPLETE"
"""By which the scripts of click ask this program."""
NO_FILES = 4
"""kubectl's directive: where there are no candidates, offer no files either."""


@click.command("completion", short_help="Print the completion for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the completion for a shell, to be sourced: source <(partwarden completion bash)."""
    found = get_completion_class(shell)
    assert found is not None
    # Reads neither arguments nor the shell's version, which `source` would ask for.
    asker = found(click.Group(), {}, PROGRAM, VARIABLE)
    click.echo(asker.source_template % asker.source_vars())
    return 0


def for_kubectl(main: click.Command, words: Sequence[str]) -> None:
    """Prints what could stand for the last of the words, which may be empty.

    https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/
    """
    before, incomplete = list(words[:-1]), words[-1] if words else ""
    for each in ShellComplete(main, {}, PROGRAM, VARIABLE).get_completions(before, incomplete):
        click.echo(f"{each.value}\t{each.help}" if each.help else each.value)
    click.echo(f":{NO_FILES}")


# Names of policies, for whoever presses Tab.
#


def policies(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Those of the namespace that begin so; none where there is ``--dsn``, or no way to a cluster."""
    if context.params.get("dsn"):
        return []
    # Here, for a database needs no Kubernetes client, which takes long to load.
    from . import cluster_policies

    given = context.params
    where = Where(given.get("kubeconfig"), given.get("context"), given.get("namespace"))
    try:
        found = cluster_policies.Policies(where).all()
    except PartwardenError:
        # There is no place for a message: the shell shows candidates only.
        return []
    return sorted(name for each in found if (name := each["metadata"]["name"]).startswith(incomplete))
