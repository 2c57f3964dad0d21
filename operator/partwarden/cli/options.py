"""Options that commands share, and their texts as values: tables, periods, and what a command is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from ..api.period import Period, meant, parse_period
from ..api.policy import Table
from ..api.types import parse_age
from ..api.validation import check
from ..errors import InvalidSpec, PartwardenError

F = TypeVar("F", bound=Callable[..., Any])

# Periods as users type them.


def parse(text: str) -> Period:
    """In upper or lower case. Raises `InvalidSpec`."""
    try:
        return parse_period(text.strip().upper())
    except ValueError as error:
        advice = f"; did you mean {like}?" if (like := meant(text)) else ""
        raise InvalidSpec(f"{text!r} is no period: it {error}{advice}") from None


def known(text: str) -> Period | None:
    """The same, None for what is no period: a name, perhaps."""
    with suppress(InvalidSpec):
        return parse(text)
    return None


# Names of tables.

# Within quotes a double quote is written twice. A name without quotes holds no dot, and does not begin with a quote.
_NAME = r'"((?:[^"]|"")+)"|([^".][^.]*)'
_TABLE = re.compile(rf"(?:(?:{_NAME})\.)?(?:{_NAME})", re.DOTALL)
TABLE = "[SCHEMA.]NAME"
"""How help texts call it."""


def sha256(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """64 hexadecimal digits, in lower case."""
    if value is not None and not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise click.BadParameter(f"must be the 64 hexadecimal digits of a sha256, found {value!r}")
    return value and value.lower()


def age(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """As `parse_age` reads it."""
    try:
        if value is not None:
            parse_age(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}, found {value!r}") from None
    return value


dsn = click.option(
    "--dsn", required=True, help="Connection string or URI; PGHOST, PGPASSWORD, ~/.pgpass and so on complete it."
)
archives = click.option(
    "--archives", "url", metavar="URL", help="With --dsn: shows which of its partitions are archived there."
)
manifest_sha256 = click.option(
    "--manifest-sha256",
    callback=sha256,
    metavar="HEX",
    help="What the sha256 of manifest.json must be, as the PartitionArchive's status or the report of archive says it.",
)


def table(_context: click.Context, _option: click.Parameter, value: str | None) -> dict[str, str] | None:
    """``name`` or ``schema.name``, each as the catalog spells it; what holds a dot stands in double quotes."""
    if value is None:
        return None
    match = _TABLE.fullmatch(value)
    if not match or "\0" in value:
        raise click.BadParameter(
            f"must be a table or schema.table, found {value!r}; put a name that holds a dot in double quotes, as in "
            '\'"my.schema"."my.table"\', and write a double quote in it twice'
        )
    quoted_schema, plain_schema, quoted_name, plain_name = match.groups()
    schema, name = _text(quoted_schema, plain_schema), _text(quoted_name, plain_name)
    found = {"name": name, **({"schema": schema} if schema else {})}
    if problems := check(Table, found)[1]:
        raise click.BadParameter("; ".join(problems))
    return found


def _text(quoted: str | None, plain: str | None) -> str:
    return quoted.replace('""', '"') if quoted is not None else plain or ""


def spelled(*names: str) -> str:
    """Schema and name, or a name, as `table` reads them back: in double quotes where they must be."""
    return ".".join(
        '"' + each.replace('"', '""') + '"' if "." in each or each.startswith('"') else each for each in names
    )


def patience(where: str = "", default: float = 10.0, most: int = 3600) -> Callable[[F], F]:
    """``--patience``; ``where``: the option that it goes with."""
    words = f"{where}: seconds" if where else "Seconds"
    return click.option(
        "--patience",
        type=click.FloatRange(0, most),
        default=default,
        help=f"{words} to wait for locks. Default: {default:g}.",
    )


def text(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Any text but an empty one, which is what a shell makes of a variable that is not set."""
    if value is not None and not value.strip():
        raise click.BadParameter("must not be empty")
    return value


def once(context: click.Context, option: click.Parameter, values: Sequence[Any]) -> Any:
    """The value of an option that may stand before the command and after it. Raises `click.UsageError` where it is
    given twice with different values."""
    above = context.parent.params.get(option.name or "") if context.parent else None
    given = [*dict.fromkeys([*([] if above is None else [above]), *values])]
    if len(given) > 1:
        raise click.UsageError(f"{option.opts[0]} is given twice, as {given[0]!r} and as {given[1]!r}: give it once")
    return text(context, option, given[0]) if given else None


