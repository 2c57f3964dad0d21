"""What a command of the guide is about: policies in a cluster, or tables of a database. Options -> values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from . import arguments, outputs
from .errors import PartwardenError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster, and where in it. ``namespace`` None: that of the context; ``everywhere``: all of them."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A table of a database where there is a ``dsn``, else a policy in a cluster."""

    policy: str | None
    where: Where
    dsn: str | None
    table: dict[str, str] | None
    filename: str | None


Suggest = Callable[[click.Context, click.Parameter, str], list[str]]
"""What could stand for POLICY, of which the beginning is there."""


def target(suggest: Suggest, everywhere: bool = False) -> Callable[[F], F]:
    """The last argument POLICY and the options, as one parameter ``target``. What does not go together is refused.

    A `PartwardenError` of the command becomes its message.
    """

    def add(command: F) -> F:
        @functools.wraps(command)
        def checked(*positional: Any, **given: Any) -> Any:
            where = Where(
                given.pop("kubeconfig"), given.pop("context"), given.pop("namespace"), given.pop("everywhere", False)
            )
            found = Target(given.pop("policy"), where, given.pop("dsn"), given.pop("table"), given.pop("filename"))
            _check(found)
            try:
                return command(*positional, target=found, **given)
            except PartwardenError as error:
                raise outputs.failure(error) from None

        for each in (click.argument("policy", required=False, shell_complete=suggest), *OPTIONS):
            checked = each(checked)
        return EVERYWHERE(checked) if everywhere else checked  # type: ignore[return-value]

    return add


def _check(found: Target) -> None:
    if found.dsn is None and (found.table or found.filename):
        raise click.UsageError("--table and -f go with --dsn: without it, the policy in the cluster says which table")
    if found.dsn is not None and (found.policy or found.where != Where()):
        raise click.UsageError("--dsn is for a database without a cluster: it goes with no POLICY, -n, -A, --context")


DSN = click.option(
    "--dsn",
    help="A database instead of a cluster: connection string or URI, completed by PGHOST, PGPASSWORD and so on.",
)
OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "-f",
        "--filename",
        callback=arguments.text,
        help="With --dsn: the table's PartitionPolicy; without it, the table tells.",
    ),
    click.option(
        "--table", callback=arguments.table, metavar="[SCHEMA.]NAME", help="With --dsn: this table, where several are."
    ),
    DSN,
    click.option("--context", callback=arguments.text, help="Context of the kubeconfig. Default: its current one."),
    click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path),
        help="Default: KUBECONFIG, ~/.kube/config, or the pod's account.",
    ),
    click.option(
        "-n",
        "--namespace",
        callback=arguments.text,
        help="Namespace of the policies. Default: that of the context.",
    ),
)
EVERYWHERE = click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Policies of all namespaces.")
