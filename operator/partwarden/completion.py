"""Shell completion: ``partwarden completion bash``, and what kubectl asks of ``kubectl_complete-partwarden``."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import ShellComplete, get_completion_class

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