@dataclass(frozen=True, slots=True)
class Target:
    """A table of a database where there is a ``dsn``, else policies in a cluster.

    ``namespace`` None: that of the context; ``everywhere``: all of them. Raises `click.UsageError` for options that
    exclude each other.
    """

    policy: str | None = None
    filename: str | None = None
    table: dict[str, str] | None = None
    dsn: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None
    namespace: str | None = None
    everywhere: bool = False

    def __post_init__(self) -> None:
        if self.dsn is None and (self.table or self.filename):
            raise click.UsageError(
                "--table and -f go with --dsn: without it, the policy in the cluster says which table"
            )
        in_cluster = (self.policy, self.context, self.kubeconfig, self.namespace, self.everywhere)
        if self.dsn is not None and any(in_cluster):
            raise click.UsageError(
                "--dsn is for a database without a cluster: it goes with no POLICY, -n, -A, --context"
            )


def completing(names: Callable[[Mapping[str, Any]], Iterable[str]]) -> Callable[..., list[str]]:
    """Candidates for a shell: what ``names`` finds in the policies of the namespace, and begins as what is typed.

    None where there is ``--dsn``, or no way to a cluster.
    """

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        # Here, for that module imports this one.
        from .policies import Policies

        given = context.params.get
        if given("dsn"):
            return []
        target = Target(context=given("context"), kubeconfig=given("kubeconfig"), namespace=given("namespace"))
        try:
            found = Policies(target).chosen()
        except PartwardenError:
            # There is no place for a message: the shell shows candidates only.
            return []
        return sorted({name for policy in found for name in names(policy) if name.startswith(incomplete)})

    return complete


CONTEXT = click.option(
    "--context", multiple=True, callback=once, help="Context of the kubeconfig. Default: its current one."
)
NAMESPACE = click.option(
    "-n", "--namespace", multiple=True, callback=once, help="Namespace of the policies. Default: that of the context."
)
EVERYWHERE = click.option(
    "-A",
    "--all-namespaces",
    "everywhere",
    is_flag=True,
    callback=lambda context, _, value: value or bool(context.parent and context.parent.params.get("everywhere")),
    help="Policies of all namespaces.",
)
COMPLETE_POLICY = completing(lambda policy: [policy["metadata"]["name"]])
TARGET: tuple[Callable[[Any], Any], ...] = (
    click.argument("policy", required=False, shell_complete=COMPLETE_POLICY),
    click.option(
        "-f",
        "--filename",
        callback=text,
        help="With --dsn: the table's PartitionPolicy; without it, the policy is guessed from the table.",
    ),
    click.option("--table", callback=table, metavar=TABLE, help="With --dsn: this table, where several are."),
    click.option(
        "--dsn",
        help="A database instead of a cluster: connection string or URI, completed by PGHOST, PGPASSWORD and so on.",
    ),
    CONTEXT,
    click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path),
        help="Default: KUBECONFIG, ~/.kube/config, or the pod's account.",
    ),
    NAMESPACE,
)
OF_CLUSTER = (TARGET[0], *TARGET[4:])
"""Those of `TARGET` that are for policies in a cluster."""


def target(
    everywhere: bool = False, database: bool = True, several: bool = False
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The last argument POLICY and options, which the command gets as its argument ``target``.

    ``everywhere``: with -A; ``database``: also with --dsn; ``several``: any number of policies, as ``targets``.
    """

    def add(command: Callable[..., int]) -> Callable[..., int]:
        @wraps(command)
        def run(**given: Any) -> int:
            about = {each.name: given.pop(each.name) for each in fields(Target) if each.name in given}
            if several:
                names = about.pop("policy") or (None,)
                return command(targets=[Target(policy=name, **about) for name in names], **given)
            return command(target=Target(**about), **given)

        chosen = TARGET if database else OF_CLUSTER
        if several:
            chosen = (click.argument("policy", nargs=-1, shell_complete=COMPLETE_POLICY), *chosen[1:])
        for option in (*chosen, EVERYWHERE) if everywhere else chosen:
            run = option(run)
        return run

    return add


def of_cluster(command: F) -> F:
    """Adds POLICY, and how its cluster is reached."""
    for option in OF_CLUSTER:
        command = option(command)
    return command
